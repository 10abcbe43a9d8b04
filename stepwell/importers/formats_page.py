"""The page of formats: what each brings, where it is kept and what is rejected, written from the importers themselves.

    python -m stepwell.importers.formats_page > docs/formats.md

Belongs here: turning importers into Markdown. A test requires the committed page to be what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from stepwell.importers.base import CAPABILITIES, REASONS, Importer
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.sniff import UNREAD

_UNITS = {
    "document": "one trajectory a JSON document",
    "record": "one trajectory a record (a line, an element, a row)",
    "records": "all records of a file together",
    "archive": "one log an archive",
}


_SESSIONS = """\
## What a trajectory's id is

The id of a trajectory follows from its content: the same record in another file, or under another name, is the same
trajectory, and a document that has changed is another one. Two records of one file that go by one id and differ are one
trajectory and a reject.

Sessions of `claude-code-session`, `codex-session` and `pi-session` that name their session, and spans that `stepwell serve`
receives, grow: their id follows from the session id, and for lines that fork or run aside from where these begin, so that it
stays while the file grows. An import of a later state appends what is new, supersedes what no longer holds with retractions,
and writes the end again; `n_records` in `extra` of the end says how many records the file had. An earlier state adds nothing.
A state with as many records or fewer that says something else is a reject, `diverged`: give that session an id of its own.
""".splitlines()


def matrix() -> list[tuple[str, ...]]:
    """Format, what it is read by, and each capability in the order of CAPABILITIES: one row a format."""
    return [(name, i.unit, *(i.capabilities[c] for c in CAPABILITIES)) for name, i in IMPORTERS.items()]


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Formats"
    yield ""
    yield "Written by `python -m stepwell.importers.formats_page > docs/formats.md` from the importers; do not edit."
    yield ""
    yield "Files are told by their content, not by their names: `stepwell sniff FILE` says what one is and why. Read are"
    yield "JSON, JSON lines, Parquet and gzip of the first two, for every format, and zip archives of Inspect logs. Every"
    yield "record of a file becomes a trajectory or a row of `rejects` with its reason and its bytes. A field without a"
    yield "column is kept as JSON in `extra` of the event it belongs to; gold patches, solutions and hidden tests are kept"
    yield "as sha256 only."
    yield ""
    yield f"| format | unit | {' | '.join(CAPABILITIES)} |"
    yield f"|---|---|{'---|' * len(CAPABILITIES)}"
    for row in matrix():
        yield f"| [{row[0]}](#{row[0]}) | {' | '.join(row[1:])} |"
    yield ""
    for unit, means in _UNITS.items():
        yield f"- `{unit}`: {means}"
    if UNREAD:
        yield f"- told by name, but not read: {', '.join(UNREAD)}"
    yield ""
    yield "## Why input is rejected"
    yield ""
    for reason, means in REASONS.items():
        yield f"- `{reason}`: {means}"
    yield ""
    yield from (*_SESSIONS, "")
    yield "## Where everything goes"
    for name, importer in IMPORTERS.items():
        yield ""
        yield f"### {name}"
        yield ""
        versions = ", ".join(v for v in importer.versions if v)
        yield from ([f"Versions read: {versions}.", ""] if versions else [])
        yield _boundary(importer)


def _boundary(importer: Importer) -> str:
    """What the module of an importer says of itself."""
    return (sys.modules[type(importer).__module__].__doc__ or "").strip()


if __name__ == "__main__":
    sys.stdout.write(page())
