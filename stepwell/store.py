"""The files of a lake by their path below its URI, for what is no row: a salt, a record of redactions, the logs of tables.

Does not belong here: writing rows (`lake`). On a local lake a file is replaced as a whole or not at all.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from stepwell.errors import LakeError

_NOT = "*?[]\\^|"
_ODD = re.compile(rf"[{re.escape(_NOT)}\x00-\x1f\x7f]|%[0-9A-Fa-f]{{2}}")


class _Bytes:
    """An output stream of deltalake as Arrow writes one: Arrow hands over buffers, which deltalake refuses."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, data: pa.Buffer) -> int:
        return int(self.stream.write(bytes(data)))

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.stream.close()


class _Handler(DeltaStorageHandler):  # type: ignore[misc]  # deltalake has no types here
    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        return pa.PythonFile(_Bytes(self._handler.open_output_stream(path, metadata)), mode="w")


def require_plain(folder: str) -> None:
    """Raise LakeError for a folder that delta-rs or DuckDB would read as another, or as a pattern."""
    if odd := _ODD.search(folder):
        raise LakeError(
            f"the folder {folder!r} has {odd[0]!r} in its path, which delta-rs or DuckDB would read as something else; "
            f"allowed: no control characters, none of {' '.join(_NOT)} and no % before two hex digits. Name another."
        )


class Store:
    """Read, write, list and delete files below a URI; paths have no leading slash."""

    def __init__(self, uri: str, local: bool, storage_options: dict[str, str] | None) -> None:
        self.uri, self.local, self._options = uri, local, storage_options
        if local:
            self.fs: fs.FileSystem = fs.SubTreeFileSystem(uri, fs.LocalFileSystem())
        else:
            self.fs = fs.PyFileSystem(_Handler(uri, storage_options))

    def get(self, path: str) -> bytes | None:
        """All bytes of a file; None when there is none."""
        try:
            with self.open(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def open(self, path: str) -> Any:
        """A file to read piece by piece; raises FileNotFoundError."""
        # Not through Arrow on an object store: its threads would call Python, which can abort a process as it ends.
        return (self.fs if self.local else self.fs.handler).open_input_file(path)

    def put(self, path: str, data: bytes) -> None:
        """Write a file, or replace it; it is on disk when this returns."""
        if not self.local:
            with self.fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        target = Path(self.uri) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")  # containers share process ids
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)

    def first(self, path: str, data: bytes) -> bytes:
        """Write a file that is not there; on an object store, which has no lock, all who do so at once get the bytes of one."""
        if not self.local:
            # What an object store writes only once is the first commit of a table: it says whose bytes they are. Of those who
            # create it at once some are refused, and some make its second commit.
            claim, schema = f"{self.uri}/{path}-claim", pa.schema({"claim": pa.string()})
            with suppress(DeltaError):
                DeltaTable.create(claim, schema, description=data.hex(), storage_options=self._options)
            data = bytes.fromhex(DeltaTable(claim, 0, storage_options=self._options).metadata().description)
        self.put(path, data)
        return data

    def paths(self, under: str = "") -> list[str]:
        """Every file below a folder, sorted."""
        found = self.fs.get_file_info(fs.FileSelector(under, recursive=True, allow_not_found=True))
        return sorted(f.path for f in found if f.type == fs.FileType.File)

    def delete(self, path: str) -> None:
        """Delete a file, and the folders that it leaves empty; nothing happens when there is none."""
        try:
            self.fs.delete_file(path)
        except FileNotFoundError:
            return
        folder = Path(self.uri, path).parent
        while self.local and folder != Path(self.uri) and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent
