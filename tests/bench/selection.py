"""How long a selection takes at a million steps, from nothing and after 1% new trajectories, and its peak memory.

    python -m tests.bench.selection [--trajectories 25000] [--steps 40]

The lake holds `trajectories` and `steps` as a refresh leaves them, with real-shaped shell commands that vary. Each case is
a process of its own, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, Transaction

from schemas.steps import STEPS
from schemas.trajectories import TRAJECTORIES
from stepwell.curation.duplicates import KEPT
from stepwell.curation.select import select
from stepwell.event import Event
from stepwell.fold import APP
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe

FILES = [
    f"src/{a}/{b}.py"
    for a in ("core", "io", "plots", "units", "net")
    for b in ("base", "table", "utils", "wcs", "fits")
]
FORMS = ("cat {f}", "sed -n '{a},{b}p' {f}", "grep -rn {w} {f}", "python -m pytest -x {f} -k {w}", "sed -i 's/{w}/{v}/' {f}",
         "git diff {f}", "find . -name '*{w}*'", "python -c 'import {w}; print({w}.{v}({a}))'")  # fmt: skip
WORDS = [digest("word", i)[:6] for i in range(3000)]
ATTEMPTS = 8
CURATE = {
    "steps": [{"where": "exit_code <> 0 AND command LIKE '%rm -rf%'"}],
    "length": {"least": 2, "most": 200},
    "difficulty": {"attempts": 2},
    "dedup": {"exact": "actions", "near": 0.8},
    "cap": {"per_task": 6},
    "balance": {"resolved": 0.6},
    "mix": {"by": "agent", "weights": {"agent-0": 1, "agent-1": 1, "agent-2": 2}},
    "split": {"by": "repo"},
}


def fill(lake: Lake, first: int, n: int, n_steps: int) -> None:
    """Trajectories number `first` to `first + n`: events that name them, and their rows as a refresh would leave them."""
    events = [
        Event("task", f"t{i:07d}", "bench", "system", {"task_id": f"task-{i // ATTEMPTS}"})
        for i in range(first, first + n)
    ]
    EventLog(lake).append(events, f"bench-{first}")
    version = EventLog(lake).version or 0
    rng = np.random.default_rng(first)
    for name, rows in (("trajectories", _trajectories(first, n, n_steps, rng)), ("steps", None)):
        handle = lake.create(name)
        parts = (
            [rows]
            if rows is not None
            else [_steps(at, min(1000, first + n - at), n_steps, rng) for at in range(first, first + n, 1000)]
        )
        for part in parts:
            lake.append(handle, name, part, CommitProperties(app_transactions=[Transaction(APP, version)]))


def _trajectories(first: int, n: int, n_steps: int, rng: np.random.Generator) -> pa.Table:
    rows = [
        {
            "trajectory_id": f"t{i:07d}", "corpus": "bench", "task_id": f"task-{i // ATTEMPTS}",
            "repo": f"repo-{i // ATTEMPTS % 97}", "agent": f"agent-{i % 3}", "n_steps": n_steps, "n_events": 2 * n_steps,
            "resolved": bool(r), "submitted": True, "exit_status": "submitted", "n_format_errors": 0, "n_failed_commands": 0,
        }
        for i, r in zip(range(first, first + n), rng.random(n) < 0.4, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, TRAJECTORIES.schema)


def _steps(first: int, n: int, n_steps: int, rng: np.random.Generator) -> pa.Table:
    rows = []
    for i in range(first, first + n):
        # One in ten does what the first attempt at its task did, one in ten the same but for the end.
        draw = np.random.default_rng(i if i % 10 not in (0, 5) else i - i % ATTEMPTS)
        for step in range(n_steps):
            draw = np.random.default_rng(-i - 1 & 0xFFFFFFFF) if i % 10 == 5 and step == n_steps - 2 else draw
            form, file, a, w, v = draw.integers(0, [len(FORMS), len(FILES), 900, len(WORDS), len(WORDS)])
            command = FORMS[form].format(f=FILES[file], a=a, b=a + 40, w=WORDS[w], v=WORDS[v])
            rows.append(
                {
                    "trajectory_id": f"t{i:07d}", "step": step, "corpus": "bench", "actor": "agent", "action": command,
                    "command": command, "observation": f"{WORDS[v]} " * 40, "exit_code": int(rng.random() < 0.2),
                    "action_event": digest(i, step),
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, STEPS.schema)


def _peak() -> float:
    """Most memory that this process has held, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def measure(uri: str, case: str) -> None:
    """One selection in this process; prints its seconds, its peak and its funnel's last lines."""
    curate = {k: v for k, v in CURATE.items() if case != "without texts" or k not in ("steps", "dedup")}
    recipe = Recipe.model_validate(
        {"name": "bench", "source": {"corpora": ["bench"]}, "curate": curate, "dataset": {"method": "all"}}
    )
    before, began = _peak(), time.perf_counter()
    chosen = select(Lake(uri), recipe)
    took, peak = time.perf_counter() - began, _peak()
    print(f"{case:28} {took:6.1f} s  peak {peak:6.0f} MiB ({before:.0f} before)  {len(chosen.rows)} -> {chosen.n_kept}")


def main() -> None:
    """Fill a lake and measure every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", type=int, default=25_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--case", nargs=2, metavar=("LAKE", "NAME"))
    options = parser.parse_args()
    if options.case:
        measure(*options.case)
        return

    def apart(uri: str, name: str) -> None:
        subprocess.run([sys.executable, "-m", "tests.bench.selection", "--case", uri, name], check=True)

    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        fill(lake, 0, options.trajectories, options.steps)
        apart(lake.uri, "without texts")
        apart(lake.uri, "everything, first time")
        apart(lake.uri, "everything, again")
        fill(lake, options.trajectories, max(1, options.trajectories // 100), options.steps)
        apart(lake.uri, "everything, 1% new")
        lake.store.delete(KEPT)
        apart(lake.uri, "the same without signatures")


if __name__ == "__main__":
    main()
