"""Seeds and attempts: how much of a rate is the task, how much the seed, and what a mean over seeds is good for (K2).

Belongs here: variance components, intervals over seeds, the paired test over tasks and seeds, pass@k and pass^k. Does not
belong here: reading runs (`attempts`). Outcomes are arrays (tasks, seeds), each cell a mean over attempts in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import comb
from scipy.stats import t as student

from stepwell.bootstrap import Array, Figure

Counts = npt.NDArray[np.int64]
ROUNDING = 1e-9
"""Shares of attempts that are this close are equal: thirds do not add up to the last digit."""


@dataclass(frozen=True)
class Components:
    """Variances of y_ts = mean + task + seed + rest, from mean squares; below zero they are 0. None of them with one seed."""

    task: float
    seed: float
    residual: float


@dataclass(frozen=True)
class Crossed:
    """A difference of two arms as a statement about other tasks and other seeds: 95% interval and two-sided p-value.

    `error` is its standard error, `freedom` Satterthwaite's degrees of freedom. Where nothing varies the error is 0, there is
    no interval (None), and `p_value` is of the exact sign test over tasks.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    error: float
    freedom: float


def components(outcomes: Array) -> Components | None:
    """Two-way random effects without interaction; None with fewer than two tasks or seeds."""
    tasks, seeds = outcomes.shape
    if tasks < 2 or seeds < 2:
        return None
    ms_task, ms_seed, ms_rest = _mean_squares(outcomes)
    return Components(max(0.0, (ms_task - ms_rest) / seeds), max(0.0, (ms_seed - ms_rest) / tasks), ms_rest)


def over_seeds(outcomes: Array) -> Figure:
    """Mean over seeds with mean +- t_(S-1) s / sqrt(S), its n the seeds; no interval with one, or where they all agree."""
    means = outcomes.mean(axis=0)
    n = len(means)
    value = float(means.mean())
    if n < 2 or np.ptp(means) < ROUNDING:
        return Figure(value, None, None, n)
    half = float(student.ppf(0.975, n - 1) * means.std(ddof=1) / np.sqrt(n))
    return Figure(value, value - half, value + half, n)


def crossed(a: Array, b: Array) -> Crossed | None:
    """b - a for (tasks, seeds) of the same tasks in the same order; None with fewer than two tasks, or two seeds in neither.

    Var = s^2(d_t) / T + sum over arms of MS_seed / (T S): tasks paired, seeds of the arms independent. What neither explains is
    in both parts: taken out of one, as the moments would have it, the test of two or three seeds a recipe errs up to twice
    as often as it says. An arm of one run is taken as it is, with no seed to vary: whether that is so is for the caller to
    know. Without anything that varies the tasks alone speak, each for the same sign: by chance 2^(1 - T), two-sided.
    """
    tasks = len(a)
    if tasks < 2 or max(a.shape[1], b.shape[1]) < 2:
        return None
    by_task = b.mean(axis=1) - a.mean(axis=1)
    parts = [(float(by_task.var(ddof=1)) / tasks, tasks - 1)]
    for arm in (arm for arm in (a, b) if arm.shape[1] > 1):
        parts.append((_mean_squares(arm)[1] / arm.size, arm.shape[1] - 1))
    variance = sum(part for part, _ in parts)
    difference = float(by_task.mean())
    error = float(np.sqrt(variance))
    if error < ROUNDING:
        chance = 2.0 ** (1 - tasks) if abs(difference) > ROUNDING else 1.0
        return Crossed(difference, None, None, chance, 0.0, float(tasks - 1))
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    half = float(student.ppf(0.975, freedom)) * error
    p_value = 2 * float(student.sf(abs(difference) / error, freedom))
    return Crossed(difference, difference - half, difference + half, p_value, error, float(freedom))


def pass_at(successes: Counts, attempts: int, k: int) -> Array:
    """Chance that one of k of the attempts succeeds, 1 - C(n-c, k) / C(n, k): unbiased for k fresh ones; k <= attempts."""
    missed: Array = comb(attempts - successes, k) / comb(attempts, k)
    return 1.0 - missed


def pass_all(successes: Counts, attempts: int, k: int) -> Array:
    """pass^k, the chance that all of k of the attempts succeed, C(c, k) / C(n, k): unbiased for k fresh ones."""
    whole: Array = comb(successes, k) / comb(attempts, k)
    return whole


def _mean_squares(y: Array) -> tuple[float, float, float]:
    """Of tasks, seeds, and the rest."""
    tasks, seeds = y.shape
    row, column, whole = y.mean(axis=1, keepdims=True), y.mean(axis=0, keepdims=True), y.mean()
    rest = ((y - row - column + whole) ** 2).sum() / ((tasks - 1) * (seeds - 1))
    return (
        float(seeds * ((row - whole) ** 2).sum() / (tasks - 1)),
        float(tasks * ((column - whole) ** 2).sum() / (seeds - 1)),
        float(rest),
    )
