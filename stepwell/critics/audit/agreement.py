"""Agreement of raters: precision and recall by label, kappas and Krippendorff's alpha, over sums that add up.

Belongs here: statistics of confusion and coincidence matrices, vectorised over bootstrap draws. Does not belong here:
reading verdicts (`ratings`). Strict figures count what the predictor did not or cannot say against it, as a class of its
own; lenient figures leave such units out (METHODS.md K4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from schemas.kinds import LABELS
from stepwell.bootstrap import Array, Figure, Statistic, mean_known, ratio
from stepwell.critics.audit.ratings import Codes

_N = len(LABELS)


@dataclass(frozen=True)
class Score:
    """How one rater's use of a label fits another's, which is taken as true."""

    label: str
    prevalence: Figure
    precision: Figure
    recall: Figure
    f1: Figure
    false_alarm: Figure
    recall_lenient: Figure
    f1_lenient: Figure
    n_true: int
    n_predicted: int


def confusion(rows: Codes, columns: Codes, groups: Codes, n_groups: int, size: int) -> Array:
    """Counts (groups, size, size) of units by the class of each rater; all three inputs are (units,)."""
    cell = (groups * size + rows) * size + columns
    return np.bincount(cell, minlength=n_groups * size * size).reshape(n_groups, size, size).astype(np.float64)


def label_statistics(name: str, reverse: bool = False) -> dict[str, Statistic]:
    """Statistics of every label, from the confusion matrix `sums[name]` with true classes in rows (columns, if reverse).

    The last classes after the labels are what is not a label. Keys are `label.figure`.
    """

    def of(figure: Callable[[Array, int], tuple[Array, Array]], i: int) -> Statistic:
        return lambda sums: figure(sums[name].swapaxes(-1, -2) if reverse else sums[name], i)

    return {f"{label}.{key}": of(figure, i) for i, label in enumerate(LABELS) for key, figure in _OF_LABEL.items()}


def overall_statistics(name: str) -> dict[str, Statistic]:
    """Accuracy, macro F1 (over labels that occur) and Cohen's kappa, strict and lenient."""

    def of(part: Callable[[Array], tuple[Array, Array]], width: int | None) -> Statistic:
        return lambda sums: part(sums[name][:, :_N, :width])

    parts: Mapping[str, Callable[[Array], tuple[Array, Array]]] = {
        "accuracy": lambda m: ratio(np.trace(m[:, :, :_N], axis1=1, axis2=2), m.sum((-1, -2))),
        "macro_f1": lambda m: (mean_known(np.stack([f1(m, i)[0] for i in range(_N)], -1)), m.sum((-1, -2))),
        "kappa": lambda m: kappa(_square(m)),
    }
    strict = {key: of(part, None) for key, part in parts.items()}
    return strict | {f"{key}_lenient": of(part, _N) for key, part in parts.items()}


def scores(found: Mapping[str, Figure], total: Array) -> list[Score]:
    """The figures of `label_statistics`, by label; `total` is the whole matrix, true classes in rows."""
    return [
        Score(
            label,
            **{key: found[f"{label}.{key}"] for key in _OF_LABEL},
            n_true=int(total[i].sum()),
            n_predicted=int(total[:_N, i].sum()),
        )
        for i, label in enumerate(LABELS)
    ]


def f1(matrix: Array, i: int) -> tuple[Array, Array]:
    """2 TP / (true + predicted) of class i; n is the units that are truly i. NaN where i is neither."""
    n_true, n_predicted = matrix[..., i, :].sum(-1), matrix[..., i].sum(-1)
    return ratio(2 * matrix[..., i, i], n_true + n_predicted)[0], n_true


def kappa(matrix: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Cohen's kappa of square matrices (..., k, k), weighted where agreement weights (k, k) are given; n is the units.

    NaN where chance agreement is certain.
    """
    agreement = np.eye(matrix.shape[-1]) if weights is None else weights
    n = matrix.sum((-1, -2))
    observed, _ = ratio((agreement * matrix).sum((-1, -2)), n)
    by_chance = matrix.sum(-1)[..., :, None] * matrix.sum(-2)[..., None, :]
    expected, _ = ratio((agreement * by_chance).sum((-1, -2)), n**2)
    possible = np.where(np.isnan(expected) | (expected > 1 - 1e-12), 0.0, 1 - expected)
    return ratio(np.nan_to_num(observed - expected), possible)[0], n


def linear_weights(k: int) -> Array:
    """1 - |i-j| / (k-1)."""
    apart: Array = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1)
    return 1 - apart


def quadratic_weights(k: int) -> Array:
    """1 - (i-j)^2 / (k-1)^2."""
    return 1 - (1 - linear_weights(k)) ** 2


def coincidences(counts: Array) -> Array:
    """Krippendorff's coincidence matrix of every unit, (units, k, k), from how many raters gave each value (units, k).

    Units with fewer than two ratings contribute nothing, so missing ratings need no imputation.
    """
    raters = counts.sum(-1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    weighted: Array = pairs / np.clip(raters - 1, 1, None)[:, None, None]
    return weighted


def alpha(coincidence: Array, ordinal: bool = False) -> tuple[Array, Array]:
    """Krippendorff's alpha of coincidence matrices (..., k, k), nominal or ordinal; n is the pairable ratings.

    1 - (n-1) sum(o d) / sum(n_c n_k d), with d = [c != k], or the squared number of ratings between two ranks. NaN where
    only one value was used.
    """
    margins = coincidence.sum(-1)
    n = margins.sum(-1)
    k = margins.shape[-1]
    if ordinal:
        below = np.cumsum(margins, -1)
        low = np.minimum.outer(np.arange(k), np.arange(k))
        high = np.maximum.outer(np.arange(k), np.arange(k))
        between = below[..., high] - below[..., low] + margins[..., low]
        distance = (between - (margins[..., :, None] + margins[..., None, :]) / 2) ** 2
    else:
        distance = np.broadcast_to(1 - np.eye(k), coincidence.shape)
    observed = (coincidence * distance).sum((-1, -2))
    expected = (margins[..., :, None] * margins[..., None, :] * distance).sum((-1, -2))
    return 1 - ratio((n - 1) * observed, expected)[0], n


def _false_alarm(matrix: Array, i: int) -> tuple[Array, Array]:
    others = [k for k in range(_N) if k != i]
    return ratio(matrix[:, others, i].sum(-1), matrix[:, others].sum((-1, -2)))


_OF_LABEL: dict[str, Callable[[Array, int], tuple[Array, Array]]] = {
    "prevalence": lambda m, i: ratio(m[:, i].sum(-1), m[:, :_N].sum((-1, -2))),
    "precision": lambda m, i: ratio(m[:, i, i], m[:, :_N, i].sum(-1)),
    "recall": lambda m, i: ratio(m[:, i, i], m[:, i].sum(-1)),
    "f1": lambda m, i: f1(m[:, :_N], i),
    "false_alarm": _false_alarm,
    "recall_lenient": lambda m, i: ratio(m[:, i, i], m[:, i, :_N].sum(-1)),
    "f1_lenient": lambda m, i: f1(m[:, :_N, :_N], i),
}


def _square(matrix: Array) -> Array:
    """Rows added that no true unit is in, so that the classes of both raters are the same."""
    missing = matrix.shape[-1] - matrix.shape[-2]
    return np.concatenate([matrix, np.zeros((*matrix.shape[:-2], missing, matrix.shape[-1]))], axis=-2)
