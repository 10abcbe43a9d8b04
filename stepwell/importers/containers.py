"""Files opened: what a file is, and the parsed objects in it one after the other, in memory that does not grow with them.

Read are JSON (one document, a list or a dict of records), JSON lines (line by line; a bad line is a reject of that line),
Parquet (row group by row group), gzip around JSON, and zip archives with an Inspect header. What a file is follows from its
bytes and, for JSON, from its first objects (`sniff.recognise`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.archive import Archive
from stepwell.importers.base import Rejected
from stepwell.importers.files import Blob, Bytes, File, Gzip, Line, first_line, read_all, read_lines
from stepwell.importers.parse import parse
from stepwell.importers.sniff import Sniffed, is_conversation, recognise, wrapped_in
from stepwell.importers.table import rows

Obj = dict[str, Any]
_BLANK = b"\xef\xbb\xbf \t\r\n"
_LFS = b"version https://git-lfs"
_LOOKED_AT, _LOOKED_FOR = 100, 1 << 20
"""Most lines that are looked at to tell a format, and most bytes before the last of them."""


@dataclass(frozen=True)
class Piece:
    """One parsed object of a file; `raw` is null when it is all of the file, `key` set in a dict of records."""

    data: Any
    offset: int = 0
    raw: bytes | None = None
    key: str | None = None


@dataclass
class Opened:
    """A file opened: what it is, the archive when it is one, what stands around its records, and a way to its pieces.

    `looked` holds lines that were parsed to tell what it is, by the byte they start at; its pieces take them out of it.
    """

    told: Sniffed
    blob: Blob
    shape: str
    document: Any = None
    around: Obj = field(default_factory=dict)
    looked: dict[int, Any] = field(default_factory=dict)

    def archive(self) -> Archive:
        """The members of an archive. Raises BadInput."""
        return Archive(self.blob)

    def pieces(self) -> Iterator[Piece | Rejected]:
        """Every object of the file in its order; what is none is rejected. Raises BadInput for a file that breaks off."""
        if self.shape == "lines":
            yield from _lines(self.blob, self.looked)
        elif self.shape == "parquet":
            yield from (Piece(row, raw=orjson.dumps(row)) for row in rows(self.blob))
        elif self.shape == "records":
            keyed = isinstance(self.document, dict)
            named: Iterable[tuple[Any, Any]] = self.document.items() if keyed else enumerate(self.document)
            for key, value in named:
                raw = _raw(value)
                if isinstance(value, dict) or is_conversation(value):
                    yield Piece(value, 0, raw, str(key) if keyed else None)
                else:
                    yield Rejected("malformed", f"record {key} is no object, but {raw[:40].decode()}", 0, raw)
        else:
            yield Piece(self.document)


def sniff(source: str | Path | bytes) -> Sniffed:
    """A path or bytes -> what it is. Raises BadInput when it is no document at all (empty, LFS pointer, not JSON)."""
    return open_blob(Bytes(source) if isinstance(source, bytes) else File(Path(source))).told


def open_blob(blob: Blob) -> Opened:
    """Bytes -> what they are and how to read them. Raises BadInput when they are nothing that is read."""
    with blob.open() as stream:
        head = stream.read(1 << 16)
        while head and not head.strip(_BLANK):
            head = stream.read(1 << 16)
    if not head:
        raise BadInput("empty", "the file has no content.")
    if head.lstrip(_BLANK).startswith(_LFS):
        raise BadInput("lfs_pointer", "the file is a git-LFS pointer; run `git lfs pull` where it is from.")
    if head[:4] == b"PK\x03\x04":
        if not Archive(blob).is_inspect():
            raise BadInput(
                "unknown_format", "a zip without the header of an Inspect log; unpack it and import the folder."
            )
        return Opened(Sniffed("inspect-eval", "", "a zip with the header of an Inspect log"), blob, "archive")
    if head[:4] == b"PAR1":
        return _parquet(blob)
    if head[:2] == b"\x1f\x8b":
        if isinstance(blob, Gzip):
            raise BadInput("bad_archive", "gzip inside gzip; unpack it once.")
        return open_blob(Gzip(blob))
    return _json(blob)


def _parquet(blob: Blob) -> Opened:
    first = next(iter(rows(blob)), None)
    if first is None:
        raise BadInput("empty", "a Parquet file without rows.")
    told = recognise(first)
    return Opened(Sniffed(told.format, told.version, f"Parquet with {told.why}"), blob, "parquet")


def _json(blob: Blob) -> Opened:
    """JSON lines when the first line is an object and another follows, else one document, else lines with bad ones."""
    first, more = first_line(blob)
    if more and (not first.whole or isinstance(_parsed(first), dict)):
        return _open_lines(blob)
    try:
        document = parse(read_all(blob))
    except BadInput as error:
        if not more or error.reason == "too_deep":
            raise
        try:
            return _open_lines(blob)
        except BadInput:
            raise error from None
    told = recognise(document)
    if told.format == "unknown" or is_conversation(document):
        return Opened(told, blob, "document", document)
    if isinstance(document, list):
        return Opened(told, blob, "records", document)
    if recognise([document]) == told:
        return Opened(told, blob, "document", document)
    key, wrapped = wrapped_in(document)
    if key:
        return Opened(told, blob, "records", wrapped, {k: v for k, v in document.items() if k != key})
    return Opened(told, blob, "records", document)


def _open_lines(blob: Blob) -> Opened:
    looked = dict(_looked_at(blob))
    good = [row for row in looked.values() if isinstance(row, dict)]
    n_bad = len(looked) - len(good)
    if not good or n_bad > len(good):
        raise BadInput("not_json", f"of the first {len(looked)} lines {n_bad} are no JSON objects.")
    told = recognise(good)
    said = Sniffed(told.format, told.version, f"{told.why}; JSON lines, {n_bad} unparsable")
    return Opened(said, blob, "lines", looked=looked)


def _looked_at(blob: Blob) -> Iterator[tuple[int, Any]]:
    """The first lines by their byte, as many as tell what they are; a file that breaks off is told by those before."""
    try:
        for n, line in enumerate(read_lines(blob)):
            yield line.offset, _parsed(line)
            if n + 1 == _LOOKED_AT or line.offset > _LOOKED_FOR:
                return
    except BadInput:
        return


def _lines(blob: Blob, looked: dict[int, Any]) -> Iterator[Piece | Rejected]:
    for line in read_lines(blob):
        row = looked.pop(line.offset) if line.offset in looked else _parsed(line)
        if isinstance(row, dict):
            yield Piece(row, line.offset, line.data)
        elif isinstance(row, Rejected):
            yield row
        else:
            yield Rejected("bad_line", "the line is JSON, but no object.", line.offset, line.data)


def _parsed(line: Line) -> Any:
    """The value of a line, or why there is none."""
    if not line.whole:
        return Rejected(
            "too_large", "the line is too long to be read; its head is kept. Split it.", line.offset, line.data
        )
    try:
        return parse(line.data)
    except BadInput as error:
        reason = "bad_line" if error.reason == "not_json" else error.reason
        return Rejected(reason, error.detail, line.offset, line.data)


def _raw(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested deeper than it writes
        return json.dumps(value, ensure_ascii=False).encode()
