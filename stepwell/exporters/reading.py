"""Whole trajectories out of the log, one after the other, in an order that depends on nothing but their ids.

Belongs here: reading at a version in constant memory and in one pass. Does not belong here: what is made of them.
Trajectories lie scattered over the files of a table. One pass over these writes every event into a file of its own, grouped
by the trajectories that come together in the order; then group by group is read back. So ten times the log takes ten times
the time and the same memory (but for the ids).
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.events import EVENTS
from schemas.kinds import KINDS
from schemas.payloads import USAGE
from schemas.trajectories import TRAJECTORIES
from schemas.upcast import upcast
from stepwell.affected import readable
from stepwell.conditions import Condition
from stepwell.exporters.base import LeftOut, Row, Trajectory
from stepwell.fold import fold_trajectories
from stepwell.log import EventLog, in_order, live

GROUP = 10_000
"""Events that are in memory as Python objects at a time, unless one trajectory alone has more."""
_SCANNED = 4096
_SHAPE = ("event_id", "trajectory_id", "corpus", "step", "kind", "actor", "policy", "occurred_at", "caused_by", "extra")
_READ = (*_SHAPE, "recorded_at", "schema_version", "usage", "retraction")
_FOLDED = ("task", "start", "action", "observation", "end", "outcome")


@dataclass(frozen=True)
class Listed:
    """A trajectory of the log and how many events it has."""

    corpus: str
    trajectory_id: str
    n_events: int


def listed(log: EventLog, version: int, corpora: Sequence[str]) -> list[Listed]:
    """The trajectories of these corpora at a version, by corpus and id."""
    counted: Counter[tuple[str, str]] = Counter()
    for batch in _scan(log, version, ["corpus", "trajectory_id"], corpora):
        grouped = pa.table(batch).group_by(["corpus", "trajectory_id"]).aggregate([([], "count_all")])
        for corpus, one, n in zip(*(grouped.column(i).to_pylist() for i in range(3)), strict=True):
            counted[corpus, one] += n
    return [Listed(*key, n) for key, n in sorted(counted.items())]


def trajectories(
    log: EventLog, version: int, wanted: Sequence[Listed], kinds: frozenset[str], where: str
) -> Iterator[Trajectory | LeftOut]:
    """Trajectories at a version, whole, without what was retracted; LeftOut for one taken down.

    `where` is an SQL condition on the columns of `trajectories`; those it does not hold for are passed over. Raises
    RecipeError for what is none.
    """
    wanting = Condition(where, TRAJECTORIES, "--where")
    columns = [c.name for c in EVENTS.columns if c.name in (*_READ, *_FOLDED, *kinds)]
    for group, events in _groups(log, version, wanted, columns):
        holding = live(events)
        folded = pl.DataFrame(fold_trajectories(holding))
        facts = {row["trajectory_id"]: row for row in folded.filter(wanting.holds(folded)).to_dicts()}
        yield from (LeftOut("taken down") for _ in range(len(group) - len(folded)))
        kept = holding.filter(pc.is_in(holding.column("trajectory_id"), pa.array(list(facts), pa.string())))
        rows = _rows(kept, kinds)
        for name in (one.trajectory_id for one in group if one.trajectory_id in facts):
            yield Trajectory(name, facts[name]["corpus"], rows[name], facts[name])


def _rows(events: pa.Table, kinds: frozenset[str]) -> dict[str, dict[str, list[Row]]]:
    """Trajectory -> kind -> its events in canonical order."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for kind in sorted(kinds):
        part = events.filter(pc.equal(events.column("kind"), kind))
        if not len(part):
            continue
        payloads = part.column(kind).to_pylist()
        usages = part.column("usage").to_pylist() if part.column("usage").null_count < len(part) else [None] * len(part)
        envelopes = part.select(list(_SHAPE)).to_pylist()
        for envelope, payload, usage in zip(envelopes, payloads, usages, strict=True):
            envelope["payload"], envelope["usage"] = payload, usage
            found[envelope["trajectory_id"]][kind].append(envelope)
    return found


