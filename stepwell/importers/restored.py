"""What a file that Stepwell exported carries of its events, put back: columns without a place, verdicts, masks, outcomes.

Belongs here: `extra.stepwell` as `stepwell.carried` has it, in a file of any format. Not here: the fields of the format. Files
are written by others, so what does not fit stays in `extra` of the event it stands at, and the event is as its format says.
Trajectories and events get new ids; references between events of the file are kept, others stay as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pyarrow as pa

from schemas.column import struct
from schemas.kinds import KINDS
from schemas.payloads import USAGE
from stepwell.carried import KEY, NATIVE, NATIVE_USAGE, REFERENCES
from stepwell.errors import StepwellError
from stepwell.event import Event
from stepwell.importers.base import Builder
from stepwell.importers.messages import Obj, pack, take_time

_USAGE_TYPE = struct(USAGE)
_FOLLOWS = ("step_id", "is_copied_context", "llm_call_count", "schema_version", "trajectory_id", "final_metrics")
"""What an importer keeps in `extra` that follows from the rest of an exported file."""

_UNPLACED = ("action", "instruction", "retraction")
"""Kinds that are never put back from beside their place: what a policy said and was told is what the file shows."""


def take_carried(left: Obj) -> Obj:
    """Remove and return what an object carries; empty when it carries nothing."""
    extra = left.get("extra")
    mine = extra.get(KEY) if isinstance(extra, dict) else None
    if not isinstance(extra, dict) or not isinstance(mine, dict):
        return {}
    left["extra"] = {k: v for k, v in extra.items() if k != KEY}
    if not left["extra"]:
        del left["extra"]
    return dict(mine)


@dataclass
class Restored:
    """Puts back what is carried, event by event as an importer builds them, and at the end what has no place."""

    builder: Builder
    _ids: dict[str, str] = field(default_factory=dict)
    _causes: dict[int, str] = field(default_factory=dict)
    _waiting: list[tuple[str, Obj, int | None]] = field(default_factory=list)

    def over(self, mine: Obj) -> Event:
        """The event that was built last, with what is carried of it."""
        event = self.builder.events[-1]
        if mine:
            left = orjson.loads(event.extra) if event.extra else {}
            left = {k: v for k, v in left.items() if k not in _FOLLOWS}
            try:
                event = self._whole(event, mine, left)
            except (StepwellError, pa.ArrowException, TypeError, ValueError, OverflowError):
                self._keep(len(self.builder.events) - 1, mine)
                return self.builder.events[-1]
            self.builder.events[-1] = event
            self._known(mine, event, len(self.builder.events) - 1)
            self.wait(mine, event.step)
        return event

    def wait(self, mine: Obj, step: int | None) -> None:
        """Remember the events without a place that are carried here, to add them at the end."""
        events = mine.get("events")
        for kind, rows in events.items() if isinstance(events, dict) else ():
            for row in rows if isinstance(rows, list) else [rows]:
                own = row.get("step", step) if isinstance(row, dict) else step
                self._waiting.append((kind, row, own))

    def attempt(self, mine: Obj, code: str | None) -> None:
        """Remember a step that is an attempt, and what is carried at it."""
        self.builder.n_steps += 1
        self._waiting.append(("attempt", {"code": code, **mine}, mine.get("step")))
        self.wait(mine, mine.get("step"))

    def finish(self) -> None:
        """Add the events without a place, those first that others refer to, and make references new."""
        order = [*(k for k in KINDS if k not in REFERENCES), *REFERENCES]
        last = len(self.builder.events) - 1
        for kind, mine, step in sorted(self._waiting, key=lambda w: order.index(w[0]) if w[0] in order else len(order)):
            try:
                if kind not in KINDS or kind in _UNPLACED:
                    raise TypeError(kind)
                event = self._bare(kind, mine, step)
            except (StepwellError, pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
                self._keep(last, {"events": {kind: [mine]}, "step": step})
                continue
            self.builder.events.append(event)
            self._known(mine, event, len(self.builder.events) - 1)
        for i, cause in self._causes.items():
            self.builder.events[i] = replace(self.builder.events[i], caused_by=self._ids.get(cause, cause))

    def _whole(self, event: Event, mine: Obj, left: Obj) -> Event:
        """An event with a place of its own: native columns as the format has them, all others as carried."""
        native = {k: v for k, v in event.payload.items() if k in (*NATIVE[event.kind], "tools", "tool_call_id")}
        payload = {k: v for k, v in native.items() if k not in mine} | self._columns(event.kind, mine)
        if mine.get("same") == ["raw"] and (shown := event.payload.get("rendered")) is not None:
            payload["raw"] = shown
        usage = {k: v for k, v in (event.usage or {}).items() if k in NATIVE_USAGE} | _usage(mine)
        made = replace(
            event,
            actor=mine.get("actor", event.actor),
            policy=mine.get("policy"),
            payload=payload,
            usage=usage or None,
            extra=_merged(mine.get("extra"), left),
            occurred_at=event.occurred_at or take_time(dict(mine), "occurred_at"),
        )
        return _checked(made)

    def _bare(self, kind: str, mine: Obj, step: int | None) -> Event:
        made = Event(
            kind,
            self.builder.trajectory_id,
            self.builder.corpus,
            mine.get("actor", "system"),
            self._columns(kind, mine),
            step=step,
            policy=mine.get("policy"),
            occurred_at=take_time(dict(mine), "occurred_at"),
            usage=_usage(mine) or None,
            extra=_merged(mine.get("extra"), {}),
            discriminator=str(mine.get("event_id", "")),
        )
        return _checked(made)

    def _columns(self, kind: str, mine: Mapping[str, Any]) -> Obj:
        """The carried columns of a payload, references made new. Raises for a value of the wrong type."""
        names = [c.name for c in KINDS[kind].columns]
        payload = {k: mine[k] for k in names if mine.get(k) is not None}
        for name in REFERENCES.get(kind, ()):
            value = payload.get(name)
            if isinstance(value, str):
                payload[name] = self._ids.get(value, value)
            elif isinstance(value, list):
                payload[name] = [self._ids.get(v, v) for v in value]
        return payload

    def _known(self, mine: Obj, event: Event, at: int) -> None:
        if isinstance(mine.get("event_id"), str):
            self._ids[mine["event_id"]] = event.event_id
        if isinstance(mine.get("caused_by"), str):
            self._causes[at] = mine["caused_by"]

    def _keep(self, at: int, mine: Obj) -> None:
        """Keep what could not be put back in `extra` of an event."""
        event = self.builder.events[at]
        extra = orjson.loads(event.extra) if event.extra else {}
        held = extra.get(KEY, [])
        extra[KEY] = [*(held if isinstance(held, list) else [held]), mine]
        self.builder.events[at] = replace(event, extra=pack(extra))


def _usage(mine: Obj) -> Obj:
    usage = mine.get("usage")
    return {c.name: usage[c.name] for c in USAGE if usage.get(c.name) is not None} if isinstance(usage, dict) else {}


def _merged(carried: Any, left: Obj) -> str | None:
    """`extra` as it was, and what stands in the file besides."""
    if carried is None:
        return pack(left)
    value = orjson.loads(carried)
    if not isinstance(value, dict):
        raise TypeError("`extra` is an object, written as JSON.")
    return pack({**value, **left}) if left else str(carried)


def _checked(event: Event) -> Event:
    """The event, if it can be stored; raises what Arrow and the event itself raise."""
    pa.array([event.payload], KINDS[event.kind].type)
    pa.array([event.usage], _USAGE_TYPE)
    pa.array([event.policy, event.extra], pa.string())
    if event.step is not None and not (type(event.step) is int and 0 <= event.step < 2**31):
        raise ValueError(f"step {event.step!r} is none")
    _ = event.event_id
    return event
