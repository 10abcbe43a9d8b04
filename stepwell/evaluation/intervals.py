"""Intervals, paired tests and corrections for several of them, on scipy (METHODS.md K1).

Belongs here: closed forms over counts and p-values. Does not belong here: what is known about seeds (`seeds`), resampling
(`stepwell.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, false_discovery_control, permutation_test

from stepwell.bootstrap import Array


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson interval of a proportion in [0, 1]; (0, 1) when nothing was tried."""
    if n == 0:
        return (0.0, 1.0)
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar test: probability of so uneven a split of the discordant tasks; 1 when there are none."""
    n = only_a + only_b
    return 1.0 if n == 0 else float(binomtest(only_a, n, 0.5).pvalue)


def minimum_detectable(discordant: float, n: int) -> float | None:
    """Smallest paired difference that `n` tasks show with 80% power at 5%, for a share of discordant tasks (METHODS.md K1).

    The smallest d with ((1.96 sqrt(q) + .84 sqrt(q - d^2)) / d)^2 <= n; None when not even d = q would show.
    """

    def needed(d: float) -> float:
        return float(((1.96 * discordant**0.5 + 0.84 * max(0.0, discordant - d * d) ** 0.5) / d) ** 2)

    if discordant <= 0 or needed(discordant) > n:
        return None
    low, high = 0.0, discordant
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if middle > 0 and needed(middle) <= n else (middle, high)
    return high


def sign_flip(differences: Array, draws: int = 9_999, seed: int = 0) -> float:
    """Two-sided paired randomisation test of differences by task (tasks,); on 0 and +-1 it estimates exact McNemar.

    Exact while all sign patterns are at most `draws`; tasks without a difference carry nothing and are left out.
    """
    moved = differences[differences != 0]
    if len(moved) < 2:
        return 1.0
    found = permutation_test(
        (moved,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=draws, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the chance of any false claim among them stays below the level (Holm, step-down)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the expected share of false claims among those made stays below the level."""
    return [float(q) for q in false_discovery_control(list(p_values))] if p_values else []
