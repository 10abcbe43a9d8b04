"""Import of mini-swe-agent files against the limit: reading the same JSON and writing one plain Parquet file of the steps.

    python -m tests.bench.import_steps [FILES]

Prints one line a round: seconds of the import, of importing again, of the limit, and the ratio import / limit.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepwell.importers.run import import_paths
from stepwell.lake import Lake

STEPS = 40
ROUNDS = 3


def write_files(folder: Path, n: int) -> None:
    """Write `n` trajectories of 40 steps with outputs of about 1,500 characters."""
    for i in range(n):
        messages = [{"role": "system", "content": "Work."}, {"role": "user", "content": f"Task {i}."}]
        for step in range(STEPS):
            said = f"THOUGHT: look at {step}.\n\n```bash\nsed -n '{step},{step + 20}p' src/module_{i}.py\n```"
            seen = f"<returncode>0</returncode>\n<output>\n{f'line {i} {step} of the file ' * 60}\n</output>"
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": seen}]
        info = {"exit_status": "Submitted", "submission": f"diff {i}", "mini_version": "1.15.0"}
        record = {
            "info": info,
            "messages": messages,
            "trajectory_format": "mini-swe-agent-1",
            "instance_id": f"bench__{i}",
        }
        (folder / f"bench__{i}.traj.json").write_text(json.dumps(record))


def limit(folder: Path, target: Path) -> None:
    """Read every file and write its steps as one Parquet file, with no ids, checks, joins or log."""
    rows = []
    for file in sorted(folder.iterdir()):
        record = orjson.loads(file.read_bytes())
        said = record["messages"][2::2]
        seen = record["messages"][3::2]
        rows += [
            {"id": record["instance_id"], "step": i, "action": a["content"], "observation": o["content"]}
            for i, (a, o) in enumerate(zip(said, seen, strict=True))
        ]
    pq.write_table(pa.Table.from_pylist(rows), target, compression="zstd")


def main() -> None:
    """Run the rounds."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "files"
        folder.mkdir()
        write_files(folder, n)
        for number in range(ROUNDS):
            lake = Lake(Path(scratch) / f"lake-{number}")
            times = []
            for work in (
                lambda lake=lake: import_paths(lake, [folder]),
                lambda lake=lake: import_paths(lake, [folder]),
                lambda: limit(folder, Path(scratch) / "limit.parquet"),
            ):
                started = time.perf_counter()
                work()
                times.append(time.perf_counter() - started)
            first, again, plain = times
            line = f"import {first:.2f} s, again {again:.2f} s, limit {plain:.2f} s, ratio {first / plain:.1f}"
            print(f"{n * STEPS} steps: {line}")


if __name__ == "__main__":
    main()
