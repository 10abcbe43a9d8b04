"""Files that are there whole or not at all, written row by row.

Belongs here: where rows go, whatever the format. Does not belong here: what a row is. A path is written under a temporary
name beside it and renamed when everything is on the disk; what fails leaves nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepwell.errors import UsageError
from stepwell.exporters.base import Obj, Options

_ROWS = 200
_NAME = re.compile(r"[^A-Za-z0-9._-]")


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path, options: Options) -> None:
        self._file = path.open("wb")

    def write(self, row: Obj) -> None:
        """Add a line."""
        self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> None:
        """Write what is in memory."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonList(JsonLines):
    """One JSON list of objects."""

    _before = b"["

    def write(self, row: Obj) -> None:
        """Add an element."""
        self._file.write(self._before + b"\n" + orjson.dumps(row))
        self._before = b","

    def finish(self) -> None:
        """End the list."""
        self._file.write(b"\n]\n")
        super().finish()


class Documents:
    """A folder with one JSON file a row, called by its `trajectory_id`."""

    def __init__(self, path: Path, options: Options) -> None:
        self._folder = path
        path.mkdir()

    def write(self, row: Obj) -> None:
        """Add a file; characters that no file name should have become `_`, with a digest to tell names apart."""
        name = _NAME.sub("_", row["trajectory_id"])
        if name != row["trajectory_id"] or name.startswith(".") or len(name) > 150:
            name = f"{name[:100].lstrip('.')}-{hashlib.sha256(row['trajectory_id'].encode()).hexdigest()[:16]}"
        (self._folder / f"{name}.trajectory.json").write_bytes(orjson.dumps(row))

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is open."""


class ParquetRows:
    """A Parquet file of a schema; what a row lacks is null."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer, self._schema = pq.ParquetWriter(path, schema, compression="zstd"), schema
        self._rows: list[Obj] = []

    def write(self, row: Obj) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= _ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what is left."""
        self._flush()

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def manifest_of(path: Path) -> Path:
    """Where the manifest of an export to a path is."""
    return path.with_name(f"{path.name}.manifest.json")


@contextmanager
def whole(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside a path; what is written there takes the path's place unless the block raises.

    Raises UsageError when something is there already and is not to be overwritten, as no folder is that another wrote, or its
    folder is not there.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{str(path)!r} exists; name another path, or give --overwrite.")
    if path.is_dir() and any(path.iterdir()) and not manifest_of(path).exists():
        raise UsageError(f"the folder {str(path)!r} holds what no export wrote; name another path.")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {str(path.parent)!r}; make it, or name another path.")
    part, old = (path.parent / f".{path.name}.{os.getpid()}.{end}" for end in ("part", "old"))
    try:
        yield part
        if part.is_file():
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
        if path.is_dir() or (
            path.exists() and part.is_dir()
        ):  # a folder that holds something cannot be replaced at once
            os.replace(path, old)
        os.replace(part, path)
    finally:
        for left in (part, old):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def checksum(path: Path) -> tuple[int, str]:
    """Bytes and sha256 of a file; of a folder, of `name`, a space, the sha256 of the file and a line end for every file."""
    if path.is_file():
        with path.open("rb") as stream:
            return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()
    total, hasher = 0, hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        size, one = checksum(file)
        total += size
        hasher.update(f"{file.relative_to(path).as_posix()} {one}\n".encode())
    return total, hasher.hexdigest()
