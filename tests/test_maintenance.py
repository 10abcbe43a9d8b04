"""Maintenance: what is due, done without losing a row, a version or a derivation's place."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import lakes
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from assets.maintenance import maintenance
from assets.resources import Settings
from stepwell.cli import maintaining
from stepwell.cli.common import output
from stepwell.errors import LakeError
from stepwell.event import Event
from stepwell.fold import refresh, seen
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.maintenance import Maintained, maintain
from stepwell.query import connect, run
from stepwell.upkeep import undisturbed

CORPORA = ("rollouts/one", "plain, née 100%")
N = 16


def filled(lake: Lake, n: int = N, corpora: Sequence[str] = CORPORA, start: int = 0) -> EventLog:
    """A log of one small commit a trajectory."""
    log = EventLog(lake)
    for corpus in corpora:
        for i in range(start, start + n):
            log.append(trajectory(f"{corpus}-{i}", corpus), f"b{i}")
    return log


def trajectory(name: str, corpus: str = CORPORA[0]) -> list[Event]:
    """The events of one trajectory."""
    return [dataclasses.replace(e, corpus=corpus) for e in lakes.good_repair(name)]


def of(done: list[Maintained], table: str) -> Maintained:
    return next(one for one in done if one.table == table)


def test_small_files_become_few_and_every_version_stays(lake: Lake) -> None:
    log = filled(lake)
    refresh(lake)
    before = log.read()
    versions = {v: log.read(v) for v in (1, N, 2 * N)}
    on_disk = {p for p in Path(lake.path("events")).rglob("*.*") if p.is_file()}
    planned = of(maintain(lake, dry_run=True), "events")
    assert (log.version, planned.n_files_after, len(planned.due)) == (2 * N, None, 2)
    done = of(maintain(lake), "events")
    assert (done.n_files, done.n_files_after, done.version, done.checkpoint) == (2 * N, 2, 2 * N + 2, True)
    assert log.read().equals(before)
    assert all(log.read(v).equals(rows) for v, rows in versions.items())
    assert on_disk <= {p for p in Path(lake.path("events")).rglob("*.*") if p.is_file()}, (
        "no file of `events` is removed"
    )
    logs = {int(p.stem) for p in Path(lake.path("events"), "_delta_log").glob("*.json") if p.stem.isdigit()}
    assert logs == set(range(2 * N + 3)), "every commit is still there"
    counted = run(connect(lake), "SELECT count(DISTINCT event_id) AS n FROM events").to_pylist()
    assert counted == [{"n": len(before)}]
    again = maintain(lake)
    assert not any(one.due or one.checkpoint or one.vacuumed for one in again)
    assert log.version == 2 * N + 2


def test_compacted_files_are_sorted_so_that_row_groups_tell_trajectories_apart(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepwell.compaction.ROWS", 128)
    log = EventLog(lake)
    for i in range(16):
        log.append([e for j in range(4) for e in trajectory(f"{j}-{i}")], "b")
    maintain(lake)
    handle = lake.table("events")
    assert handle is not None
    (uri,) = handle.file_uris()
    groups = pq.ParquetFile(uri).metadata
    column = groups.schema.names.index("trajectory_id")
    ranges = [groups.row_group(i).column(column).statistics for i in range(groups.num_row_groups)]
    assert groups.num_row_groups >= 5
    plain = [groups.row_group(0).column(i) for i in range(groups.num_columns)]
    assert not [c for c in plain if c.path_in_schema in ("event_id", "caused_by") and "DICTIONARY" in str(c.encodings)]
    assert all(a.max <= b.min for a, b in itertools.pairwise(ranges))
    assert len(log.replay("3-7")) == len(trajectory("3-7"))


def test_a_derivation_and_the_folds_do_nothing_again_after_a_compaction(lake: Lake) -> None:
    log = filled(lake)
    refresh(lake)
    seen_at, asked = log.version, []

    def note(rows: pa.Table) -> tuple[list[Event], list[Event]]:
        asked.append(sorted(set(rows.column("trajectory_id").to_pylist())))
        return [], []

    log.append(
        [Event("mask", "rollouts/one-0", CORPORA[0], "system", {"weight": 0.0, "reason": "r"}, 0, "rule")],
        f"d:rule:through-{seen_at}",
    )
    maintain(lake)
    later = trajectory("later")
    log.append(later, "b")
    assert log.changed(seen_at) == ["later", "rollouts/one-0"]
    assert log.changed(log.through("rule")) == ["later", "rollouts/one-0"]
    for _ in range(2):
        log.derive("rule", "d", ("action",), ("event_id", "trajectory_id", "kind", "step"), note)
    assert asked == [["later"]] * 2
    folded = refresh(lake)
    assert [f.n_trajectories for f in folded] == [2, 2]
    assert seen(lake, "steps") == log.version
    maintain(lake, few=2)
    assert [f.n_trajectories for f in refresh(lake)] == [0, 0]
    assert len(lake.read("trajectories")) == 2 * N + 1


def test_what_changed_is_exact_through_many_compactions_and_never_less_when_files_are_gone(lake: Lake) -> None:
    log = filled(lake, 3, CORPORA[:1])
    marks = [(0, set[str]()), (log.version, {f"{CORPORA[0]}-{i}" for i in range(3)})]
    for part in range(4):
        filled(lake, 3, CORPORA[:1], start=10 * (part + 1))
        marks.append((log.version, marks[-1][1] | {f"{CORPORA[0]}-{10 * (part + 1) + i}" for i in range(3)}))
        if part % 2:
            maintain(lake, few=2)
            marks.append((log.version, marks[-1][1]))
    for a, (since, had) in enumerate(marks):
        for until, has in marks[a:]:
            assert set(log.changed(since, until)) == has - had, (since, until)
    handle = lake.table("events", marks[2][0])
    current = lake.table("events")
    assert handle is not None
    assert current is not None
    for uri in set(handle.file_uris()) - set(current.file_uris()):
        os.remove(uri)
    gone = set(log.changed(marks[1][0]))
    assert gone >= marks[-1][1] - marks[1][1]


def test_appends_and_reads_go_on_while_the_log_is_compacted(lake: Lake) -> None:
    log, errors = filled(lake, 30, CORPORA[:1]), []

    def append() -> None:
        try:
            filled(Lake(lake.uri), 12, CORPORA[:1], start=100)
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=append)
    writer.start()
    for _ in range(4):
        maintain(lake, few=2)
        log.read(columns=["event_id"])
    writer.join()
    assert errors == []
    found = log.read(columns=["event_id", "trajectory_id"])
    ids = found.column(0).to_pylist()
    assert len(ids) == len(set(ids)) == 42 * len(trajectory("t"))


def test_one_process_maintains_at_a_time(lake: Lake) -> None:
    filled(lake, 1)
    with undisturbed(lake):
        with pytest.raises(LakeError, match="another process is maintaining or redacting"):
            maintain(lake, patience=0)
        assert of(maintain(lake, dry_run=True), "events").n_files == 2


def test_old_files_of_folds_go_and_nothing_else(lake: Lake) -> None:
    filled(lake, 2)
    refresh(lake)
    filled(lake, 2, start=10)
    refresh(lake)
    named = set(Path(lake.uri).rglob("*.parquet"))
    made = {}
    for table in ("events", "trajectories", "steps"):
        for age in (0, 30 * 24 * 3600):
            made[table, age > 0] = path = Path(lake.path(table), f"part-{age}.parquet")
            path.write_bytes(b"of a writer that was killed")
            os.utime(path, (time.time() - age,) * 2)
    planned = {one.table: one.vacuumed for one in maintain(lake, dry_run=True)}
    assert (planned["events"], planned["trajectories"], planned["steps"]) == (0, 1, 1)
    assert all(path.exists() for path in made.values())
    maintain(lake)
    gone = {(table, old) for (table, old), path in made.items() if not path.exists()}
    assert gone == {("trajectories", True), ("steps", True)}
    assert all(path.exists() for path in named)
    assert len(lake.read("trajectories", 1)) == 4


def test_the_command_and_the_asset(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_width", 150)
    monkeypatch.setattr(output, "_height", 50)
    filled(lake)
    app = typer.Typer()
    maintaining.register(app)
    told = CliRunner().invoke(app, ["--lake", lake.uri, "--dry-run", "--json"])
    assert told.exit_code == 0, told.output
    (events,) = orjson.loads(told.stdout)["tables"]
    assert (events["table"], [d["n_small"] for d in events["due"]], events["n_files_after"]) == ("events", [N, N], None)
    told = CliRunner().invoke(app, ["--lake", lake.uri, "--dry-run"])
    assert "2 partitions" in told.stdout
    result = dg.materialize([maintenance], resources={"settings": Settings(lake_uri=lake.uri)})
    (made,) = result.asset_materializations_for_node("maintenance")
    assert made.metadata["compacted"].value == 2
    assert len(EventLog(lake).lake.table("events").file_uris()) == 2  # type: ignore[union-attr]
