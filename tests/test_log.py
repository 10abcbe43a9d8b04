"""The log: whole appends, each fact once, canonical order, versions, what changed."""

from __future__ import annotations

import multiprocessing
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import lakes
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.events import EVENTS
from schemas.kinds import KINDS
from stepwell.errors import LakeError, SchemaError, UnknownName
from stepwell.event import Event, to_table
from stepwell.ids import storable
from stepwell.lake import Lake
from stepwell.log import EventLog, in_order


def ids(rows: pa.Table) -> list[str]:
    found: list[str] = rows.column("event_id").to_pylist()
    return found


def test_an_append_is_one_commit_and_reads_back_as_it_was(lake: Lake) -> None:
    events = lakes.good_repair("t")
    done = EventLog(lake).append(events, "batch")
    assert (done.new, done.known, done.version) == (len(events), 0, 1)
    rows = EventLog(lake).read()
    assert rows.schema.equals(EVENTS.schema)
    assert sorted(ids(rows)) == sorted(e.event_id for e in events)
    assert set(rows.column("batch_id").to_pylist()) == {"batch"}
    by_id = {r["event_id"]: r for r in rows.to_pylist()}
    for event in events:
        stored = by_id[event.event_id]
        assert {k: v for k, v in stored[event.kind].items() if v is not None} == {
            k: v for k, v in event.payload.items() if v is not None
        }
        assert all(stored[k] is None for k in KINDS if k != event.kind)


def test_the_same_fact_is_stored_once(lake: Lake) -> None:
    log, events = EventLog(lake), lakes.good_repair("t")
    log.append([*events, *events], "one")
    again = log.append(events, "two")
    assert (again.new, again.known, again.version) == (0, len(events), 1)
    more = log.append([*events, *lakes.looping("t2")], "three")
    assert more.known == len(events)
    assert len(log.read()) == more.new + more.known


def test_a_version_that_never_was_is_named_with_those_that_are(lake: Lake) -> None:
    EventLog(lake).append(lakes.good_repair("t"), "b")
    for version in (7, -1):
        with pytest.raises(LakeError, match=f"no version {version}; it has 0 to 1"):
            lake.read("events", version)


def test_text_that_cannot_be_stored_is_refused_with_a_way_out() -> None:
    half = "\ud83d"
    with pytest.raises(SchemaError, match="storable"):
        _ = Event("action", "t", "demo", "agent", {"text": half}, 0).event_id
    assert Event("action", "t", "demo", "agent", {"text": storable(half)}, 0).event_id


def test_nothing_or_all_of_a_batch_is_written(lake: Lake) -> None:
    good = lakes.good_repair("t")
    bad = Event("action", "t", "demo", "agent", {"text": 3}, 0)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        EventLog(lake).append([*good, bad], "b")
    assert len(EventLog(lake).read()) == 0


def _append(uri: str, seed: int) -> None:
    log = EventLog(Lake(uri))
    for name in ("a", "b", "c", "d"):
        events = lakes.good_repair(f"t-{name}")
        random.Random(seed).shuffle(events)
        log.append(events, f"writer-{seed}")


@pytest.mark.parametrize("locked", [True, False])
def test_processes_that_offer_the_same_facts_store_them_once(tmp_path: Path, locked: bool) -> None:
    lake = Lake(tmp_path / "lake")
    lake.create("events")
    context = multiprocessing.get_context("spawn")
    target = _append if locked else _append_without_lock
    writers = [context.Process(target=target, args=(lake.uri, seed)) for seed in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [w.exitcode for w in writers] == [0, 0]
    found = ids(EventLog(lake).read())
    assert len(found) == len(set(found)) == 4 * len(lakes.good_repair("t-a"))


def test_local_files_are_read_without_python_in_the_threads_of_arrow(tmp_path: Path) -> None:
    """A thread that calls Python while the interpreter ends aborts the process (exit code 134, seen under load)."""
    lake = Lake(tmp_path / "a lake, né")
    EventLog(lake).append(lakes.good_repair("t"), "b")
    handle = lake.table("events")
    assert handle is not None
    files = lake.dataset(handle).filesystem
    assert isinstance(files, pa.fs.SubTreeFileSystem)
    assert isinstance(files.base_fs, pa.fs.LocalFileSystem)
    assert len(EventLog(lake).read()) == len(lakes.good_repair("t"))


class UnlockedLake(Lake):
    """A lake whose only protection is the commit protocol, as on an object store."""

    def lock(self, name: str) -> AbstractContextManager[object]:
        return nullcontext()


def _append_without_lock(uri: str, seed: int) -> None:
    log = EventLog(UnlockedLake(uri))
    for name in ("a", "b", "c", "d"):
        log.append(lakes.good_repair(f"t-{name}"), f"writer-{seed}")


@settings(max_examples=100)
@given(seed=st.integers(), cut=st.integers(0, 20))
def test_canonical_order_does_not_depend_on_the_order_of_rows(seed: int, cut: int) -> None:
    events = [*lakes.good_repair("t1"), *lakes.looping("t2"), *lakes.wasteful("t3")]
    expected = ids(in_order(to_table(events, "b", lakes.EPOCH)))
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    parts = [to_table(part, "b", lakes.EPOCH) for part in (shuffled[:cut], shuffled[cut:])]
    assert ids(in_order(pa.concat_tables(parts))) == expected


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(), batches=st.integers(1, 4))
def test_replay_does_not_depend_on_the_order_of_appends(
    tmp_path_factory: pytest.TempPathFactory, seed: int, batches: int
) -> None:
    events = [*lakes.good_repair("t1"), *lakes.looping("t2")]
    expected = ids(in_order(to_table(events, "b", lakes.EPOCH)))
    random.Random(seed).shuffle(events)
    log = EventLog(Lake(tmp_path_factory.mktemp("replay")))
    for i in range(batches):
        log.append(events[i::batches], f"b{i}")
    assert ids(log.read()) == expected
    assert ids(log.replay("t1")) == [i for i in expected if i in set(ids(log.read(trajectory_ids=["t1"])))]


