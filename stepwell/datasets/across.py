"""Limits over all rows of a dataset: a solution that loops share once, at most so many a task, as many that say correct as
that say incorrect.

Belongs here: which rows these leave out, by a hash of each row, whatever order they came in. Does not belong here: limits over
trajectories (curation), which are set before rows are made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepwell.data_settings import DatasetSettings
from stepwell.ids import digest

COLUMNS = ("row_id", "task_id", "judgment", "split", "reference", "rewards")
"""Columns of a dataset that `thinned` reads; the last two where rows are about solutions."""
_OF_SOLUTIONS = ("ctrl_rl",)
Brief = dict[str, Any]


def limited(settings: DatasetSettings) -> bool:
    """Whether rows depend on rows of other trajectories."""
    return settings.method in _OF_SOLUTIONS or settings.per_task is not None or settings.balance != "none"


def thinned(rows: Iterable[Mapping[str, Any]], settings: DatasetSettings) -> dict[str, str]:
    """Rows (COLUMNS) -> row_id of those left out and why: by solution, then by task, then by split."""
    if not limited(settings):
        return {}
    drawn = sorted(map(_brief, rows), key=lambda row: digest("thinned", row["row_id"]))
    gone = dict.fromkeys(_again(drawn), "the same first solution stands in another loop")
    drawn = [row for row in drawn if row["row_id"] not in gone]
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


def _brief(row: Mapping[str, Any]) -> Brief:
    """What is held of a row: `solution` is the event that wrote it first, where the row is about one."""
    about = json.loads(row.get("reference") or "{}")
    solution, own = about.get("same_as"), about.get("attempt_event")
    return {
        **{name: row[name] for name in COLUMNS[:4]},
        "solution": solution or own, "copied": solution is not None, "rewarded": bool(row.get("rewards")),
    }  # fmt: skip


def _again(rows: Sequence[Brief]) -> list[str]:
    """Ids of rows about a solution that others are about: those with rewards stay, or else one, the writer's before copies."""
    of: dict[str, list[Brief]] = {}
    for row in rows:
        if row["solution"] is not None:
            of.setdefault(row["solution"], []).append(row)
    gone = []
    for same in of.values():
        stay = [r for r in same if r["rewarded"]] or [min(same, key=lambda r: bool(r["copied"]))]
        gone += [r["row_id"] for r in same if r not in stay]
    return gone
