"""How much of a file that is being written can be read: all up to its last newline, or nothing while its run goes on.

Does not belong here: when it is read (`following`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Unfinished
from stepwell.importers.files import File
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.sniff import recognise

_CHUNK, _MOST = 1 << 20, (64 << 20) + 1


class Begun(File):
    """The first `size` bytes of a file that may grow meanwhile. Raises BadInput as a file does, and when it gets shorter."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        self.size = size

    def _reader(self) -> IO[bytes]:
        return io.BufferedReader(_First(super()._reader(), self.size))

    def unchanged(self) -> None:
        """Raise BadInput when the file has become shorter than what was read of it."""
        if File(self.path).size < self.size:
            raise BadInput("unreadable", "it became shorter while it was read; it is read again.")


class _First(io.RawIOBase):
    """The first bytes of a stream; what comes after them is not there."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def close(self) -> None:
        self._stream.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def whole_lines(path: Path, size: int) -> int:
    """Bytes up to and with the last newline among the first `size`. Raises OSError."""
    with path.open("rb") as stream:
        end = size
        while end > 0:
            begin = max(0, end - _CHUNK)
            stream.seek(begin)
            found = stream.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def parses(path: Path, begin: int) -> bool:
    """Whether what stands from a byte on is one JSON value, or nothing. Raises OSError; too large to be looked at: no."""
    try:
        _value(path, begin)
    except orjson.JSONDecodeError:
        return False
    return True


def goes_on(path: Path, lines: bool) -> bool:
    """Whether a document, or the first of JSON lines, says that the run which writes it is not over. Raises OSError."""
    try:
        document = _first_line(path) if lines else _value(path, 0)
    except orjson.JSONDecodeError:
        return False
    importer = IMPORTERS.get(recognise(document).format)
    return isinstance(document, dict) and isinstance(importer, Unfinished) and importer.goes_on(document)


def _first_line(path: Path) -> Any:
    with path.open("rb") as stream:
        return orjson.loads(stream.readline(_MOST))


def _value(path: Path, begin: int) -> Any:
    with path.open("rb") as stream:
        stream.seek(begin)
        data = stream.read(_MOST)
    return orjson.loads(data) if data.strip() else None
