"""Calibration: is a critic right as often as it says, and do its judgments foretell the outcome.

Belongs here: confidence against truth, judgments and flags against gradings. Does not belong here: agreement on labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from schemas.kinds import LABELS
from stepwell.bootstrap import WEIGHTS, Array, Statistic, Sums, ratio
from stepwell.critics.audit.intervention import MISTAKE, group_sums
from stepwell.critics.audit.ratings import Codes

BINS = 10
_CORRECT, _INCORRECT, _UNREADABLE = 0, 1, 2


@dataclass(frozen=True)
class Bin:
    """One line of a reliability table: units whose confidence is in [low, high], how sure they are, how often right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


def confidence(
    stated: Array, right: Array, groups: Codes, n_groups: int, bins: int = BINS
) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """ECE over bins of equal mass and the Brier score of confidences (units,) in [0, 1] and whether they were right.

    The bins are those of the whole sample in every draw. ECE is biased upwards in small samples: its interval may lie
    above its value.
    """
    edges = _edges(stated, bins)
    place = np.searchsorted(edges, stated, side="left")
    cells = np.zeros((len(stated), len(edges) + 1, 2))
    cells[np.arange(len(stated)), place] = np.stack([stated, right], -1)
    per_unit = np.stack([(stated - right) ** 2, right, np.ones(len(stated))], -1)
    sums = {
        "bins": group_sums(cells, groups, n_groups),
        "units": group_sums(per_unit, groups, n_groups),
    }

    def ece(s: Sums) -> tuple[Array, Array]:
        gap = np.abs(np.subtract(s["bins"][..., 0], s["bins"][..., 1])).sum(-1)
        return ratio(gap, s["units"][:, 2])

    return sums, {
        "ece": ece,
        "brier": lambda s: ratio(s["units"][:, 0], s["units"][:, 2]),
        "right": lambda s: ratio(s["units"][:, 1], s["units"][:, 2]),
    }


def reliability(stated: Array, right: Array, bins: int = BINS) -> list[Bin]:
    """The reliability table, bins of equal mass, empty ones left out."""
    place = np.searchsorted(_edges(stated, bins), stated, side="left")
    table = []
    for b in np.unique(place):
        held, hits = stated[place == b], right[place == b]
        table.append(Bin(float(held.min()), float(held.max()), len(held), float(held.mean()), float(hits.mean())))
    return table


def step_confidence(pairs: pl.DataFrame) -> pl.DataFrame:
    """Labelled units with a confidence: group, stated (that the label is right), right."""
    n = len(LABELS)
    kept = pairs.filter(pl.col("confidence").is_between(0, 1), pl.col("class") < n, pl.col("class_truth") < n)
    right = (pl.col("class") == pl.col("class_truth")).cast(pl.Float64)
    return kept.select("group", pl.col("confidence").alias("stated"), right.alias("right"))


