"""Completions kept: what a model answered is never asked for twice, whatever happens to the run that asked.

Belongs here: the file, and how far a critic has come. Does not belong here: what makes two calls the same (`judging`
hashes it into the key). A completion is committed before it counts, so killing the process loses none; failures are never
kept. One SQLite file in write-ahead mode, which several processes may share.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import orjson

from stepwell.chat import Completion
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
        return None if row is None else Completion(**orjson.loads(row[0]))

    def put(self, key: str, completion: Completion) -> None:
        """Keep a completion; when this returns it survives the death of the process."""
        self.db.execute("INSERT OR REPLACE INTO completions VALUES (?, ?)", (key, orjson.dumps(completion)))

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
