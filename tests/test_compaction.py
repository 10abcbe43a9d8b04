"""A compaction: the same rows in few files, each trajectory in one row group, its kinds together, whoever writes meanwhile."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from test_maintenance import CORPORA, filled, trajectory

from schemas.events import EVENTS
from stepwell import compaction
from stepwell.compaction import compact_events
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import maintain
from stepwell.redaction import run
from stepwell.redaction.target import Target
from stepwell.scanning import file_name

N = 20


def groups(lake: Lake) -> Iterator[pa.Table]:
    """Every row group of the log's files, as it is on disk."""
    handle = lake.table("events")
    assert handle is not None
    for uri in handle.file_uris():
        file = pq.ParquetFile(uri)
        yield from (file.read_row_group(i, columns=["trajectory_id", "kind"]) for i in range(file.num_row_groups))


@pytest.mark.parametrize("held", [1, 3, 100])
def test_rows_stay_and_stand_in_order(lake: Lake, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(compaction, "ROWS", 64)
    monkeypatch.setattr(compaction, "_HELD", held)
    log = filled(lake, N, CORPORA[:1])
    before = log.read()
    compact_events(lake, CORPORA[0], 64 << 20)
    assert log.read().equals(before)
    found = [group.to_pylist() for group in groups(lake)]
    assert len(found) > 5
    assert all(len(rows) <= 64 for rows in found)
    ids = [sorted({row["trajectory_id"] for row in rows}) for rows in found]
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(ids)), (
        "a trajectory is in one group, and groups are in order"
    )
    assert all([row["kind"] for row in rows] == sorted(row["kind"] for row in rows) for rows in found)


def test_no_row_lies_outside_the_lake_under_a_name(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch, written = tmp_path_factory.mktemp("scratch"), []
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(compaction, "ROWS", 64)
    monkeypatch.setattr(compaction, "_HELD", 1)
    of_range = compaction._of_range

    def looked(rows: pa.Table, begins: Sequence[str]) -> Iterator[pa.Table]:
        written.append(list(scratch.iterdir()))
        return of_range(rows, begins)

    monkeypatch.setattr(compaction, "_of_range", looked)
    filled(lake, N, CORPORA[:1])
    compact_events(lake, CORPORA[0], 64 << 20)
    assert len(written) > 5
    assert not any(written), "a killed compaction would leave rows that no redaction looks at"


def test_a_trajectory_longer_than_a_row_group_stays_whole(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROWS", 5)
    log = filled(lake, 3, CORPORA[:1])
    before = log.read()
    compact_events(lake, CORPORA[0], 1)
    assert log.read().equals(before)
    assert [len(set(group.column("trajectory_id").to_pylist())) for group in groups(lake)] == [1, 1, 1]


def test_a_group_too_large_to_sort_by_kind_stays_in_order_of_trajectories(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SORTED", 0)
    log = filled(lake, 3, CORPORA[:1])
    before = log.read()
    compact_events(lake, CORPORA[0], 64 << 20)
    assert log.read().equals(before)


def test_a_redaction_in_between_wins(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(lake, 16, CORPORA[:1])
    write, before = compaction.write_groups, log.read()
    gone = f"{CORPORA[0]}-3"
    kept = before.filter(pa.compute.not_equal(before.column("trajectory_id"), gone))

    def interrupted(*args: object, **options: object) -> object:
        monkeypatch.setattr(compaction, "write_groups", write)
        lake.rewrite("events", lambda rows: rows.slice(0, 0), {}, "trajectory_id", [gone])
        return write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "write_groups", interrupted)
    done = next(one for one in maintain(lake) if one.table == "events")
    assert log.read().equals(kept)
    assert done.n_files_after == 1
    assert on_disk(lake) == committed(lake)


def test_no_file_is_written_while_a_takedown_erases(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(lake, 16, CORPORA[:1])
    log.append(trajectory("gone", CORPORA[1]), "b")
    before, ordered, erase = log.read(), compaction._groups, run.erase
    kept = before.filter(pa.compute.not_equal(before.column("trajectory_id"), "gone"))
    writing, erased = threading.Event(), threading.Event()
    other = threading.Thread(target=maintain, args=(Lake(lake.uri),))

    def slowly(*args: Any) -> Iterator[pa.Table]:
        for group in ordered(*args):
            yield group
            writing.set()
            erased.wait(10)

    def erasing(lake: Lake, name: str, *args: Any) -> int:
        if name == "events":
            other.start()
            writing.wait(2)
        return erase(lake, name, *args)

    monkeypatch.setattr(compaction, "_groups", slowly)
    monkeypatch.setattr(run, "erase", erasing)
    assert run.redact(lake, Target(down=frozenset(["gone"])), "asked").done
    erased.set()
    other.join()
    after = log.read()
    assert after.filter(pa.compute.not_equal(after.column("trajectory_id"), "gone")).equals(kept)
    (left,) = log.replay("gone").to_pylist()
    assert left["retraction"]["action"] == "takedown"


def on_disk(lake: Lake) -> set[str]:
    """Names of the data files of the log."""
    return {path.name for path in Path(lake.uri, "events").rglob("*.parquet") if "_delta_log" not in path.parts}


def committed(lake: Lake) -> set[str]:
    """Names of the data files of the log that any version has."""
    handles = [lake.table("events", version) for version in range((lake.version("events") or 0) + 1)]
    return {file_name(uri) for handle in handles if handle is not None for uri in handle.file_uris()}


def test_appends_in_between_are_kept(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(lake, 16, CORPORA[:1])
    write = compaction.write_groups

    def interrupted(*args: object, **options: object) -> object:
        EventLog(Lake(lake.uri)).append(trajectory("later"), "b")
        return write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "write_groups", interrupted)
    since = log.version
    maintain(lake)
    assert log.changed(since) == ["later"]
    ids = log.read(columns=["event_id"]).column(0).to_pylist()
    assert len(ids) == len(set(ids)) == 17 * len(trajectory("later"))


def test_rows_that_would_be_lost_change_nothing(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(lake, 3, CORPORA[:1])
    before, version = log.read(), log.version
    monkeypatch.setattr(compaction, "_groups", lambda data, columns: iter([data.to_table(columns).slice(1)]))
    with pytest.raises(LakeError, match="59 rows where the log counts 60"):
        compact_events(lake, CORPORA[0], 64 << 20)
    assert log.version == version
    assert log.read().equals(before)
    assert on_disk(lake) == committed(lake)


def test_a_table_from_elsewhere_is_compacted_with_what_its_readers_need(lake: Lake) -> None:
    DeltaTable.create(lake.path("events"), EVENTS.schema, partition_by=["corpus"])
    log = filled(lake, 3, CORPORA[:1])
    before = log.read()
    compact_events(lake, CORPORA[0], 64 << 20)
    assert log.read().equals(before)
    table = DeltaTable(lake.path("events")).to_pyarrow_dataset()
    assert table.count_rows(filter=pa.compute.field("policy").is_valid()) == sum(
        row is not None for row in before.column("policy").to_pylist()
    )
