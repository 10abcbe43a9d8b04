"""Sensitivity: what a training set loses when the critic behind its masks is worse than thought (METHODS.md K6).

Belongs here: flipping labels at declared rates and comparing the masks, on plain arrays. Does not belong here: where the
labels come from (critics), the masks that count (curation). Only steps a critic decides are counted, not those that are
learnt from whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, mean_known, ratio
from stepwell.errors import UsageError

Codes = npt.NDArray[np.int64]
EPSILONS = (0.0, 0.1, 0.2, 0.3)
_HIT, _LOST, _LEAKED, _KEPT = range(4)  # harmful masked, good masked, harmful trained on, good trained on


@dataclass(frozen=True)
class Sensitivity:
    """Masks from labels flipped at rate `epsilon`, or of as many random steps a trajectory, against the true masks.

    `iou` is the overlap of both masks; `loss_steps` the relative change of steps trained on; `leaked` the share of steps
    trained on that is harmful, `lost` the share of good steps that is masked; `predicted` is `leaked` in closed form from
    the rates the flips have in expectation. Means over repeats; intervals by trajectory.
    """

    epsilon: float
    arm: str
    n_steps: int
    iou: Figure
    loss_steps: Figure
    leaked: Figure
    lost: Figure
    recall: Figure
    predicted: float | None


def leaked_share(harmful: float, recall: float, false_alarm: float) -> float:
    """Share of the steps trained on that is harmful, of masks with this recall and false alarm rate.

    pi (1-R) / (1 - pi R - (1-pi) f), METHODS.md K6.
    """
    trained = 1 - harmful * recall - (1 - harmful) * false_alarm
    return harmful * (1 - recall) / trained if trained > 0 else 0.0


def flip_matrix(n_labels: int, epsilon: float, towards: Array | None = None) -> Array:
    """C(epsilon), rows true: a label stays with 1 - epsilon, else becomes another as `towards` has it, or any alike.

    `towards` (n, n) are weights, such as the confusion counts of a real critic; its diagonal is ignored. Raises UsageError
    for a rate that is none.
    """
    if not 0 <= epsilon <= 1:
        raise UsageError(f"flip rate {epsilon}; allowed: 0 to 1.")
    away = np.ones((n_labels, n_labels)) if towards is None else np.array(towards, np.float64)
    np.fill_diagonal(away, 0)
    away[away.sum(axis=1) == 0] = 1.0
    np.fill_diagonal(away, 0)
    flipped: Array = (1 - epsilon) * np.eye(n_labels) + epsilon * away / away.sum(axis=1, keepdims=True)
    return flipped


def sensitivity(
    labels: Codes,
    groups: Codes,
    mask: Sequence[int],
    n_labels: int,
    *,
    epsilons: Sequence[float] = EPSILONS,
    towards: Array | None = None,
    repeats: int = 20,
    draws: int = 1000,
    seed: int = 0,
) -> list[Sensitivity]:
    """For every rate the flipped masks, and the random control; labels and groups (trajectories) are (steps,), 0-based."""
    rng = np.random.default_rng(seed)
    harmful = np.isin(labels, list(mask))
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    found = []
    for epsilon in epsilons:
        matrix = flip_matrix(n_labels, epsilon, towards)
        steps = matrix.cumsum(axis=1)[labels]
        flipped = [
            np.isin((rng.random((len(labels), 1)) > steps).sum(axis=1).clip(max=n_labels - 1), list(mask))
            for _ in range(repeats)
        ]
        rates = matrix[:, list(mask)].sum(axis=1)[labels]  # chance of every step to be masked
        predicted = _expected(harmful, rates)
        found.append(_point(epsilon, "flipped", harmful, flipped, groups, n_groups, predicted, draws, seed))
        random = [_as_many(m, groups, n_groups, rng) for m in flipped]
        found.append(_point(epsilon, "random", harmful, random, groups, n_groups, None, draws, seed))
    return found


def _expected(harmful: npt.NDArray[np.bool_], rates: Array) -> float | None:
    if harmful.all() or not harmful.any():
        return None
    return leaked_share(float(harmful.mean()), float(rates[harmful].mean()), float(rates[~harmful].mean()))


def _as_many(
    mask: npt.NDArray[np.bool_], groups: Codes, n_groups: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """A mask of as many steps of every trajectory, drawn."""
    order = np.lexsort((rng.random(len(mask)), groups))
    starts = np.concatenate([[0], np.bincount(groups, minlength=n_groups).cumsum()[:-1]]).astype(np.int64)
    rank = np.empty(len(mask), np.int64)
    rank[order] = np.arange(len(mask)) - starts[groups[order]]
    return rank < np.bincount(groups[mask], minlength=n_groups)[groups]


def _point(
    epsilon: float, arm: str, harmful: npt.NDArray[np.bool_], masks: Sequence[npt.NDArray[np.bool_]], groups: Codes,
    n_groups: int, predicted: float | None, draws: int, seed: int,
) -> Sensitivity:  # fmt: skip
    tables = []
    for masked in masks:
        cell = np.where(harmful, np.where(masked, _HIT, _LEAKED), np.where(masked, _LOST, _KEPT))
        tables.append(np.bincount(groups * 4 + cell, minlength=n_groups * 4).reshape(n_groups, 4).astype(np.float64))
    found = figures({"cells": np.stack(tables, axis=1)}, _STATISTICS, draws, seed)
    return Sensitivity(epsilon, arm, len(harmful), **found, predicted=predicted)


def _mean_ratio(part: Sequence[int], whole: Sequence[int], less: Sequence[int] = ()) -> Statistic:
    def statistic(s: Sums) -> tuple[Array, Array]:
        c = s["cells"]
        value, n = ratio(c[..., list(part)].sum(-1) - c[..., list(less)].sum(-1), c[..., list(whole)].sum(-1))
        return mean_known(value), n.mean(-1)

    return statistic


_STATISTICS: dict[str, Statistic] = {
    "iou": _mean_ratio([_HIT], [_HIT, _LOST, _LEAKED]),
    "loss_steps": _mean_ratio([_LEAKED], [_LOST, _KEPT], less=[_LOST]),
    "leaked": _mean_ratio([_LEAKED], [_LEAKED, _KEPT]),
    "lost": _mean_ratio([_LOST], [_LOST, _KEPT]),
    "recall": _mean_ratio([_HIT], [_HIT, _LEAKED]),
}
