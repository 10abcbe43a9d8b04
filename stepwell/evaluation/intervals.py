"""Intervals and paired tests for resolve rates, on scipy."""

from __future__ import annotations

from scipy.stats import binomtest


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
