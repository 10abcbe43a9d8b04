"""The data files of a commit, written as rows come: what delta-rs does not do, as it holds all rows until they are encoded.

Belongs here: Parquet files and what the table's log says of them. Does not belong here: the commit (`stepwell.lake`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

FILE = 32 << 20
"""Bytes of a derived table's file: as much is written anew, and held in memory, where one row of it changes."""
_GROUP = 16 << 20
"""Bytes in memory of a row group."""


def write_parts(files: fs.FileSystem, folder: str, rows: pa.RecordBatchReader) -> list[AddAction]:
    """Write rows to new files below a folder, which nobody sees before they are committed; memory is that of a row group."""
    made = []
    groups = _groups(rows)
    held = next(groups, None)
    while held is not None:
        name, n, low, high = f"part-{uuid4()}.zstd.parquet", 0, [], []
        with files.open_output_stream(f"{folder}/{name}") as sink:
            with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
                while held is not None and sink.tell() < FILE:
                    writer.write_table(held, row_group_size=len(held))
                    n += len(held)
                    bounds = pc.min_max(held.column("trajectory_id")).as_py()
                    low.append(bounds["min"])
                    high.append(bounds["max"])
                    held = next(groups, None)
            size = sink.tell()
        stats = {"numRecords": n, "minValues": {"trajectory_id": min(low)}, "maxValues": {"trajectory_id": max(high)},
                 "nullCount": {"trajectory_id": 0}}  # fmt: skip
        made.append(AddAction(name, size, {}, int(time.time() * 1000), True, orjson.dumps(stats).decode()))
    return made


def _groups(rows: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Rows in tables of about `_GROUP` bytes."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in rows:
        held.append(batch)
        size += batch.nbytes
        if size >= _GROUP:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)
