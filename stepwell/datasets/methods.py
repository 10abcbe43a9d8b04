"""Dataset methods: from a trajectory, which steps are in the loss, or why the trajectory is left out.

`all` trains on every step of every trajectory, `rft` on every step of resolved ones, `srft` on every trajectory with the
steps its mask rule rejects at weight 0 while they stay in the context (METHODS.md 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepwell.conversation import Conversation
from stepwell.errors import UnknownName


@dataclass(frozen=True)
class Chosen:
    """Weights per assistant message, 0 or 1, and the mask events that set them."""

    weights: list[float]
    mask_event_ids: list[str]


@dataclass(frozen=True)
class Dropped:
    """Why a trajectory yields no row."""

    reason: str


Method = Callable[[Conversation, bool | None, str], Chosen | Dropped]


def every_step(chat: Conversation, resolved: bool | None, mask_rule: str) -> Chosen | Dropped:
    """Every step of every trajectory."""
    return Chosen([1.0] * len(chat.steps), [])


def rejection(chat: Conversation, resolved: bool | None, mask_rule: str) -> Chosen | Dropped:
    """Every step of resolved trajectories; never graded counts as not resolved, and is told apart in the funnel."""
    if resolved is None:
        return Dropped("not graded")
    return every_step(chat, resolved, mask_rule) if resolved else Dropped("not resolved")


def step_rejection(chat: Conversation, resolved: bool | None, mask_rule: str) -> Chosen | Dropped:
    """Every trajectory, weights from the mask events of the recipe's rule; a step without one has not been decided."""
    decided = [chat.masks.get((mask_rule, step)) for step in chat.steps]
    if not all(decided):
        return Dropped("steps without a mask decision")
    weights = [d[0] for d in decided if d]
    if not any(weights):
        return Dropped("fully masked")
    return Chosen(weights, [d[1] for d in decided if d])


METHODS: dict[str, Method] = {"all": every_step, "rft": rejection, "srft": step_rejection}


def method(name: str) -> Method:
    """The method of that name; raises UnknownName."""
    if name not in METHODS:
        raise UnknownName("dataset method", name, METHODS, "Set `dataset.method` in the recipe.")
    return METHODS[name]
