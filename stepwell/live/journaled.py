"""What the journal of a server holds of trajectories and events that are taken out of a lake, and the journal without it.

Does not belong here: files and locks (`stepwell.redaction`), what becomes of what is left (`keeping`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from stepwell.appending import names_in
from stepwell.importers.otlp import trajectories_of
from stepwell.live.shapes import unpacked
from stepwell.live.traces import spans_of

Record = dict[str, Any]


def without(records: Sequence[Record], down: Collection[str], events: Collection[str]) -> list[Record | None]:
    """All records of a journal without the events and spans of the trajectories `down` and without `events` (ids).

    None stands for a record of which nothing is left; one that had none of it is as it was.
    """
    ids = iter(trajectories_of([r["traces"] for r in records if "traces" in r]))
    return [_spans(r, ids, down) if "traces" in r else _events(r, down, events) for r in records]


def _events(record: Record, down: Collection[str], events: Collection[str]) -> Record | None:
    told = record["events"]
    kept = [e for e in told if e["trajectory_id"] not in down and not (events and unpacked(dict(e)).event_id in events)]
    unread = record.get("bad", [])
    bad = [b for b in unread if names_in(b[-1].encode("latin-1")).isdisjoint(down)]
    if (len(kept), len(bad)) == (len(told), len(unread)):
        return record
    return {**record, "events": kept, "bad": bad} if kept or bad else None


def _spans(record: Record, ids: Iterator[str], down: Collection[str]) -> Record | None:
    """`ids`: of the trajectories of this record's spans, and of those that come after it."""
    told = [next(ids) in down for _ in spans_of(record["traces"])]
    if not any(told):
        return record
    gone = iter(told)

    def left(item: Any, key: str, *below: str) -> Any:
        if not isinstance(item, dict) or not isinstance(item.get(key), list):
            return item
        if below:
            return {**item, key: [left(one, *below) for one in item[key]]}
        return {**item, key: [s for s in item[key] if not (isinstance(s, dict) and next(gone))]}

    return None if all(told) else {**record, "traces": left(record["traces"], "resourceSpans", "scopeSpans", "spans")}
