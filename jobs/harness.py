"""What the official SWE-bench harness takes and gives: predictions out, its report in, as outcomes of the trajectories.

Belongs here: files of that harness. Does not belong here: running it, which needs its containers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from stepwell.errors import BadInput, UsageError
from stepwell.event import Event
from stepwell.exporters.run import Request, export
from stepwell.gradings import WHOLE, by_subject, standing
from stepwell.lake import Lake, quoted
from stepwell.log import EventLog, live

GRADER = "swe-bench-harness"
_RESULTS = (("resolved_ids", True), ("unresolved_ids", False), ("empty_patch_ids", False))
"""Lists of a report that grade; what stands in `error_ids` or nowhere was not graded."""


@dataclass(frozen=True)
class Told:
    """What a report said: attempts graded, those of them resolved, and those it says nothing of."""

    path: Path
    graded: int
    resolved: int
    left: int

    def line(self) -> str:
        """One line for people."""
        return f"{self.path}: {self.graded} graded, {self.resolved} resolved, {self.left} not graded (errors of the harness)"


def files(path: Path | None, n: int) -> list[Path] | None:
    """The file, or PATH-1, PATH-2... where there are several attempts: the harness knows one prediction an instance."""
    if path is None:
        return None
    if path.suffix not in (".json", ".jsonl"):
        raise UsageError(f"--predictions {str(path)!r}: the harness reads .json and .jsonl; name such a file.")
    return [path] if n == 1 else [path.with_stem(f"{path.stem}-{i + 1}") for i in range(n)]


def reports(paths: Sequence[Path] | None, n: int) -> list[Path] | None:
    """The reports given, one a predictions file in their order; raises UsageError for another number of them."""
    if paths is None:
        return None
    if len(paths) != n:
        raise UsageError(
            f"{len(paths)} --report for {n} attempts; give one for each predictions file, in the order they are written."
        )
    return list(paths)


def export_predictions(lake: Lake, corpus: str, trajectories: Sequence[str], path: Path) -> int:
    """Write what these trajectories handed in (`instance_id`, `model_name_or_path`, `model_patch`); returns how many."""
    where = f"trajectory_id IN ({', '.join(map(quoted, trajectories))})"
    return export(lake, Request("swe-bench", (corpus,), where), path, overwrite=True).written


def record(lake: Lake, corpus: str, trajectories: Sequence[str], path: Path) -> Told:
    """Add what a report says of these trajectories to the log, as a rerun where it says otherwise than what stands.

    What stands already adds nothing, so neither does the same report twice, and nobody grades what was taken down. Raises
    BadInput for a file that is no report, and for one of other instances.
    """
    said = _read(path)
    log = EventLog(lake)
    columns = ["event_id", "trajectory_id", "kind", "recorded_at", "task", "outcome", "retraction"]
    rows = log.read(trajectory_ids=list(trajectories), kinds=["task", "outcome", "retraction"], columns=columns)
    told, holding = rows.to_pylist(), live(rows).to_pylist()
    tasks = {r["task"]["task_id"]: r["trajectory_id"] for r in told if r["kind"] == "task"}
    if strange := sorted(said.keys() - tasks.keys()):
        raise BadInput(
            "malformed",
            f"{str(path)!r} grades {strange[:5]}, which are no tasks of this evaluation; give the report of its own "
            "predictions file.",
        )  # fmt: skip
    graded, before = by_subject(holding), by_subject(told)
    left = {r["trajectory_id"] for r in holding}
    outcome = {"subject": WHOLE, "grader": GRADER, "rule": "all"}
    events = []
    for task, resolved in sorted(said.items()):
        stream = tasks[task]
        stands = standing(graded[stream, WHOLE]) if (stream, WHOLE) in graded else {}
        if stream in left and (stands.get("grader"), stands.get("resolved")) != (GRADER, resolved):
            rerun = 1 + max((g["rerun"] or 0 for g in before.get((stream, WHOLE), ())), default=-1)
            payload = {**outcome, "resolved": resolved, "rerun": rerun}
            events.append(Event("outcome", stream, corpus, "grader", payload, policy=GRADER))
    if events:
        log.append(events, f"harness:{path.name}")
    return Told(path, len(said), sum(said.values()), len(tasks) - len(said))


def _read(path: Path) -> dict[str, bool]:
    try:
        document: Any = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--report {str(path)!r}: {error.strerror}; name the report the harness wrote.") from error
    except orjson.JSONDecodeError as error:
        raise BadInput("not_json", f"{str(path)!r}: {error}; name the report the harness wrote.") from error
    if not isinstance(document, dict) or "resolved_ids" not in document:
        raise BadInput("malformed", f"{str(path)!r} has no `resolved_ids`; name the report the harness wrote.")
    found: dict[str, bool] = {}
    for key, resolved in _RESULTS:
        for task in document.get(key) or ():
            if not isinstance(task, str) or found.setdefault(task, resolved) != resolved:
                raise BadInput("malformed", f"{str(path)!r} lists {task!r} in {key} and elsewhere, or it is no text.")
    return found
