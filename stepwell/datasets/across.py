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
    """Rows (row_id, task_id, judgment) -> row_id of those left out and why; the limit per task first, then the balance."""
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
        said = {
            value: [r for r in drawn if r["judgment"] is value and r["row_id"] not in gone] for value in (True, False)
        }
        fewer = min(len(of) for of in said.values())
        gone |= {row["row_id"]: "balance of judgments" for of in said.values() for row in of[fewer:]}
        gone |= {
            r["row_id"]: "no judgment to balance" for r in drawn if r["judgment"] is None and r["row_id"] not in gone
        }
    return gone
