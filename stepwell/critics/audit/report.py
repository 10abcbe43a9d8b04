"""The audit: everything measured of one critic against one truth, in one result.

Belongs here: putting the parts together and saying what the figures are of. Does not belong here: how they are computed
(`agreement`, `intervention`, `calibration`) or shown (`tables`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.kinds import LABELS
from stepwell.bootstrap import Array, Figure, Sums, figures
from stepwell.critics.audit import agreement, calibration, intervention, needed
from stepwell.critics.audit.agreement import Score
from stepwell.critics.audit.calibration import Bin
from stepwell.critics.audit.intervention import Category
from stepwell.critics.audit.ratings import (
    CLASSES,
    SEVERITIES,
    attempts,
    outcomes,
    ratings,
    side_by_side,
    verdicts,
)  # fmt: skip
from stepwell.critics.audit.training import Kind, Training
from stepwell.errors import UsageError

TRUTH = "ground-truth@1"
_N = len(LABELS)


@dataclass(frozen=True)
class Audit:
    """A critic against a truth. `confusion[i][j]`: units of true class i that the critic called class j, of CLASSES.

    `kind` says whether the figures are an evaluation: they are a `training-fit` when any audited trajectory is in the
    critic's training data, and `unknown` when nobody recorded what that was, or none is in what is left of data that a
    redaction took rows from (`erased`). `scores` take the truth as true, `reverse`
    the critic. What cannot be computed is None, with its n.
    """

    critic: str
    truth: str
    others: tuple[str, ...]
    kind: Kind
    trained_on: tuple[str, ...]
    n_trained_on: int
    erased: tuple[str, ...]
    label_granularity: Literal["step", "window"]
    n_steps: int
    n_trajectories: int
    n_not_judged: int
    n_graded: int
    confusion: list[list[int]]
    severity_confusion: list[list[int]]
    scores: list[Score]
    reverse: list[Score]
    agreement: dict[str, Figure]
    intervention: dict[str, Figure]
    categories: list[Category]
    first_error: dict[str, Figure]
    confidence: dict[str, Figure]
    reliability: list[Bin]
    judgments: dict[str, Figure]
    judgment_reliability: list[Bin]
    flags: dict[str, Figure]
    draws: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The audit as one JSON document."""
        return asdict(self) | {"classes": list(CLASSES)}


