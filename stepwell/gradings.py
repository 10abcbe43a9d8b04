"""Which of several gradings of a trajectory or of a solution in it stands: one rule for all who ask.

Of graders the one whose grading has the highest `rerun` stands (importers number them so: hidden tests after visible ones, a
report of its own after a list), and what was recorded last under a number corrects what was recorded before. Of a trajectory
its last run stands, as `stepwell.fold` has it. Of a solution its first: reruns only tell how sure it is (METHODS.md K17).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WHOLE = "trajectory"
"""The subject of a grading that is about the trajectory."""
Row = Mapping[str, Any]


def by_subject(events: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Events that hold, in any order -> (trajectory, subject) -> its gradings: the payload with `event_id` and `recorded_at`.

    Reads event_id, trajectory_id, kind, recorded_at, outcome.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in events:
        if row["kind"] == "outcome":
            about = row["outcome"]["subject"] or WHOLE
            grading = {**row["outcome"], "event_id": row["event_id"], "recorded_at": row["recorded_at"]}
            found.setdefault((row["trajectory_id"], about), []).append(grading)
    return found


def runs(gradings: Sequence[Row]) -> list[Row]:
    """Gradings of one subject, at least one -> those of the grader that stands, one a number, in their order."""
    ordered = sorted(gradings, key=lambda g: (g["rerun"] or 0, g["recorded_at"], g["event_id"]))
    return list({g["rerun"] or 0: g for g in ordered if g["grader"] == ordered[-1]["grader"]}.values())


def standing(gradings: Sequence[Row]) -> Row:
    """The grading of one subject, of at least one, that stands."""
    return runs(gradings)[-1 if (gradings[0]["subject"] or WHOLE) == WHOLE else 0]


def results(events: Iterable[Row]) -> dict[tuple[str, str], bool | None]:
    """Events as `by_subject` reads them -> (trajectory, subject) -> what stands; None where the grader could not say."""
    return {key: standing(gradings)["resolved"] for key, gradings in by_subject(events).items()}
