"""Attempts at tasks that were graded, and pairs of them to compare: one that is right, one that is wrong.

Belongs here: who is in a pair, for those who ask about pairs (critics) and those who count answers (evaluation). Does not
belong here: asking and counting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import pyarrow as pa

from stepwell.gradings import WHOLE, results
from stepwell.ids import digest
from stepwell.log import live

COLUMNS = ("event_id", "trajectory_id", "kind", "recorded_at", "start", "attempt", "outcome", "retraction")
"""Columns of `events` that `graded` reads."""
KINDS = ("start", "attempt", "outcome", "retraction")


@dataclass(frozen=True)
class Graded:
    """An attempt at a task: `id` is that of the trajectory, or of the event of a solution in it; `right` is the result."""

    id: str
    trajectory_id: str
    task: str
    right: bool

    @property
    def whole(self) -> bool:
        """Whether it is the trajectory."""
        return self.id == self.trajectory_id


@dataclass(frozen=True)
class Pair:
    """Two attempts at one task of which one solves it."""

    right: Graded
    wrong: Graded


def graded(events: pa.Table) -> dict[str, Graded]:
    """Events in canonical order (COLUMNS, KINDS) -> the attempts with a result, by id; of several that which stands counts."""
    tasks: dict[str, str] = {}
    solutions: dict[str, str] = {}
    rows = live(events).select(list(COLUMNS)).to_pylist()
    for row in rows:
        stream = row["trajectory_id"]
        if row["kind"] == "start":
            tasks[stream] = row["start"]["task_id"] or ""
        elif row["kind"] == "attempt":
            solutions[row["attempt"]["attempt_id"]] = row["event_id"]
    found = {}
    for (stream, about), right in results(rows).items():
        identity = stream if about == WHOLE else solutions.get(about)
        if identity is not None and right is not None:
            found[identity] = Graded(identity, stream, tasks.get(stream, ""), right)
    return found


def drawn(attempts: Iterable[Graded], most: int, seed: int = 0) -> list[Pair]:
    """At most `most` pairs of each task, by task and the same for the same seed; tasks without a name are left out.

    A pair is of two trajectories or of two solutions; a trajectory that has solutions is no attempt beside them.
    """
    attempts = list(attempts)
    trees = {a.trajectory_id for a in attempts if not a.whole}
    tasks: dict[str, tuple[list[Graded], list[Graded]]] = defaultdict(lambda: ([], []))
    for a in attempts:
        if a.task and not (a.whole and a.trajectory_id in trees):
            tasks[a.task][a.right].append(a)
    found = []
    for _, (wrong, right) in sorted(tasks.items()):
        pairs = [Pair(r, w) for r, w in product(right, wrong) if r.whole == w.whole]
        found += sorted(pairs, key=lambda p: digest("pair", seed, p.right.id, p.wrong.id))[:most]
    return found
