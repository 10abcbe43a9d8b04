"""What an import run has to write and what it knows already; the order of its commits is what makes a crash harmless."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.rejects import REJECTS
from schemas.sources import SOURCES
from stepwell.event import Event, to_table
from stepwell.ids import digest, sha256, storable
from stepwell.importers.base import Imported, Rejected
from stepwell.importers.files import read_head
from stepwell.lake import Lake
from stepwell.log import EventLog

_MOST_BYTES = 48 << 20


@dataclass
class Taken:
    """A file to write: its trajectories with their outcome events, and where it came from."""

    content_hash: str
    path: str
    format: str
    n_bytes: int
    n_rejected: int = 0
    outcome_path: str | None = None
    trajectories: list[tuple[Imported, list[Event]]] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        """All events of the file."""
        return [e for trajectory, outcomes in self.trajectories for e in (*trajectory.events, *outcomes)]


class Ledger:
    """Collects what a run takes in and writes it in batches of whole trajectories."""

    def __init__(self, lake: Lake, batch_id: str, batch_events: int) -> None:
        self.lake, self.log, self.batch_id, self.batch_events = lake, EventLog(lake), batch_id, batch_events
        self.n_new = self.n_known = 0
        self.refused: list[Taken] = []
        self._taken: list[Taken] = []
        self._rows: list[dict[str, Any]] = []
        self._aliases: list[tuple[str, str]] = []
        self._rejects: list[dict[str, Any]] = []
        self._events = self._bytes = 0
        sources = lake.read("sources", columns=["content_hash", "path", "n_rejected", "n_trajectories"]).to_pylist()
        self._hashes = {
            bytes.fromhex(r["content_hash"]) for r in sources if r["n_trajectories"] and not r["n_rejected"]
        }
        self._places = {_place(r["content_hash"], r["path"]) for r in sources}

    def know(self, content_hash: str, path: str) -> bool:
        """Whether this content was taken in before; a path it had not then is noted."""
        if bytes.fromhex(content_hash) not in self._hashes:
            return False
        if _place(content_hash, path) not in self._places:
            self._places.add(_place(content_hash, path))
            self._aliases.append((content_hash, path))
        return True

    def take(self, taken: Taken) -> None:
        """Write a trajectory with the next batch."""
        self._taken.append(taken)
        self._hashes.add(bytes.fromhex(taken.content_hash))
        self._places.add(_place(taken.content_hash, taken.path))
        self._events += len(taken.events)
        self._full(taken.n_bytes)

    def companion(self, content_hash: str, path: str, kind: str, corpus: str, n_bytes: int) -> None:
        """Note a file that holds outcomes or predictions, but no trajectory."""
        if _place(content_hash, path) not in self._places:
            self._places.add(_place(content_hash, path))
            self._rows.append(self._source(content_hash, path, kind, corpus, n_bytes))

    def reject(self, path: str, rejected: Rejected, raw: bytes, format: str | None) -> None:
        """Keep what could not be taken; a second time it is the same row."""
        self._keep(path, rejected, raw, format)
        self._full(len(raw))

    def _keep(self, path: str, rejected: Rejected, raw: bytes, format: str | None) -> None:
        path = storable(path)
        row = {
            "reject_id": digest(path, rejected.offset, rejected.reason, sha256(raw)),
            "path": path,
            "offset": rejected.offset,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "format": format,
            "raw": raw,
            "batch_id": self.batch_id,
            "recorded_at": datetime.now(UTC),
        }
        self._rejects.append({k: storable(v) for k, v in row.items()})

    def _full(self, n_bytes: int) -> None:
        self._bytes += n_bytes
        if self._events >= self.batch_events or self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Events first, then the sources that claim them, then other paths of the same content."""
        if self._taken:
            self._commit(self._taken)
        if self._rejects:
            rows = {r["reject_id"]: r for r in self._rejects}
            self.lake.add("rejects", pa.Table.from_pylist(list(rows.values()), REJECTS.schema))
        self._add_sources(self._rows)
        self._add_sources(self._elsewhere())
        self._taken, self._rows, self._aliases, self._rejects = [], [], [], []
        self._events = self._bytes = 0

    def _commit(self, taken: list[Taken]) -> None:
        """Write these files; one that Arrow cannot hold is rejected alone, not with its batch."""
        try:
            self._append(taken)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            self._append([t for t in taken if self._fits(t)])

    def _append(self, taken: list[Taken]) -> None:
        corpora = self._corpora({t.trajectory_id for file in taken for t, _ in file.trajectories})
        events: list[Event] = []
        rows = []
        for file in taken:
            for trajectory, outcomes in file.trajectories:
                stored = corpora.get(trajectory.trajectory_id)
                if stored is None:
                    corpora[trajectory.trajectory_id] = trajectory.corpus
                    events += [*trajectory.events, *outcomes]
                else:
                    events += [replace(e, corpus=stored, caused_by=None) for e in outcomes]
            rows.append(self._file_source(file, corpora))
        if events:
            appended = self.log.append(events, self.batch_id)
            self.n_new, self.n_known = self.n_new + appended.new, self.n_known + appended.known
        self._rows += rows

    def _fits(self, file: Taken) -> bool:
        try:
            to_table(file.events, self.batch_id, datetime.now(UTC))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            self.refused.append(file)
            self._keep(
                file.path, Rejected("malformed", f"cannot be stored: {error}"), read_head(Path(file.path)), file.format
            )
            return False
        return True

    def _corpora(self, trajectory_ids: set[str]) -> dict[str, str]:
        """Corpus of each of these trajectories that is in the log already."""
        if self.log.version is None:
            return {}
        where = pc.field("trajectory_id").isin(pa.array(sorted(trajectory_ids))) & (pc.field("kind") == "start")
        rows = self.lake.read("events", columns=["trajectory_id", "corpus"], filters=where)
        return dict(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist(), strict=True))

    def _elsewhere(self) -> list[dict[str, Any]]:
        """Rows for content that was met again under another path, copied from its first."""
        if not self._aliases:
            return []
        where = pc.field("content_hash").isin(pa.array(sorted({h for h, _ in self._aliases})))
        first = {r["content_hash"]: r for r in self.lake.read("sources", filters=where).to_pylist()}
        again = {"batch_id": self.batch_id, "recorded_at": datetime.now(UTC)}
        return [{**first[h], **again, "path": storable(path)} for h, path in self._aliases if h in first]

    def _add_sources(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self.lake.add("sources", pa.Table.from_pylist(rows, SOURCES.schema))

    def _source(self, content_hash: str, path: str, format: str, corpus: str, n_bytes: int) -> dict[str, Any]:
        counts = dict.fromkeys(("n_trajectories", "n_steps", "n_events", "n_rejected"), 0)
        return {
            "content_hash": content_hash,
            "path": storable(path),
            "format": format,
            "corpus": corpus,
            "n_bytes": n_bytes,
            **counts,
            "outcome_path": None,
            "trajectory_ids": [],
            "batch_id": self.batch_id,
            "recorded_at": datetime.now(UTC),
        }

    def _file_source(self, file: Taken, corpora: dict[str, str]) -> dict[str, Any]:
        ids = [t.trajectory_id for t, _ in file.trajectories]
        corpus = corpora[ids[0]] if ids else ""
        row = self._source(file.content_hash, file.path, file.format, corpus, file.n_bytes)
        return row | {
            "n_trajectories": len(ids),
            "n_steps": sum(t.n_steps for t, _ in file.trajectories),
            "n_events": len(file.events),
            "n_rejected": file.n_rejected,
            "outcome_path": storable(file.outcome_path),
            "trajectory_ids": ids,
        }


def _place(content_hash: str, path: str) -> bytes:
    return bytes.fromhex(sha256(f"{content_hash} {storable(path)}"))[:16]
