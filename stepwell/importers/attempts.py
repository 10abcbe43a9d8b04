"""Attempts at a task and how they were graded, as events: shared by the formats that hold solutions instead of steps.

An attempt is one turn in which a policy acted, so its event has the step of its round, and so have the verdict on it and
its outcomes. Not here: which fields of a format say what.
"""

from __future__ import annotations

from typing import Any

from stepwell.event import Event
from stepwell.ids import sha256
from stepwell.importers.base import Builder
from stepwell.importers.messages import Obj

HIDDEN, VISIBLE = "hidden tests", "visible tests"
"""Graders, by the tests they ran."""


def submit(
    builder: Builder, step: int, round: int, code: str | None, *, parent: Event | None = None, critique: Event | None = None,
    cause: Event | None = None, extra: Obj | None = None,
) -> Event:  # fmt: skip
    """One attempt; `code` is null where the source tells of an attempt it does not hold."""
    payload = {
        "attempt_id": f"{builder.trajectory_id}/{step}",
        "parent_attempt": None if parent is None else parent.payload["attempt_id"],
        "critique_id": None if critique is None else critique.event_id,
        "round": round,
        "code": code,
        "code_hash": None if code is None else sha256(code),
    }
    answered = cause or critique or parent
    caused_by = None if answered is None else answered.event_id
    return builder.add("attempt", "agent", payload, step=step, caused_by=caused_by, extra=extra)


def grade(
    builder: Builder, attempt: Event, grader: str, resolved: bool | None, *, tests: list[Obj] | None = None, rerun: int = 0,
    extra: Obj | None = None,
) -> None:  # fmt: skip
    """The outcome of an attempt; of two graders that of the higher `rerun` stands."""
    payload: dict[str, Any] = {
        "subject": attempt.payload["attempt_id"],
        "grader": grader,
        "rule": "all" if tests else "reported",
        "resolved": resolved,
        "tests": tests or None,
        "rerun": rerun,
    }
    builder.add("outcome", "grader", payload, step=attempt.step, policy=grader, caused_by=attempt.event_id, extra=extra)


def conclude(builder: Builder, grader: str, resolved: bool, end: Event, extra: Obj | None = None) -> None:
    """The outcome of the trajectory: that of the last attempt."""
    payload = {"subject": "trajectory", "grader": grader, "rule": "reported", "resolved": resolved, "rerun": 0}
    builder.add("outcome", "grader", payload, policy=grader, caused_by=end.event_id, extra=extra)
