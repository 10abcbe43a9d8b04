"""The event log: append in atomic commits, read at a version, replay in canonical order.

There is one append path. It holds the table's lock where there is one, checks and writes on one handle, and puts an
application transaction on every commit, so that a concurrent append makes the slower writer look again for what it was
about to write: the same fact offered twice, by one process or by many, is stored once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from schemas.events import EVENTS
from schemas.kinds import KINDS
from schemas.upcast import upcast
from stepwell.errors import LakeError
from stepwell.event import Event, to_table
from stepwell.lake import Lake

RANK = {name: kind.rank for name, kind in KINDS.items()}
_ORDER = [
    ("trajectory_id", "ascending"),
    ("order_step", "ascending"),
    ("order_rank", "ascending"),
    ("event_id", "ascending"),
]
_BEFORE, _AFTER = -1, 2**31 - 1
_AT_THE_END = ("end", "outcome", "reward", "retraction")


@dataclass(frozen=True)
class Appended:
    """What an append did: events written, events that were known already, and the version of `events` afterwards."""

    new: int
    known: int
    version: int


class EventLog:
    """The `events` table of a lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    @property
    def version(self) -> int | None:
        """Current version of `events`; None before the first event."""
        return self.lake.version("events")

    def append(self, events: Sequence[Event], batch_id: str) -> Appended:
        """Write the events that are not in the log yet, in one commit, whole or not at all."""
        unique = list({e.event_id: e for e in events}.values())
        by_id = {e.event_id: i for i, e in enumerate(unique)}
        rows = to_table(unique, batch_id, datetime.now(UTC))
        for _ in range(200):
            with self.lake.lock("events"):
                handle = self.lake.create("events")
                known = self._known(handle, unique)
                keep = [i for event_id, i in by_id.items() if event_id not in known]
                if not keep:
                    return Appended(0, len(events), handle.version())
                if self.lake.commit_once(handle, "events", rows.take(pa.array(keep)), "stepwell-events"):
                    return Appended(len(keep), len(events) - len(keep), handle.version())
        raise LakeError(
            "could not commit to `events` after 200 tries: other writers hold it. Try again when they stop."
        )

    @staticmethod
    def _known(handle: DeltaTable, events: Sequence[Event]) -> set[str]:
        streams = pa.array(sorted({e.trajectory_id for e in events}))
        corpora = pa.array(sorted({e.corpus for e in events}))
        where = pc.field("corpus").isin(corpora) & pc.field("trajectory_id").isin(streams)
        return set(handle.to_pyarrow_dataset().to_table(columns=["event_id"], filter=where).column(0).to_pylist())

    def read(
        self,
        version: int | None = None,
        *,
        trajectory_ids: Sequence[str] | None = None,
        corpora: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Events at a version (default: current) in canonical order, payloads upcast to the current schema."""
        where = None
        for name, values in (("corpus", corpora), ("trajectory_id", trajectory_ids), ("kind", kinds)):
            if values is not None:
                clause = pc.field(name).isin(pa.array(list(values), pa.string()))
                where = clause if where is None else where & clause
        handle = self.lake.table("events", version)
        if handle is None:
            return EVENTS.schema.empty_table().select(list(columns)) if columns else EVENTS.schema.empty_table()
        wanted = list(columns) if columns else None
        if wanted is not None:
            wanted += [c for c in ("trajectory_id", "step", "kind", "event_id", "schema_version") if c not in wanted]
        stored = handle.to_pyarrow_dataset().to_table(columns=wanted, filter=where)
        rows = in_order(upcast(stored))
        return rows.select(list(columns)) if columns else rows

    def replay(self, trajectory_id: str, version: int | None = None) -> pa.Table:
        """One trajectory's events in canonical order."""
        return self.read(version, trajectory_ids=[trajectory_id])

    def changed(self, since: int | None, until: int | None = None) -> list[str]:
        """Trajectories with events committed after version `since` up to version `until`, sorted."""
        handle = self.lake.table("events", until)
        if handle is None:
            return []
        if since is None:
            table = handle.to_pyarrow_dataset().to_table(columns=["trajectory_id"])
        else:
            if since >= handle.version():
                return []
            reader = handle.load_cdf(
                starting_version=since + 1,
                ending_version=handle.version(),
                columns=["trajectory_id"],
                allow_out_of_range=True,
            )
            table = pa.table(reader)
        return sorted(set(table.column("trajectory_id").to_pylist()))

    def batches(
        self,
        trajectory_ids: Sequence[str],
        version: int | None = None,
        size: int = 500,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """The events of these trajectories, whole trajectories at a time, so that memory stays constant."""
        ids = sorted(trajectory_ids)
        for start in range(0, len(ids), size):
            yield self.read(version, trajectory_ids=ids[start : start + size], columns=columns)


def in_order(rows: pa.Table) -> pa.Table:
    """Canonical order: (trajectory, step, rank of kind, event_id).

    Facts about the whole trajectory stand before its first step, except how it ended and was graded, which stand last.
    Instructions keep their position by their rank and id only; readers sort them by `position`.
    """
    rank = pc.index_in(rows.column("kind"), pa.array(list(RANK)))
    last = pc.is_in(rows.column("kind"), pa.array(_AT_THE_END))
    whole = pc.if_else(last, pa.scalar(_AFTER, pa.int32()), pa.scalar(_BEFORE, pa.int32()))
    step = pc.coalesce(rows.column("step"), whole)
    keyed = rows.append_column("order_step", step).append_column("order_rank", rank)
    order = pc.sort_indices(keyed, sort_keys=_ORDER)
    return rows.take(order)
