"""Completions kept: what a model answered is never asked for twice, whatever happens to the run that asked.

Belongs here: the file, and how far a critic has come. Does not belong here: what makes two calls the same (`judging`
hashes it into the key). A completion is committed before it counts, so killing the process loses none; failures are never
kept. One SQLite file in write-ahead mode, which several processes may share.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from stepwell.chat import Completion
from stepwell.errors import StepwellError
from stepwell.ids import digest
from stepwell.lake import Lake

_TABLES = """
    CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS finished (key TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
"""


def place(lake: Lake) -> Path:
    """`.cache/completions.sqlite` inside a local lake, else a file of that lake in the user's cache folder."""
    if lake.local:
        return Path(lake.uri) / ".cache" / "completions.sqlite"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "stepwell" / f"completions-{digest(lake.uri)[:12]}.sqlite"


def completion_of(document: dict[str, Any]) -> Completion:
    """A completion that was written as JSON, which has no tuples; raises TypeError for a field it does not have."""
    return Completion(**(document | {"tool_calls": tuple(document.get("tool_calls") or ())}))


class Completions:
    """Completions by call key, and the version of `events` up to which a critic has judged everything."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_TABLES)

    def get(self, key: str) -> Completion | None:
        """The completion of a call, None when it was never completed."""
        row = self.db.execute("SELECT value FROM completions WHERE key = ?", (key,)).fetchone()
        return None if row is None else completion_of(orjson.loads(row[0]))

    def put(self, key: str, completion: Completion) -> None:
        """Keep a completion; when this returns it survives the death of the process."""
        self.db.execute("INSERT OR REPLACE INTO completions VALUES (?, ?)", (key, orjson.dumps(completion)))

    def forget(self, keys: Iterable[str]) -> int:
        """Remove completions for good, as a redaction must: no byte of them stays in the file or beside it.

        Returns how many there were. Raises StepwellError while another process has the file open, whose log would keep them.
        """
        self.db.execute("PRAGMA secure_delete=ON")
        self.db.execute("BEGIN IMMEDIATE")
        gone = self.db.executemany("DELETE FROM completions WHERE key = ?", [(key,) for key in keys]).rowcount
        self.db.execute("COMMIT")
        self.db.execute("VACUUM")
        (busy, *_) = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StepwellError(
                "completions were deleted, but another process has the cache open and its log still holds them; "
                "let that process end and redact again."
            )
        return max(gone, 0)

    def finished(self, key: str) -> int | None:
        """Version of `events` up to which everything this key stands for is judged."""
        row = self.db.execute("SELECT version FROM finished WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def finish(self, key: str, version: int) -> None:
        """Record that everything up to this version is judged."""
        self.db.execute("INSERT OR REPLACE INTO finished VALUES (?, ?)", (key, version))

    def __enter__(self) -> Completions:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
