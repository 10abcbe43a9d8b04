"""Events that come from outside while others wait: one that Arrow cannot hold is put aside, and the rest is written.

Does not belong here: the append itself (`log`), files (`importers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from stepwell.event import Event, to_table
from stepwell.ids import digest, sha256, storable
from stepwell.log import EventLog

_UNFIT = (pa.ArrowException, ValueError, TypeError, OverflowError)


def append_fitting(log: EventLog, events: Sequence[Event], batch_id: str, refuse: Callable[[Event, str], None]) -> int:
    """Append events, except those that cannot be held, which `refuse` is told with the reason; returns how many were new."""
    try:
        return log.append(events, batch_id).new
    except _UNFIT:
        fit = [e for e in events if _fits(e, refuse)]
        return log.append(fit, batch_id).new if fit else 0


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
    path = storable(path)
    return {
        "reject_id": digest(path, offset, reason, sha256(raw or detail)), "path": path, "offset": offset,
        "reason": reason, "detail": storable(detail), "format": storable(format), "raw": raw, "batch_id": batch_id,
        "recorded_at": datetime.now(UTC),
    }  # fmt: skip
