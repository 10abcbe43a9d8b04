"""The data files of a table as an Arrow dataset, which reads none before it is scanned.

deltalake makes one too, but gives every file an expression of all the bounds its log has: for every reader, ms a file.
Here a file has its partition and the bounds of `trajectory_id`, which are those that rule files out.
Does not belong here: opening tables (`stepwell.lake`), and which files hold which trajectories (`stepwell.holding`).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce
from operator import and_
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import DeltaTable

_BOUNDED = "trajectory_id"


def file_name(path: str) -> str:
    """The name of a data file, which no two have, from its path or URI."""
    return path.rsplit("/", 1)[-1]


def paths_of(handle: DeltaTable) -> list[str]:
    """The data files of an open table on this machine as its file system names them; deltalake escapes the folder."""
    escaped = urlparse(handle.table_uri).path
    return [unquote(escaped) + uri.removeprefix(escaped) for uri in handle.file_uris()]


def dataset_of(handle: DeltaTable, local: bool, names: Collection[str] | None = None) -> ds.FileSystemDataset:
    """The files of an open table; of all only those with these `names`, where they are given."""
    if not local or handle.protocol().min_reader_version > 1:  # one this cannot read is refused there
        return _named(handle.to_pyarrow_dataset(), names)
    files = pa.table(handle.get_add_actions(flatten=True))
    paths = [unquote(path) for path in files.column("path").to_pylist()]
    known = [_equal(column, files) for column in handle.metadata().partition_columns]
    if f"min.{_BOUNDED}" in files.schema.names:
        known.append(_between(files))
    root = fs.SubTreeFileSystem(unquote(urlparse(handle.table_uri).path), fs.LocalFileSystem())
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))
    fragments = [
        parquet.make_fragment(path, root, partition_expression=reduce(and_, told) if told else None)
        for path, *told in zip(paths, *known, strict=True)
        if names is None or file_name(path) in names
    ]
    return ds.FileSystemDataset(fragments, pa.schema(handle.schema()), parquet, root)


def _named(data: ds.FileSystemDataset, names: Collection[str] | None) -> ds.FileSystemDataset:
    files = [file for file in data.get_fragments() if names is None or file_name(file.path) in names]
    return ds.FileSystemDataset(files, data.schema, data.format, data.filesystem)


def _equal(column: str, files: pa.Table) -> list[pc.Expression]:
    """Of each file what its rows have in a column that the table is partitioned by."""
    values = files.column(f"partition.{column}").to_pylist()
    field = pc.field(column)
    told = {value: field.is_null() if value is None else field == value for value in set(values)}
    return [told[value] for value in values]


def _between(files: pa.Table) -> list[pc.Expression]:
    """Of each file the least and the greatest trajectory id, where its log has them."""
    field = pc.field(_BOUNDED)
    # Scalars of Arrow: it would look for pandas with every value of Python's, and where that is missing search for it.
    bounds = zip(files.column(f"min.{_BOUNDED}"), files.column(f"max.{_BOUNDED}"), strict=True)
    return [
        (field >= low) & (field <= high) if low.is_valid and high.is_valid else pc.scalar(True) for low, high in bounds
    ]
