"""What a critic that needs no model says, as verdict events.

Belongs here: the envelope that such verdicts share. Does not belong here: what is found (`rules`, `leaks`). The digest of
the actions and observations is in every event id: a trajectory that grew is judged anew as a whole, under new ids.
"""

from __future__ import annotations

from typing import Any

from stepwell.critics.taxonomy import Taxonomy
from stepwell.critics.turns import Trajectory
from stepwell.event import Event


def verdict(
    policy: str, taxonomy: Taxonomy, of: Trajectory, action: tuple[int, str] | None, said: dict[str, Any]
) -> Event:
    """A verdict on one action (step, event id), or on the trajectory; `said` is what of the payload differs."""
    step, cause = action or (None, None)
    scope = {"scope": "trajectory" if action is None else "step", "parse_status": "ok", "taxonomy_id": taxonomy.id}
    where = (of.trajectory_id, of.corpus, "critic", scope | said, step, policy)
    return Event("verdict", *where, caused_by=cause, discriminator=of.seen)


def short(text: str, limit: int = 120) -> str:
    """One line of at most so many characters, as evidence is quoted."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
