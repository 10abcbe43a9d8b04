"""The lake: Delta tables under one URI, and the only place that writes them.

Facts that shape it (tried on deltalake 1.6): appends cast silently, so schemas are compared first; a repeated application
transaction is not refused, so it is checked and written on one handle; log cleanup is on by default, so it is switched
off; deletion vectors and column mapping break readers, so they are never enabled; the reader that deltalake gives Arrow
by default calls Python from Arrow's threads, and a process that exits while one still runs is aborted, so local files
are read by Arrow's own file system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as fs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from filelock import FileLock, Timeout

from schemas.choices import CHOICES
from schemas.column import Table
from schemas.tables import DATASET, TABLES
from stepwell.errors import LakeError
from stepwell.parts import FILE, write_partitions, write_parts
from stepwell.scanning import dataset_of, file_name
from stepwell.store import Store, require_plain
from stepwell.stored import BOUNDED, BOUNDED_NAMES, BOUNDS, as_declared, as_stored, require_schema

SCHEMES = ("file", "s3", "s3a", "gs", "az", "abfss", "memory")
_PROPERTIES = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.checkpointInterval": "10",
}
_DYING = 3.0  # seconds: what a killed process had started holds its locks a moment longer
_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=1 << 16)  # a query reads groups in parallel
_GROUPED = WriterProperties(compression="ZSTD", max_row_group_size=2048)
COMPACTION = "stepwell-compaction"
"""What the history of `events` has in the commits that changed no row."""
_REPLACING = "stepwell-replace"
_LOOKS = 200
_APPEND_ONLY = "delta.appendOnly"
ERASED = "_erased.json"
"""File of a table that names the data files a redaction deleted, which older versions still refer to."""


class Lake:
    """Delta tables under `uri` (a folder, or an object store such as s3://bucket/prefix)."""

    def __init__(self, uri: str | Path, storage_options: dict[str, str] | None = None) -> None:
        scheme = urlparse(str(uri)).scheme
        self.local = len(scheme) <= 1 or scheme == "file"
        if not self.local and scheme not in SCHEMES:
            raise LakeError(f"lake URI {str(uri)!r} has scheme {scheme!r}; allowed: a folder or {', '.join(SCHEMES)}.")
        self.uri = str(Path(str(uri).removeprefix("file://")).absolute()) if self.local else str(uri).rstrip("/")
        if self.local:
            require_plain(self.uri)
        self.storage_options = storage_options

    @cached_property
    def store(self) -> Store:
        """The lake's files, for what is no row."""
        return Store(self.uri, self.local, self.storage_options)

    def path(self, name: str) -> str:
        """URI of a table."""
        return f"{self.uri}/{name}"

    def spec(self, name: str) -> Table:
        """The declared table for a name; all `datasets/<recipe>` share one, as do all `choices/<recipe>`."""
        if name.startswith("datasets/"):
            return DATASET
        if name.startswith("choices/"):
            return CHOICES
        if name not in TABLES:
            raise LakeError(f"no table {name!r}; allowed: {', '.join(TABLES)}, datasets/<recipe> and choices/<recipe>.")
        return TABLES[name]

    def lock(self, name: str) -> AbstractContextManager[object]:
        """One writer per table at a time on a local lake; object stores rely on the commit protocol alone."""
        if not self.local:
            return nullcontext()
        os.makedirs(self.uri, exist_ok=True)
        return FileLock(f"{self.uri}/.{name.replace('/', '-')}.lock")

    @contextmanager
    def alone(self, name: str, what: str) -> Iterator[None]:
        """Do something that no two processes may do at once on a local lake; raises LakeError while another does it.

        An object store has no such lock: there it is for the caller to run it once.
        """
        if not self.local:
            yield
            return
        os.makedirs(self.uri, exist_ok=True)
        try:
            with FileLock(f"{self.uri}/.{name.replace('/', '-')}.lock", timeout=_DYING):
                yield
        except Timeout as error:
            raise LakeError(f"another process is {what} in {self.uri}; wait for it, or stop it.") from error

    def table(self, name: str, version: int | None = None) -> DeltaTable | None:
        """A fresh handle, or None when the table does not exist yet; raises LakeError for a version it never had."""
        self.spec(name)
        try:
            return DeltaTable(self.path(name), version=version, storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        except (DeltaError, OverflowError) as error:
            last = None if version is None else self.version(name)
            if last is None or version is None or 0 <= version <= last:
                raise
            raise LakeError(f"{name!r} has no version {version}; it has 0 to {last}. Name one of these.") from error

    def create(self, name: str) -> DeltaTable:
        """A handle on the table, created with the declared schema when it does not exist."""
        spec, handle = self.spec(name), self.table(name)
        if handle is not None:
            return handle
        if self.local:
            os.makedirs(self.path(name), exist_ok=True)
        properties = dict(_PROPERTIES)
        if name == "events":
            properties[_APPEND_ONLY] = "true"
            properties[BOUNDS] = BOUNDED_NAMES
        elif name.startswith("datasets/"):
            # `write_parts` gives statistics of no other column, and a reader takes undeclared gaps for columns of nulls.
            properties[BOUNDS] = "trajectory_id"
        return DeltaTable.create(
            self.path(name),
            schema=spec.schema,
            mode="ignore",
            partition_by=list(spec.partition_by) or None,
            configuration=properties,
            storage_options=self.storage_options,
            description=spec.doc,
        )

    def erased(self, name: str) -> set[str]:
        """Names of the data files of a table that redactions deleted."""
        kept = self.store.get(f"{name}/{ERASED}")
        return set() if kept is None else set(orjson.loads(kept))

    def require_whole(self, handle: DeltaTable) -> None:
        """Raise LakeError for a version some of whose files a redaction deleted."""
        root = self.uri if self.local else urlparse(self.uri).path
        name = unquote(urlparse(handle.table_uri).path).rstrip("/").removeprefix(root).strip("/")
        erased = self.erased(name)
        if erased and any(file_name(uri) in erased for uri in handle.file_uris()):
            raise LakeError(
                f"{name!r} at version {handle.version()} is from before a redaction deleted some of its rows for good; "
                f"read it at its current version ({self.version(name)}) or one since then."
            )

    def dataset(self, handle: DeltaTable, names: Collection[str] | None = None) -> ds.FileSystemDataset:
        """The data of an open table, to scan; nothing is read yet. Raises LakeError when not all of it is there.

        With `names`, only these of its data files; it is not looked whether all are there.
        """
        if names is None:
            self.require_whole(handle)
        return dataset_of(handle, self.local, names)

    def commits(self, name: str, after: int = -1) -> list[dict[str, Any]]:
        """What the log of a table says of its commits after a version, the newest first; none of a table that does not exist.

        deltalake lists the files of the log as they are now, but counts them down from the version the handle was opened
        at: one commit in between, and each has the number of another. So the version must be the same before and after.
        """
        for _ in range(_LOOKS):
            handle = self.table(name)
            if handle is None:
                return []
            version = handle.version()
            found = handle.history(version - after) if version > after else []
            if self.version(name) == version:
                return found
        raise LakeError(
            f"{name!r} was written {_LOOKS} times while its log was read. Try again when the writers pause."
        )

    def version(self, name: str) -> int | None:
        """Current version of a table, None when it does not exist."""
        handle = self.table(name)
        return None if handle is None else handle.version()

    def dataset_names(self) -> list[str]:
        """The datasets of the lake, by table name."""
        found = self.store.fs.get_file_info(fs.FileSelector("datasets", allow_not_found=True))
        return sorted(f"datasets/{f.base_name}" for f in found if f.type == fs.FileType.Directory)

    def table_names(self) -> list[str]:
        """Every table a lake can have: the declared ones, its datasets and what was chosen for each."""
        datasets = self.dataset_names()
        return [*TABLES, *datasets, *(name.replace("datasets/", "choices/", 1) for name in datasets)]

    def read(
        self, name: str, version: int | None = None, columns: Sequence[str] | None = None, filters: object | None = None
    ) -> pa.Table:
        """Rows of a table at a version (default: current), in no particular order; an absent table has no rows.

        Columns that were declared after that version are null in it.
        """
        handle = self.table(name, version)
        spec = self.spec(name)
        if handle is None:
            empty = spec.schema.empty_table()
            return empty.select(list(columns)) if columns else empty
        data = self.dataset(handle)
        later = [f for f in spec.schema if f.name not in data.schema.names]
        data = data.replace_schema(pa.schema([*data.schema, *later])) if later else data
        return data.to_table(columns=list(columns) if columns else None, filter=filters)

    def append(self, handle: DeltaTable, name: str, rows: pa.Table, properties: CommitProperties | None = None) -> int:
        """Append rows on this very handle; returns the new version. Raises SchemaError unless the schema is exact."""
        spec = self.spec(name)
        require_schema(spec, rows)
        if name == "events" and self.local and len(rows) and as_declared(spec, handle):
            made = write_partitions(self.store.fs, name, rows, spec.partition_by[0], BOUNDED)
            by = list(spec.partition_by)
            handle.create_write_transaction(made, "append", handle.schema(), by, commit_properties=properties)
        else:
            write_deltalake(
                handle,
                rows.cast(as_stored(rows.schema, handle)),
                mode="append",
                commit_properties=properties,
                writer_properties=_WRITER,
                schema_mode="merge",
            )
        handle.update_incremental()
        return int(handle.version())

    def put(
        self, handle: DeltaTable, name: str, rows: pa.Table, properties: CommitProperties, gone: Sequence[str] | None
    ) -> int:
        """Append rows in the place of those of the trajectories `gone` (none: of nothing), in one commit on this handle.

        Not a merge: delta-rs writes merged text as views, which pyarrow cannot compare with text when it filters.
        """
        if not gone:
            return self.append(handle, name, rows, properties)
        require_schema(self.spec(name), rows)
        write_deltalake(
            handle,
            rows.cast(as_stored(rows.schema, handle)),
            mode="overwrite",
            predicate=f"trajectory_id IN ({', '.join(map(quoted, gone))})",
            schema_mode="merge",
            commit_properties=properties,
            writer_properties=_WRITER,
        )
        handle.update_incremental()
        return int(handle.version())

    def add(self, name: str, rows: pa.Table, unique: Sequence[str] | None = None) -> int:
        """Append rows whose key (default: the table's) is not in the table yet; returns how many were new.

        Serialised by an application transaction, so that two processes adding the same key add it once.
        """
        key = list(unique or self.spec(name).key)
        for _ in range(200):
            with self.lock(name):
                handle = self.create(name)
                same = pc.field(key[0]).isin(pc.unique(rows.column(key[0])))
                known = self.dataset(handle).to_table(columns=key, filter=same)
                seen = set(zip(*(known.column(k).to_pylist() for k in key), strict=True)) if len(known) else set()
                keep = []
                for i, value in enumerate(zip(*(rows.column(k).to_pylist() for k in key), strict=True)):
                    if value not in seen:
                        seen.add(value)
                        keep.append(i)
                if not keep:
                    return 0
                if self.commit_once(handle, name, rows.take(keep)):
                    return len(keep)
        raise LakeError(
            f"could not commit to {name!r} after 200 tries: other writers hold it. Try again when they stop."
        )

    def commit_once(self, handle: DeltaTable, name: str, rows: pa.Table, app: str = "stepwell") -> bool:
        """Append unless another writer committed since the handle was opened; False means: reopen, recheck, retry."""
        from deltalake.exceptions import CommitFailedError

        number = (handle.transaction_version(app) or 0) + 1
        try:
            self.append(handle, name, rows, CommitProperties(app_transactions=[Transaction(app, number)]))
        except CommitFailedError:
            return False
        return True

    def replace(
        self,
        name: str,
        rows: pa.Table | pa.RecordBatchReader,
        metadata: dict[str, str],
        gone: Sequence[str] | None = None,
        expected: int | None = None,
    ) -> int:
        """Make the rows the whole content of a derived table, in one commit; returns the new version.

        With `gone`, only the rows of these trajectories make way for them and all others stay. Rows of a reader are
        written as they come and seen by nobody before the commit. Raises LakeError unless the table is at the version
        `expected`, where one is given.
        """
        if name == "events":
            raise LakeError("`events` is append-only and cannot be replaced; record a retraction instead.")
        require_schema(self.spec(name), rows if isinstance(rows, pa.Table) else rows.schema.empty_table())
        where = f"trajectory_id IN ({', '.join(map(quoted, gone))})" if gone else None
        with self.lock(name):
            handle = self.create(name)
            if expected is not None and handle.version() != expected:
                raise LakeError(
                    f"{name!r} is at version {handle.version()}, no longer at {expected}: another process wrote it "
                    "meanwhile. Do it again."
                )
            number = Transaction(_REPLACING, (handle.transaction_version(_REPLACING) or 0) + 1)
            properties = CommitProperties(custom_metadata=metadata, app_transactions=[number])
            mode: Literal["append", "overwrite"] = "append" if gone is not None and where is None else "overwrite"
            rows = rows.cast(as_stored(rows.schema, handle))
            if (
                isinstance(rows, pa.RecordBatchReader)
                and where is None
                and set(rows.schema.names) <= {f.name for f in handle.schema().fields}
            ):
                made = write_parts(self.store.fs, name, rows)
                handle.create_write_transaction(made, mode, handle.schema(), commit_properties=properties)
            else:
                write_deltalake(
                    handle,
                    rows,
                    mode=mode,
                    predicate=where,
                    schema_mode="merge",
                    target_file_size=FILE,
                    writer_properties=_GROUPED,
                    commit_properties=properties,
                )
            handle.update_incremental()
            return int(handle.version())

    def rewrite(
        self,
        name: str,
        change: Callable[[pa.Table], pa.Table | None],
        metadata: dict[str, str],
        key: str | None = None,
        values: Sequence[str] = (),
    ) -> int | None:
        """Put what `change` makes of rows in their place, in one commit: for redactions only, as it breaks append-only.

        The rows are those whose `key` is one of `values`, or all. Returns the new version, None when `change` returns None.
        What was there before is still in old files, until they are erased. A process killed in between leaves `events`
        open to deletion; the next rewrite, or `close`, ends that.
        """
        where = None if key is None else pc.field(key).isin(pa.array(list(values), pa.string()))
        with self.lock(name):
            handle = self.table(name)
            rows = None if handle is None else change(self.dataset(handle).to_table(filter=where))
            if handle is None or rows is None:
                return None
            require_schema(self.spec(name), rows)
            if name == "events":
                handle.alter.set_table_properties({_APPEND_ONLY: "false"})
            predicate = None if key is None else f"{key} IN ({', '.join(map(quoted, values))})"
            write_deltalake(
                handle,
                rows.cast(as_stored(rows.schema, handle)),
                mode="overwrite",
                predicate=predicate,
                schema_mode="merge",
                writer_properties=_WRITER,
                commit_properties=CommitProperties(custom_metadata=metadata),
            )
            self.close(name)
            return self.version(name)

    def close(self, name: str) -> None:
        """Make `events` append-only again after a rewrite."""
        handle = self.table(name)
        if name == "events" and handle is not None and handle.metadata().configuration.get(_APPEND_ONLY) != "true":
            handle.alter.set_table_properties({_APPEND_ONLY: "true"})


def quoted(text: str) -> str:
    """Text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"
