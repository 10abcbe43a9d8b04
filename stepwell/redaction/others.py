"""What in a lake's folder is no table: caches in SQLite, the journal of the proxy, checkpoints and reports.

Rows of a cache that hold what is to go are deleted (they are asked for again); text files get markers in its place, and lose
the lines of a trajectory that is taken down; what is neither is left as it is, for the scan to name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from stepwell.critics.cache import place
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.redaction.scan import SQLITE
from stepwell.redaction.target import Taking

JOURNAL = ".proxy/"


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
    """Put markers into text files that are no table's; returns how many changed. Raises LakeError while a proxy records."""
    n = 0
    for path in lake.store.paths():
        if path.endswith((".parquet", ".sqlite")) or "/_delta_log/" in path:
            continue
        data = lake.store.get(path) or b""
        lines = path.startswith(JOURNAL) and any(t.encode() in data for t in taking.target.down)
        if not lines and not taking.target.in_bytes(data):
            continue
        with _stopped(lake) if path.startswith(JOURNAL) else nullcontext():
            try:
                text = (lake.store.get(path) or b"").decode()
            except UnicodeDecodeError:
                continue
            if lines:
                text = "".join(line for line in text.splitlines(keepends=True) if not _of(line, taking.target.down))
            if path.endswith(".jsonl"):
                text = "".join(taking.clean(line) for line in text.splitlines(keepends=True))
            lake.store.put(path, taking.clean(text).encode())
            n += 1
    return n


def _of(line: str, trajectories: Collection[str]) -> bool:
    try:
        return orjson.loads(line).get("t") in trajectories
    except (orjson.JSONDecodeError, AttributeError):
        return any(t in line for t in trajectories)


def _stopped(lake: Lake) -> FileLock:
    lock = FileLock(f"{lake.uri}/{JOURNAL}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LakeError(f"a proxy records into {lake.uri}; stop it and run this again.") from error
    lock.release()
    return lock
