"""Zip archives: members read when asked for, within limits, whichever way they are compressed.

Members compressed with zstd (method 93, what current Inspect writes) are read with pyarrow's codec, as `zipfile` cannot
before Python 3.14. A member whose name leads out of the archive is not among its members; it is named in `unsafe`.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import pyarrow as pa

from stepwell.errors import BadInput
from stepwell.importers.files import LARGEST, Blob

LARGEST_MEMBER = 256 << 20
_ZSTD = 93


class Archive(Mapping[str, bytes]):
    """Member name -> its bytes. Raises BadInput for what is no zip, is damaged or too large."""

    def __init__(self, blob: Blob) -> None:
        self._file = blob.open()
        self._left = 4 * LARGEST
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            self._file.close()
            raise BadInput("bad_archive", f"not a whole zip: {error}; fetch it again.") from error
        files = [i for i in self._zip.infolist() if not i.is_dir()]
        self._members = {i.filename: i for i in files if _is_safe(i.filename)}
        self.unsafe = [i.filename for i in files if i.filename not in self._members]

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def is_inspect(self) -> bool:
        """Whether it has what an Inspect log starts with."""
        return "header.json" in self._members or "_journal/start.json" in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __getitem__(self, name: str) -> bytes:
        info = self._members[name]
        most = min(LARGEST_MEMBER, self._left)
        if info.file_size > most:
            raise BadInput("too_large", f"member {name[:80]!r} has {info.file_size} bytes; at most {most} are read.")
        try:
            data = self._read(info, most)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, struct.error, RuntimeError) as error:
            raise BadInput("bad_archive", f"member {name[:80]!r} cannot be read: {str(error)[:120]}.") from error
        if len(data) > most:
            raise BadInput("too_large", f"member {name[:80]!r} unpacks to more than the {most} bytes that are read.")
        self._left -= len(data)
        return data

    def _read(self, info: zipfile.ZipInfo, most: int) -> bytes:
        if info.compress_type != _ZSTD:
            with self._zip.open(info) as stream:
                return stream.read(most + 1)
        self._file.seek(info.header_offset)
        header = struct.unpack("<4s22xHH", self._file.read(30))
        self._file.seek(header[1] + header[2], 1)
        packed = pa.BufferReader(self._file.read(info.compress_size))
        with pa.CompressedInputStream(packed, "zstd") as stream:
            data: bytes = stream.read(most + 1)
        if zlib.crc32(data) != info.CRC and len(data) <= most:
            raise zipfile.BadZipFile("its checksum is wrong")
        return data


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and ":" not in name[:2] and "\x00" not in name
