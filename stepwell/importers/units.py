"""The pieces of an opened file given to its importer in the unit it reads, and what came of each.

Documents are hostile: whatever one makes an importer raise is the document's fault, and ends that unit only. A unit of which an
importer makes nothing at all is a reject, so that nothing is lost in silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stepwell.errors import BadInput
from stepwell.importers.base import Imported, Importer, Rejected, SourceFile
from stepwell.importers.containers import Opened, Piece
from stepwell.importers.parse import document_identity, record_identity
from stepwell.importers.sniff import recognise
from stepwell.secrets.redact import Redactor

_ODD = "its importer made nothing of it"
_TWICE = "two trajectories that go by one id, and differ; the first is taken. Give them ids of their own."


@dataclass
class Read:
    """One unit and what came of it; `n` are its records, `raw` its bytes (null when it is the whole file)."""

    data: Any = None
    n: int = 1
    n_rejected: int = 0
    offset: int = 0
    raw: bytes | None = None
    imported: list[Imported] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def n_taken(self) -> int:
        """Records that went into a trajectory."""
        return self.n - self.n_rejected


def units(opened: Opened, importer: Importer, source: SourceFile, redactor: Redactor | None = None) -> Iterator[Read]:
    """Every unit of a file, read. Raises BadInput for a file that breaks off or cannot be opened.

    With a redactor no secret reaches an importer, so that ids and hashes are those of what is left; `raw` is as it came.
    """
    if (importer.unit == "archive") != (opened.shape == "archive"):
        raise BadInput("other_format", f"{importer.name} is not read from {opened.shape}.")
    source = replace(source, around=_clean(opened.around, redactor))
    if importer.unit == "archive":
        yield from _archive(opened, importer, source, redactor)
    elif importer.unit == "records":
        yield from _together(opened, importer, source, redactor)
    else:
        for piece in opened.pieces():
            if isinstance(piece, Rejected):
                yield Read(n_rejected=1, rejected=[piece])
            else:
                yield _one(piece, importer, source, redactor)


def _clean(data: Any, redactor: Redactor | None) -> Any:
    try:
        return data if redactor is None or data is None else redactor.redact(data)
    except RecursionError as error:
        raise BadInput("too_deep", "nested deeper than can be looked through for secrets.") from error


def _one(piece: Piece, importer: Importer, source: SourceFile, redactor: Redactor | None) -> Read:
    read = Read(offset=piece.offset, raw=piece.raw)
    identify = record_identity if importer.unit == "record" else document_identity
    try:
        piece = replace(piece, data=_clean(piece.data, redactor), key=_clean(piece.key, redactor))
        read.data = piece.data
        told = recognise(piece.data) if piece.raw is not None else None
        version = told.version if told and told.format == importer.name else source.version
        if version and version not in importer.versions:
            raise BadInput(
                "unsupported_version", f"version {version[:40]!r}; read are: {', '.join(importer.versions)}."
            )
        found = replace(source, identity=identify(piece.data), key=piece.key, version=version)
    except BadInput as error:
        read.n_rejected, read.rejected = 1, [Rejected(error.reason, error.detail, piece.offset)]
        return read
    _fill(read, importer, piece.data, found)
    read.n_rejected = 0 if read.imported else 1
    return read


def _together(opened: Opened, importer: Importer, source: SourceFile, redactor: Redactor | None) -> Iterator[Read]:
    pieces: list[Any] = []
    for piece in opened.pieces():
        if isinstance(piece, Rejected):
            yield Read(n_rejected=1, rejected=[piece])
        elif isinstance(piece.data, list):
            pieces += piece.data
        else:
            pieces.append(piece.data)
    if pieces:
        read = Read(n=len(pieces))
        try:
            read.data = pieces = _clean(pieces, redactor)
            _fill(read, importer, pieces, replace(source, identity=document_identity(pieces)))
        except BadInput as error:
            read.rejected = [Rejected(error.reason, error.detail, error.offset)]
        read.n_rejected = 0 if read.imported else read.n
        yield read


class _Cleaned(Mapping[str, bytes]):
    """The members of an archive without their secrets."""

    def __init__(self, members: Mapping[str, bytes], redactor: Redactor) -> None:
        self._members, self._redactor = members, redactor

    def __getitem__(self, name: str) -> bytes:
        return self._redactor.raw(self._members[name])

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _archive(opened: Opened, importer: Importer, source: SourceFile, redactor: Redactor | None) -> Iterator[Read]:
    with opened.blob.open() as stream:
        identity = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    read = Read(None, raw=None)
    with opened.archive() as archive:
        for name in archive.unsafe:
            detail = f"member {name[:80]!r} leads out of the archive; it is not read."
            yield Read(n_rejected=1, rejected=[Rejected("bad_archive", detail)])
        members = archive if redactor is None else _Cleaned(archive, redactor)
        _fill(read, importer, members, replace(source, identity=identity))
    read.n = max(1, len(read.imported) + len(read.rejected))
    read.n_rejected = len(read.rejected)
    yield read


def _fill(read: Read, importer: Importer, data: Any, source: SourceFile) -> None:
    met: dict[str, set[str]] = {}
    try:
        for one in importer.read(data, source):
            if isinstance(one, Rejected):
                read.rejected.append(one)
                continue
            events = {e.event_id for e in one.events}
            if met.setdefault(one.trajectory_id, events) is events:
                read.imported.append(one)
            elif met[one.trajectory_id] != events:
                read.rejected.append(Rejected("malformed", _TWICE, read.offset))
    except BadInput as error:
        read.rejected.append(Rejected(error.reason, error.detail, error.offset or read.offset))
    except Exception as error:
        read.rejected.append(Rejected("malformed", f"{type(error).__name__}: {str(error)[:200]}", read.offset))
    if not read.imported and not read.rejected:
        read.rejected.append(Rejected("malformed", _ODD, read.offset))
