"""Intervals by the cluster bootstrap: whole groups are drawn anew, as the steps of one trajectory are not independent.

Belongs here: resampling and the figure that comes of it, for any stage. Does not belong here: what is measured. All
figures of one call share their draws, and a draw costs one matrix product: statistics are functions of sums over groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Sums = Mapping[str, Array]
Statistic = Callable[[Sums], tuple[Array, Array]]
WEIGHTS = "weights"
_CELLS = 4_000_000  # floats held at a time


@dataclass(frozen=True)
class Figure:
    """A number, its 95% percentile interval, and the n it is a share or mean of; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        interval = "" if self.low is None else f" [{self.low:.3f},{self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


def figures(sums: Sums, statistics: Mapping[str, Statistic], draws: int = 2000, seed: int = 0) -> dict[str, Figure]:
    """One figure a statistic, from `sums`: name -> array (groups, ...) of whatever adds up over groups.

    A statistic takes the same names, groups replaced by draws, and `weights` (draws, groups): how often each group was
    drawn. It returns its value (NaN where undefined) and its n, each (draws,). Fewer than two groups give no interval.
    """
    n_groups = len(next(iter(sums.values()))) if sums else 0
    widths = [int(np.prod(a.shape[1:], dtype=int)) for a in sums.values()]
    columns = [a.reshape(n_groups, width) for a, width in zip(sums.values(), widths, strict=True)]
    flat = np.concatenate([np.zeros((n_groups, 0)), *columns], axis=1)

    def drawn(weights: Array) -> dict[str, Array]:
        total = weights @ flat
        parts = {WEIGHTS: weights}
        for (name, a), part in zip(sums.items(), np.split(total, np.cumsum(widths), axis=1), strict=False):
            parts[name] = part.reshape(len(weights), *a.shape[1:])
        return parts

    whole = drawn(np.ones((1, n_groups)))
    points = {name: statistic(whole) for name, statistic in statistics.items()}
    samples: dict[str, list[Array]] = {name: [] for name in statistics}
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // (n_groups + flat.shape[1] + 1))
    for start in range(0, draws if n_groups > 1 else 0, size):
        parts = drawn(_weights(rng, min(size, draws - start), n_groups))
        for name, statistic in statistics.items():
            samples[name].append(statistic(parts)[0])
    return {name: _figure(*points[name], samples[name]) for name in statistics}


def of_groups(figure: Figure, n: float) -> Figure:
    """A figure that rests on `n` of the groups: without an interval where that is one, as drawing anew cannot vary it."""
    return figure if n > 1 else replace(figure, low=None, high=None)


def ratio(part: Array, whole: Array) -> tuple[Array, Array]:
    """part / whole with whole as its n; NaN where whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0), whole


def mean_known(values: Array) -> Array:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))[0]


def _weights(rng: np.random.Generator, draws: int, groups: int) -> Array:
    """How often each group is drawn, (draws, groups), when as many are drawn with replacement as there are."""
    cell = rng.integers(groups, size=(draws, groups)) + groups * np.arange(draws)[:, None]
    return np.bincount(cell.ravel(), minlength=draws * groups).reshape(draws, groups).astype(np.float64)


def _figure(value: Array, n: Array, samples: list[Array]) -> Figure:
    drawn = np.concatenate(samples) if samples else np.empty(0)
    drawn = drawn[~np.isnan(drawn)]
    point = None if np.isnan(value[0]) else float(value[0])
    if point is None or not len(drawn):
        return Figure(point, None, None, int(n[0]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(point, float(low), float(high), int(n[0]))
