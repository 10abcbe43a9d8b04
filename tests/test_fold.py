"""Folds: incremental equals from scratch, and only what is new is folded."""

from __future__ import annotations

import random

import polars as pl
from lakes import build, good_repair, looping
from polars.testing import assert_frame_equal

from schemas.tables import TABLES
from stepwell.event import Event
from stepwell.fold import refresh, seen
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.stored import require_schema


def rows(lake: Lake, name: str) -> pl.DataFrame:
    key = list(TABLES[name].key)
    return pl.DataFrame(lake.read(name)).sort(key)


def test_folds_have_exactly_their_schema_and_the_known_facts(lake: Lake) -> None:
    build(lake)
    refresh(lake)
    for name in ("trajectories", "steps"):
        require_schema(TABLES[name], lake.read(name))
    facts = {r["trajectory_id"]: r for r in rows(lake, "trajectories").to_dicts()}
    good, loop = facts["t-good-a"], facts["t-loop-a"]
    assert (good["n_steps"], good["resolved"], good["submitted"], good["exit_status"]) == (5, True, True, "submitted")
    assert (good["n_failed_commands"], good["n_format_errors"]) == (1, 0)
    assert (loop["resolved"], loop["n_format_errors"]) == (False, 1)
    assert abs(good["cost_usd"] - 0.05) < 1e-9
    assert facts["t-waste-b"]["cost_usd"] is None, "an unknown cost stays unknown"
    steps = rows(lake, "steps").filter(pl.col("trajectory_id") == "t-good-a")
    assert steps["step"].to_list() == [0, 1, 2, 3, 4]
    assert steps["command"].to_list()[1] == "sub 9 a b"
    assert steps["exit_code"].to_list()[1] == 1


def test_a_refresh_folds_only_what_is_new(lake: Lake) -> None:
    build(lake)
    assert [f.n_trajectories for f in refresh(lake)] == [5, 5]
    assert [f.n_trajectories for f in refresh(lake)] == [0, 0]
    EventLog(lake).append(good_repair("t-new"), "more")
    assert [f.n_trajectories for f in refresh(lake)] == [1, 1]
    assert seen(lake, "trajectories") == EventLog(lake).version


def test_incremental_equals_from_scratch(lake: Lake) -> None:
    events = [*good_repair("a"), *looping("b"), *good_repair("c", resolved=None)]
    late = Event("outcome", "c", "demo", "grader", {"subject": "trajectory", "resolved": False, "grader": "late@1"})
    random.Random(0).shuffle(events)
    log = EventLog(lake)
    for start in range(0, len(events), 7):
        log.append(events[start : start + 7], f"part-{start}")
        refresh(lake)
    log.append([late], "late")
    refresh(lake)
    other = Lake(f"{lake.uri}-scratch")
    EventLog(other).append([*events, late], "all")
    refresh(other)
    for name in ("trajectories", "steps"):
        assert_frame_equal(rows(lake, name), rows(other, name))


def test_the_last_rerun_of_the_grader_counts(lake: Lake) -> None:
    log = EventLog(lake)
    log.append(good_repair("a", resolved=False), "b")
    outcome = {"subject": "trajectory", "resolved": True, "grader": "demo-tests@1", "rerun": 1}
    log.append([Event("outcome", "a", "demo", "grader", outcome)], "again")
    refresh(lake)
    assert rows(lake, "trajectories")["resolved"].to_list() == [True]
