"""Export of trajectories of 40 steps to ATIF and chat: CPU seconds, trajectories a second, and peak memory at 1x and 10x.

    python -m tests.bench.export_rows [TRAJECTORIES]

Every export is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stepwell.event import Event
from stepwell.exporters.run import Request, export
from stepwell.lake import Lake
from stepwell.log import EventLog
from tests.bench.import_steps import STEPS

PART = 250


def fill(lake: Lake, n: int) -> None:
    """Record `n` trajectories of 40 steps with outputs of about 1,500 characters, graded and with a verdict a step."""
    events: list[Event] = []
    for i in range(n):
        name = f"{i * 7919 % n:06d}"

        def add(kind: str, actor: str, payload: dict[str, object], name: str = name, **more: object) -> Event:
            events.append(Event(kind, name, "bench", actor, payload, **more))  # type: ignore[arg-type]
            return events[-1]

        add("start", "system", {"task_id": f"bench__{i}", "agent": "bench 1", "model": "m"})
        add("instruction", "system", {"position": 0, "role": "system", "content": "Work."})
        for step in range(STEPS):
            said = f"THOUGHT: look at {step}.\n\n```bash\nsed -n '{step},{step + 20}p' src/module_{i}.py\n```"
            seen = f"<returncode>0</returncode>\n<output>\n{f'line {i} {step} of the file ' * 60}\n</output>"
            usage = {"tokens_in": 100 * step, "tokens_out": 30, "cost_usd": 0.01}
            action = add("action", "agent", {"text": said, "command": said[30:]}, step=step, policy="m", usage=usage)
            cause = {"step": step, "caused_by": action.event_id}
            add(
                "observation", "environment", {"position": 0, "rendered": seen, "role": "user", "exit_code": 0}, **cause
            )
            add("verdict", "critic", {"scope": "step", "label": "good"}, policy="bench@1", **cause)
        add("outcome", "grader", {"subject": "trajectory", "resolved": i % 2 == 0})
        add("end", "system", {"exit_status": "Submitted", "submission": f"diff {i}"})
        if (i + 1) % PART == 0 or i + 1 == n:
            EventLog(lake).append(events, f"part-{i}")
            events.clear()


def one(uri: str, format: str, path: str) -> None:
    """Export once and say what it took."""
    before, wall = time.process_time(), time.perf_counter()
    report = export(Lake(uri), Request(format), Path(path))
    cpu, wall = time.process_time() - before, time.perf_counter() - wall
    status = Path("/proc/self/status").read_text()  # ru_maxrss begins with what the parent had
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    rate = f"{cpu:.2f} CPU s, {report.written / cpu:.0f} trajectories/s"
    print(f"{format}: {report.written} in {rate}, {wall:.2f} s, {report.n_bytes / 1e6:.0f} MB, peak {peak:.0f} MB")


def main() -> None:
    """Run both formats at 1x and 10x."""
    if len(sys.argv) > 2:
        one(*sys.argv[1:])
        return
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as scratch:
        for times in (1, 10):
            lake = Lake(Path(scratch) / f"lake-{times}")
            fill(lake, n * times)
            for format, end in (("atif", ".jsonl"), ("chat", ".jsonl"), ("chat", ".parquet")):
                path = Path(scratch) / f"{format}-{times}{end}"
                command = [sys.executable, "-m", "tests.bench.export_rows", lake.uri, format, str(path)]
                subprocess.run(command, check=True)
                path.unlink()


if __name__ == "__main__":
    main()
