"""What critics were asked and what they said, to those who learn from it: where critics and datasets meet.

Belongs here: the protocol and its values. Does not belong here: making the messages (`critics`), choosing among replies
(`datasets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from stepwell.conversation import Message

COLUMNS = (
    "event_id", "trajectory_id", "corpus", "step", "kind", "actor", "policy", "caused_by", "usage", "extra", "task", "start",
    "instruction", "action", "observation", "verdict", "feedback", "attempt", "hint", "end", "outcome", "reward", "retraction",
)  # fmt: skip
"""Columns of `events` that an Asker and the methods of critics read."""


@dataclass(frozen=True)
class Asked:
    """The messages a critic is sent about one point of a trajectory.

    `steps` and `event_ids` have one entry per assistant message among them: an action, or the solution under review. From
    message `shortens` on, pairs of messages may be left out, the oldest first (None: none may). `cause` is the event judged.
    """

    messages: tuple[Message, ...]
    steps: tuple[int, ...]
    event_ids: tuple[str, ...]
    cause: str | None
    shortens: int | None = None


@dataclass(frozen=True)
class Said:
    """One reply of a critic: the verdict events it is recorded as, the text to learn, and what it was asked.

    `facts` is the payload of the first of these events, `labels` those of all by step. Without `asked`, `why` says why it
    cannot be made again. `readable`: the reply was understood. `hinted`: the critic was shown what tests said.
    """

    critic: str
    verdicts: tuple[str, ...]
    text: str
    facts: Mapping[str, Any]
    labels: Mapping[int, str] = field(default_factory=dict)
    asked: Asked | None = None
    why: str = ""
    readable: bool = True
    hinted: bool = False
    leaks: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Step the verdict is about; of a whole trajectory or solution without one, the last step shown."""
        shown = self.asked.steps[-1] if self.asked is not None and self.asked.steps else 0
        step = self.facts.get("step")
        return shown if step is None or len(self.verdicts) > 1 else int(step)


class Asker(Protocol):
    """Makes requests of critics again from events of whole trajectories in canonical order."""

    @property
    def identity(self) -> str:
        """What its requests depend on beside events and settings: the wording of prompts outside the package."""

    def said(self, events: pa.Table) -> Mapping[str, list[Said]]:
        """Trajectory -> every reply of the critics that count, in the order of their events."""

    def asked(self, events: pa.Table, kind: str) -> Mapping[str, list[Asked | str]]:
        """Trajectory -> what a critic of a kind would be asked at each of its points, or why it cannot be."""