def test_order_within_a_trajectory_is_step_then_rank_then_id(lake: Lake) -> None:
    EventLog(lake).append(lakes.good_repair("t"), "b")
    rows = EventLog(lake).replay("t").select(["step", "kind"]).to_pylist()
    assert [r["kind"] for r in rows[:3]] == ["task", "start", "instruction"]
    assert [(r["step"], r["kind"]) for r in rows[3:6]] == [(0, "action"), (0, "observation"), (0, "verdict")]
    assert [r["kind"] for r in rows[-2:]] == ["end", "outcome"]


def test_a_version_is_one_state_of_the_world(lake: Lake) -> None:
    log = EventLog(lake)
    first = log.append(lakes.good_repair("t1"), "one").version
    log.append(lakes.looping("t2"), "two")
    assert set(log.read(first).column("trajectory_id").to_pylist()) == {"t1"}
    assert set(log.read().column("trajectory_id").to_pylist()) == {"t1", "t2"}


def test_reading_some_columns_kinds_and_corpora(lake: Lake) -> None:
    log = EventLog(lake)
    log.append([*lakes.good_repair("t1"), *lakes.looping("t2", corpus="other")], "b")
    rows = log.read(kinds=["action"], corpora=["other"], columns=["action"])
    assert rows.column_names == ["action"]
    assert len(rows) == 6
    assert len(log.read(trajectory_ids=[])) == 0
    assert EventLog(Lake(lake.uri + "-empty")).read(columns=["kind"]).column_names == ["kind"]


def test_changed_names_the_trajectories_of_later_commits(lake: Lake) -> None:
    log = EventLog(lake)
    assert log.changed(None) == []
    first = log.append(lakes.good_repair("t1"), "one").version
    second = log.append([*lakes.good_repair("t1"), *lakes.looping("t2")], "two").version
    third = log.append(lakes.looping("t3"), "three").version
    assert log.changed(None) == ["t1", "t2", "t3"]
    assert log.changed(first) == ["t2", "t3"]
    assert log.changed(first, second) == ["t2"]
    assert log.changed(third) == []


@pytest.mark.parametrize("corpus", ["rollouts/one", "a b", "a%20b", "é"])
def test_changed_works_for_every_name_of_a_corpus(lake: Lake, corpus: str) -> None:
    log = EventLog(lake)
    first = log.append(lakes.good_repair("t1", corpus=corpus), "one").version
    log.append(lakes.looping("t2", corpus=corpus), "two")
    assert log.changed(first) == ["t2"]


def test_commits_have_their_own_versions_while_others_write(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = lake.spec("trajectories").schema.empty_table()
    marks = iter("123456789")
    for _ in range(3):
        lake.replace("trajectories", empty, {"mark": next(marks)})
    asked, late = DeltaTable.history, iter((True, True))

    def history(handle: DeltaTable, limit: int | None = None) -> list[dict[str, object]]:
        if next(late, False):  # a commit between opening the table and reading its log
            lake.replace("trajectories", empty, {"mark": next(marks)})
        return list(asked(handle, limit))

    monkeypatch.setattr(DeltaTable, "history", history)
    assert [(c["version"], c.get("mark")) for c in lake.commits("trajectories", 1)] == [
        (5, "5"), (4, "4"), (3, "3"), (2, "2"),
    ]  # fmt: skip
    assert lake.commits("trajectories", 5) == lake.commits("steps") == []


def test_batches_are_whole_trajectories(lake: Lake) -> None:
    log = EventLog(lake)
    log.append([e for i in range(5) for e in lakes.good_repair(f"t{i}")], "b")
    parts = list(log.batches([f"t{i}" for i in range(5)], size=2))
    assert [pc.count_distinct(p.column("trajectory_id")).as_py() for p in parts] == [2, 2, 1]
    assert sum(len(p) for p in parts) == len(log.read())


def test_events_are_append_only(lake: Lake) -> None:
    EventLog(lake).append(lakes.good_repair("t"), "b")
    with pytest.raises(LakeError, match="append-only"):
        lake.replace("events", EVENTS.schema.empty_table(), {})
    with pytest.raises(Exception, match=r"(?i)append-only|appendOnly"):
        DeltaTable(lake.path("events")).delete()


def test_foreign_fields_kinds_and_actors_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"\['txt'\]; allowed: .*'text'"):
        Event("action", "t", "demo", "agent", {"txt": "x"}, 0)
    with pytest.raises(UnknownName, match="unknown event kind 'act'"):
        Event("act", "t", "demo", "agent", {}, 0)
    with pytest.raises(UnknownName, match="unknown actor 'robot'"):
        Event("action", "t", "demo", "robot", {}, 0)


@settings(max_examples=50)
@given(text=st.text(), other=st.text())
def test_identity_is_content(text: str, other: str) -> None:
    one = Event("action", "t", "demo", "agent", {"text": text, "command": None}, 0)
    same = Event("action", "t", "demo", "agent", {"text": text}, 0)
    assert one.event_id == same.event_id, "a null field changes no id"
    assert (Event("action", "t", "demo", "agent", {"text": other}, 0).event_id == one.event_id) == (text == other)
