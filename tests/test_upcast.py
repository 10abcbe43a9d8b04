"""Upcasting: a lake written when observations had one field `text`, opened and continued by the current code."""

from __future__ import annotations

from typing import Any

import lakes
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import EVENTS
from schemas.kinds import KINDS
from schemas.upcast import UPCASTERS, upcast
from stepwell import query
from stepwell.event import Event, to_table
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog

OLD_TYPE = pa.struct([pa.field("text", pa.string())])
OLD_SCHEMA = pa.schema([pa.field("observation", OLD_TYPE) if f.name == "observation" else f for f in EVENTS.schema])


def as_version_1(rows: pa.Table) -> pa.Table:
    """The rows as the first version of the code wrote them."""
    observed = [None if o is None else {"text": o["rendered"]} for o in rows.column("observation").to_pylist()]
    kinds, stored = rows.column("kind").to_pylist(), rows.column("schema_version").to_pylist()
    versions = [1 if kind == "observation" else version for kind, version in zip(kinds, stored, strict=True)]
    rows = rows.set_column(rows.schema.names.index("observation"), "observation", pa.array(observed, OLD_TYPE))
    rows = rows.set_column(rows.schema.names.index("schema_version"), "schema_version", pa.array(versions, pa.int32()))
    return rows.cast(OLD_SCHEMA)


@pytest.fixture
def old_lake(lake: Lake) -> Lake:
    """A real lake of version 1 with one trajectory."""
    rows = as_version_1(to_table(lakes.good_repair("t-old"), "old", lakes.EPOCH))
    append_only = {"delta.appendOnly": "true"}
    DeltaTable.create(lake.path("events"), OLD_SCHEMA, partition_by=["corpus"], configuration=append_only)
    write_deltalake(lake.path("events"), rows, mode="append")
    return lake


def shown(rows: pa.Table) -> list[tuple[str | None, str | None]]:
    return [(o["raw"], o["rendered"]) for o in rows.column("observation").to_pylist() if o is not None]


def expected(events: list[Event], field: str = "rendered") -> list[str]:
    return [e.payload[field] for e in events if e.kind == "observation"]


def test_an_old_lake_is_read_with_the_current_schema(old_lake: Lake) -> None:
    rows = EventLog(old_lake).read()
    assert rows.schema.equals(EVENTS.schema)
    assert shown(rows) == [(t, t) for t in expected(lakes.good_repair("t-old"))]
    kept = rows.select(["kind", "schema_version"]).to_pylist()
    assert {r["schema_version"] for r in kept if r["kind"] == "observation"} == {1}, "what a row was written with stays"


def test_new_rows_join_old_ones_and_old_files_do_not_change(old_lake: Lake) -> None:
    before = set(DeltaTable(old_lake.path("events")).file_uris())
    EventLog(old_lake).append(lakes.looping("t-new"), "new")
    assert before < set(DeltaTable(old_lake.path("events")).file_uris())
    rows = EventLog(old_lake).read()
    assert rows.schema.equals(EVENTS.schema)
    assert shown(EventLog(old_lake).replay("t-old")) == [(t, t) for t in expected(lakes.good_repair("t-old"))]
    new = lakes.looping("t-new")
    assert shown(EventLog(old_lake).replay("t-new")) == list(zip(expected(new, "raw"), expected(new), strict=True))
    again = EventLog(old_lake).append(lakes.looping("t-new"), "again")
    assert again.new == 0


def test_both_versions_can_be_asked_in_sql_and_folded(old_lake: Lake) -> None:
    sql = "SELECT observation.raw, observation.rendered FROM events WHERE kind = 'observation' ORDER BY event_id"
    for _ in range(2):
        told = EventLog(old_lake).read(kinds=["observation"]).sort_by("event_id")
        assert [(r["raw"], r["rendered"]) for r in query.run(query.connect(old_lake), sql).to_pylist()] == shown(told)
        EventLog(old_lake).append(lakes.looping("t-new"), "new")
    refresh(old_lake)
    steps = query.run(
        query.connect(old_lake), "SELECT observation FROM steps WHERE trajectory_id = 't-old' ORDER BY step"
    )
    assert [r["observation"] for r in steps.to_pylist()] == expected(lakes.good_repair("t-old"))


def test_a_lake_from_before_a_column_of_the_envelope_is_still_read(lake: Lake) -> None:
    rows = to_table(lakes.good_repair("t"), "old", lakes.EPOCH).drop_columns(["extra", "reward"])
    write_deltalake(lake.path("events"), rows, partition_by=["corpus"])
    assert len(EventLog(lake).read(kinds=["action"], columns=["action"])) == 5
    count = query.run(query.connect(lake), "SELECT count(*) AS n, count(extra) AS e, count(reward) AS r FROM events")
    assert count.to_pylist() == [{"n": len(rows), "e": 0, "r": 0}]


def test_some_columns_of_an_old_lake(old_lake: Lake) -> None:
    rows = EventLog(old_lake).read(columns=["observation"], kinds=["observation"])
    assert rows.column_names == ["observation"]
    assert rows.column("observation").type == KINDS["observation"].type


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAYLOAD = st.one_of(st.none(), st.fixed_dictionaries({"text": st.one_of(st.none(), TEXT)}))


@settings(max_examples=100)
@given(old=st.lists(PAYLOAD, max_size=6), new=st.lists(st.tuples(TEXT, st.integers(0, 255)), max_size=6))
def test_rows_of_both_versions_in_one_table(old: list[dict[str, Any] | None], new: list[tuple[str, int]]) -> None:
    both = pa.struct([*OLD_TYPE, *KINDS["observation"].type])
    values = [*old, *({"raw": text, "exit_code": code} for text, code in new)]
    stored = pa.table(
        {"schema_version": pa.array([1] * len(old) + [2] * len(new), pa.int32()), "observation": pa.array(values, both)}
    )
    rows = upcast(stored)
    assert rows.schema.field("observation").type == KINDS["observation"].type
    result = rows.column("observation").to_pylist()
    for was, now in zip(old, result, strict=False):
        assert (now is None) == (was is None)
        if was is not None and now is not None:
            assert (now["raw"], now["rendered"], now["exit_code"]) == (was["text"], was["text"], None)
    for (text, code), now in zip(new, result[len(old) :], strict=True):
        assert now is not None
        assert (now["raw"], now["rendered"], now["exit_code"]) == (text, None, code)
    if not old:
        assert upcast(rows).equals(rows), "rows of the current version stay as they are"


def test_every_older_version_has_an_upcaster() -> None:
    assert UPCASTERS.keys() == {(name, v) for name, kind in KINDS.items() for v in range(1, kind.version)}