def audit(
    events: pa.Table,
    critic: str,
    truth: str = TRUTH,
    draws: int = 2000,
    seed: int = 0,
    *,
    truth_actor: str | None = None,
    others: Sequence[str] = (),
    windows: bool = False,
    training: Training | None = None,
) -> Audit:
    """Compare a critic's verdicts with a truth's, and with outcomes; `events` of `KINDS` with `COLUMNS`, in any order.

    Steps of trajectories the critic never judged are counted in `n_not_judged` and left out. `others` join critic and
    truth in Krippendorff's alpha. With `windows`, verdicts on windows are laid over their steps. Intervals are by
    trajectory. Raises UsageError when there is nothing to compare: no step of both, no judgment that was graded.
    """
    frame = verdicts(events)
    named = (
        frame if truth_actor is None else frame.filter((pl.col("policy") != truth) | (pl.col("actor") == truth_actor))
    )
    rated = ratings(named, [critic, truth, *others], windows)
    pairs, graded = _grouped(side_by_side(rated, critic, truth)), outcomes(events)
    judged = _grouped(calibration.judged(frame, critic, attempts(events), graded))
    flagged = _grouped(calibration.flagged(rated, critic, graded))
    if not len(pairs) and not len(judged):
        have = sorted(frame["policy"].drop_nulls().unique())
        raise UsageError(
            f"no step has a verdict of both {critic!r} and {truth!r}, and no graded trajectory a judgment of {critic!r}; "
            f"policies with verdicts: {', '.join(have) or 'none'}. Name two of these, or run `stepwell judge` first."
        )
    measure = partial(figures, draws=draws, seed=seed)
    n = pairs["group"].n_unique()
    groups = pairs["group"].to_numpy()
    matrix = agreement.confusion(pairs["class_truth"].to_numpy(), pairs["class"].to_numpy(), groups, n, len(CLASSES))
    whole = matrix.sum(0)
    sums = {"confusion": matrix}
    severity_sums, severity = intervention.severity(pairs, n)
    speech_sums, speech = intervention.speech(pairs, n)
    spoken = _grouped(needed.needed(rated if not windows else ratings(named, [critic, truth]), critic, truth))
    names, category_sums, category = intervention.categories(pairs, n)
    sure = calibration.step_confidence(pairs)
    stated, right = sure["stated"].to_numpy(), sure["right"].to_numpy()
    told = judged.filter(pl.col("confidence").is_between(0, 1))
    n_judged = judged["group"].n_unique()
    resolved = told["resolved"].cast(pl.Float64).to_numpy()
    judgment_sums, judgment = calibration.judgment_statistics(judged, n_judged)
    calibration_sums, calibrated = calibration.confidence(
        calibration.probability(told), resolved, told["group"].to_numpy(), n_judged
    )
    audited = {*pairs["trajectory_id"], *judged["trajectory_id"], *flagged["trajectory_id"]}
    learnt = training or Training()
    return Audit(
        critic=critic,
        truth=truth,
        others=tuple(others),
        kind=learnt.kind(audited),
        trained_on=learnt.datasets,
        n_trained_on=len(learnt.trajectory_ids & audited),
        erased=learnt.erased,
        label_granularity="window" if windows else "step",
        n_steps=int(whole[:_N].sum()),
        n_trajectories=n,
        n_not_judged=_not_judged(rated, critic, truth),
        n_graded=len({*judged["trajectory_id"], *flagged["trajectory_id"]}),
        confusion=whole.astype(int).tolist(),
        severity_confusion=severity_sums["severity"].sum(0).astype(int).tolist(),
        scores=agreement.scores(measure(sums, agreement.label_statistics("confusion")), whole),
        reverse=agreement.scores(measure(sums, agreement.label_statistics("confusion", reverse=True)), whole.T),
        agreement=measure(sums, agreement.overall_statistics("confusion")) | _alphas(rated, pairs, measure),
        intervention=measure(severity_sums, severity)
        | measure(*needed.statistics(spoken, spoken["group"].n_unique()))
        | measure(speech_sums, speech),
        categories=intervention.category_figures(names, measure(category_sums, category), category_sums),
        first_error=measure(*intervention.first_error(pairs, n)),
        confidence=measure(*calibration.confidence(stated, right, sure["group"].to_numpy(), n)),
        reliability=calibration.reliability(stated, right),
        judgments=measure(judgment_sums, judgment) | measure(calibration_sums, calibrated),
        judgment_reliability=calibration.reliability(calibration.probability(told), resolved),
        flags=measure(*calibration.flag_statistics(flagged, len(flagged))),
        draws=draws,
        seed=seed,
    )


def _grouped(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with `group`, the 0-based rank of their trajectory."""
    return rows.with_columns((pl.col("trajectory_id").rank("dense").cast(pl.Int64) - 1).alias("group"))


def _not_judged(rated: pl.DataFrame, critic: str, truth: str) -> int:
    judged = rated.filter(pl.col("policy") == critic).select("trajectory_id").unique()
    true = rated.filter(pl.col("policy") == truth, pl.col("class") < _N)
    return len(true.join(judged, on="trajectory_id", how="anti"))


def _alphas(rated: pl.DataFrame, pairs: pl.DataFrame, measure: partial[dict[str, Figure]]) -> dict[str, Figure]:
    """Krippendorff's alpha of all raters on the audited trajectories, of labels (nominal) and severities (ordinal)."""
    streams = pairs.select("trajectory_id", "group").unique()
    within = rated.join(streams, on="trajectory_id")
    found: dict[str, Figure] = {}
    for name, column, size in (("alpha", "class", _N), ("alpha_severity", "severity", SEVERITIES)):
        kept = within.filter(pl.col(column) < size)
        counts = kept.group_by("group", "first", "last").agg(
            (pl.col(column) == i).sum().alias(str(i)) for i in range(size)
        )
        per_unit = agreement.coincidences(counts.select(map(str, range(size))).to_numpy().astype(np.float64))
        sums = intervention.group_sums(per_unit, counts["group"].to_numpy(), len(streams))
        statistic = partial(_alpha, ordinal=column == "severity")
        found |= measure({"coincidence": sums}, {name: statistic})
    return found


def _alpha(sums: Sums, ordinal: bool) -> tuple[Array, Array]:
    return agreement.alpha(sums["coincidence"], ordinal)
