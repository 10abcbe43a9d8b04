"""One event in Python, and many of them as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa

from schemas.events import EVENTS
from schemas.kinds import ACTORS, KINDS
from stepwell.errors import SchemaError, UnknownName
from stepwell.ids import digest

_FIELDS = {
    name: frozenset(kind.type.field(i).name for i in range(kind.type.num_fields)) for name, kind in KINDS.items()
}


@dataclass(frozen=True)
class Event:
    """A fact. `payload` holds the columns of the kind; absent columns are null.

    `discriminator` tells apart facts that are otherwise equal (two identical outputs in one step). Raises UnknownName
    for a kind or actor outside the closed sets and SchemaError for a payload field the kind does not have.
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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("event kind", self.kind, KINDS, "The set is closed: see docs/schema.md.")
        if self.actor not in ACTORS:
            raise UnknownName("actor", self.actor, ACTORS, "Name the role here and the model or person in `policy`.")
        foreign = self.payload.keys() - _FIELDS[self.kind]
        if foreign:
            raise SchemaError(
                f"payload of {self.kind!r} has {sorted(foreign)}; allowed: {sorted(_FIELDS[self.kind])}. "
                "Put what has no column into `extra`."
            )

    @cached_property
    def event_id(self) -> str:
        """128-bit hex digest of kind, trajectory, step, producer, discriminator, payload and usage.

        Raises SchemaError when a value cannot be written as JSON.
        """
        producer = (self.actor, self.policy, self.discriminator)
        try:
            return digest(self.kind, self.trajectory_id, self.step, *producer, self.payload, self.usage)
        except TypeError as error:
            raise SchemaError(
                f"{self.kind!r} event of trajectory {self.trajectory_id!r}, step {self.step}: {error}; "
                "write text through stepwell.ids.storable, and numbers as int, float or bool."
            ) from error


def to_table(events: Sequence[Event], batch_id: str, recorded_at: datetime) -> pa.Table:
    """Events -> rows with exactly the schema of `events`, in the given order."""
    rows: dict[str, list[Any]] = {c.name: [] for c in EVENTS.columns if c.name not in KINDS}
    payloads: dict[str, list[dict[str, Any]]] = {k: [] for k in KINDS}
    places: dict[str, list[int | None]] = {k: [None] * len(events) for k in KINDS}
    for row, e in enumerate(events):
        rows["event_id"].append(e.event_id)
        rows["corpus"].append(e.corpus)
        rows["trajectory_id"].append(e.trajectory_id)
        rows["step"].append(e.step)
        rows["kind"].append(e.kind)
        rows["actor"].append(e.actor)
        rows["policy"].append(e.policy)
        rows["occurred_at"].append(e.occurred_at)
        rows["recorded_at"].append(recorded_at)
        rows["caused_by"].append(e.caused_by)
        rows["batch_id"].append(batch_id)
        rows["schema_version"].append(KINDS[e.kind].version)
        rows["usage"].append(e.usage)
        rows["extra"].append(e.extra)
        places[e.kind][row] = len(payloads[e.kind])
        payloads[e.kind].append(e.payload)
    columns = []
    for column in EVENTS.columns:
        if column.name in KINDS:
            dense = pa.array(payloads[column.name], column.type)
            columns.append(dense.take(pa.array(places[column.name], pa.int32())))
        else:
            columns.append(pa.array(rows[column.name], column.type))
    return pa.Table.from_arrays(columns, schema=EVENTS.schema)
