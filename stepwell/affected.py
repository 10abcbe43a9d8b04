"""What a name covers and what was learnt from it: shared by lineage, which shows it, and redaction, which takes it out.

Belongs here: the trajectories that a task, repository, corpus or source has, those that continue them, and the rows of a
dataset at the version a model was trained on, or what is left of them. Does not belong here: following what models did next
(`stepwell.lineage`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.errors import LakeError
from stepwell.lake import Lake

NAMED = ("trajectory_id", "task_id", "repo", "corpus", "source")
"""What trajectories can be named by; a source is the path of a file."""


def trajectories_of(lake: Lake, column: str, name: str) -> set[str]:
    """Trajectories that have this value of one of NAMED; none where the folds do not know it (refresh them first)."""
    if column == "source":
        where = pc.field("path").isin(pa.array([name, str(Path(name).absolute())], pa.string()))
        rows = lake.read("sources", columns=["trajectory_ids"], filters=where).to_pylist()
        return {trajectory for row in rows for trajectory in row["trajectory_ids"]}
    found = lake.read("trajectories", columns=["trajectory_id"], filters=pc.field(column) == name)
    return set(found.column(0).to_pylist())


def with_children(lake: Lake, trajectories: Set[str]) -> set[str]:
    """These trajectories and all that continue them or replay a prefix of them."""
    starts = lake.read("events", columns=["trajectory_id", "start"], filters=pc.field("kind") == "start").to_pylist()
    parents = {r["trajectory_id"]: (r["start"] or {}).get("parent_trajectory") for r in starts}
    found = set(trajectories)
    while more := {t for t, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def table_of(model: Mapping[str, Any]) -> str | None:
    """The table of the dataset a row of `models` was trained on, None for a model that was brought in."""
    name = model["dataset"]
    return name if not name or name.startswith("datasets/") else f"datasets/{name}"


def rows_at(lake: Lake, table: str, version: int | None, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Rows of a dataset at a version; None where it can no longer be read, as a redaction erased some of them."""
    try:
        return lake.read(table, version, columns=columns)
    except LakeError:
        return None


def readable(lake: Lake, table: str, version: int | None) -> int | None:
    """This version of a table, or its current one where this one can no longer be read, as a redaction erased some rows."""
    try:
        handle = lake.table(table, version)
        if handle is not None:
            lake.require_whole(handle)
    except LakeError:
        return lake.version(table)
    return version
