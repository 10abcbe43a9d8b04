"""A long log for benchmarks: real-shaped trajectories of about 40 steps, written as Arrow in commits as imports make them.

    python -m tests.bench.long_log [LAKE [TRAJECTORIES [STEPS]]]

Without a lake it writes to a folder that is removed again. At the end the log is compacted, and thirty trajectories are read by
id after a first, by clock.

Texts vary in every step; ids are digests, so neighbours in the log are not neighbours in the order of ids.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.events import EVENTS
from schemas.kinds import KINDS
from stepwell import query
from stepwell.event import Event
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import maintain

CORPUS = "bench"
STEPS = 40
_COMMIT = 250
_APPENDS = 12
_AT = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = """
    return value index parser module token buffer cache field error test assert import class def self none true false
    config path open read write line column offset table schema query branch merge patch commit file folder result
""".split()  # noqa: SIM905


def trajectory(number: int, steps: int = STEPS) -> Iterator[tuple[str, str, int | None, dict[str, Any]]]:
    """(kind, actor, step, payload) of every event of one trajectory."""
    draw = random.Random(number)
    module = f"src/{draw.choice(_WORDS)}_{number % 997}.py"
    task = f"task-{number // 4}"
    yield "task", "system", None, {"task_id": task, "repo": f"repo-{number % 40}"}
    yield "start", "system", None, {"task_id": task, "agent": "bench@1", "model": f"model-{number % 3}"}
    yield (
        "instruction",
        "system",
        None,
        {"position": 0, "role": "system", "content": "Repair the module, step by step."},
    )
    asked = f"Issue {number}: {' '.join(draw.choices(_WORDS, k=60))}"
    yield "instruction", "system", None, {"position": 1, "role": "user", "content": asked}
    for step in range(draw.randint(steps - steps // 4, steps + steps // 4)):
        at = draw.randint(1, 900)
        command = f"sed -n '{at},{at + 20}p' {module}"
        thought = " ".join(draw.choices(_WORDS, k=15))
        yield "action", "agent", step, {"text": f"THOUGHT: {thought}\n\n```bash\n{command}\n```", "command": command}
        seen = "\n".join(f"{at + i}: {' '.join(draw.choices(_WORDS, k=6))}" for i in range(6))
        yield "observation", "environment", step, {"position": 0, "raw": seen, "role": "user", "exit_code": 0}
    yield "end", "environment", None, {"exit_status": "submitted", "submission": "diff"}
    yield "outcome", "grader", None, {"subject": "trajectory", "grader": "bench@1", "resolved": draw.random() < 0.3}


def rows(numbers: range, steps: int = STEPS) -> pa.Table:
    """The events of these trajectories, as rows of `events`."""
    plain: dict[str, list[Any]] = {c.name: [] for c in EVENTS.columns if c.name not in KINDS}
    payloads: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    places: dict[str, list[int | None]] = {kind: [] for kind in KINDS}
    for number in numbers:
        name = digest("bench", number)
        for i, (kind, actor, step, payload) in enumerate(trajectory(number, steps)):
            told = {
                "event_id": f"{name[:22]}{i:010d}",
                "corpus": CORPUS,
                "trajectory_id": name,
                "step": step,
                "kind": kind,
            }
            told |= {"actor": actor, "recorded_at": _AT, "batch_id": "bench", "schema_version": KINDS[kind].version}
            for column, values in plain.items():
                values.append(told.get(column))
            for other, values in places.items():
                values.append(len(payloads[kind]) if other == kind else None)
            payloads[kind].append(payload)
    columns = [
        pa.array(payloads[c.name], c.type).take(pa.array(places[c.name], pa.int32()))
        if c.name in KINDS
        else pa.array(plain[c.name], c.type)
        for c in EVENTS.columns
    ]
    return pa.Table.from_arrays(columns, schema=EVENTS.schema)


def write(lake: Lake, numbers: range, steps: int = STEPS) -> int:
    """Append these trajectories, some hundreds a commit; returns the number of events."""
    handle, n = lake.create("events"), 0
    for start in range(numbers.start, numbers.stop, _COMMIT):
        table = rows(range(start, min(start + _COMMIT, numbers.stop)), steps)
        lake.append(handle, "events", table)
        n += len(table)
    return n


def offered(number: int, events: int = 500) -> list[Event]:
    """Events of trajectories that no log has."""
    names = [digest("offered", number, i // 2 // STEPS) for i in range(events)]
    return [Event("action", name, CORPUS, "agent", {"text": f"{i}"}, i % (2 * STEPS)) for i, name in enumerate(names)]


def main(lake: str | None = None, n: str = "1000", steps: str = str(STEPS)) -> None:
    """Write a log and print how long that took, and what appends and replays cost whoever begins, and goes on."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        place = Lake(lake or scratch)
        events = write(place, range(int(n)), int(steps))
        print(f"{n} trajectories, {events} events: {time.process_time() - begun:.1f} s CPU", flush=True)
        for process in ("no index yet", "index on disk"):
            log, taken = EventLog(place), []
            for number in range(_APPENDS):
                facts = offered(place.version("events") or number)
                begun = time.process_time()
                assert log.append(facts, "offered").new == len(facts)
                taken.append(1000 * (time.process_time() - begun))
            begun = time.process_time()
            EventLog(place).replay(digest("bench", 0))
            replay = 1000 * (time.process_time() - begun)
            told = f"first {taken[0]:.0f} ms CPU, then {statistics.median(taken[1:]):.0f}; a first replay {replay:.0f}"
            print(f"appends of {len(facts)} new events, {process}: {told}", flush=True)
        maintain(place)
        log, connection = EventLog(place), query.connect(place)
        ids = [digest("bench", number) for number in random.Random(1).choices(range(int(n)), k=31)]
        sql = "FROM events WHERE trajectory_id = ?"
        ways: dict[str, Callable[[str], pa.Table]] = {
            "replay": log.replay, "SQL": lambda name: query.run(connection, sql, [name])
        }  # fmt: skip
        for way, read in ways.items():
            waited = []
            for name in ids:
                started = time.perf_counter()
                assert len(read(name))
                waited.append(1000 * (time.perf_counter() - started))
            told = f"first {waited[0]:.0f} ms, then {statistics.median(waited[1:]):.0f}, at most {max(waited[1:]):.0f}"
            print(f"one of {n} by id, {way}: {told}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
