"""A session that is imported while it is written, or again when it has grown: one trajectory, whatever was read when.

Belongs here: what has to be added to a trajectory of the log so that what holds of it is what its file says now. Not here:
which files grow and when they are read (`stepwell.live`), writing (`ledger`).

A reply may change as long as its file grows (its calls follow its text, its usage follows both), and so does the end. What
no longer holds is superseded by a retraction. An event that is to hold and was retracted before, or whose `extra` or cause
is another now, is written again; the id of its retraction is its discriminator, so that every import finds the same ids.
The end is written again with every addition: its `n_records` says which state of the file the trajectory is.

An event that a redaction changed is known by the keyed hash of its id, and what the redaction left of it holds in its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.ids import canonical
from stepwell.importers.base import N_RECORDS, Imported
from stepwell.secrets.redact import redactions, secret_id

Row = dict[str, Any]
COLUMNS = (
    "event_id", "corpus", "trajectory_id", "kind", "step", "caused_by", "occurred_at", "usage", "extra", "end", "retraction",
)  # fmt: skip
"""What is read of a trajectory that is in the log."""
_OF_FILES = ("task", "start", "instruction", "action", "observation", "end")
_SAID = ("instruction", "action", "observation")
_REASON = "the session went on"


def additions(stored: list[Row], one: Imported, salt: bytes) -> list[Event] | None:
    """Events to append to a trajectory (`stored`: all its rows) for it to be as its file says; none when the file is older.

    None when the file is not an earlier or later state of what is stored: it has no more records, and says something else.
    """
    redacted = redactions(stored)

    def left(event: Event) -> str | None:
        return redacted.get(secret_id(event.event_id, salt)) if redacted else None

    retracted = {r["retraction"]["target_event"]: r["event_id"] for r in stored if r["retraction"]}
    ours = {r["event_id"]: r for r in stored if r["kind"] in _OF_FILES}
    before = max((_extra(r["extra"]).get(N_RECORDS, 0) for r in ours.values() if r["kind"] == "end"), default=0)
    if (one.n_records or 0) <= before:
        last = one.n_steps - 1 if (one.n_records or 0) < before else one.n_steps  # a last reply may have grown since
        said = {left(e) or e.event_id for e in one.events if e.kind in _SAID and (e.step is None or e.step < last)}
        return [] if ours.keys() >= said else None
    holding = {event_id: row for event_id, row in ours.items() if event_id not in retracted}
    corpus = stored[0]["corpus"]
    names: dict[str, str] = {}
    added: list[Event] = []
    end: tuple[str, Event] | None = None

    def retract(event_id: str) -> None:
        why = {"target_event": event_id, "action": "supersede", "reason": _REASON}
        added.append(Event("retraction", one.trajectory_id, corpus, "system", why))
        retracted[event_id] = added[-1].event_id

    for event in one.events:
        now = replace(event, corpus=corpus, caused_by=names.get(event.caused_by or "", event.caused_by))
        if event.kind not in _OF_FILES:
            added += [now] if left(now) is None else []
            continue
        while (rest := left(now)) is None and (
            now.event_id in retracted or (now.event_id in holding and _differs(holding[now.event_id], now))
        ):
            if now.event_id not in retracted:
                retract(now.event_id)
                del holding[now.event_id]
            now = replace(now, discriminator=retracted[now.event_id])
        if rest is not None:
            if rest not in holding:  # superseded, and written again: by another id that cannot be done again
                same = (k for k in redacted.values() if k in holding and _place(ours[k]) == (now.kind, now.step))
                rest = next(same, rest)
            now = _as_left(now, ours[rest]) if event.kind == "end" else now
        name = names[event.event_id] = rest or now.event_id
        if holding.pop(name, None) is None and rest is None:
            added.append(now)
        if event.kind == "end":
            end = name, now
    for event_id in holding:
        retract(event_id)
    if added and end is not None and all(e.event_id != end[0] for e in added):
        retract(end[0])  # else an older state would be taken for a later one
        added.append(replace(end[1], discriminator=retracted[end[0]]))
    return added


def _place(row: Row) -> tuple[str, int | None]:
    return row["kind"], row["step"]


def _as_left(event: Event, row: Row) -> Event:
    """An end as a redaction left it, with the number of records it has now."""
    extra = {**_extra(row["extra"]), N_RECORDS: _extra(event.extra).get(N_RECORDS)}
    return replace(event, payload=row["end"], usage=row["usage"], extra=canonical(extra).decode())


def _differs(row: Row, event: Event) -> bool:
    """Whether what is no part of an event's id is another now."""
    mine, theirs = _extra(row["extra"]), _extra(event.extra)
    same = {k: v for k, v in mine.items() if k != N_RECORDS} == {k: v for k, v in theirs.items() if k != N_RECORDS}
    return not same or (row["caused_by"], row["occurred_at"]) != (event.caused_by, event.occurred_at)


def _extra(text: str | None) -> dict[str, Any]:
    try:
        told = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:  # of a lake redacted before a redaction left JSON as JSON
        return {}
    return told if isinstance(told, dict) else {}
