"""The sentence of a column can be put better without breaking lakes that were made with the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest
from lakes import build

from schemas.column import Table
from schemas.tables import TABLES
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog


def reworded(field: pa.Field) -> pa.Field:
    """The field with another comment, and everything inside it, and a struct with one more child."""
    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([*map(reworded, kind), pa.field("fresh", pa.string(), metadata={"comment": "Is new."})])
    elif pa.types.is_list(kind):
        kind = pa.list_(reworded(kind.value_field))
    return pa.field(field.name, kind, field.nullable, {"comment": f"In other words: {field.name}."})


def changed(table: Table) -> Table:
    """A declared table whose every sentence is another."""
    columns = [
        replace(c, doc=f"In other words: {c.name}.", type=reworded(c.field).type) for c in table.columns
    ]  # fmt: skip
    return replace(table, columns=tuple(columns))


@pytest.fixture
def reword(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Table]:
    """Declare a table anew, as a later release would."""

    def do(name: str) -> Table:
        table = changed(TABLES[name])
        monkeypatch.setitem(TABLES, name, table)
        return table

    return do


def padded(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows as a later release makes them: what is new is null."""
    return pa.Table.from_pylist(rows.to_pylist(), schema)


@pytest.mark.parametrize("name", ["events", "rejects", "trajectories"])
def test_rows_are_appended_after_a_sentence_was_changed(lake: Lake, reword: Callable[[str], Table], name: str) -> None:
    build(lake)
    refresh(lake)
    handle = lake.create(name)
    before, old = handle.to_pyarrow_table(), pa.schema(handle.schema())
    table = reword(name)
    rows = padded(before, table.schema)
    lake.append(handle, name, rows)
    assert lake.create(name).to_pyarrow_table().num_rows == 2 * before.num_rows
    now = pa.schema(lake.create(name).schema())
    assert [now.field(f.name).metadata for f in old] == [f.metadata for f in old], "what is stored keeps its sentence"
    for field in old:
        if pa.types.is_struct(field.type):
            assert "fresh" in [child.name for child in now.field(field.name).type], "what is new is added"


def test_a_derived_table_is_replaced_and_a_log_rewritten_too(lake: Lake, reword: Callable[[str], Table]) -> None:
    build(lake)
    refresh(lake)
    events = EventLog(lake).read()
    tables = {name: reword(name) for name in ("trajectories", "events")}
    rows = pa.Table.from_pylist([], tables["trajectories"].schema)
    lake.replace("trajectories", rows, {})
    assert not lake.read("trajectories").num_rows
    assert lake.rewrite("events", lambda found: padded(found, tables["events"].schema), {}) is not None
    assert len(EventLog(lake).read()) == len(events)
