"""Two arms compared, and the sentence it is safe to write about them.

Belongs here: what a test and its n, seeds and correction allow to be said, in words. Does not belong here: the figures
(`compare`). A gain is claimed only over tasks and seeds together, after correction; of single runs none is (METHODS.md K2).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepwell.bootstrap import Figure
from stepwell.evaluation.modes import Group, Mode
from stepwell.evaluation.seeds import Crossed

LEVEL = 0.05


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


@dataclass(frozen=True)
class Pair:
    """b against a. `difference` is b - a over tasks; `crossed` over tasks and seeds, where seeds allow it.

    `p_value` is of `test`; `p_adjusted` is Holm's and `q_value` Benjamini-Hochberg's over the `n_family` pairs of the
    comparison. `only_a`, `only_b`: tasks that one resolves more often. `claimable`: whether seeds allow to claim anything.
    """

    a: str
    b: str
    suite: str
    n_tasks: int
    seeds_a: int
    seeds_b: int
    fixed_a: bool
    fixed_b: bool
    claimable: bool
    rate_a: float
    rate_b: float
    difference: Figure
    crossed: Crossed | None
    only_a: int
    only_b: int
    test: str
    p_value: float
    detectable: float | None
    figures: dict[str, Figure]
    p_adjusted: float = 1.0
    q_value: float = 1.0
    n_family: int = 1
    modes: list[Mode] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    contamination: list[Group] = field(default_factory=list)
    n_dirty: int | None = None
    said: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What it is safe to write."""
        return _sentence(self)


def _sentence(c: Pair) -> str:
    """One paragraph that names the difference, its interval, the p-value after correction, tasks and seeds, or why not."""
    over = "tasks" if c.crossed is None else "tasks and seeds"
    within = c.difference if c.crossed is None else c.crossed
    low, high = within.low, within.high
    interval = "unknown" if low is None or high is None else f"[{points(low)}, {points(high)}]"
    gap = c.rate_b - c.rate_a
    adjusted = f", {c.p_adjusted:.3f} after Holm's correction for {c.n_family} comparisons" if c.n_family > 1 else ""
    what = (
        f"On {c.n_tasks} tasks of {c.suite}, {c.b} resolves {percent(c.rate_b)} and {c.a} {percent(c.rate_a)}: a difference "
        f"of {points(gap)} points (95% interval over {over} {interval}, {c.test}, p = {c.p_value:.3f}{adjusted}; "
        f"{_seeds(c.b, c.seeds_b, c.fixed_b)}, {_seeds(c.a, c.seeds_a, c.fixed_a)})."
    )
    shown = c.p_adjusted < LEVEL
    least = (
        f"A difference of {100 * c.detectable:.1f} points or more would show on so many tasks four times in five."
        if c.detectable is not None
        else "No difference is so large that this many tasks and so few discordant ones would show it reliably."
    )
    if c.claimable and shown:
        return f"{what} {c.b} is {'better' if gap > 0 else 'worse'} than {c.a} on tasks and seeds like these."
    if c.claimable:
        return f"{what} No difference can be claimed. {least}"
    these = (
        "These very runs differ on tasks like these"
        if shown
        else f"Not even these very runs can be told apart. {least[:-1]}"
    )
    return f"{what} {these}. A single run cannot tell a recipe from its seed: no gain is claimed."


def _seeds(name: str, n: int, fixed: bool) -> str:
    once = "single run of a fixed checkpoint" if fixed else "single run"
    return f"{name}: {once if n == 1 else f'{n} seeds'}"
