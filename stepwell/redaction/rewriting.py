"""Events of whole trajectories, rewritten: texts with markers, ids of what is left, references to those ids, retractions.

An event id is a digest of what the event says, so a redacted event has a new one, and so has every event whose payload names
it; all of them are renamed together. An id whose digest cannot be done again (a discriminator is not stored) becomes a keyed
hash. Every redacted event gets a retraction of action `redact` that names its replacement; of the old id only a keyed hash
stays, since an id could be tried against guesses of what was said.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.events import EVENTS
from stepwell.event import Event, to_table
from stepwell.ids import canonical, digest, sha256
from stepwell.redaction.target import Taking, mapped

POLICY = "stepwell-redaction@1"
FREE_TEXT = {
    "statement", "config", "environment", "content", "tools", "text", "thought", "command", "reasoning", "tool_calls",
    "parse_error", "raw", "rendered", "files_changed", "guidance", "recovery", "code", "test_name", "name", "submission",
    "sampling", "detections",
}  # fmt: skip
"""Payload fields that hold what was said; of an event redacted by its id they go whole, and so does `extra`."""
_FIXED = {"event_id", "trajectory_id", "kind", "actor", "batch_id"}
Row = dict[str, Any]


def rewritten(rows: pa.Table, taking: Taking) -> pa.Table | None:
    """The rows to put in place of these, which are all the events of some trajectories; None when nothing is to change."""
    old: list[Row] = rows.to_pylist()
    kept = [row for row in old if row["trajectory_id"] not in taking.target.down]
    new = [_redacted(row, taking) for row in kept]
    said = [before != after for before, after in zip(kept, new, strict=True)]
    down = sorted(_down(old, taking))
    if not any(said) and not down:
        return None
    changed = {row["trajectory_id"] for row, differs in zip(kept, said, strict=True) if differs}
    for row in new:
        if row["trajectory_id"] in changed and row["usage"] and row["usage"].get("prompt_hash"):
            row["usage"] = {**row["usage"], "prompt_hash": None}  # of a prompt that held what is gone
    _rename(kept, new, taking.redactor.salt)
    told = [_told(place, None, taking, None, None) for place in down]
    for before, after, differs in zip(kept, new, said, strict=True):
        if differs:
            place, target = (after["trajectory_id"], after["corpus"]), taking.secret_id(before["event_id"])
            told.append(_told(place, after["step"], taking, target, after["event_id"]))
    retractions = to_table(told, f"redaction:{taking.name}", datetime.now(UTC))
    return pa.concat_tables([pa.Table.from_pylist(new, EVENTS.schema), retractions])


def _down(rows: list[Row], taking: Taking) -> set[tuple[str, str]]:
    """Trajectories of these rows that are to be taken down and have more left than the record of that."""
    more = {(r["trajectory_id"], r["corpus"]) for r in rows if (r["retraction"] or {}).get("action") != "takedown"}
    return {place for place in more if place[0] in taking.target.down}


def _redacted(row: Row, taking: Taking) -> Row:
    if row["event_id"] not in taking.target.events:
        return {k: v if k in _FIXED else mapped(v, taking.clean) for k, v in row.items()}
    mark, kind = taking.redactor.marker("event", row["event_id"]), row["kind"]

    def blank(value: Any, free: bool = False) -> Any:
        if isinstance(value, dict):
            return {k: blank(v, (free or k in FREE_TEXT) and k != "category") for k, v in value.items()}
        if isinstance(value, list):
            return [blank(v, free) for v in value]
        return mark if free and isinstance(value, str) and value else value

    taking.redactor.counts["event"] += 1
    return {**row, "extra": None, kind: blank(row[kind]), "usage": blank(row["usage"])}


def _rename(old: list[Row], new: list[Row], salt: bytes) -> None:
    """Give rows that changed their new ids, in place, until no row names an old id or the hash of an old text."""
    known: dict[str, str] = {}
    said = [row[row["kind"]] for row in new]
    for before, payload in zip(old, said, strict=True):
        _hashes(before[before["kind"]], payload, known)
    moved = True
    while moved:
        moved = False
        for before, after, payload in zip(old, new, said, strict=True):
            kind = after["kind"]
            after[kind] = mapped(payload, lambda text: known.get(text, text))
            after["caused_by"] = known.get(before["caused_by"], before["caused_by"])
            if (after[kind], after["usage"]) == (before[kind], before["usage"]):
                continue
            name = _identity(before, after, salt)
            moved |= known.get(before["event_id"]) != name
            known[before["event_id"]] = after["event_id"] = name


def _hashes(before: Any, after: Any, known: dict[str, str]) -> None:
    """Note the sha256 of every changed text, as payloads carry it beside the text."""
    if isinstance(before, str) and isinstance(after, str) and before != after:
        known[sha256(before)] = sha256(after)
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            _hashes(before[key], after[key], known)


def _identity(before: Row, after: Row, salt: bytes) -> str:
    if _digest(before) == before["event_id"]:
        return _digest(after)
    parts = before["event_id"].encode() + canonical([after[after["kind"]], after["usage"]])
    return hashlib.blake2b(parts, key=salt, digest_size=16).hexdigest()


def _digest(row: Row) -> str:
    producer = (row["actor"], row["policy"], "")
    return digest(row["kind"], row["trajectory_id"], row["step"], *producer, row[row["kind"]], row["usage"])


def _told(
    place: tuple[str, str], step: int | None, taking: Taking, target: str | None, replacement: str | None
) -> Event:
    named = {"target_event": target, "replacement": replacement} if target else {}
    payload = {"action": "redact" if target else "takedown", "reason": taking.reason, **named}
    return Event("retraction", *place, "system", payload, step=step, policy=POLICY)
