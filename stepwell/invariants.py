"""Invariants of the log and of datasets, as functions that list what breaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Exclude
from stepwell.verdicts import flagged

EVALUATIONS = "evaluations/"
LEAKS = Exclude()


def unique_key(lake: Lake, name: str) -> list[str]:
    """Key values that occur more than once in a table."""
    key = list(lake.spec(name).key)
    frame = pl.DataFrame(lake.read(name, columns=key))
    twice = frame.group_by(key).len().filter(pl.col("len") > 1).sort(key)
    return [f"{name}: {row} stands {row['len']} times" for row in twice.head(100).to_dicts()]


def _kinds(lake: Lake, *kinds: str) -> pl.DataFrame:
    columns = ["event_id", "trajectory_id", "step", "kind", "caused_by", *kinds]
    return pl.DataFrame(EventLog(lake).read(kinds=list(kinds), columns=columns))


def one_action_per_turn(lake: Lake) -> Iterable[str]:
    """One action per turn, and turns numbered from 0 without a gap."""
    actions = pl.DataFrame(EventLog(lake).read(kinds=["action"], columns=["trajectory_id", "step"]))
    turns = actions.group_by("trajectory_id").agg(
        pl.len().alias("n"), pl.col("step").n_unique().alias("unique"), pl.col("step").max().alias("last")
    )
    broken = turns.filter((pl.col("n") != pl.col("unique")) | (pl.col("last") != pl.col("n") - 1)).sort("trajectory_id")
    return [f"trajectory {r['trajectory_id']}: {r['n']} actions, last step {r['last']}" for r in broken.to_dicts()]


def masks_have_evidence(lake: Lake) -> Iterable[str]:
    """Every mask rests on at least one event that exists."""
    masks = pl.DataFrame(EventLog(lake).read(kinds=["mask"], columns=["event_id", "mask"]))
    if not len(masks):
        return []
    evidence = masks.select("event_id", pl.col("mask").struct.field("evidence")).explode("evidence", empty_as_null=True)
    bare = evidence.filter(pl.col("evidence").is_null())["event_id"].to_list()
    known = pl.DataFrame(lake.read("events", columns=["event_id"]))["event_id"]
    lost = evidence.filter(pl.col("evidence").is_not_null() & ~pl.col("evidence").is_in(known.implode()))
    return [f"mask {e} has no evidence" for e in bare] + [
        f"mask {e} rests on an unknown event" for e in lost["event_id"]
    ]


def answers_exist(lake: Lake) -> Iterable[str]:
    """Every event that answers another answers one that is in the log."""
    events = pl.DataFrame(lake.read("events", columns=["event_id", "caused_by"]))
    lost = events.filter(pl.col("caused_by").is_not_null()).join(
        events.select(caused_by="event_id"), on="caused_by", how="anti"
    )
    return [f"event {e} answers an unknown event" for e in sorted(lost["event_id"].to_list())]


def labels_fit_states(lake: Lake) -> Iterable[str]:
    """A teacher's label is for the state the acting policy was in."""
    rows = _kinds(lake, "label", "action")
    labels = rows.filter(pl.col("kind") == "label").select(
        "event_id", "trajectory_id", "step", state=pl.col("label").struct.field("state_hash")
    )
    actions = rows.filter(pl.col("kind") == "action").select(
        "trajectory_id", "step", before=pl.col("action").struct.field("state_hash")
    )
    wrong = labels.join(actions, on=["trajectory_id", "step"]).filter(pl.col("state") != pl.col("before"))
    return [f"label {e} is for another state than its turn" for e in sorted(wrong["event_id"].to_list())]


EVENTS: dict[str, Callable[[Lake], Iterable[str]]] = {
    "one_action_per_turn": one_action_per_turn,
    "masks_have_evidence": masks_have_evidence,
    "answers_exist": answers_exist,
    "labels_fit_states": labels_fit_states,
}


def dataset_rows(lake: Lake, rows: pa.Table) -> list[str]:
    """Rows without a trained token, rows of evaluation tasks, rows whose events are not in the log."""
    idle = rows.filter(pc.equal(rows.column("n_trained_tokens"), 0)).column("row_id").to_pylist()
    where = pc.starts_with(pc.field("corpus"), EVALUATIONS) & (pc.field("kind") == "start")
    started = lake.read("events", columns=["start"], filters=where).column("start").to_pylist()
    held_out = {s["task_id"] for s in started if s["task_id"]}
    leaked = sorted(set(rows.column("task_id").to_pylist()) & held_out)
    known = set(lake.read("events", columns=["event_id"]).column(0).to_pylist())
    lost = [e for ids in rows.column("event_ids").to_pylist() for e in ids if e not in known]
    return (
        [f"row {r} trains no token" for r in idle]
        + [f"evaluation task {t} is in the training rows" for t in leaked]
        + [f"a row rests on unknown event {e}" for e in lost[:20]]
    )


def no_flagged_trajectory(lake: Lake, rows: pa.Table, exclude: Exclude = LEAKS) -> list[str]:
    """Rows of trajectories that a critic flags; by default those in which `leaks@1` saw the solution read or a test gamed.

    A trajectory not judged is no problem here: whether it may be trained on is for `source.exclude` to say.
    """
    ids = sorted(set(rows.column("trajectory_id").to_pylist()))
    columns = ["event_id", "trajectory_id", "kind", "policy", "verdict", "retraction"]
    events = EventLog(lake).read(trajectory_ids=ids, kinds=["verdict", "retraction"], columns=columns)
    found = flagged(events, exclude)
    return [f"trajectory {t} is flagged {c} by {exclude.critic}" for t, c in sorted(found.items()) if c is not None]
