"""Running a critic over what is new: verdicts are appended, verdicts of an earlier state of a trajectory superseded.

Belongs here: which trajectories to judge. Does not belong here: how they are judged (`rules`). Every verdict has a
deterministic id, so judging again writes nothing. Only actions, observations and retractions make a trajectory new: the
verdicts written here do not. The last batch of a run names in its `batch_id` the version of `events` it went through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.critics import leaks, rules
from stepwell.critics.turns import COLUMNS, retracted, superseded
from stepwell.errors import UnknownName
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog, holding_again

CRITICS: dict[str, Callable[[pa.Table], list[Event]]] = {rules.POLICY: rules.judge, leaks.POLICY: leaks.judge}
"""Critics that run in this process, by policy; one that needs a model writes verdict events from a job instead."""

KINDS = ("action", "observation", "retraction")
_CHANGED = "the trajectory changed and was judged again"


@dataclass(frozen=True)
class Report:
    """What judging did: trajectories with new verdicts, verdicts written and superseded, version of `events` judged."""

    critic: str
    n_trajectories: int
    n_verdicts: int
    n_superseded: int
    events_version: int | None

    def counts(self) -> dict[str, int]:
        """The figures by name."""
        return {"trajectories": self.n_trajectories, "verdicts": self.n_verdicts, "superseded": self.n_superseded}


def judge_new(lake: Lake, critic: str = rules.POLICY, size: int = 500) -> Report:
    """Judge the trajectories that changed since this critic last ran, `size` of them at a time in memory.

    Raises UnknownName for a critic that does not run in this process.
    """
    if critic not in CRITICS:
        raise UnknownName("critic", critic, CRITICS, "Verdicts of others are imported as events.")
    columns = [*COLUMNS, "policy", "verdict"]
    done = EventLog(lake).derive(critic, "judge", KINDS, columns, lambda rows: _new(rows, critic), size)
    return Report(critic, done.n_trajectories, done.n_new, done.n_superseded, done.events_version)


def _new(rows: pa.Table, critic: str) -> tuple[list[Event], list[Event]]:
    """Verdicts that are not in these rows yet, and retractions of those that no longer hold."""
    of_critic = pc.and_(pc.equal(rows.column("kind"), "verdict"), pc.equal(rows.column("policy"), critic))
    known = rows.filter(of_critic).select(["event_id", "trajectory_id", "corpus", "step"]).to_pylist()
    judged = holding_again(CRITICS[critic](rows), superseded(rows, critic))
    ids = {e.event_id for e in judged}
    at = {(e.trajectory_id, e.step): e.event_id for e in judged}
    gone, down = retracted(rows)
    stale = [v for v in known if v["event_id"] not in ids | gone and v["trajectory_id"] not in down]
    retractions = [superseding(v, critic, at.get((v["trajectory_id"], v["step"]))) for v in stale]
    before = {v["event_id"] for v in known}
    return [e for e in judged if e.event_id not in before], retractions


def superseding(verdict: Mapping[str, Any], critic: str, replacement: str | None, reason: str = _CHANGED) -> Event:
    """The retraction of a verdict (a row) that no longer holds; `replacement` is the event id of the one that does."""
    payload = {"target_event": verdict["event_id"], "action": "supersede", "replacement": replacement}
    return Event(
        kind="retraction",
        trajectory_id=verdict["trajectory_id"],
        corpus=verdict["corpus"],
        actor="critic",
        policy=critic,
        step=verdict["step"],
        caused_by=replacement,
        payload=payload | {"reason": reason},
    )