def _groups(
    log: EventLog, version: int, wanted: Sequence[Listed], columns: list[str]
) -> Iterator[tuple[list[Listed], pa.Table]]:
    """As many trajectories at a time as GROUP allows, and their events in canonical order."""
    groups: list[list[Listed]] = []
    n = GROUP
    for one in wanted:
        if n + one.n_events > GROUP:
            groups.append([])
            n = 0
        groups[-1].append(one)
        n += one.n_events
    numbers = [number for number, group in enumerate(groups) for _ in group]
    schema = pa.schema([EVENTS.schema.field(c) for c in columns])
    ids, of_id = pa.array([w.trajectory_id for w in wanted], pa.string()), pa.array(numbers, pa.int32())
    places: dict[int, list[int]] = defaultdict(list)
    with tempfile.TemporaryFile(prefix="stepwell-export-") as file:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(pa.PythonFile(file, "w"), schema, options=options) as spill:
            at = 0
            for batch in _scan(log, version, columns, sorted({w.corpus for w in wanted})):
                rows = _current(batch, schema)
                at_group = pc.take(of_id, pc.index_in(rows.column("trajectory_id"), ids))
                order = pc.sort_indices(at_group)
                (rows,) = rows.take(order).combine_chunks().to_batches()
                start = 0
                for counted in pc.value_counts(pc.take(at_group, order)).to_pylist():
                    spill.write_batch(rows.slice(start, counted["counts"]))
                    places[counted["values"]].append(at)
                    at, start = at + 1, start + counted["counts"]
        file.seek(0)
        with pa.ipc.open_file(pa.PythonFile(file, "r")) as back:
            for number, group in enumerate(groups):
                yield group, in_order(pa.Table.from_batches([back.get_batch(i) for i in places[number]], schema))


def _current(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Stored rows with exactly the columns of a schema, at their current version."""
    rows = upcast(pa.Table.from_batches([batch]))
    return pa.concat_tables([schema.empty_table(), rows], promote_options="default").select(schema.names)


def _scan(log: EventLog, version: int, columns: list[str], corpora: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Batches of stored rows, few at a time."""
    handle = log.lake.table("events", version)
    assert handle is not None, "a version was asked for, so there is a table"
    data = log.lake.dataset(handle)
    where = ds.field("corpus").isin(pa.array(list(corpora), pa.string()))
    present = [c for c in columns if c in data.schema.names]
    for fragment in data.get_fragments(where):  # one after the other, so that memory does not grow with their number
        for batch in fragment.to_batches(
            columns=present, filter=where, schema=data.schema, batch_size=_SCANNED, batch_readahead=1, use_threads=False
        ):
            if len(batch):
                yield batch


def columns_of(kind: str) -> tuple[str, ...]:
    """The columns of a kind's payload, or of `usage`."""
    return tuple(c.name for c in (USAGE if kind == "usage" else KINDS[kind].columns))


def hidden_since(log: EventLog, version: int) -> set[str]:
    """Trajectories of which something was taken down or redacted after a version: nothing older of them is given out.

    Where a redaction erased rows of that version, what was known then is told by its time.
    """
    columns = ["event_id", "trajectory_id", "recorded_at", "retraction"]
    now: list[Any] = log.read(kinds=["retraction"], columns=columns).to_pylist()
    if readable(log.lake, "events", version) == version:
        known = set(log.read(version, kinds=["retraction"], columns=["event_id"]).column(0).to_pylist())
    else:
        at = next((c["timestamp"] for c in log.lake.commits("events") if c["version"] == version), 0)
        known = {r["event_id"] for r in now if r["recorded_at"].timestamp() * 1000 <= at}
    return {
        r["trajectory_id"]
        for r in now
        if r["event_id"] not in known
        and (r["retraction"]["action"] != "supersede" or r["retraction"]["target_event"] is None)
    }
