"""`stepwell.open`: what a notebook gets, and how it shows itself."""

from __future__ import annotations

from pathlib import Path

import lakes
import polars as pl
import pytest

import stepwell
from stepwell.errors import LakeError, UnknownName, UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.notebook import OpenLake


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenLake:
    lake = Lake(tmp_path_factory.mktemp("notebook") / "lake")
    lakes.build(lake)
    refresh(lake)
    EventLog(lake).append(lakes.good_repair("t-<b>later"), "later")
    return stepwell.open(lake.uri)


def test_frames_of_tables_are_polars_and_in_order(opened: OpenLake) -> None:
    trajectories = opened.trajectories()
    assert isinstance(trajectories, pl.DataFrame)
    assert trajectories["trajectory_id"].to_list() == ["t-good-a", "t-good-b", "t-loop-a", "t-loop-b", "t-waste-b"]
    assert opened.trajectories(corpus="demo")["trajectory_id"].to_list() == ["t-good-a", "t-loop-a"]
    assert opened.steps("t-good-a")["step"].to_list() == [0, 1, 2, 3, 4]


def test_events_by_trajectory_kind_and_version(opened: OpenLake) -> None:
    assert set(opened.events("t-good-a")["trajectory_id"]) == {"t-good-a"}
    verdicts = opened.events(kind="verdict")
    assert set(verdicts["kind"]) == {"verdict"}
    assert verdicts["verdict"].struct.field("label").null_count() == 0
    assert len(opened.events(version=1)) == len(opened.events()) - len(opened.events("t-<b>later"))


def test_retracted_events_are_left_out(lake: Lake) -> None:
    lakes.build(lake)
    opened = stepwell.open(lake.uri)
    target = opened.events("t-good-a", "action")["event_id"][0]
    gone = Event("retraction", "t-good-a", "demo", "human", {"target_event": target, "action": "supersede"})
    down = Event("retraction", "t-good-b", "demo", "human", {"action": "takedown"})
    before = opened.events("t-good-a").height
    EventLog(opened.lake).append([gone, down], "retract")
    assert target not in opened.events("t-good-a")["event_id"]
    assert target not in opened.events("t-good-a", "action")["event_id"]
    assert opened.events("t-good-a").height == before, "one less, and its retraction"
    assert opened.events("t-good-b").is_empty()
    assert opened.events("t-good-b", "action").is_empty()


def test_sql_takes_parameters_and_only_reads(opened: OpenLake) -> None:
    counted = opened.sql("SELECT count(*) AS n FROM trajectories WHERE corpus = ?", ["demo"])
    assert counted["n"].to_list() == [2]
    assert opened.question("resolve_rate").columns[:2] == ["model", "corpus"]
    odd = opened.sql("SELECT INTERVAL 1 DAY AS d, union_value(a := 1) AS u, 2 AS d")
    assert odd.rows(named=True) == [{"d": "1 day", "u": "1", "d_1": 2}]
    with pytest.raises(UsageError, match="allowed: one SELECT"):
        opened.sql("DROP TABLE trajectories")


def test_names_that_are_not_there_are_told(opened: OpenLake, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown dataset 'srft'"):
        opened.dataset("srft")
    for wrong, said in (
        (lambda: opened.events(kind="verdit"), "unknown event kind 'verdit'; allowed: action, "),
        (lambda: opened.events("nobody"), "unknown trajectory 'nobody'; allowed: t-good-a, "),
        (lambda: opened.events(""), "unknown trajectory ''"),
        (lambda: opened.steps("nobody"), "unknown trajectory 'nobody'"),
        (lambda: opened.trajectories("nope"), "unknown corpus 'nope'; allowed: demo, "),
        (lambda: opened.impact("x", "task"), "unknown task 'x'; allowed: task-"),
        (lambda: opened.impact("x"), "unknown name 'x'; allowed: .*demo, "),
    ):
        with pytest.raises(UnknownName, match=said):
            wrong()
    assert opened.steps("t-<b>later").is_empty(), "it is in the log and not folded yet"
    assert opened.events("t-<b>later", version=0).is_empty()
    assert opened.events("t-good-a", kind="retraction").is_empty()
    with pytest.raises(LakeError, match="no table 'nothing'"):
        opened.versions("nothing")
    assert stepwell.open(str(tmp_path / "none")).versions().is_empty()


def test_lineage_is_a_frame_a_text_and_a_picture(opened: OpenLake) -> None:
    traced = opened.trace("t-good-a")
    assert traced.frame.row(0)[:3] == (0, "trajectory", "t-good-a")
    assert str(traced).startswith("trajectory t-good-a")
    assert "<svg" in traced._repr_html_()
    touched = opened.impact("t-good-a", "trajectory")
    assert touched.frame["kind"][0] == "trajectory"
    assert touched.frame.schema == traced.frame.schema


def test_versions_and_tables(opened: OpenLake) -> None:
    versions = opened.versions()
    assert versions["version"].to_list() == [2, 1, 0]
    assert versions.schema["written_at"] == pl.Datetime("ms", "UTC")
    behind = dict(opened.tables().select("table", "behind").iter_rows())
    assert (behind["trajectories"], behind["events"]) == (1, None)


def test_it_shows_itself(opened: OpenLake) -> None:
    assert repr(opened).splitlines()[0] == f"Lake at {opened.lake.uri}"
    assert "trajectories" in repr(opened)
    shown = opened._repr_html_()
    assert "<td>events</td><td>2</td>" in shown
    assert "<b>later" not in opened.trace("t-<b>later")._repr_html_(), "names are escaped"


def test_the_default_is_the_lake_of_the_environment(opened: OpenLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_LAKE", opened.lake.uri)
    assert stepwell.open().lake.uri == opened.lake.uri
