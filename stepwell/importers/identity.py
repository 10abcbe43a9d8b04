"""The identity of a source: its bytes and what reports say of it, wherever they lie; known before the file is parsed.

What reports say is looked up by the ids a file shows without being parsed: in its head and tail, its name and its folder for
a file of one trajectory, anywhere in it for a file of many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import orjson

from stepwell.importers.companions import ids_in
from stepwell.importers.files import Bytes, File
from stepwell.importers.outcome import Finding, OutcomeIndex, stem


def joined(content: str, findings: list[Finding]) -> str:
    """sha256 of content and findings, in whatever order they were met; of content alone when there are none."""
    if not findings:
        return content
    said = {orjson.dumps((f.kind, f.resolved, f.tests, f.rest), option=orjson.OPT_SORT_KEYS) for f in findings}
    return hashlib.sha256(content.encode() + b"\n".join(sorted(said))).hexdigest()


def findings_before(index: OutcomeIndex, path: Path, file: File) -> Iterator[list[Finding]]:
    """What reports may say of a file that is not parsed yet, the likelier reading first."""
    if not index.has_reports():
        yield []
        return
    with file.open() as stream:
        head = stream.read(4096)
        stream.seek(max(0, file.size - 4096))
        shown = [name for part in (head, stream.read(4096)) for name in sorted(ids_in(Bytes(part)))]
    names = dict.fromkeys([*shown, stem(path), path.parent.name])
    one = next((found for found in (index.lookup(path, name) for name in names) if found), [])
    yield one
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        many = [finding for name in sorted(ids_in(file)) for finding in index.lookup(path, name)]
        if many or not one:  # else it was read without a report, and is not known with the one that came
            yield many
