"""The scan of every byte of a lake: every file raw and every text of every Parquet and SQLite file decoded.

A value that is in no file under the lake's folder, in no form of `stepwell.secrets.values`, is gone from it. What the scan
cannot read it names: then nothing is proven. It knows neither backups nor copies, nor the version history of an object store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stepwell.lake import Lake
from stepwell.redaction.target import Target

_CHUNK = 16 << 20
SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Hit:
    """A place where a value is, or a file that cannot be read (`how`: name, bytes, rows, unreadable)."""

    path: str
    how: str


def scan(lake: Lake, target: Target) -> Iterator[Hit]:
    """Every file of the lake in which a value is, at most once."""
    for path in lake.store.paths():
        hit = hit_in(lake, path, target)
        if hit is not None:
            yield hit


def hit_in(lake: Lake, path: str, target: Target) -> Hit | None:
    """Whether a value is in one file: in its name, its bytes, or what they decode to."""
    if target.in_text(path):
        return Hit(path, "name")
    try:
        if path.endswith(".parquet"):
            with lake.store.fs.open_input_file(path) as file:
                parquet = pq.ParquetFile(file)
                for batch in parquet.iter_batches(batch_size=1024):
                    if target.held(pa.Table.from_batches([batch])):
                        return Hit(path, "rows")
        head = _bytes(lake, path, target)
        if head is None:
            return Hit(path, "bytes")
        if head == SQLITE and lake.local and _in_database(Path(lake.uri) / path, target):
            return Hit(path, "rows")
    except FileNotFoundError:
        return None  # a writer removed it since it was listed
    except (OSError, pa.ArrowException, sqlite3.Error):
        return Hit(path, "unreadable")
    return None


def _bytes(lake: Lake, path: str, target: Target) -> bytes | None:
    """The first bytes of a file that holds no value in its raw bytes; None when it does."""
    longest = max(map(len, target.literals), default=1)
    head, kept = b"", b""
    with lake.store.fs.open_input_file(path) as stream:
        while data := stream.read(_CHUNK):
            head = head or data[: len(SQLITE)]
            if target.in_bytes(kept + data):
                return None
            kept = data[-longest:]
    return head


def _in_database(path: Path, target: Target) -> bool:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            escaped = name.replace('"', '""')
            for row in db.execute(f'SELECT * FROM "{escaped}"'):
                if any(target.in_bytes(v if isinstance(v, bytes) else str(v).encode()) for v in row if v is not None):
                    return True
    return False
