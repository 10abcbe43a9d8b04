"""Reviewers: who says what is wrong with a solution. The protocol, and scripted ones for the embedded problems.

Belongs here: what a reviewer is to the loop, reviewers that need no model. Does not belong here: model critics (they are
another stage; `stepwell.cli.reviewing` wraps one), what is done with a critique (`revising`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.chat import Failure
from stepwell.event import Event
from stepwell.rollout.problems import Problem

FINE = "Analysis:\nThe code does what is asked.\n\nImprovement suggestions:\nNone.\n\nOverall judgment: Correct"
BLIND = (
    "Analysis:\nThe code departs from what is asked.\n\nImprovement suggestions:\nCompare it with the task, word by word.\n\n"
    "Overall judgment: Incorrect"
)
PLACEBO = (
    "Analysis:\nThis is an attempt at the task.\n\nImprovement suggestions:\nRead the task again and look at your answer.\n\n"
    "Overall judgment: Incorrect"
)


class Reviewer(Protocol):
    """A critic of solutions; `mode` is how its words are recorded: delivered, or placebo."""

    @property
    def name(self) -> str:
        """Policy of its verdicts."""

    @property
    def mode(self) -> str:
        """Delivered or placebo."""

    async def review(
        self, events: Sequence[Event], attempt: Event, n: int, hint: str | None
    ) -> Sequence[Event] | Failure:
        """`n` verdicts on an attempt, given the events so far; never raises for what a model or server did.

        Stateless: only the task and this attempt count, and the hint where there is one.
        """

    def most_cost(self, events: Sequence[Event], attempt: Event, n: int, hint: str | None) -> float:
        """US dollars that can cost at most."""

    async def close(self) -> None:
        """Release what was opened."""


class _Free:
    """A reviewer that costs nothing and has nothing to close."""

    def most_cost(self, events: Sequence[Event], attempt: Event, n: int, hint: str | None) -> float:
        """Nothing."""
        return 0.0

    async def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Scripted(_Free):
    """A reviewer that knows tests and results: it names a failing visible case, and says nothing else that helps.

    With probability `wrong` it judges the other way round, and with `vague` it names no case; both 0 make an oracle.
    """

    problems: Mapping[str, Problem]
    name: str = "oracle-critic@1"
    wrong: float = 0.0
    vague: float = 0.0
    seed: int = 0
    mode: str = "delivered"

    async def review(
        self, events: Sequence[Event], attempt: Event, n: int, hint: str | None
    ) -> Sequence[Event] | Failure:
        """Read off the outcome of the attempt."""
        (task,) = [e for e in events if e.kind == "task"]
        outcome = next(e for e in events if e.kind == "outcome" and e.caused_by == attempt.event_id)
        problem = self.problems[task.payload["task_id"]]
        return [self._verdict(problem, outcome, attempt, i) for i in range(n)]

    def _verdict(self, problem: Problem, outcome: Event, attempt: Event, candidate: int) -> Event:
        rng = random.Random(f"{self.seed}:{attempt.payload['attempt_id']}:{candidate}")
        flipped, vague = rng.random() < self.wrong, rng.random() < self.vague
        right = bool(outcome.payload["resolved"]) != flipped
        failed = {t["name"] for t in outcome.payload["tests"] if not t["passed"]}
        cases = [t for t in problem.tests if t.name in failed and t.group == "visible"]
        text = FINE if right else BLIND
        if not right and cases and not vague:
            test = rng.choice(cases)
            text = BLIND.replace("The code departs from what is asked.", f"{test.given} must be {test.want}.")
        return verdict(self.name, attempt, text, right, candidate)


@dataclass(frozen=True)
class Placebo(_Free):
    """The same words on every solution, in the form of a critique and without content (METHODS.md K19)."""

    name: str = "placebo-critic@1"
    mode: str = "placebo"

    async def review(
        self, events: Sequence[Event], attempt: Event, n: int, hint: str | None
    ) -> Sequence[Event] | Failure:
        """Say it."""
        return [verdict(self.name, attempt, PLACEBO, False, i) for i in range(n)]


def verdict(name: str, attempt: Event, text: str, judgment: bool, candidate: int) -> Event:
    """A critique in words as the verdict it is."""
    payload: dict[str, Any] = {
        "scope": "attempt", "judgment": judgment, "guidance": text.rpartition("\n\n")[0], "parse_status": "ok", "raw": text,
        "candidate": candidate,
    }  # fmt: skip
    return Event(
        "verdict", attempt.trajectory_id, attempt.corpus, "critic", payload, step=attempt.step, policy=name,
        caused_by=attempt.event_id, discriminator=attempt.event_id,
    )  # fmt: skip


def vote(verdicts: Sequence[Event], key: str) -> tuple[Event, bool, str]:
    """The critique that is answered, whether the solution counts as Correct, and why (CTRL, METHODS.md 2.3).

    Correct when more than half of all verdicts say so, unreadable ones included; one of those that agree with the majority
    is drawn by `key`, any of them where none does.
    """
    n, correct = len(verdicts), sum(v.payload.get("judgment") is True for v in verdicts)
    judged = correct > n / 2
    agreeing = [v for v in verdicts if v.payload.get("judgment") is judged] or list(verdicts)
    tie = " (a tie counts as Incorrect)" if 2 * correct == n else ""
    return random.Random(key).choice(agreeing), judged, f"{correct} of {n} say Correct{tie}"
