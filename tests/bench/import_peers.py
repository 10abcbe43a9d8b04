"""Import beside its peers: the same generated trajectories in each tool's format, CPU seconds and peak memory in one run.

    python -m tests.bench.import_peers [TRAJECTORIES]

ATIF goes to Stepwell, inspect_scout and bare DuckDB, Claude Code sessions go to Stepwell and atif-sql. Every tool runs twice as
a process of its own, start-up and child processes counted; Stepwell's import includes validation, redaction and the Delta
commit. The peers need Python 3.12 or later and each its own environment, below the folder $STEPWELL_PEERS; with one for
Stepwell all have what they need and no more (a development environment has pandas, which pyarrow loads when it is there):

    python3.13 -m venv PEERS/atif && PEERS/atif/bin/pip install atif-sql==0.4.0
    python3.13 -m venv PEERS/scout && PEERS/scout/bin/pip install inspect-scout==0.6.1 harbor
    python3.13 -m venv PEERS/stepwell && PEERS/stepwell/bin/pip install .

atif-sql starts a process for each worker, so it is run with two, its usual call, and with one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

STEPS = 40
ROUNDS = 2
Obj = dict[str, Any]
IMPORT = """
import sys
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
report = import_paths(Lake(sys.argv[1]), [sys.argv[2]])
print(report.trajectories + report.known, "trajectories,", report.steps, "steps new")
"""
DUCKDB = """
import duckdb, sys
select = f"SELECT session_id, unnest(steps) AS step FROM read_json('{sys.argv[2]}/*.json', maximum_object_size = 100000000)"
duckdb.sql(f"COPY ({select}) TO '{sys.argv[1]}' (FORMAT parquet, COMPRESSION zstd)")
print(duckdb.sql(f"SELECT count(DISTINCT session_id), count(*) FROM '{sys.argv[1]}'").fetchall())
"""


def steps_of(i: int) -> Iterator[tuple[str, str, str]]:
    """(thought, command, output) of every step of trajectory `i`; outputs are about 1,700 characters of code-like text."""
    pick = random.Random(i)
    words = [f"{pick.choice('abcdefgh')}{pick.randrange(10**6):x}" for _ in range(600)]
    for step in range(STEPS):
        shown = " ".join(pick.choices(words, k=250))
        failed = "Traceback (most recent call last):\n" if pick.random() < 0.1 else ""
        yield (
            f"Step {step}: look at {words[step]}.",
            f"sed -n '{step},{step + 40}p' src/{words[-step]}.py",
            failed + shown,
        )


def atif(i: int) -> Obj:
    """A trajectory in ATIF 1.6."""
    steps: list[Obj] = [{"step_id": 1, "source": "user", "message": f"Repair module {i}.", "timestamp": _time(0)}]
    for n, (thought, command, output) in enumerate(steps_of(i)):
        call = {"tool_call_id": f"call-{n}", "function_name": "bash", "arguments": {"command": command}}
        result = {"results": [{"source_call_id": f"call-{n}", "content": output}]}
        metrics = {"prompt_tokens": 900 + n, "completion_tokens": 50, "cached_tokens": 800}
        steps.append({"step_id": n + 2, "source": "agent", "message": thought, "timestamp": _time(n), "tool_calls": [call],
                      "observation": result, "metrics": metrics, "model_name": "lab/big-2"})  # fmt: skip
    agent = {"name": "smith", "version": "1.0", "model_name": "lab/big-2"}
    return {"schema_version": "ATIF-v1.6", "session_id": _id(i), "agent": agent, "steps": steps}


def claude(i: int) -> list[Obj]:
    """The same trajectory as the records of a Claude Code session."""
    common = {"isSidechain": False, "userType": "external", "cwd": "/src", "sessionId": _id(i), "version": "2.1.0",
              "gitBranch": "main"}  # fmt: skip
    records: list[Obj] = []

    def add(kind: str, n: int, message: Obj, **more: Any) -> None:
        parent = records[-1]["uuid"] if records else None
        place = {"uuid": _id(i, len(records) + 1), "parentUuid": parent, "timestamp": _time(n)}
        records.append({**common, **place, "type": kind, "message": message, **more})

    add("user", 0, {"role": "user", "content": f"Repair module {i}."})
    for n, (thought, command, output) in enumerate(steps_of(i)):
        use = {"type": "tool_use", "id": f"toolu_{i}_{n}", "name": "Bash", "input": {"command": command}}
        usage = {"input_tokens": 100 + n, "output_tokens": 50, "cache_read_input_tokens": 800}
        reply = {"id": f"msg_{i}_{n}", "type": "message", "role": "assistant", "model": "big-2", "usage": usage,
                 "stop_reason": "tool_use", "content": [{"type": "text", "text": thought}, use]}  # fmt: skip
        add("assistant", n, reply, requestId=f"req_{i}_{n}")
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": output, "is_error": False}
        add("user", n, {"role": "user", "content": [result]}, toolUseResult={"stdout": output, "stderr": ""})
    return records


def _id(*parts: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(parts)))


def _time(n: int) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=7 * n)).isoformat().replace("+00:00", ".000Z")


def measured(name: str, command: list[str], home: Path) -> tuple[float, int] | None:
    """CPU seconds of a command and its children, and its peak memory in MB; None, with its output, when it fails."""
    # Nobody here multiplies matrices, but numpy's threads wait for it in a loop: .1 s for whoever loads it.
    environment = {**os.environ, "HOME": str(home), "TERM": "dumb", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as told:
        pipe = subprocess.PIPE
        # Not in this folder: Python would take the sources here before what is installed, and compile them every time.
        process = subprocess.Popen(
            command, stdin=pipe, stdout=told, stderr=subprocess.STDOUT, env=environment, cwd=home
        )
        assert process.stdin is not None
        with process.stdin as answers:
            answers.write(b"1\n")  # what inspect_scout asks a second time: add what is new
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        text = told.read().decode(errors="replace").strip()
    if process.returncode:
        print(f"{name} failed with status {process.returncode}:\n{text[-2000:]}")
        return None
    print(f"    {name}: {' '.join(text.split())[:100]}", file=sys.stderr)
    return used.ru_utime + used.ru_stime, used.ru_maxrss // 1024


def main() -> None:
    """Write the files, run every tool that is installed ROUNDS times, print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    peers = Path(os.environ.get("STEPWELL_PEERS", "peers")).absolute()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "atif").mkdir()
        (root / "claude" / "-src").mkdir(parents=True)
        for i in range(n):
            (root / "atif" / f"{i}.json").write_text(json.dumps(atif(i)))
            (root / "claude" / "-src" / f"{_id(i)}.jsonl").write_text("\n".join(map(json.dumps, claude(i))) + "\n")
        sizes = {f: sum(p.stat().st_size for p in (root / f).rglob("*.json*")) / 1e6 for f in ("atif", "claude")}
        print(
            f"{n} trajectories of {STEPS} steps: {sizes['atif']:.0f} MB as ATIF, {sizes['claude']:.0f} MB as Claude Code"
        )
        print(f"{'tool':<28}{'first, CPU s':>14}{'again':>8}{'again / first':>15}{'peak MB':>9}")
        for number in range(ROUNDS):
            for name, program, arguments in commands(root, root / f"round-{number}", peers):
                if not Path(program).exists():
                    print(f"{name:<28} not installed at {program}: the head of this file says how")
                    continue
                (root / f"round-{number}").mkdir(exist_ok=True)
                both = [measured(name, [program, *arguments], root) for _ in range(2)]
                if both[0] and both[1]:
                    (first, peak), (again, _) = both
                    print(f"{name:<28}{first:>14.2f}{again:>8.2f}{again / first:>15.1%}{peak:>9}", flush=True)


def commands(root: Path, store: Path, peers: Path) -> list[tuple[str, str, list[str]]]:
    """Name, program and arguments of every tool, one after the other so that load hits all alike."""
    own, session = [str(root / "atif")], [str(root / "claude")]
    python = peers / "stepwell/bin/python"
    ours = str(python) if python.exists() else sys.executable
    quiet = ["--quiesce-seconds", "0", "--no-lake", "--workers"]
    return [
        ("DuckDB, ATIF", sys.executable, ["-c", DUCKDB, f"{store}.parquet", *own]),
        ("Stepwell, ATIF", ours, ["-c", IMPORT, str(store / "atif"), *own]),
        ("inspect_scout, ATIF", str(peers / "scout/bin/scout"),
         ["import", "atif", "-P", f"path={own[0]}", "-T", str(store / "scout"), "--display", "none"]),
        ("Stepwell, Claude Code", ours, ["-c", IMPORT, str(store / "claude"), *session]),
        *((f"atif-sql x {n}, Claude Code", str(peers / "atif/bin/atif-sql"),
           ["materialize", "--source-root", *session, "--corpus-root", str(store / f"corpus-{n}"), *quiet, n])
          for n in ("1", "2")),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
