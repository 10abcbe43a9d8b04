"""Ratings: verdict events as a frame, one row a verdict that holds, and the two raters of one step side by side.

Belongs here: which verdict counts, and what it says as a class. Does not belong here: any figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.kinds import LABELS
from stepwell.critics.turns import retracted

COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "actor", "policy", "recorded_at", "caused_by", "verdict", "outcome",
    "attempt", "retraction",
)  # fmt: skip
"""Columns of `events` that an audit reads."""
KINDS = ("verdict", "outcome", "attempt", "retraction")
"""Kinds of events that an audit reads."""

NONE, UNPARSEABLE = len(LABELS), len(LABELS) + 1
CLASSES = (*LABELS, "none", "unparseable")
"""What a rater can have said of a step: a label, nothing (not judged, or a tie), or something nobody can read."""
SEVERITIES = 3
MISTAKES = (
    "step_repetition", "problem_misidentification", "tool_selection", "hallucination", "information_processing",
    "task_derailment", "goal_deviation",
)  # fmt: skip
"""Categories that make a flagged window a mistake (METHODS.md section 7, cross-conversions)."""
Codes = npt.NDArray[np.int64]
_FIELDS = (
    "scope", "window_from", "window_to", "label", "severity", "guidance", "judgment", "confidence", "parse_status",
    "candidate",
)  # fmt: skip
_LONGEST = 10_000  # steps in a window; a longer one is a broken verdict
_KEY = ["trajectory_id", "first", "last"]


def verdicts(events: pa.Table) -> pl.DataFrame:
    """The verdicts that hold, flattened, in no particular order; `categories` is null where none are stated."""
    frame = _of_kind(events, "verdict", ("event_id", "trajectory_id", "step", "actor", "policy", "caused_by"))
    fields = [pl.col("verdict").struct.field(name) for name in _FIELDS]
    detections = pl.col("verdict").struct.field("detections")
    categories = detections.list.eval(pl.element().struct.field("category")).list.drop_nulls().alias("categories")
    evidence = detections.list.eval(pl.element().struct.field("evidence")).list.join(" ").alias("evidence")
    return frame.with_columns(*fields, categories, evidence).drop("verdict")


def outcomes(events: pa.Table) -> pl.DataFrame:
    """The last grading of every trajectory and attempt: trajectory_id, subject, resolved (never null)."""
    frame = _of_kind(events, "outcome", ("event_id", "trajectory_id", "recorded_at"))
    field = pl.col("outcome").struct.field
    rows = frame.with_columns(field("subject").fill_null("trajectory"), field("resolved"), field("rerun").fill_null(0))
    last = rows.sort("rerun", "recorded_at", "event_id").group_by("trajectory_id", "subject").last()
    return last.filter(pl.col("resolved").is_not_null()).select("trajectory_id", "subject", "resolved")


def attempts(events: pa.Table) -> pl.DataFrame:
    """Attempts by the event that submitted them: caused_by, subject."""
    frame = _of_kind(events, "attempt", ("event_id",))
    subject = pl.col("attempt").struct.field("attempt_id").alias("subject")
    return frame.select(pl.col("event_id").alias("caused_by"), subject)


def ratings(
    frame: pl.DataFrame, policies: Sequence[str], windows: bool = False, actor: str | None = None
) -> pl.DataFrame:
    """One row a rater and unit (`policy`, `trajectory_id`, `first`, `last`), of its lowest candidate.

    A unit is a step, or a window judged as one. With `windows` every window is laid over the steps it covers, a step's
    own verdict first, then the window that ended earliest, and what has no label gets one from what it flags. `class`
    indexes CLASSES; what cannot be read states nothing else. `actor` narrows the raters to one role.
    """
    rows = frame.filter(pl.col("policy").is_in(list(policies)), pl.col("scope").is_in(["step", "window"]))
    if actor is not None:
        rows = rows.filter(pl.col("actor") == actor)
    is_window = pl.col("scope") == "window"
    first = pl.when(is_window).then(pl.col("window_from")).otherwise(pl.col("step"))
    last = pl.when(is_window).then(pl.col("window_to")).otherwise(pl.col("step"))
    rows = rows.with_columns(first=first, last=last, candidate=pl.col("candidate").fill_null(0), window=is_window)
    rows = rows.filter(pl.col("first") >= 0, pl.col("last") - pl.col("first") < _LONGEST, first <= last)
    if windows:
        rows = rows.with_columns(label=pl.coalesce("label", _from_flags()), ended=pl.col("last"))
        rows = rows.with_columns(first=pl.int_ranges("first", pl.col("last") + 1)).explode("first", empty_as_null=True)
        rows = rows.with_columns(pl.col("first").cast(pl.Int32), last=pl.col("first").cast(pl.Int32))
    else:
        rows = rows.with_columns(ended=pl.col("last"))
    readable = (pl.col("parse_status") != "unparseable").fill_null(True)
    known = pl.col("label").replace_strict(list(LABELS), list(range(len(LABELS))), default=NONE, return_dtype=pl.Int64)
    severity = pl.when(readable & pl.col("severity").is_between(0, SEVERITIES - 1)).then("severity")
    rows = rows.with_columns(
        pl.when(readable).then(known).otherwise(UNPARSEABLE).alias("class"),
        severity.alias("severity"),
        *(pl.when(readable).then(name).alias(name) for name in ("categories", "guidance", "confidence")),
    )
    ranked = rows.sort("window", "candidate", "ended", "event_id")
    return ranked.unique(["policy", *_KEY], keep="first", maintain_order=True).sort("policy", *_KEY)


def step_labels(events: pa.Table, policy: str, unresolved: bool = True) -> tuple[Codes, Codes]:
    """What a policy says of steps, as plain arrays: labels (steps,) that index LABELS, and 0-based trajectories (steps,).

    With `unresolved` the steps of resolved trajectories are left out, which SRFT learns from whatever they are labelled.
    """
    rated = ratings(verdicts(events), [policy]).filter(pl.col("class") < len(LABELS))
    if unresolved:
        resolved = outcomes(events).filter(pl.col("subject") == "trajectory", pl.col("resolved"))
        rated = rated.join(resolved, on="trajectory_id", how="anti")
    return rated["class"].to_numpy(), (rated["trajectory_id"].rank("dense").cast(pl.Int64) - 1).to_numpy()


def side_by_side(rated: pl.DataFrame, critic: str, truth: str) -> pl.DataFrame:
    """Units that either rated in trajectories both judged; what the truth says in columns that end in `_truth`."""
    kept = [*_KEY, "class", "severity", "categories", "confidence", "guidance"]
    a = rated.filter(pl.col("policy") == critic).select(kept)
    b = rated.filter(pl.col("policy") == truth).select(kept)
    both = a.select("trajectory_id").unique().join(b.select("trajectory_id").unique(), on="trajectory_id")
    joined = a.join(b, on=_KEY, how="full", suffix="_truth", coalesce=True).join(both, on="trajectory_id")
    return joined.with_columns(pl.col("class", "class_truth").fill_null(NONE)).sort(_KEY)


def _from_flags() -> pl.Expr:
    flagged = pl.col("categories").list.eval(pl.element().is_in(MISTAKES)).list.any()
    nothing = (pl.col("severity") == 0) & (pl.col("categories").list.len() == 0).fill_null(True)
    return pl.when(flagged).then(pl.lit("mistake")).when(nothing).then(pl.lit("good"))


def _of_kind(events: pa.Table, kind: str, columns: Sequence[str]) -> pl.DataFrame:
    gone, down = retracted(events)
    frame = pl.DataFrame(events.select(["kind", *columns, kind])).filter(pl.col("kind") == kind).drop("kind")
    held = ~pl.col("event_id").is_in(sorted(gone))
    if "trajectory_id" in columns:
        held &= ~pl.col("trajectory_id").is_in(sorted(down))
    return frame.filter(held)
