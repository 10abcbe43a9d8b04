"""What reports say now of a trajectory that is in the log, when they said otherwise before.

Belongs here: how a grading by reports corrects an older one. Not here: finding reports and reading them (`outcome`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepwell.event import Event
from stepwell.gradings import Row, standing
from stepwell.ids import canonical
from stepwell.importers.companions import AGGREGATE, INSTANCE, TRIAL

CONFLICT = "conflict"
GRADERS = {
    INSTANCE: "swe-bench-harness report",
    TRIAL: "harbor verifier",
    AGGREGATE: "aggregated results",
    CONFLICT: "stepwell import",
}
"""Who graded, by the kind of report; of reports that leave it undecided the import itself."""
_SAID = ("grader", "rule", "resolved", "score", "tests")


def corrected(reported: list[Event], gradings: Sequence[Row]) -> list[Event]:
    """What reports tell now, its outcomes so numbered that the last one stands among the gradings in the log.

    What reports said before is corrected under its number; what stands by another grader stays as it is.
    """
    last, told = standing(gradings), [e for e in reported if e.kind == "outcome"]
    if last["grader"] not in GRADERS.values() or _said(last) == _said(told[-1].payload):
        return reported
    more = max(0, (last["rerun"] or 0) - told[-1].payload["rerun"])
    told = [replace(e, payload={**e.payload, "rerun": e.payload["rerun"] + more}) for e in told]
    again = any(told[-1].event_id == g["event_id"] for g in gradings)  # said once, then otherwise, and now again
    told = [*told[:-1], replace(told[-1], discriminator=last["event_id"])] if again else told
    return [*(e for e in reported if e.kind != "outcome"), *told]


def _said(grading: Row) -> bytes:
    return canonical({k: grading.get(k) for k in _SAID})
