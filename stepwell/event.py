"""One event in Python, and many of them as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

import pyarrow as pa

from schemas.events import ENVELOPE, EVENTS
from schemas.kinds import ACTORS, KINDS
from stepwell.errors import SchemaError, UnknownName
from stepwell.ids import digest_of, without_nulls

_FIELDS = {
    name: frozenset(kind.type.field(i).name for i in range(kind.type.num_fields)) for name, kind in KINDS.items()
}
_OWN = ("payload", *(c.name for c in ENVELOPE if c.name not in ("recorded_at", "batch_id", "schema_version")))
"""What a row takes from its event."""


@dataclass(init=False, slots=True)
class Event:
    """A fact, never changed once it is made: `replace` makes another.

    `payload` holds the columns of the kind; absent ones are null. `discriminator` tells apart facts that are otherwise equal
    (two identical outputs in one step). Raises UnknownName for a kind or actor outside the closed sets and SchemaError for a
    payload field the kind does not have.
    """

    kind: str
    trajectory_id: str
    corpus: str
    actor: str
    payload: dict[str, Any]
    step: int | None = None
    policy: str | None = None
    occurred_at: datetime | None = None
    caused_by: str | None = None
    usage: dict[str, Any] | None = None
    extra: str | None = None
    discriminator: str = ""
    _id: str | None = field(default=None, init=False, repr=False, compare=False)

    def __init__(
        self,
        kind: str,
        trajectory_id: str,
        corpus: str,
        actor: str,
        payload: dict[str, Any],
        step: int | None = None,
        policy: str | None = None,
        occurred_at: datetime | None = None,
        caused_by: str | None = None,
        usage: dict[str, Any] | None = None,
        extra: str | None = None,
        discriminator: str = "",
    ) -> None:
        # Written out, with slots and not frozen: an import makes so many that it is felt.
        self.kind, self.trajectory_id, self.corpus, self.actor = kind, trajectory_id, corpus, actor
        self.payload, self.step, self.policy, self.occurred_at = payload, step, policy, occurred_at
        self.caused_by, self.usage, self.extra, self.discriminator = caused_by, usage, extra, discriminator
        self._id = None
        if kind not in KINDS:
            raise UnknownName("event kind", kind, KINDS, "The set is closed: see docs/schema.md.")
        if actor not in ACTORS:
            raise UnknownName("actor", actor, ACTORS, "Name the role here and the model or person in `policy`.")
        if not _FIELDS[kind].issuperset(payload):
            foreign = payload.keys() - _FIELDS[kind]
            raise SchemaError(
                f"payload of {kind!r} has {sorted(foreign)}; allowed: {sorted(_FIELDS[kind])}. "
                "Put what has no column into `extra`."
            )

    @property
    def event_id(self) -> str:
        """128-bit hex digest of kind, trajectory, step, producer, discriminator, payload and usage.

        Raises SchemaError when a value cannot be written as JSON.
        """
        if self._id is None:
            said, used = without_nulls(self.payload), without_nulls(self.usage)
            producer = self.actor, self.policy, self.discriminator
            try:
                self._id = digest_of((self.kind, self.trajectory_id, self.step, *producer, said, used))
            except TypeError as error:
                raise SchemaError(
                    f"{self.kind!r} event of trajectory {self.trajectory_id!r}, step {self.step}: {error}; "
                    "write text through stepwell.ids.storable, and numbers as int, float or bool."
                ) from error
        return self._id


def to_table(events: Sequence[Event], batch_id: str, recorded_at: datetime) -> pa.Table:
    """Events -> rows with exactly the schema of `events`, in the given order."""
    values = {name: list(map(attrgetter(name), events)) for name in _OWN}
    kinds = values["kind"]
    held = set(kinds)
    columns = []
    for column in EVENTS.columns:
        name = column.name
        if name in KINDS:
            here = zip(kinds, values["payload"], strict=True) if name in held else ()
            payloads = [payload if kind == name else None for kind, payload in here]
            columns.append(pa.array(payloads, column.type) if payloads else pa.nulls(len(events), column.type))
        elif name == "schema_version":
            columns.append(pa.array([KINDS[kind].version for kind in kinds], column.type))
        elif name in ("batch_id", "recorded_at"):
            same = pa.scalar(batch_id if name == "batch_id" else recorded_at, column.type)
            columns.append(pa.repeat(same, len(events)))
        else:
            columns.append(pa.array(values[name], column.type))
    return pa.Table.from_arrays(columns, schema=EVENTS.schema)
