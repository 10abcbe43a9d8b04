"""Events that come from outside while others wait: one that Arrow cannot hold is put aside, and the rest is written.

What a redaction or a takedown took out comes again as well, from whoever sends again: it is left out.

Does not belong here: the append itself (`log`), files (`importers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from stepwell.event import Event, to_table
from stepwell.ids import digest, sha256, storable
from stepwell.log import EventLog
from stepwell.secrets.redact import redactions, salt_of, secret_id

_NAMED = re.compile(rb"""["']trajectory_id["']\s*:\s*["']([^"'\\]+)""")
_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)


def append_fitting(log: EventLog, events: Sequence[Event], batch_id: str, refuse: Callable[[Event, str], None]) -> int:
    """Append events, except those that cannot be held, which `refuse` is told with the reason; returns how many were new."""
    try:
        return log.append(events, batch_id).new
    except _UNFIT:
        fit = [e for e in events if _fits(e, refuse)]
        return log.append(fit, batch_id).new if fit else 0


def without_taken_out(log: EventLog, events: Sequence[Event]) -> list[Event]:
    """The events that no redaction or takedown took out of the log; causes that were redacted are named as they are left."""
    rows = _retractions(log, {e.trajectory_id for e in events})
    down = _down(rows)
    redacted = redactions(rows)
    salt = salt_of(log.lake) if redacted else b""

    def left(event_id: str | None) -> str | None:
        return redacted.get(secret_id(event_id, salt)) if event_id and redacted else None

    kept = [e for e in events if e.trajectory_id not in down and left(e.event_id) is None]
    return [replace(e, caused_by=left(e.caused_by) or e.caused_by) for e in kept] if redacted else kept


def taken_down(log: EventLog, trajectories: Collection[str]) -> set[str]:
    """Those of these trajectories that were taken down."""
    return _down(_retractions(log, trajectories)) if trajectories else set()


def _retractions(log: EventLog, trajectories: Collection[str]) -> list[dict[str, Any]]:
    columns = ["trajectory_id", "retraction"]
    rows: list[dict[str, Any]] = log.read(
        trajectory_ids=sorted(trajectories), kinds=columns[1:], columns=columns
    ).to_pylist()
    return rows


def _down(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {r["trajectory_id"] for r in rows if r["retraction"]["action"] == "takedown"}


def _fits(event: Event, refuse: Callable[[Event, str], None]) -> bool:
    try:
        to_table([event], "", datetime.now(UTC))
    except _UNFIT as error:
        refuse(event, str(error))
        return False
    return True


def reject_row(
    path: str, offset: int, reason: str, detail: str, raw: bytes, format: str | None, batch_id: str
) -> dict[str, Any]:
    """A row of `rejects`; the same input for the same reason always has the same id."""
    row = {
        "path": storable(path), "offset": offset, "reason": reason, "detail": storable(detail), "format": storable(format),
        "raw": raw, "batch_id": batch_id, "recorded_at": datetime.now(UTC),
    }  # fmt: skip
    return {"reject_id": reject_id(row), **row}


def names_in(raw: bytes) -> set[str]:
    """The trajectories that an event names which could not be read."""
    return {name.decode("utf-8", "replace") for name in _NAMED.findall(raw)}


def without_bytes(row: dict[str, Any]) -> dict[str, Any]:
    """A reject of a file or an event of trajectories that were taken down: what it kept of them, and quoted, is theirs."""
    left = row | {"raw": b"", "detail": "its bytes went with the trajectories they were of, which were taken down."}
    return left | {"reject_id": reject_id(left)}


def reject_id(row: Mapping[str, Any]) -> str:
    """Identity of a reject: where it stood, why, and its bytes; what is said of it where there are none."""
    return digest(row["path"], row["offset"], row["reason"], sha256(row["raw"] or row["detail"]))