def judged(frame: pl.DataFrame, critic: str, attempts: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """The critic's judgments of graded trajectories and attempts: trajectory_id, subject, judgment, confidence, resolved.

    An attempt is known by the event its verdict answers. Of several candidates the first counts.
    """
    rows = frame.filter(pl.col("policy") == critic, pl.col("scope").is_in(["trajectory", "attempt"]))
    rows = rows.join(attempts, on="caused_by", how="left").with_columns(
        pl.when(pl.col("scope") == "trajectory").then(pl.lit("trajectory")).otherwise("subject").alias("subject"),
        pl.when(pl.col("parse_status") != "unparseable").then("judgment").alias("judgment"),
    )  # fmt: skip
    first = rows.sort(pl.col("candidate").fill_null(0), "event_id").unique(["trajectory_id", "subject"], keep="first")
    kept = first.select("trajectory_id", "subject", "judgment", "confidence")
    return kept.join(outcomes, on=["trajectory_id", "subject"]).sort("trajectory_id", "subject")


def flagged(rated: pl.DataFrame, critic: str, outcomes: pl.DataFrame) -> pl.DataFrame:
    """Graded trajectories whose steps or windows the critic judged: trajectory_id, share of them flagged, resolved.

    Flagged is a mistake, or a severity above 0.
    """
    flag = (pl.col("class") == MISTAKE) | (pl.col("severity") > 0).fill_null(False)
    by_stream = rated.filter(pl.col("policy") == critic).group_by("trajectory_id").agg(flag.mean().alias("share"))
    graded = outcomes.filter(pl.col("subject") == "trajectory").drop("subject")
    return by_stream.join(graded, on="trajectory_id").sort("trajectory_id")


def judgment_statistics(rows: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Judgments against outcomes: accuracy (an unreadable judgment is wrong; lenient: left out), F1 of either class, AUC.

    AUC is of the probability of being resolved (see `probability`).
    """
    said = rows["judgment"].replace_strict([True, False], [_CORRECT, _INCORRECT], default=_UNREADABLE).to_numpy()
    resolved = rows["resolved"].cast(pl.Float64).to_numpy()
    groups = rows["group"].to_numpy()
    cells = np.zeros((len(rows), 3, 2))
    cells[np.arange(len(rows)), said, (1 - resolved).astype(int)] = 1
    sums = {"judged": group_sums(cells, groups, n_groups)}

    def f_of(i: int) -> Statistic:
        def statistic(s: Sums) -> tuple[Array, Array]:
            true, predicted = s["judged"][:, :, i].sum(-1), s["judged"][:, i].sum(-1)
            return ratio(2 * s["judged"][:, i, i], true + predicted)[0], true

        return statistic

    def hits(s: Sums) -> Array:
        return np.asarray(s["judged"][:, 0, 0] + s["judged"][:, 1, 1])

    statistics: dict[str, Statistic] = {
        "judgment_accuracy": lambda s: ratio(hits(s), s["judged"].sum((-1, -2))),
        "judgment_accuracy_lenient": lambda s: ratio(hits(s), s["judged"][:, :2].sum((-1, -2))),
        "judgment_f1_correct": f_of(_CORRECT),
        "judgment_f1_incorrect": f_of(_INCORRECT),
        "resolved_if_judged_correct": lambda s: ratio(s["judged"][:, 0, 0], s["judged"][:, 0].sum(-1)),
        "resolved_if_judged_incorrect": lambda s: ratio(s["judged"][:, 1, 0], s["judged"][:, 1].sum(-1)),
    }
    sure = rows.filter(pl.col("judgment").is_not_null())
    statistics["judgment_auc"] = auc(probability(sure), sure["resolved"].to_numpy(), sure["group"].to_numpy())
    return sums, statistics


def probability(rows: pl.DataFrame) -> Array:
    """Probability (units,) of being resolved that the critic states; where it states none, 1 or 0 as it judges."""
    judged = pl.col("judgment").cast(pl.Float64)
    return rows.select(pl.coalesce(pl.col("confidence").clip(0, 1), judged)).to_series().to_numpy()


def flag_statistics(rows: pl.DataFrame, n_groups: int) -> tuple[dict[str, Array], dict[str, Statistic]]:
    """Flags against outcomes; AUC is of the share of units not flagged, as a score for being resolved."""
    any_flag = (rows["share"] > 0).cast(pl.Int64).to_numpy()
    cells = np.zeros((len(rows), 2, 2))
    cells[np.arange(len(rows)), any_flag, rows["resolved"].cast(pl.Int64).to_numpy()] = 1
    sums = {"flagged": group_sums(cells, rows["group"].to_numpy(), n_groups)}
    score = -rows["share"].to_numpy()
    return sums, {
        "resolved": lambda s: ratio(s["flagged"][:, :, 1].sum(-1), s["flagged"].sum((-1, -2))),
        "flagged": lambda s: ratio(s["flagged"][:, 1].sum(-1), s["flagged"].sum((-1, -2))),
        "resolved_if_flagged": lambda s: ratio(s["flagged"][:, 1, 1], s["flagged"][:, 1].sum(-1)),
        "resolved_if_not_flagged": lambda s: ratio(s["flagged"][:, 0, 1], s["flagged"][:, 0].sum(-1)),
        "flag_accuracy": lambda s: ratio(s["flagged"][:, 0, 1] + s["flagged"][:, 1, 0], s["flagged"].sum((-1, -2))),
        "flag_auc": auc(score, rows["resolved"].to_numpy(), rows["group"].to_numpy()),
    }


def auc(score: Array, positive: Sequence[bool] | Array, groups: Codes) -> Statistic:
    """Probability that a positive unit scores above a negative one, ties one half; exact in every draw.

    n is the number of units.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    is_positive, group = np.asarray(positive, np.float64)[order], groups[order]

    def statistic(s: Sums) -> tuple[Array, Array]:
        weights = s[WEIGHTS][:, group]
        if not len(starts):
            return np.full(len(weights), np.nan), np.zeros(len(weights))
        above = np.add.reduceat(weights * is_positive, starts, axis=1)
        below = np.add.reduceat(weights * (1 - is_positive), starts, axis=1)
        won = (above * (below.cumsum(-1) - below / 2)).sum(-1)
        return ratio(won, above.sum(-1) * below.sum(-1))[0], weights.sum(-1)

    return statistic


def _edges(stated: Array, bins: int) -> Array:
    """Upper edges between bins of equal mass; equal confidences stay in one bin."""
    return np.unique(np.quantile(stated, np.arange(1, bins) / bins, method="inverted_cdf")) if len(stated) else stated
