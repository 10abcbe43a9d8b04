"""Reading one trajectory by its id after many small commits, before and after maintenance.

    python -m tests.bench.small_commits [COMMITS]

Every commit is one trajectory of 20 steps. Prints medians over trajectories: CPU and wall milliseconds of a replay through the
log and of a question in SQL, files and bytes of the table, and what the maintenance cost.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from stepwell.event import Event
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import maintain
from stepwell.query import connect, run

STEPS = 20
TRIES = 9


def trajectory(i: int) -> list[Event]:
    """20 steps with outputs of about 1,500 characters."""
    name = digest("small", i)
    events = [Event("start", name, "bench", "system", {"agent": "smith"})]
    for step in range(STEPS):
        action = Event(
            "action", name, "bench", "agent", {"text": f"look at {step}", "command": f"cat {i}.{step}"}, step
        )
        seen = {"position": 0, "raw": f"line {i} {step} of the file " * 60}
        events += [action, Event("observation", name, "bench", "environment", seen, step, caused_by=action.event_id)]
    return events


def told(what: str, log: EventLog, n: int) -> None:
    """Time both ways to read one trajectory."""
    cpu: dict[str, list[float]] = {"replay": [], "sql": []}
    wall: dict[str, list[float]] = {"replay": [], "sql": []}
    for k in range(TRIES):
        name = digest("small", k * n // TRIES)
        for way in cpu:
            c, w = time.process_time(), time.perf_counter()
            if way == "replay":
                rows = len(log.replay(name))
            else:
                rows = run(connect(log.lake), "SELECT * FROM events WHERE trajectory_id = $id", {"id": name}).num_rows
            cpu[way].append(1000 * (time.process_time() - c))
            wall[way].append(1000 * (time.perf_counter() - w))
            assert rows == 1 + 2 * STEPS
    handle = log.lake.table("events")
    assert handle is not None
    files = [Path(u) for u in handle.file_uris()]
    size = sum(f.stat().st_size for f in files) / 1e6
    times = "; ".join(
        f"{w} {statistics.median(cpu[w]):.0f} ms CPU, {statistics.median(wall[w]):.0f} ms wall" for w in cpu
    )
    print(f"{what}: {len(files)} files, {size:.1f} MB; {times}", flush=True)


def main() -> None:
    """Commit, read, maintain, read."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as scratch:
        log = EventLog(Lake(Path(scratch) / "lake"))
        begun = time.process_time()
        for i in range(n):
            log.append(trajectory(i), "bench")
        print(f"{n} commits: {1000 * (time.process_time() - begun) / n:.0f} ms CPU each")
        told("before", log, n)
        begun = time.process_time()
        maintain(log.lake)
        print(f"maintenance: {time.process_time() - begun:.1f} s CPU")
        told("after", log, n)


if __name__ == "__main__":
    main()
