"""A critic at the wheel: it reads the trajectory every k steps, and the agent reads it before its next action.

STEER, METHODS.md section 1. Belongs here: when the critic is asked, what of it reaches the agent and in which words, budget
notices, and the arms that tell the effect of what is said from the effect of saying something (K20). Does not belong here:
how a critic judges (`critics`); it is handed in as a `Supervisor`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from stepwell.errors import UnknownName, UsageError
from stepwell.rollout.episode import EpisodeRunner
from stepwell.rollout.playing import Wheel
from stepwell.rollout.record import Record
from stepwell.supervision import Supervisor

Mode = Literal["live", "shadow", "placebo", "notice", "off"]
NOTICE_ID = "budget-notice@1"
NOTICE = (
    "<important_notice>Step {current_step} of at most {step_limit} is done. Work that is not submitted by then is lost. "
    "If a fix is in place, verify it and submit.</important_notice>"
)
_FILLER = (
    "This is a routine message that is sent at regular intervals. It holds no assessment of the work and asks for nothing. "
    "No reply is needed. "
)
_DELIVERED = {"live": "delivered", "shadow": "shadow", "placebo": "placebo"}


@dataclass(frozen=True)
class Steering:
    """One arm. live: feedback is shown. shadow: computed, not shown. placebo: words without content, of the same length.
    notice: budget notices alone. off: nothing.

    `k` steps between two reviews. `notice_from`: share of the step limit from which notices are given (STEER: step 100 of
    150), None for none. `dedup`: feedback at least this similar to the last one shown is not shown (STEER: .93, off by
    default there). `history_chars`: of earlier feedback that many characters are shown again.
    """

    mode: Mode = "live"
    k: int = 5
    notice_from: float | None = 2 / 3
    dedup: float | None = None
    history_chars: int = 1500

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UnknownName("steering mode", self.mode, get_args(Mode), "Name one of them in the recipe.")
        if self.k < 1:
            raise UsageError(f"a review every {self.k} steps; it must be 1 or more.")


class Steered:
    """The companion of one trajectory."""

    def __init__(self, steering: Steering, supervisor: Supervisor | None) -> None:
        self.steering = steering
        self.supervisor = supervisor if steering.mode in _DELIVERED else None
        self.shown: list[tuple[int, str]] = []

    async def after(self, wheel: Wheel, runner: EpisodeRunner, record: Record) -> None:
        """Give a notice when the budget runs out, and every k steps what the critic says."""
        n = len(runner.turns)
        share = None if self.steering.mode == "off" else self.steering.notice_from
        if share is not None and n >= round(share * runner.max_turns):
            text = NOTICE.format(current_step=n, step_limit=runner.max_turns)
            notice = {"target": "agent", "text": text, "template_id": NOTICE_ID, "current_step": n}
            record.add("notice", "system", {**notice, "limit": runner.max_turns}, n - 1)
            runner.transcript.notice(text)
        if self.supervisor is not None and n % self.steering.k == 0:
            await self._review(self.supervisor, wheel, runner, record)

    async def _review(self, supervisor: Supervisor, wheel: Wheel, runner: EpisodeRunner, record: Record) -> None:
        n = len(runner.turns)
        most, asked = supervisor.most_cost(record.events), supervisor.review(record.events)
        critique = await wheel.purse.pay("critic", most, asked, lambda c: c.cost_usd)
        record.events += critique.events
        payload = {"verdict_id": critique.verdict_id, "role": "user", "active_from": n}

        def tell(mode: str, text: str | None, **rest: object) -> None:
            told = {**payload, "mode": mode, "text": text, **rest}
            record.add("feedback", "critic", told, n - 1, policy=supervisor.name, caused_by=critique.verdict_id)

        if not critique.text:
            tell("suppressed", None, reason=critique.why or "the critic said nothing")
            return
        similar = similarity(self.shown[-1][1], critique.text) if self.shown else None
        if self.steering.dedup is not None and similar is not None and similar >= self.steering.dedup:
            tell("suppressed", critique.text, reason="too similar to the feedback shown last", similarity=similar)
            return
        mode = self.steering.mode
        said = filler(len(critique.text)) if mode == "placebo" else critique.text
        text = worded(said, n, self.shown, self.steering.history_chars)
        reason = "words without content in its place" if mode == "placebo" else None
        tell(_DELIVERED[mode], text, similarity=similar, reason=reason)
        self.shown.append((n, said))
        if mode != "shadow":
            runner.transcript.advise(text, "user")


def worded(said: str, n: int, before: Sequence[tuple[int, str]], limit: int) -> str:
    """Feedback as the agent reads it: all earlier feedback, each cut to `limit` characters, then this one in full."""
    past = [f"(after step {step}) {text if len(text) <= limit else text[:limit] + '...'}" for step, text in before]
    earlier = ["Earlier feedback:", *past, ""] if past else []
    return "\n".join(["SUPERVISOR FEEDBACK", *earlier, f"Feedback after step {n}:", said])


def filler(length: int) -> str:
    """Words without content, about `length` characters."""
    return (_FILLER * (length // len(_FILLER) + 1))[:length].rstrip()


def similarity(one: str, other: str) -> float:
    """Cosine of the counts of three-character pieces: 1 for equal texts, the same on every machine."""
    a, b = (Counter(text[i : i + 3] for i in range(max(1, len(text) - 2))) for text in (one.lower(), other.lower()))
    dot = sum(count * b[piece] for piece, count in a.items())
    return round(dot / math.sqrt(sum(c * c for c in a.values()) * sum(c * c for c in b.values())), 6)
