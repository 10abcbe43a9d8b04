"""Who acts in a turn: schedules that mix student and teacher, every draw reproducible from its key (METHODS.md 4).

Belongs here: the schedules and the draw. Does not belong here: what the two say (`policies`), the loop (`episode`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stepwell.errors import UnknownName, UsageError

PAPER = (1.0, 0.8, 0.6, 0.6, 0.6)
SCHEDULES = ("paper", "linear", "exponential", "constant", "zero", "switch")
Chosen = Literal["agent", "teacher"]


def uniform(key: str) -> float:
    """The draw of a key: uniform on [0, 1), the same everywhere."""
    # 53 bits, as a float holds no more: 64 would round up to 1 at times.
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53


def z_score(betas: Sequence[float], taught: int) -> float:
    """How far the number of turns the teacher took lies from its expectation, in standard deviations (METHODS.md K16).

    With every beta 0 or 1 nothing is left to chance: 0 when as many as declared, else infinite.
    """
    away = taught - math.fsum(betas)
    variance = math.fsum(beta * (1 - beta) for beta in betas)
    if variance:
        return away / math.sqrt(variance)
    return 0.0 if abs(away) < 0.5 else math.copysign(math.inf, away)


@dataclass(frozen=True)
class Decision:
    """Who acts, by which rule, with which probability of the teacher and which draw; a payload of `turn`."""

    chosen: Chosen
    rule: str = "fixed"
    beta: float | None = None
    draw: float | None = None
    rng_key: str | None = None

    def payload(self) -> dict[str, Any]:
        """What is not null."""
        return {k: v for k, v in self.__dict__.items() if v is not None}


@dataclass(frozen=True)
class Schedule:
    """Probability beta that the teacher acts, by iteration (1-based), or the single switch from student to teacher.

    paper: 1, .8, .6, .6, .6 and .6 from there on. linear: from `start` by `step` an iteration, never below `floor`.
    exponential: `start` times `rate` to the power of the iterations before, never below `floor`. constant: `start`. zero:
    the student alone. switch (OEC, AggreVaTe): the student acts for a number of turns drawn uniformly from 0 to `turns` +
    `grow` an iteration, then the teacher to the end.
    """

    name: str = "paper"
    start: float = 1.0
    step: float = 0.2
    rate: float = 0.8
    floor: float = 0.0
    turns: int = 30
    grow: int = 0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise UnknownName("beta schedule", self.name, SCHEDULES, "Name one of them in the recipe.")
        for name in ("start", "step", "rate", "floor"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} of a beta schedule is {getattr(self, name)}; it must lie between 0 and 1.")
        for name in ("turns", "grow"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} of a beta schedule is {getattr(self, name)}; it must not be negative.")

    def beta(self, iteration: int) -> float | None:
        """The probability in an iteration; None for a switch. Raises UsageError for an iteration below 1."""
        if iteration < 1:
            raise UsageError(f"iteration {iteration} of a beta schedule; iterations are numbered from 1.")
        if self.name == "switch":
            return None
        if self.name == "paper":
            return PAPER[min(iteration, len(PAPER)) - 1]
        if self.name == "linear":
            return round(max(self.floor, self.start - self.step * (iteration - 1)), 12)
        if self.name == "exponential":
            return round(max(self.floor, self.start * self.rate ** (iteration - 1)), 12)
        return self.start if self.name == "constant" else 0.0

    def decide(self, identity: str, turn: int, iteration: int) -> Decision:
        """Who acts in a turn of the rollout of this identity."""
        beta = self.beta(iteration)
        if beta is None:
            key = f"{identity}/switch"
            draw = uniform(key)
            student_turns = int(draw * (self.turns + self.grow * (iteration - 1) + 1))
            return Decision("agent" if turn < student_turns else "teacher", "switch", None, draw, key)
        key = f"{identity}/{turn}/actor"
        draw = uniform(key)
        return Decision("teacher" if draw < beta else "agent", "bernoulli", beta, draw, key)


@dataclass(frozen=True)
class Mixing:
    """A schedule in one iteration. `relabel`: ask the teacher again where it acts itself, instead of taking its action."""

    schedule: Schedule = field(default_factory=Schedule)
    iteration: int = 1
    relabel: bool = False
