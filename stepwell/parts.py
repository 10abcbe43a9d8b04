"""The data files of a commit: Parquet files and what the table's log says of them.

They are written here where delta-rs does it at a higher price: it holds all rows of a commit until they are encoded, and copies
those of a partitioned table once more. Does not belong here: the commit (`stepwell.lake`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    return write_groups(files, folder, _groups(rows), ("trajectory_id",))


def write_partitions(
    files: fs.FileSystem, folder: str, rows: pa.Table, by: str, bounded: Sequence[str]
) -> list[AddAction]:
    """Write rows to one new file a value of the text column `by`; the log will have the bounds of the columns `bounded`."""
    options: dict[str, Any] = {"write_statistics": list(bounded), "store_schema": False}
    values = pc.unique(rows.column(by)).to_pylist()
    made = []
    for value in values:
        here = rows if len(values) == 1 else rows.filter(pc.equal(rows.column(by), value))
        made += write_groups(files, folder, iter([here.drop_columns([by])]), bounded, {by: value}, **options)
    return made


def write_groups(
    files: fs.FileSystem,
    folder: str,
    groups: Iterator[pa.Table],
    bounded: Sequence[str],
    partition: Mapping[str, str] | None = None,
    size: int = FILE,
    data_change: bool = True,
    **options: Any,
) -> list[AddAction]:
    """Write tables as row groups of new files of about `size` bytes, in the folder of their partition; nobody sees them yet.

    The log will have the bounds of the columns `bounded`; `options` are those of Arrow's Parquet writer.
    """
    within = "".join(f"{column}={quote(value, safe='')}/" for column, value in (partition or {}).items())
    files.create_dir(f"{folder}/{within}")
    made = []
    held = next(groups, None)
    while held is not None:
        name, n, bounds = f"{within}part-{uuid4()}.zstd.parquet", 0, [_Bounds(column) for column in bounded]
        with files.open_output_stream(f"{folder}/{name}") as sink:
            with pq.ParquetWriter(sink, held.schema, compression="zstd", **options) as writer:
                while held is not None and (not n or sink.tell() < size):
                    writer.write_table(held, row_group_size=len(held))
                    n += len(held)
                    for one in bounds:
                        one.add(held)
                    held = next(groups, None)
            n_bytes = sink.tell()
        stats = {
            "numRecords": n,
            "minValues": {one.column: one.low for one in bounds if one.low is not None},
            "maxValues": {one.column: one.high for one in bounds if one.high is not None},
            "nullCount": {one.column: one.nulls for one in bounds},
        }
        told = orjson.dumps(stats, option=orjson.OPT_UTC_Z).decode()
        made.append(AddAction(name, n_bytes, partition or {}, int(time.time() * 1000), data_change, told))
    return made


@dataclass
class _Bounds:
    """Least and greatest value of a column of a file, and how many are null."""

    column: str
    low: Any = None
    high: Any = None
    nulls: int = 0

    def add(self, rows: pa.Table) -> None:
        """Count the rows of one group."""
        values = rows.column(self.column)
        here = pc.min_max(values).as_py()
        if here["min"] is not None:
            self.low = here["min"] if self.low is None else min(self.low, here["min"])
            self.high = here["max"] if self.high is None else max(self.high, here["max"])
        self.nulls += values.null_count


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
