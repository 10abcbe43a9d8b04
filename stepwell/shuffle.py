"""Whole trajectories out of a log of any size, in one pass: the events of every bucket of ids apart.

Memory is that of one bucket: of SIZE trajectories up to SIZE * MOST of them, beyond that of one part in MOST.

Belongs here: reading trajectories whole when they are too many to be looked up. Does not belong here: the log itself, one
trajectory (`stepwell.log`). A trajectory's events lie in files of many commits (its import, verdicts, masks), in no order
of ids; to look up bucket after bucket would read the log once a bucket. Buckets are files without a name: a process that
is killed leaves nothing behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.events import EVENTS
from schemas.upcast import upcast
from stepwell.lake import Lake
from stepwell.log import in_order

SIZE = 200
"""Trajectories of a bucket, at least."""
MOST = 256
"""Buckets, at most: each is an open file."""
_BATCH = 8192
_NEEDED = ("trajectory_id", "step", "kind", "event_id", "schema_version")
_SCAN: dict[str, Any] = {"batch_size": _BATCH, "batch_readahead": 1, "fragment_readahead": 1}
_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


class Spill:
    """Rows of one schema in a file without a name: written table by table, then read as one stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with its owner)
        self._writer = pa.ipc.new_stream(self._file, schema, options=_LZ4)

    def write(self, rows: pa.Table) -> None:
        """Add rows."""
        self._writer.write_table(rows, max_chunksize=_BATCH)

    def reader(self) -> pa.RecordBatchReader:
        """All rows, from the start; nothing can be written after."""
        self._writer.close()
        self._file.seek(0)
        return pa.ipc.open_stream(self._file)

    def close(self) -> None:
        """Give the disk space back; a second time does nothing."""
        self._file.close()


def ids_of(lake: Lake, version: int, corpora: Sequence[str]) -> list[str]:
    """The trajectories of these corpora at a version of `events`, sorted."""
    handle = lake.table("events", version)
    assert handle is not None, "a version that exists"
    where = pc.field("corpus").isin(pa.array(list(corpora), pa.string()))
    found: set[str] = set()
    for batch in lake.dataset(handle).to_batches(columns=["trajectory_id"], filter=where):
        found.update(pc.unique(batch.column(0)).to_pylist())
    return sorted(found)


def whole(lake: Lake, version: int, ids: Sequence[str], columns: Sequence[str], size: int = SIZE) -> Iterator[pa.Table]:
    """The events of these trajectories (sorted ids), a bucket of whole trajectories after the other, in canonical order.

    Only files with one of them are read. Needs room on the disk for the columns read.
    """
    handle = lake.table("events", version)
    if handle is None or not ids:
        return
    wanted, size = pa.array(ids, pa.string()), max(size, -(-len(ids) // MOST))
    data = _holding(lake.dataset(handle), wanted)
    later = [f for f in EVENTS.schema if f.name not in data.schema.names]
    data = data.replace_schema(pa.schema([*data.schema, *later]))
    names = list(dict.fromkeys([*columns, *_NEEDED]))
    with ExitStack() as opened:
        buckets: dict[int, Spill] = {}
        for batch in data.to_batches(columns=names, filter=pc.field("trajectory_id").isin(wanted), **_SCAN):
            for number, rows in _parted(batch, wanted, size):
                if number not in buckets:
                    buckets[number] = Spill(rows.schema)
                    opened.callback(buckets[number].close)
                buckets[number].write(rows)
        for number in sorted(buckets):
            yield in_order(upcast(buckets[number].reader().read_all())).select(list(columns))
            buckets[number].close()


def _holding(data: ds.FileSystemDataset, wanted: pa.Array) -> ds.FileSystemDataset:
    """The row groups of a dataset that hold one of these trajectories."""
    where = pc.field("trajectory_id").isin(wanted)
    held = []
    for fragment in data.get_fragments(where):
        groups = [
            group.id
            for one in fragment.split_by_row_group(where, data.schema)
            if one.count_rows(filter=where)
            for group in one.row_groups
        ]
        if groups:
            held.append(fragment.subset(row_group_ids=groups))
    return ds.FileSystemDataset(held, data.schema, data.format, data.filesystem)


def _parted(batch: pa.RecordBatch, wanted: pa.Array, size: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a batch by the bucket of their trajectory."""
    place = pc.index_in(batch.column("trajectory_id"), wanted)
    number = pc.divide(place, pa.scalar(size, pa.int32()))
    order = pc.sort_indices(number)
    rows, numbers = pa.Table.from_batches([batch.take(order)]), number.take(order)
    start = 0
    for run in pc.run_end_encode(numbers).values.to_pylist() if len(rows) else []:
        n = pc.sum(pc.equal(numbers, run)).as_py()
        yield run, rows.slice(start, n)
        start += n
