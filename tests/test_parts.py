"""Data files written beside delta-rs: every reader finds in them what delta-rs would have written, and the log bounds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lakes
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from schemas.events import EVENTS
from stepwell import lake as writing
from stepwell import query
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import maintain

ODD = ["rollouts/one", "é b+c%2F&=#?'\"", "."]
"""Corpora whose names mean something in a path, a URL or SQL."""


def appended(lake: Lake) -> pa.Table:
    """One append of a trajectory for each odd corpus."""
    events = [replace(e, corpus=c) for i, c in enumerate(ODD) for e in lakes.good_repair(f"t{i}")]
    EventLog(lake).append(events, "batch")
    return EventLog(lake).read()


def counts(corpora: list[str]) -> dict[str, int]:
    return {c: corpora.count(c) for c in sorted(set(corpora))}


def test_every_reader_finds_every_corpus(lake: Lake) -> None:
    rows = appended(lake)
    assert rows.schema.equals(EVENTS.schema)
    expected = counts(rows.column("corpus").to_pylist())
    assert sorted(expected) == sorted(ODD)
    seen = query.connect(lake).sql("SELECT corpus, count(*) FROM events GROUP BY corpus").fetchall()
    assert dict(seen) == expected
    assert counts(pl.read_delta(lake.path("events"), columns=["corpus"])["corpus"].to_list()) == expected
    for corpus in ODD:
        assert set(EventLog(lake).read(corpora=[corpus]).column("corpus").to_pylist()) == {corpus}
    for number in range(16):
        EventLog(lake).append(lakes.looping(f"more{number}"), "batch")
    maintain(lake, few=2)
    again = EventLog(lake).read(trajectory_ids=[f"t{i}" for i in range(len(ODD))])
    assert again.equals(rows)


def test_the_log_bounds_what_is_in_a_file(lake: Lake) -> None:
    appended(lake)
    files = pa.table(DeltaTable(lake.path("events")).get_add_actions(flatten=True)).to_pylist()
    assert len(files) == len(ODD)
    for file in files:
        rows = EventLog(lake).read(corpora=[file["partition.corpus"]])
        assert file["num_records"] == len(rows)
        for column in ("event_id", "trajectory_id", "step", "kind", "actor", "recorded_at"):
            bounds = pc.min_max(rows.column(column)).as_py()
            found = (file[f"min.{column}"], file[f"max.{column}"], file[f"null_count.{column}"])
            assert found == (bounds["min"], bounds["max"], rows.column(column).null_count), column


def test_a_column_without_a_value_has_no_bounds(lake: Lake) -> None:
    EventLog(lake).append([e for e in lakes.good_repair("t") if e.step is None], "batch")
    (file,) = pa.table(DeltaTable(lake.path("events")).get_add_actions(flatten=True)).to_pylist()
    assert file["null_count.step"] == file["num_records"] > 0
    assert file.get("min.step") is None


@pytest.mark.parametrize("changed", ["bounds", "types"])
def test_a_table_from_elsewhere_is_written_by_delta(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake")
    schema = EVENTS.schema
    if changed == "types":
        older = pa.struct([f for f in schema.field("action").type if f.name != "thought"])
        schema = schema.set(schema.get_field_index("action"), pa.field("action", older))
    DeltaTable.create(lake.path("events"), schema, partition_by=["corpus"])
    monkeypatch.setattr(writing, "write_partitions", lambda *_: pytest.fail("written as if the table were ours"))
    events = lakes.good_repair("t")
    EventLog(lake).append(events, "batch")
    rows = EventLog(lake).read()
    assert sorted(rows.column("event_id").to_pylist()) == sorted(e.event_id for e in events)
