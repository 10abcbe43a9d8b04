"""What a critic at the wheel is to the agent's side: events in, a critique out. Where critics and rollouts meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stepwell.event import Event


@dataclass(frozen=True)
class Critique:
    """What a supervisor said: its verdict events, the one that counts, its words for the agent, its cost in US dollars
    (None: not known).

    Without `text` there is nothing to deliver, and `why` says why: the call failed, or nothing could be read.
    """

    events: tuple[Event, ...] = ()
    verdict_id: str | None = None
    text: str = ""
    why: str = ""
    cost_usd: float | None = 0.0


class Supervisor(Protocol):
    """A critic that reads a trajectory as it stands."""

    @property
    def name(self) -> str:
        """Policy of its verdicts."""

    async def review(self, events: Sequence[Event]) -> Critique:
        """Judge the last steps; never raises for what a model or server did (it has tried again by then)."""

    def most_cost(self, events: Sequence[Event]) -> float:
        """US dollars a review can cost at most."""

    async def close(self) -> None:
        """Release what was opened."""
