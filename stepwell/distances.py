"""How far apart two samples are: of counts, of lengths, of feature vectors; each beside what chance alone would give.

Belongs here: the measures, on arrays. Does not belong here: which features of a trajectory they are taken of (`likeness`).
A sample has one row an item and a group (trajectory) for each; items of one group are never split, since they are alike
anyway: permutations and folds move whole groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp, norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stepwell.bootstrap import Figure, figures, ratio

Array = npt.NDArray[np.float64]
FOLDS = 5
_MOST = 2000  # items of a side that pairwise measures look at


@dataclass(frozen=True)
class Distance:
    """A measure between two samples, and the 95th percentile of the same measure when groups are dealt to sides at random.

    `p` is the share of such deals that are at least as far apart (itself counted: never 0). None: too little to tell.
    """

    value: float | None
    chance: float | None
    p: float | None
    n_a: int
    n_b: int

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        beside = "" if self.chance is None else f" (chance up to {self.chance:.3f}, p {self.p:.3f})"
        return f"{self.value:.3f}{beside}"


def divergence(a: Sequence[Mapping[str, int]], b: Sequence[Mapping[str, int]], deals: int = 200) -> Distance:
    """Jensen-Shannon divergence, base 2, in [0, 1], of what two sides count; one mapping name -> count a group.

    The estimate from counts is never below the truth by much and often above: read it beside `chance` (METHODS.md K8).
    """
    names = {name: i for i, name in enumerate(sorted({n for side in (a, b) for one in side for n in one}))}
    table = np.zeros((len(a) + len(b), len(names)))
    for row, one in enumerate([*a, *b]):
        for name, n in one.items():
            table[row, names[name]] += n

    def measure(side: npt.NDArray[np.bool_]) -> float:
        p, q = table[side].sum(axis=0), table[~side].sum(axis=0)
        if not p.sum() or not q.sum():
            return np.nan
        p, q = p / p.sum(), q / q.sum()
        middle = (p + q) / 2
        return float(sum(_entropy_of(x, middle) for x in (p, q)) / 2)

    return _dealt(measure, len(a), len(b), deals)


def _entropy_of(p: Array, q: Array) -> float:
    known = p > 0
    return float((p[known] * np.log2(p[known] / q[known])).sum())


def lengths(a: Sequence[float], b: Sequence[float]) -> Distance:
    """Kolmogorov-Smirnov statistic of two samples of numbers, in [0, 1], with its exact or asymptotic p."""
    if not a or not b:
        return Distance(None, None, None, len(a), len(b))
    found = ks_2samp(a, b)
    chance = float(1.358 * np.sqrt((len(a) + len(b)) / (len(a) * len(b))))  # asymptotic 5% point
    return Distance(float(found.statistic), min(chance, 1.0), float(found.pvalue), len(a), len(b))


def discrepancy(a: Array, b: Array, groups_a: Sequence[str], groups_b: Sequence[str], deals: int = 200) -> Distance:
    """Unbiased squared maximum mean discrepancy under a Gaussian kernel, bandwidth the median distance (METHODS.md K8).

    a, b: (items, features). Zero in expectation when both sides are one distribution; may be slightly negative. At most
    2,000 items a side are looked at, evenly spread.
    """
    a, groups_a = _thinned(a, groups_a)
    b, groups_b = _thinned(b, groups_b)
    if len(set(groups_a)) < 2 or len(set(groups_b)) < 2:
        return Distance(None, None, None, len(set(groups_a)), len(set(groups_b)))
    squared = cdist(both := np.concatenate([a, b]), both, "sqeuclidean")
    width = float(np.median(squared[squared > 0])) if (squared > 0).any() else 1.0
    kernel = np.exp(-squared / width)
    np.fill_diagonal(kernel, 0.0)
    names = [*(f"a:{g}" for g in groups_a), *(f"b:{g}" for g in groups_b)]
    number = {g: i for i, g in enumerate(dict.fromkeys(names))}
    of = np.array([number[g] for g in names])
    member = np.zeros((len(number), len(of)))
    member[of, np.arange(len(of))] = 1
    sums, sizes = member @ kernel @ member.T, member.sum(axis=1)

    def measure(side: npt.NDArray[np.bool_]) -> float:
        x, y = side.astype(float), (~side).astype(float)
        n, m = x @ sizes, y @ sizes
        if n < 2 or m < 2:
            return np.nan
        return float(x @ sums @ x / (n * (n - 1)) + y @ sums @ y / (m * (m - 1)) - 2 * (x @ sums @ y) / (n * m))

    return _dealt(measure, len(set(groups_a)), len(set(groups_b)), deals)


def told_apart(a: Array, b: Array, groups_a: Sequence[str], groups_b: Sequence[str]) -> Distance:
    """Area under the ROC curve of a classifier that tells the sides apart, on groups it has not seen: .5 when they are alike.

    Classifier two-sample test (METHODS.md K8, K10): logistic regression, five folds of whole groups. A group named on both
    sides (a task that both attempted) is in one fold, so that what is asked can be held fixed. `chance` is the 95% bound when
    the sides are alike (normal approximation of the Mann-Whitney statistic over groups), `p` one-sided from the same.
    """
    x, y = np.concatenate([a, b]), np.concatenate([np.zeros(len(a)), np.ones(len(b))])
    groups = np.array([*groups_a, *groups_b])
    n_a, n_b = len(set(groups_a)), len(set(groups_b))
    folds = min(FOLDS, len(set(groups)))
    if min(n_a, n_b) < FOLDS:
        return Distance(None, None, None, n_a, n_b)
    scores = np.full(len(y), np.nan)
    for train, test in GroupKFold(folds).split(x, y, groups):
        if len(set(y[train])) == 2:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
            # Within a fold only: folds differ in their offset, which says nothing about the sides.
            raw = model.fit(x[train], y[train]).decision_function(x[test])
            scores[test] = rankdata(raw) / len(raw)
    known = ~np.isnan(scores)
    if len(set(y[known])) < 2:
        return Distance(None, None, None, n_a, n_b)
    area = float(roc_auc_score(y[known], scores[known]))
    error = float(np.sqrt((n_a + n_b + 1) / (12 * n_a * n_b)))
    return Distance(area, min(1.0, 0.5 + 1.645 * error), float(norm.sf((area - 0.5) / error)), n_a, n_b)


def coverage(known: Array, groups: Sequence[str], asked: Array, groups_asked: Sequence[str]) -> Figure:
    """Share of the rows of `asked` that lie near some row of `known` (METHODS.md K14), with a bootstrap over groups asked.

    Near: within the distance that 95% of the known rows have to their nearest known row of another group. At most 2,000 rows
    of `known` are looked at.
    """
    known, groups = _thinned(known, groups)
    if len(set(groups)) < 2 or not len(asked):
        return Figure(None, None, None, len(asked))
    number = np.unique(np.array(groups), return_inverse=True)[1]
    among = cdist(known, known)
    among[number[:, None] == number[None, :]] = np.inf
    radius = np.quantile(among.min(axis=1), 0.95)
    near = cdist(asked, known).min(axis=1) <= radius
    of = np.unique(np.array(groups_asked), return_inverse=True)[1]
    sums = {
        name: np.bincount(of, weights=w).astype(np.float64) for name, w in (("near", near), ("all", np.ones(len(of))))
    }
    return figures(sums, {"share": lambda drawn: ratio(drawn["near"], drawn["all"])})["share"]


def _thinned(items: Array, groups: Sequence[str]) -> tuple[Array, list[str]]:
    """At most _MOST items, evenly spread over their order."""
    kept = sorted({int(i) for i in np.linspace(0, len(items) - 1, min(len(items), _MOST))})
    return items[kept], [groups[i] for i in kept]


def _dealt(
    measure: Callable[[npt.NDArray[np.bool_]], float], n_a: int, n_b: int, deals: int, seed: int = 0
) -> Distance:
    """A measure of a division of groups (True: side a), beside what it is when they are dealt at random."""
    side = np.arange(n_a + n_b) < n_a
    value = measure(side) if n_a and n_b else np.nan
    if np.isnan(value):
        return Distance(None, None, None, n_a, n_b)
    rng = np.random.default_rng(seed)
    drawn = np.array([measure(rng.permutation(side)) for _ in range(deals)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Distance(value, None, None, n_a, n_b)
    p = float((1 + (drawn >= value - 1e-12).sum()) / (1 + len(drawn)))
    return Distance(value, float(np.quantile(drawn, 0.95)), p, n_a, n_b)
