"""Rewards: what a critique is worth, and results of tests kept under what makes two solutions the same (`stepwell.syntax`).

Belongs here: the format gate and the rules of CTRL (METHODS.md 2.2), the file of results. Does not
belong here: running tests (`solutions`), advantages (they follow from the rewards of a group, in training).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Literal

import orjson

from stepwell.ids import digest
from stepwell.lake import Lake

Rule = Literal["all", "mean"]
_TABLE = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


def reward(judged: bool, resolved: bool, score: float, rule: Rule) -> float:
    """0 without a judgment (the format gate), else whether all tests pass, or the share of them that do."""
    return (float(resolved) if rule == "all" else score) if judged else 0.0


def place(lake: Lake) -> Path:
    """`.cache/results.sqlite` inside a local lake, else a file of that lake in the user's cache folder."""
    if lake.local:
        return Path(lake.uri) / ".cache" / "results.sqlite"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "stepwell" / f"results-{digest(lake.uri)[:12]}.sqlite"


class Results:
    """Results of tests by solution, in one SQLite file that several processes may share."""

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute(_TABLE)

    def get(self, key: str) -> Any | None:
        """What is kept under a key."""
        row = self.db.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else orjson.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep a result; when this returns it survives the death of the process."""
        self.db.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, orjson.dumps(value)))

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()
