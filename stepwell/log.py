"""The event log: append in atomic commits, read at a version, replay in canonical order.

There is one append path. It holds the table's lock where there is one, checks and writes on one handle, and puts an
application transaction on every commit, so that a concurrent append makes the slower writer look again for what it was
about to write: the same fact offered twice, by one process or by many, is stored once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from schemas.events import EVENTS
from schemas.kinds import KINDS
from schemas.upcast import upcast
from stepwell.errors import LakeError
from stepwell.event import Event, to_table
from stepwell.holding import Holding
from stepwell.lake import COMPACTION, Lake
from stepwell.scanning import dataset_of

RANK = {name: kind.rank for name, kind in KINDS.items()}
_ORDER = [
    ("trajectory_id", "ascending"),
    ("order_step", "ascending"),
    ("order_rank", "ascending"),
    ("event_id", "ascending"),
]
_THROUGH = re.compile(r":through-(\d+)$")
_BEFORE, _AFTER = -1, 2**31 - 1
_AT_THE_END = ("end", "outcome", "reward", "retraction")


@dataclass(frozen=True)
class Appended:
    """What an append did: events written, events that were known already, and the version of `events` afterwards."""

    new: int
    known: int
    version: int


@dataclass(frozen=True)
class Derived:
    """What a derivation did: trajectories with something new, events written, events superseded, version gone through."""

    n_trajectories: int
    n_new: int
    n_superseded: int
    events_version: int | None


class EventLog:
    """The `events` table of a lake."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.holding = lake, Holding(lake)

    @property
    def version(self) -> int | None:
        """Current version of `events`; None before the first event."""
        return self.lake.version("events")

    def append(self, events: Sequence[Event], batch_id: str) -> Appended:
        """Write the events that are not in the log yet, in one commit, whole or not at all."""
        by_id = {e.event_id: e for e in events}
        unique = list(by_id.values())
        rows = to_table(unique, batch_id, datetime.now(UTC))
        for _ in range(200):
            with self.lake.lock("events"):
                handle = self.lake.create("events")
                known = self._known(handle, unique)
                keep = [i for i, event_id in enumerate(by_id) if event_id not in known]
                if not keep:
                    return Appended(0, len(events), handle.version())
                fresh = rows if len(keep) == len(rows) else rows.take(pa.array(keep))
                at, files = handle.version(), handle.file_uris()
                if self.lake.commit_once(handle, "events", fresh, "stepwell-events"):
                    if handle.version() == at + 1:  # else there are files of others too
                        self.holding.committed(handle, files, {e.trajectory_id for e in unique})
                    return Appended(len(keep), len(events) - len(keep), handle.version())
        raise LakeError(
            "could not commit to `events` after 200 tries: other writers hold it. Try again when they stop."
        )

    def _known(self, handle: DeltaTable, events: Sequence[Event]) -> set[str]:
        streams = sorted({e.trajectory_id for e in events})
        data = self.holding.data(handle, streams)
        if data is None:
            return set()
        where = pc.field("trajectory_id").isin(pa.array(streams))
        return set(data.to_table(columns=["event_id"], filter=where).column(0).to_pylist())

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
        wanted = list(columns) if columns else EVENTS.schema.names
        data = None
        if handle is not None:
            data = self.lake.dataset(handle) if trajectory_ids is None else self.holding.data(handle, trajectory_ids)
        if data is None:
            return EVENTS.schema.empty_table().select(wanted)
        needed = [
            *wanted,
            *(c for c in ("trajectory_id", "step", "kind", "event_id", "schema_version") if c not in wanted),
        ]
        present = [c for c in needed if c in data.schema.names]
        rows = upcast(data.to_table(columns=present, filter=where))
        for name in [c for c in needed if c not in present]:
            rows = rows.append_column(EVENTS.schema.field(name), pa.nulls(len(rows), EVENTS.schema.field(name).type))
        return in_order(rows).select(wanted)

    def corpora(self, version: int | None = None) -> list[str]:
        """The corpora at a version (default: the current one), sorted; also one of which all was taken down."""
        found: set[str] = set()
        handle = self.lake.table("events", version)
        if handle is not None:
            for batch in self.lake.dataset(handle).to_batches(columns=["corpus"]):
                found.update(pc.unique(batch.column(0)).to_pylist())
        return sorted(found)

    def replay(self, trajectory_id: str, version: int | None = None) -> pa.Table:
        """One trajectory's events in canonical order."""
        return self.read(version, trajectory_ids=[trajectory_id])

    def changed(self, since: int | None, until: int | None = None, kinds: Sequence[str] | None = None) -> list[str]:
        """Trajectories that gained events (of these kinds) after version `since` up to version `until`, sorted.

        Data files are compared, not the change feed, which cannot read partitions whose value needs escaping (a corpus
        such as `rollouts/one`). What a compaction wrote is left out: it holds nothing new. Where files of old versions
        are gone (a redaction) it may name more trajectories than changed, never fewer.
        """
        where = None if kinds is None else pc.field("kind").isin(list(kinds))
        try:
            return self._in_files(self._added(since, until, compactions=True), where)
        except FileNotFoundError:
            return self._in_files(self._added(since, until, compactions=False), where)

    def _in_files(self, files: Sequence[Any], where: pc.Expression | None) -> list[str]:
        found: set[str] = set()
        for file in files:
            for batch in file.to_batches(columns=["trajectory_id"], filter=where):
                found.update(pc.unique(batch.column(0)).to_pylist())
        return sorted(found)

    def _added(self, since: int | None, until: int | None, compactions: bool) -> list[Any]:
        """Files of version `until` that version `since` has not; with `compactions` those added by any other commit."""
        old, new = self._files(since) if since is not None else {}, self._files(until)
        if not compactions or old.keys() <= new.keys():
            return [file for path, file in new.items() if path not in old]
        found: dict[str, Any] = {}
        for version in self._compactions(since, until):
            before = self._files(version - 1)
            found |= {path: file for path, file in before.items() if path not in old}
            old = self._files(version)
        return list((found | {path: file for path, file in new.items() if path not in old}).values())

    def _compactions(self, since: int | None, until: int | None) -> list[int]:
        commits = [] if since is None else self.lake.commits("events", since)
        compactions = (c["version"] for c in commits if COMPACTION in c or c["operation"] == "OPTIMIZE")
        return sorted(version for version in compactions if until is None or version <= until)

    def _files(self, version: int | None) -> dict[str, Any]:
        handle = self.lake.table("events", version)
        return {} if handle is None else {f.path: f for f in dataset_of(handle, self.lake.local).get_fragments()}

    def through(self, policy: str) -> int | None:
        """Version of `events` a derivation has gone through: the last batch of its run is named `...:through-VERSION`."""
        handle = self.lake.table("events")
        if handle is None:
            return None
        names: set[str] = set()
        where = pc.field("policy") == policy
        for batch in self.lake.dataset(handle).to_batches(columns=["batch_id"], filter=where):
            names.update(pc.unique(batch.column(0)).to_pylist())
        return max((int(m[1]) for name in names if (m := _THROUGH.search(name))), default=None)

    def derive(
        self,
        policy: str,
        name: str,
        kinds: Sequence[str],
        columns: Sequence[str],
        new: Callable[[pa.Table], tuple[Sequence[Event], Sequence[Event]]],
        size: int = 500,
    ) -> Derived:
        """Append what a derivation makes of every trajectory that gained events of these kinds since its last run.

        `new` takes the events of whole trajectories (`size` of them at a time) and returns the events that are not there
        yet and the retractions of those that no longer hold. Batches are called `NAME:POLICY:...`; the last one says which
        version was gone through, so a run that dies is done again as a whole and writes only what is missing.
        """
        until = self.version
        if until is None:
            return Derived(0, 0, 0, None)
        ids = self.changed(self.through(policy), until, kinds)
        streams = n_new = n_superseded = 0
        held: list[Event] = []
        for part, rows in enumerate(self.batches(ids, until, size, columns)):
            if held:
                self.append(held, f"{name}:{policy}:v{until}:part-{part}")
            fresh, stale = new(rows)
            held = [*fresh, *stale]
            streams += len({e.trajectory_id for e in held})
            n_new += len(fresh)
            n_superseded += len(stale)
        if held:
            self.append(held, f"{name}:{policy}:through-{until}")
        return Derived(streams, n_new, n_superseded, until)

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


