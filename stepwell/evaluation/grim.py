"""Number hygiene: can a reported percentage be a count out of n at all (METHODS.md K3)?

Belongs here: the GRIM check of figures typed in from a paper. Does not belong here: figures of our own, which are counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from stepwell.errors import UsageError

_RUNS = 10


@dataclass(frozen=True)
class Grim:
    """`counts` out of `n` that round to what is reported; `nearest` percentages that are counts where none does.

    `runs`: the fewest runs of n tasks (2 to 10) whose mean could be it, None when none could or one does.
    """

    reported: str
    n: int
    counts: list[int]
    nearest: list[str]
    runs: int | None

    @property
    def possible(self) -> bool:
        """Whether one run over n tasks can give it."""
        return bool(self.counts)

    def line(self) -> str:
        """What was found, as a sentence."""
        if self.possible:
            return f"{self.reported}% of {self.n} can be {' or '.join(str(k) for k in self.counts)} resolved."
        mean = f"; it can be the mean of {self.runs} runs" if self.runs else ""
        between = " or ".join(f"{p}%" for p in self.nearest)
        return f"{self.reported}% is no count out of {self.n} ({between} would be){mean}, or n is another."


def grim(reported: str, n: int) -> Grim:
    """Check a percentage as it was printed, with its decimals; rounding a half up and down are both let pass.

    Raises UsageError for what is no percentage or no n.
    """
    text = reported.strip().rstrip("%")
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value <= 100 or "/" in text or "e" in text.lower() or n < 1:
        raise UsageError(f"{reported!r} of {n}; a percentage from 0 to 100 as it was printed, and n of 1 or more.")
    decimals = len(text.partition(".")[2])
    counts = _counts(value, decimals, n)
    below = floor(value * n / 100)
    nearest = [] if counts else [f"{float(Fraction(100 * k, n)):.{decimals}f}" for k in (below, below + 1)]
    runs = None if counts else next((s for s in range(2, _RUNS + 1) if _counts(value, decimals, n * s)), None)
    return Grim(text, n, counts, nearest, runs)


def _counts(value: Fraction, decimals: int, n: int) -> list[int]:
    half = Fraction(1, 2 * 10**decimals)
    first, last = ceil((value - half) * n / 100), floor((value + half) * n / 100)
    return list(range(max(first, 0), min(last, n) + 1))
