"""Limits over all rows of a dataset: at most so many a task, as many that say correct as that say incorrect.

Belongs here: which rows these leave out, by a hash of each row, whatever order they came in. Does not belong here: limits over
trajectories (curation), which are set before rows are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.data_settings import DatasetSettings
from stepwell.ids import digest


def limited(settings: DatasetSettings) -> bool:
    """Whether rows depend on rows of other trajectories."""
    return settings.per_task is not None or settings.balance != "none"


def thinned(rows: Iterable[Mapping[str, Any]], settings: DatasetSettings) -> dict[str, str]:
    """Rows (row_id, task_id, judgment, split) -> row_id of those left out and why: by task, then by split."""
    if not limited(settings):
        return {}
    drawn = sorted(rows, key=lambda row: digest("thinned", row["row_id"]))
    gone: dict[str, str] = {}
    taken: dict[str, int] = {}
    for row in drawn if settings.per_task is not None else ():
        task = row["task_id"] or row["row_id"]
        taken[task] = taken.get(task, 0) + 1
        if taken[task] > (settings.per_task or 0):
            gone[row["row_id"]] = "more rows of the task than per_task"
    if settings.balance == "judgment":
        left = [row for row in drawn if row["row_id"] not in gone]
        for split in sorted({row["split"] for row in left}):
            said = [[r for r in left if r["split"] == split and r["judgment"] is value] for value in (True, False)]
            fewer = min(map(len, said))
            gone |= {row["row_id"]: "balance of judgments" for of in said for row in of[fewer:]}
        gone |= {
            r["row_id"]: "no judgment to balance" for r in drawn if r["judgment"] is None and r["row_id"] not in gone
        }
    return gone
