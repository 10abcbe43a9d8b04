"""Which files an import looks at, and their bytes: small files at once, large ones as a stream.

Hidden folders, lakes, Delta tables and links that lead out of the folder given are not entered; nothing else is skipped.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from stepwell.errors import BadInput, UsageError

LARGEST = 1 << 30
"""Most bytes of one document in memory, and of what one gzip file may hold."""
LONGEST_LINE = 128 << 20
HEAD = 1 << 20
_SMALL = 64 << 20
_CHUNK = 1 << 20


class Blob(Protocol):
    """Bytes that can be read more than once."""

    @property
    def size(self) -> int:
        """How many bytes; of a compressed stream unknown, and then -1."""

    def open(self) -> IO[bytes]:
        """A stream at the first byte."""


@dataclass(frozen=True)
class Bytes:
    """Bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """How many bytes."""
        return len(self.data)

    def open(self) -> IO[bytes]:
        """A stream at the first byte."""
        return io.BytesIO(self.data)


class File:
    """A regular file. Raises BadInput when it is none, cannot be read, or changes between two readings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._about = _stat(path)
        if not stat.S_ISREG(self._about.st_mode):
            raise BadInput("unreadable", "not a regular file; give files and folders of files.")
        self.size = self._about.st_size
        self.state = (self.size, self._about.st_mtime_ns)

    @cached_property
    def _data(self) -> bytes:
        with self._reader() as stream:
            return stream.read()

    def open(self) -> IO[bytes]:
        """A stream at the first byte; of a small file over bytes read once."""
        return io.BytesIO(self._data) if self.size <= _SMALL else self._reader()

    def _reader(self) -> IO[bytes]:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise BadInput("unreadable", f"{error.strerror or error}; make it readable and import it again.") from error

    def sha256(self) -> str:
        """sha256 of the file, in constant memory."""
        with self.open() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]

    def unchanged(self) -> None:
        """Raise BadInput when the file is no longer what it was when it was opened; a small one was read in one piece."""
        now = _stat(self.path) if self.size > _SMALL else self._about
        if (now.st_size, now.st_mtime_ns) != self.state:
            raise BadInput("unreadable", "it changed while it was read; import it again.")


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror or error}; make it readable and import it again.") from error


@dataclass(frozen=True)
class Gzip:
    """What a gzip file holds, at most LARGEST bytes of it."""

    inner: Blob
    size: int = -1

    def open(self) -> IO[bytes]:
        """A stream of what is inside; reading raises BadInput for what is damaged or too large."""
        return io.BufferedReader(_Unzipped(self.inner.open()))


class _Unzipped(io.RawIOBase):
    """A gzip stream with a limit, whose errors are BadInput."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed, self._stream, self._left = packed, gzip.GzipFile(fileobj=packed), LARGEST

    def close(self) -> None:
        self._stream.close()
        self._packed.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            raise BadInput("bad_archive", f"not whole gzip: {error}; fetch it again.") from error
        self._left -= len(data)
        if self._left < 0:
            raise BadInput("too_large", f"more than {LARGEST} bytes when unpacked; unpack and split it.")
        buffer[: len(data)] = data
        return len(data)


def read_all(blob: Blob) -> bytes:
    """All bytes. Raises BadInput when they are more than LARGEST."""
    if blob.size > LARGEST:
        detail = f"{blob.size} bytes; one document of at most {LARGEST} is read, and the head is kept. Split it."
        raise BadInput("too_large", detail)
    with blob.open() as stream:
        return stream.read()


@dataclass(frozen=True)
class Line:
    """A line that is not blank, and the byte it starts at; `whole` is false when only its head is here."""

    offset: int
    data: bytes
    whole: bool = True


def first_line(blob: Blob) -> tuple[Line, bool]:
    """The first line that is not blank, and whether anything follows it within a MiB."""
    with blob.open() as stream:
        at = 0
        while line := stream.readline(LONGEST_LINE + 1):
            if line.strip():
                whole = len(line) <= LONGEST_LINE
                parts = islice(iter(lambda: stream.read(4096), b""), _CHUNK // 4096)
                more = any(part.strip() for part in parts)
                return Line(at, line.rstrip(b"\r\n") if whole else line[:HEAD], whole), more
            at += len(line)
    return Line(0, b""), False


def read_lines(blob: Blob) -> Iterator[Line]:
    """The lines of a blob one at a time; of a line over LONGEST_LINE only the first HEAD bytes."""
    at = 0
    with blob.open() as stream:
        while line := stream.readline(LONGEST_LINE + 1):
            begun, whole = at, len(line) <= LONGEST_LINE
            at += len(line)
            if not whole:
                kept, rest = line[:HEAD], line
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(_CHUNK)
                    at += len(rest)
                line = kept
            if line.strip():
                yield Line(begun, line.rstrip(b"\r\n"), whole)


def read_head(path: Path) -> bytes:
    """What is kept of a rejected file: all of it up to LONGEST_LINE, else the first MiB, nothing where it cannot be read."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(kept_of(about.st_size))
    except OSError:
        return b""


def kept_of(size: int) -> int:
    """How many bytes are kept of a rejected file of some size."""
    return size if size <= LONGEST_LINE else HEAD


@dataclass(frozen=True)
class Root:
    """What was given to an import: a folder and its files in order, or files of one folder that were given by name."""

    path: Path
    files: list[Path]
    beside: list[Path]
    """Files the outcome index may read: those of the folder, or those near a file given by name."""
    explicit: bool
    begun: Mapping[Path, File] = field(default_factory=dict)
    """Files that are still written to, and as much of them as can be read."""
    also: frozenset[Path] = frozenset()
    """Files to read whatever their suffix: log files that were renamed."""

    def inside(self, path: Path) -> bool:
        """Whether a path found in the folder leads to a file of the folder; a file given by name is taken as it is."""
        return self.explicit or not path.is_symlink() or path.resolve().is_relative_to(self.path.resolve())


def corpus_of(root: Path) -> str:
    """A corpus name from a folder: letters, digits, dot, dash and underscore of its name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-") or "imported"


def roots_of(paths: Iterable[Path]) -> list[Root]:
    """Paths given to an import -> a root for each folder, and one for the files given by name in a folder, as they come.

    Raises UsageError when there is nothing at a path.
    """
    roots: list[Root] = []
    named: dict[Path, Root] = {}
    for path in paths:
        if path.is_dir():
            root = Root(path, sorted(walk(path)), [], explicit=False)
            roots.append(replace(root, beside=[p for p in root.files if root.inside(p)]))
        elif not path.exists():
            raise UsageError(f"no file or folder {str(path)!r}; give paths that exist.")
        elif path.parent in named:
            named[path.parent].files.append(path)
        else:
            near = [p for folder in (path.parent, *_folders(path.parent)) for p in entries(folder)]
            named[path.parent] = Root(path.parent, [path], sorted(near), explicit=True)
            roots.append(named[path.parent])
    return roots


def walk(root: Path) -> Iterator[Path]:
    """Every file below a folder that an import looks at."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _of_lake(Path(folder) / f))
        yield from (Path(folder) / name for name in names)


def _of_lake(folder: Path) -> bool:
    """Whether a folder is a Delta table, or a whole lake, which has more than tables in it."""
    return any((table / "_delta_log").is_dir() for table in (folder, folder / "events"))


def _folders(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []


def entries(folder: Path) -> list[Path]:
    """The files of a folder; none of one that cannot be read."""
    try:
        return [p for p in folder.iterdir() if p.is_file()]
    except OSError:
        return []
