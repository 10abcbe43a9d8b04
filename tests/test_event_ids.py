"""Event ids are pinned: one that changes makes of every known fact a new one. And rows hold what their events hold."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import lakes
import numpy as np
import pytest

from schemas.events import EVENTS
from schemas.kinds import KINDS
from stepwell.event import Event, to_table
from stepwell.ids import canonical, digest

AT = datetime(2026, 1, 1, tzinfo=UTC)
TESTS = [{"name": "test_a", "passed": True, "duration_s": None}, {"name": "test_b", "passed": False}]
USAGE = {"tokens_in": 900, "cost_usd": 0.25, "finish": None}
PINNED = {
    "21d098fecb31948f0a086809261a5478": Event(
        "start", "t", "c", "system", {"agent": "smith@1", "model": None}, policy="smith@1"
    ),
    "c07c4ef13d6d5d857d4f96c7f103b297": Event(
        "action", "t", "c", "agent", {"text": 'naïve ✓ 😀\n\t"q"', "command": "ls"}, 0, "m", AT, usage=USAGE
    ),
    "a90f1cac63873c1dca7497a44bc55e40": Event(
        "observation", "t", "c", "environment", {"position": 0, "raw": "", "exit_code": np.int32(3)}, 0
    ),
    "672f8bfb818db595531993ebe6755255": Event(
        "observation", "t", "c", "environment", {"position": 0, "raw": ""}, 0, discriminator="#2", extra="{}"
    ),
    "4f36ac4b50fcad91d1c1542e808cb2b8": Event(
        "outcome", "t", "c", "grader", {"subject": "trajectory", "resolved": False, "tests": TESTS}
    ),
    "02f1108177930cf4c8d61c5dedc9ae10": Event(
        "verdict", "t", "c", "critic", {"confidence": 0.1, "severity": 2, "guidance": None}, 3, "critic@1"
    ),
}
"""Ids as they were on 2026-11-21, and the events they are of."""


def test_ids_are_as_they_were() -> None:
    assert [event.event_id for event in PINNED.values()] == list(PINNED)
    nested = {"b": [None, {"c": None, "d": [1, None]}], "a": (1, 2)}
    assert digest("a", 1, None, 1.5, True, nested, np.float64(0.5)) == "bb4f363e480a50bd39e58e14fa340577"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": None}, b'{"b":1}'),
        ({"b": [None, {"c": None, "d": {}}], "a": (1, None)}, b'{"a":[1,null],"b":[null,{"d":{}}]}'),
        ([None, {"x": None}], b"[null,{}]"),
        ({"z": {"y": None, "x": "s"}, "a": True}, b'{"a":true,"z":{"x":"s"}}'),
        ({"b": 1.0, "a": "é"}, '{"a":"é","b":1.0}'.encode()),
    ],
)
def test_canonical_json_is_sorted_and_drops_the_nulls_of_objects(value: Any, written: bytes) -> None:
    assert canonical(value) == written


def test_rows_hold_what_their_events_hold() -> None:
    events = [*PINNED.values(), *lakes.good_repair("t1"), *lakes.looping("t2")]
    rows = to_table(events, "batch", AT)
    assert rows.schema.equals(EVENTS.schema, check_metadata=True)
    rows.validate(full=True)
    envelope = ("event_id", "corpus", "trajectory_id", "step", "kind", "actor", "policy", "occurred_at", "caused_by")
    for event, row in zip(events, rows.to_pylist(), strict=True):
        assert [row[name] for name in envelope] == [getattr(event, name) for name in envelope]
        assert (row["batch_id"], row["recorded_at"], row["extra"]) == ("batch", AT, event.extra)
        assert row["schema_version"] == KINDS[event.kind].version
        assert [kind for kind in KINDS if row[kind] is not None] == [event.kind]
        assert canonical([row[event.kind], row["usage"]]) == canonical([event.payload, event.usage])
    assert to_table([], "batch", AT).schema.equals(EVENTS.schema)
