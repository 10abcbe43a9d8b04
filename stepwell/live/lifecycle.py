"""Trajectories that began here and that nobody has ended: closed as unfinished when they fall silent, opened when they go on.

Everything is told by the log, so that a server that is killed knows after its start what it knew before. Does not belong
here: when it is asked (`keeping`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.kinds import UNFINISHED
from stepwell.event import Event
from stepwell.lake import Lake

BATCH = "serve:"
"""How the names of batches begin that hold what was received."""
POLICY = "stepwell-serve"
ABORTED = UNFINISHED[0]
_GOES_ON = ("instruction", "notice", "turn", "action", "observation", "label", "feedback", "attempt", "hint", "end")
"""Kinds after which a trajectory that was closed for silence is open again."""
_COLUMNS = ["event_id", "trajectory_id", "corpus", "kind", "policy", "recorded_at", "retraction"]


@dataclass
class _Open:
    corpus: str
    last: float


class Lifecycle:
    """What is open, and what was closed here; times are seconds since 1970."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.open: dict[str, _Open] = {}
        self.closed: dict[str, str] = {}
        """Trajectory -> event id of the end that was written for silence and holds."""
        self._ends: Counter[str] = Counter()
        self.ended: set[str] = set()
        """Trajectories with an end that was sent and holds."""
        where = pc.starts_with(pc.field("batch_id"), BATCH)
        rows = lake.read("events", columns=_COLUMNS, filters=where).to_pylist()
        gone = {r["retraction"]["target_event"] for r in rows if r["retraction"]}
        for r in rows:
            stream, when = r["trajectory_id"], r["recorded_at"].timestamp()
            if r["kind"] == "start":
                self.open.setdefault(stream, _Open(r["corpus"], when))
            if r["kind"] == "end" and r["policy"] == POLICY:
                self._ends[stream] += 1
                if r["event_id"] not in gone:
                    self.closed[stream] = r["event_id"]
            elif r["kind"] == "end" and r["event_id"] not in gone:
                self.ended.add(stream)
        for r in rows:
            if r["trajectory_id"] in self.open:
                mine = self.open[r["trajectory_id"]]
                mine.last = max(mine.last, r["recorded_at"].timestamp())
        self.open = {t: o for t, o in self.open.items() if t not in self.ended and t not in self.closed}

    def received(self, events: Sequence[Event]) -> list[Event]:
        """Take in what is about to be written; returns retractions of ends that no longer hold."""
        going = {e.trajectory_id for e in events if e.trajectory_id in self.closed and e.kind in _GOES_ON}
        known = self._known(going)
        retractions = []
        for event in events:
            stream = event.trajectory_id
            end = self.closed.get(stream)
            if end is not None and event.kind in _GOES_ON and event.event_id not in known:
                why = {"target_event": end, "action": "supersede", "reason": "the trajectory went on"}
                retractions.append(Event("retraction", stream, event.corpus, "system", why, policy=POLICY))
                del self.closed[stream]
                self.open[stream] = _Open(event.corpus, time.time())
        for event in events:
            stream = event.trajectory_id
            if event.kind == "start" and stream not in self.closed and stream not in self.ended:
                self.open.setdefault(stream, _Open(event.corpus, 0.0))
            if stream in self.open:
                self.open[stream].last = time.time()
        for event in events:
            if event.kind == "end":
                self.open.pop(event.trajectory_id, None)
                self.ended.add(event.trajectory_id)
        return retractions

    def _known(self, streams: set[str]) -> set[str]:
        if not streams:
            return set()
        where = pc.field("trajectory_id").isin(pa.array(sorted(streams)))
        return set(self.lake.read("events", columns=["event_id"], filters=where).column(0).to_pylist())

    def silent(self, idle: float) -> list[Event]:
        """The ends of trajectories that have been silent for so long; they count as closed when `close` is told."""
        limit = time.time() - idle
        return [
            Event(
                "end", t, o.corpus, "system", {"exit_status": ABORTED}, policy=POLICY, discriminator=str(self._ends[t])
            )
            for t, o in self.open.items()
            if o.last < limit
        ]

    def close(self, ends: Sequence[Event]) -> None:
        """Note ends that are in the log."""
        for end in ends:
            del self.open[end.trajectory_id]
            self.closed[end.trajectory_id] = end.event_id
            self._ends[end.trajectory_id] += 1
