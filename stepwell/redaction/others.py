"""What in a lake's folder is no table: caches in SQLite, journals of proxies and servers, checkpoints and reports.

Rows of a cache that hold what is to go are deleted (they are asked for again); text files get markers in its place, and lose
what they say of a trajectory that is taken down; what is neither is left as it is, for the scan to name.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from stepwell.critics.cache import place
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.live.journaled import without
from stepwell.redaction.scan import SQLITE
from stepwell.redaction.target import Taking, Target

_JOURNAL = re.compile(r"((?:.*/)?)journal-\d+\.jsonl")


def clean_caches(lake: Lake, taking: Taking, said: Collection[str]) -> int:
    """Delete rows of the lake's SQLite files that hold a value or are one of the texts `said`; returns how many.

    Raises LakeError while another process has such a file open, as its log would keep them.
    """
    paths = [Path(lake.uri) / p for p in lake.store.paths() if p.endswith(".sqlite")] if lake.local else [place(lake)]
    return sum(_purged(path, taking, said) for path in paths if path.is_file() and _is_sqlite(path))


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _purged(path: Path, taking: Taking, said: Collection[str]) -> int:
    def gone(*row: Any) -> bool:
        data = [v if isinstance(v, bytes) else str(v).encode("utf-8", "surrogateescape") for v in row]
        return any(taking.target.in_bytes(v) or _text_of(v) in said for v in data)

    n = 0
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as db:
        db.create_function("gone", -1, gone)
        db.execute("PRAGMA secure_delete=ON")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [row[1] for row in db.execute("SELECT * FROM pragma_table_info(?)", (name,))]
            n += db.execute(f"DELETE FROM {_name(name)} WHERE gone({', '.join(map(_name, columns))})").rowcount
        db.execute("VACUUM")
        (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise LakeError(
            f"another process has {path} open and its log keeps what was deleted; end it and run this again."
        )
    return n


def _text_of(data: bytes) -> str:
    """The text of a completion kept as JSON; nothing for anything else."""
    if not data.startswith(b"{"):
        return ""
    try:
        return str(orjson.loads(data).get("text") or "")
    except orjson.JSONDecodeError:
        return ""


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def clean_files(lake: Lake, taking: Taking) -> int:
    """Put markers into text files that are no table's; returns how many changed. Raises LakeError as `require_stopped`."""
    n = 0
    for folder, paths in _journals(lake).items():
        if _cleaned(lake, paths, taking):
            with _stopped(lake, folder):
                changed = _cleaned(lake, paths, taking)
                for path, data in changed.items():
                    lake.store.put(path, data)
                n += len(changed)
    for path in lake.store.paths():
        if path.endswith((".parquet", ".sqlite")) or "/_delta_log/" in path or _JOURNAL.fullmatch(path):
            continue
        data = lake.store.get(path) or b""
        if not taking.target.in_bytes(data):
            continue
        try:
            text = data.decode()
        except UnicodeDecodeError:
            continue
        lake.store.put(path, _marked(text, path.endswith(".jsonl"), taking).encode())
        n += 1
    return n


def require_stopped(lake: Lake, taking: Taking) -> None:
    """Raise LakeError while a proxy or a server writes to a journal that holds what is to go: it would not notice."""
    for folder, paths in _journals(lake).items():
        if _cleaned(lake, paths, taking):
            with _stopped(lake, folder):
                pass


def _journals(lake: Lake) -> dict[str, list[str]]:
    """The segments of the journals in a lake's folder, by their own folder."""
    found: dict[str, list[str]] = {}
    for path in lake.store.paths():
        if match := _JOURNAL.fullmatch(path):
            found.setdefault(match[1], []).append(path)
    return found


def _cleaned(lake: Lake, paths: Sequence[str], taking: Taking) -> dict[str, bytes]:
    """What is to be written in the place of the segments of a journal that hold what is to go."""
    held = {path: lake.store.get(path) or b"" for path in paths}
    lines = [(path, line) for path, data in held.items() for line in data.splitlines(keepends=True)]
    if taking.target.down or taking.target.events:
        lines = _without(lines, taking.target)
    left: dict[str, list[bytes]] = {path: [] for path in paths}
    for path, line in lines:
        left[path].append(line)
    clean = {}
    for path, kept in left.items():
        data = b"".join(kept)
        if taking.target.in_bytes(data):
            text = data.decode("utf-8", "surrogateescape")
            data = _marked(text, True, taking).encode("utf-8", "surrogateescape")
        if data != held[path]:
            clean[path] = data
    return clean


def _without(lines: Sequence[tuple[str, bytes]], target: Target) -> list[tuple[str, bytes]]:
    """Lines of a journal without what they say of trajectories taken down, and of events that go whole."""
    records = [_record(line) for _, line in lines]
    received = [r for r in records if r is not None and ("traces" in r or "events" in r)]
    left = iter(without(received, target.down, target.events))
    kept = []
    for (path, line), record in zip(lines, records, strict=True):
        if record is None:  # cut off or damaged: it cannot be told what is in it
            gone = any(t.encode() in line for t in target.down)
        elif "traces" in record or "events" in record:
            now = next(left)
            gone = now is None
            line = line if now is record else orjson.dumps(now, option=orjson.OPT_APPEND_NEWLINE)
        else:
            gone = record.get("t") in target.down
        kept += [] if gone else [(path, line)]
    return kept


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _marked(text: str, lines: bool, taking: Taking) -> str:
    """A text with markers; of `lines` each alone first, as each is a document."""
    if lines:
        text = "".join(taking.clean(line) for line in text.splitlines(keepends=True))
    return taking.clean(text)


@contextmanager
def _stopped(lake: Lake, folder: str) -> Iterator[None]:
    try:
        with FileLock(f"{lake.uri}/{folder}.lock", timeout=0) if lake.local else nullcontext():
            yield
    except Timeout as error:
        who = {".proxy/": "a proxy", ".serve/": "a server"}.get(folder, "a proxy or a server")
        raise LakeError(
            f"{who} writes to {lake.uri}/{folder}, which holds what is to go; stop it and run this again."
        ) from error
