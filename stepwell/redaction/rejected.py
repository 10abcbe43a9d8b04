"""The bytes that `rejects` keeps of files whose trajectories are taken down: a bad line of a session is the session's.

Belongs here: which bytes those are. Not here: the rewriting (`run`), what a later import keeps (`importers.ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from stepwell.appending import names_in, taken_down
from stepwell.importers.files import kept_of
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.redaction.target import Target


@dataclass(frozen=True)
class Files:
    """Files by path: `whole` lost all their trajectories, of `parted` others are left, and their sizes are known.

    `down` are the trajectories, as events name them that were received and could not be read.
    """

    down: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    parted: dict[str, frozenset[int]] = field(default_factory=dict)

    def rows(self, rejects: pa.Table) -> pa.Array:
        """Which rejects keep bytes of what was taken down: those of a file that lost all, of a whole file, or that name it."""
        columns = [rejects.column(name).to_pylist() for name in ("path", "raw")]
        return pa.array([self._hold(path, raw) for path, raw in zip(*columns, strict=True)], pa.bool_())

    def _hold(self, path: str, raw: bytes) -> bool:
        if not raw or not self.down:
            return False
        return path in self.whole or len(raw) in self.parted.get(path, ()) or not self.down.isdisjoint(names_in(raw))


def files_of(lake: Lake, target: Target) -> Files:
    """The files that trajectories taken down were read from."""
    names: dict[str, set[str]] = {}
    sizes: dict[str, set[int]] = {}
    for row in lake.read("sources", columns=["path", "n_bytes", "trajectory_ids"]).to_pylist() if target.down else ():
        names.setdefault(row["path"], set()).update(row["trajectory_ids"])
        sizes.setdefault(row["path"], set()).add(kept_of(row["n_bytes"]))
    touched = {path for path, held in names.items() if held & target.down}
    others = {name for path in touched for name in names[path]} - target.down
    down = target.down | taken_down(EventLog(lake), others)
    whole = frozenset(path for path in touched if names[path] <= down)
    return Files(target.down, whole, {path: frozenset(sizes[path]) for path in touched - whole})
