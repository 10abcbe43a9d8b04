"""Folds: events in, `trajectories` and `steps` out; only what is new since the version they recorded is folded.

A fold is a pure function over whole trajectories. The version of `events` it has seen is an application transaction of the
folded table, written with the rows themselves, so the two can never disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, Transaction
from deltalake.exceptions import CommitFailedError

from schemas.steps import STEPS
from schemas.trajectories import TRAJECTORIES
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.stored import require_schema

APP = "fold"
_ENVELOPE = [
    "event_id", "corpus", "trajectory_id", "step", "kind", "actor", "policy", "occurred_at", "recorded_at",
    "usage", "retraction",
]  # fmt: skip
_READS = {
    "trajectories": [*_ENVELOPE, "task", "start", "action", "observation", "end", "outcome"],
    "steps": [*_ENVELOPE, "turn", "action", "observation"],
}
_BATCH = 500
_TRIES = 200


@dataclass(frozen=True)
class Folded:
    """What a refresh did: trajectories folded anew and the version of `events` now seen."""

    table: str
    n_trajectories: int
    events_version: int | None


def refresh(lake: Lake) -> list[Folded]:
    """Bring `trajectories` and `steps` up to the current version of `events`."""
    return [refresh_table(lake, name) for name in FOLDS]


def refresh_table(lake: Lake, name: str) -> Folded:
    """Bring one folded table up to the current version of `events`; done again where another process did so meanwhile.

    Raises LakeError when others commit to the table each time.
    """
    for _ in range(_TRIES):
        try:
            return _refresh(lake, name, FOLDS[name])
        except CommitFailedError:  # an object store has no lock
            continue
    raise LakeError(f"could not refresh {name!r} in {_TRIES} tries: other writers hold it. Try again when they stop.")


def seen(lake: Lake, name: str) -> int | None:
    """Version of `events` a folded table was made from; None before the first fold."""
    handle = lake.table(name)
    return None if handle is None else handle.transaction_version(APP)


def _refresh(lake: Lake, name: str, fold: Callable[[pa.Table], pa.Table]) -> Folded:
    log = EventLog(lake)
    with lake.lock(name):
        handle = lake.create(name)
        since = handle.transaction_version(APP)
        until = log.version
        if until is None or since == until:
            return Folded(name, 0, until)
        changed = log.changed(since, until)
        parts = [fold(rows) for rows in log.batches(changed, until, _BATCH, _READS[name])]
        schema = lake.spec(name).schema
        folded = pa.concat_tables(parts) if parts else schema.empty_table()
        require_schema(lake.spec(name), folded)
        properties = CommitProperties(app_transactions=[Transaction(APP, until)])
        lake.put(handle, name, folded, properties, None if since is None else changed)
        return Folded(name, len(changed), until)


def fold_trajectories(events: pa.Table) -> pa.Table:
    """Events of whole trajectories in canonical order -> rows of `trajectories`, sorted by id.

    The outcome is that of the last rerun of the grader about the trajectory; totals of the source win over sums of steps.
    """
    frame = _frame(events)
    key = ["trajectory_id"]
    start = _last(frame, "start").select("trajectory_id", "task_id", "agent", "model", "run_id", "seed")
    task = _last(frame, "task").select("trajectory_id", "repo", "split", task_of="task_id")
    end = _last(frame, "end").select(
        "trajectory_id", "exit_status", "submission", end_in="tokens_in", end_out="tokens_out", end_cost="cost_usd"
    )
    graded = frame.filter(pl.col("kind") == "outcome").filter(
        pl.col("outcome").struct.field("subject").fill_null("trajectory") == "trajectory"
    )
    graded = graded.sort(pl.col("outcome").struct.field("rerun").fill_null(0), "recorded_at", maintain_order=True)
    outcome = _last(graded, "outcome").select("trajectory_id", "resolved", "grader")
    actions = frame.filter(pl.col("kind").is_in(["action", "attempt"])).with_columns(
        pl.col("action").struct.field("parse_error"), pl.col("usage").struct.unnest()
    )
    acted = actions.group_by(key).agg(
        pl.col("step").n_unique().cast(pl.Int32).alias("n_steps"),
        pl.col("parse_error").is_not_null().sum().cast(pl.Int32).alias("n_format_errors"),
        _sum("tokens_in"),
        _sum("tokens_out"),
        _sum("cost_usd").alias("step_cost_usd"),
    )
    observed = (
        frame.filter(pl.col("kind") == "observation")
        .with_columns(pl.col("observation").struct.field("exit_code"))
        .group_by(key)
        .agg((pl.col("exit_code") != 0).sum().cast(pl.Int32).alias("n_failed_commands"))
    )
    rows = (
        frame.group_by(key)
        .agg(
            pl.col("corpus").first(),
            pl.len().cast(pl.Int32).alias("n_events"),
            pl.col("occurred_at").min().alias("started_at"),
            pl.col("occurred_at").max().alias("ended_at"),
        )
        .join(start, on=key, how="left")
        .join(task, on=key, how="left")
        .join(end, on=key, how="left")
        .join(outcome, on=key, how="left")
        .join(acted, on=key, how="left")
        .join(observed, on=key, how="left")
        .with_columns(
            pl.coalesce("task_id", "task_of").alias("task_id"),
            pl.coalesce("end_in", "tokens_in").alias("tokens_in"),
            pl.coalesce("end_out", "tokens_out").alias("tokens_out"),
            pl.coalesce("end_cost", "step_cost_usd").alias("cost_usd"),
            (pl.col("submission").fill_null("").str.strip_chars() != "").alias("submitted"),
            pl.col("n_steps", "n_format_errors", "n_failed_commands").fill_null(0),
        )
        .sort("trajectory_id")
    )
    return _as(rows, TRAJECTORIES.schema)


def fold_steps(events: pa.Table) -> pa.Table:
    """Events of whole trajectories in canonical order -> rows of `steps`, sorted by trajectory and step."""
    frame = _frame(events)
    key = ["trajectory_id", "step"]
    action = (
        frame.filter(pl.col("kind") == "action")
        .with_columns(
            pl.col("action").struct.unnest(), pl.col("usage").struct.field("tokens_in", "tokens_out", "cost_usd")
        )
        .unique(key, keep="last", maintain_order=True)
        .select(
            *key,
            "corpus",
            "actor",
            "policy",
            pl.col("text").fill_null("").alias("text"),
            "thought",
            "command",
            "parse_error",
            "tokens_in",
            "tokens_out",
            "cost_usd",
            "occurred_at",
            action_event="event_id",
            state_before="state_hash",
        )
    )
    observation = (
        frame.filter(pl.col("kind") == "observation")
        .with_columns(pl.col("observation").struct.unnest())
        .with_columns(pl.coalesce("rendered", "raw").alias("shown"), pl.col("position").fill_null(0))
        .sort(*key, "position", maintain_order=True)
        .group_by(key, maintain_order=True)
        .agg(
            pl.col("shown").drop_nulls().str.join("\n").alias("observation"),
            pl.col("exit_code").last(),
            pl.col("duration_s").sum(),
            pl.col("duration_s").count().alias("n_durations"),
            pl.col("state_hash").last().alias("state_after"),
            pl.col("event_id").last().alias("observation_event"),
        )
        .with_columns(pl.when(pl.col("n_durations") > 0).then("duration_s").alias("duration_s"))
    )
    rows = action.join(observation, on=key, how="left").rename({"text": "action"}).sort(key)
    return _as(rows, STEPS.schema)


def _frame(events: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(live(events))


def _last(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The payload of the last event of a kind per trajectory."""
    rows = frame.filter(pl.col("kind") == kind).unique("trajectory_id", keep="last", maintain_order=True)
    return rows.select("trajectory_id", pl.col(kind).struct.unnest())


def _sum(column: str) -> pl.Expr:
    """Sum of what is known; null when nothing is."""
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum()).alias(column)


def _as(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).to_arrow().cast(schema)


FOLDS: dict[str, Callable[[pa.Table], pa.Table]] = {"trajectories": fold_trajectories, "steps": fold_steps}