def taken_back(rows: Iterable[Mapping[str, Any]], policy: str) -> dict[str, str]:
    """Events that a derivation superseded -> its retraction, of rows with event_id, policy and retraction."""
    mine = ((r["retraction"], r["event_id"]) for r in rows if r["retraction"] and r["policy"] == policy)
    return {told["target_event"]: event_id for told, event_id in mine if told["action"] == "supersede"}


def holding_again(events: Iterable[Event], taken: Mapping[str, str]) -> list[Event]:
    """What a derivation makes; what it made before and took back (`taken`) becomes another event, which is not taken back.

    Its discriminator is the id of the retraction it follows, so that every run finds the same ids.
    """
    found = []
    for event in events:
        while (retraction := taken.get(event.event_id)) is not None:
            event = replace(event, discriminator=retraction)
        found.append(event)
    return found


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


def live(rows: pa.Table) -> pa.Table:
    """Events that still hold: without those a retraction names, and without trajectories taken down as a whole.

    Needs the columns event_id, trajectory_id and retraction; keeps the order.
    """
    retractions = (
        rows.filter(pc.is_valid(rows.column("retraction"))).select(["trajectory_id", "retraction"]).to_pylist()
    )
    retracted = [(r["trajectory_id"], r["retraction"]["target_event"]) for r in retractions]
    if not retracted:
        return rows
    events = pa.array([e for _, e in retracted if e is not None], pa.string())
    down = pa.array([t for t, e in retracted if e is None], pa.string())
    gone = pc.or_(pc.is_in(rows.column("event_id"), events), pc.is_in(rows.column("trajectory_id"), down))
    return rows.filter(pc.invert(gone))
