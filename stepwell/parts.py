"""The data files of a commit: Parquet files and what the table's log says of them.

They are written here where delta-rs does it at a higher price: it holds all rows of a commit until they are encoded, and copies
those of a partitioned table once more. Does not belong here: the commit (`stepwell.lake`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
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
        name, n, low, high = _new_name(), 0, [], []
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
        made.append(_added(name, size, n, {"trajectory_id": (min(low), max(high), 0)}))
    return made


def write_partitions(
    files: fs.FileSystem, folder: str, rows: pa.Table, by: str, bounded: Sequence[str]
) -> list[AddAction]:
    """Write rows to one new file a value of the text column `by`; the log will have the bounds of the columns `bounded`."""
    values = pc.unique(rows.column(by)).to_pylist()
    made = []
    for value in values:
        here = rows if len(values) == 1 else rows.filter(pc.equal(rows.column(by), value))
        part = f"{by}={quote(value, safe='')}"
        files.create_dir(f"{folder}/{part}")
        name = f"{part}/{_new_name()}"
        with files.open_output_stream(f"{folder}/{name}") as sink:
            pq.write_table(
                here.drop_columns([by]), sink, compression="zstd", write_statistics=list(bounded), store_schema=False
            )
            size = sink.tell()
        bounds = {column: _bounds(here.column(column)) for column in bounded}
        made.append(_added(name, size, len(here), bounds, {by: value}))
    return made


def _new_name() -> str:
    return f"part-{uuid4()}.zstd.parquet"


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any, int]:
    """Least and greatest value, and how many are null."""
    least = pc.min_max(column).as_py()
    return least["min"], least["max"], column.null_count


def _added(
    name: str,
    size: int,
    n: int,
    bounds: Mapping[str, tuple[Any, Any, int]],
    partition: Mapping[str, str | None] | None = None,
) -> AddAction:
    """What the log says of a new file."""
    stats = {
        "numRecords": n,
        "minValues": {column: low for column, (low, _, _) in bounds.items() if low is not None},
        "maxValues": {column: high for column, (_, high, _) in bounds.items() if high is not None},
        "nullCount": {column: nulls for column, (_, _, nulls) in bounds.items()},
    }
    told = orjson.dumps(stats, option=orjson.OPT_UTC_Z).decode()
    return AddAction(name, size, partition or {}, int(time.time() * 1000), True, told)


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
