"""What an import run has to write and what it knows already; the order of its commits is what makes a crash harmless."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.rejects import REJECTS
from schemas.sources import SOURCES
from stepwell.appending import reject_row, without_bytes
from stepwell.event import Event, to_table
from stepwell.gradings import WHOLE, Row, by_subject
from stepwell.ids import sha256, storable
from stepwell.importers.base import Imported, Rejected
from stepwell.importers.fidelity import Fidelity
from stepwell.importers.files import kept_of, read_head
from stepwell.importers.growing import COLUMNS, additions
from stepwell.importers.regraded import corrected
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.secrets.redact import Redactor, redactions, salt_of, secret_id

_MOST_BYTES = 48 << 20
_DOWN = "\0taken down"


@dataclass
class Taken:
    """A file as it is taken in: what came of it so far; of one that is `growing` nothing is kept as a reject yet."""

    content_hash: str
    path: str
    format: str
    n_bytes: int
    corpus: str = ""
    n_rejected: int = 0
    n_down: int = 0
    """How many of its trajectories were taken down before."""
    n_steps: int = 0
    n_events: int = 0
    outcome_path: str | None = None
    growing: bool = False
    imported: bool = False
    trajectory_ids: list[str] = field(default_factory=list)
    fidelity: Fidelity = field(default_factory=Fidelity)


@dataclass(frozen=True)
class Held:
    """A trajectory that waits for the next commit; `raw` are the bytes of its record, null when it is the whole file."""

    file: Taken
    trajectory: Imported
    reported: list[Event]
    """What reports say of it: outcomes, and the task that its own file does not name."""
    raw: bytes | None
    offset: int

    @property
    def events(self) -> list[Event]:
        """All its events."""
        return [*self.trajectory.events, *self.reported]


class Ledger:
    """Collects what a run takes in and writes it in batches of whole trajectories."""

    def __init__(self, lake: Lake, batch_id: str, batch_events: int, redactor: Redactor | None = None) -> None:
        self.lake, self.log, self.batch_id, self.batch_events = lake, EventLog(lake), batch_id, batch_events
        self.redactor = redactor
        self.n_new = self.n_known = 0
        self.refused: list[tuple[Held, str]] = []
        """Trajectories that were held and are not written after all, and the reason."""
        self._held: list[Held] = []
        self._done: list[Taken] = []
        self._rows: list[dict[str, Any]] = []
        self._aliases: list[tuple[str, str]] = []
        self._rejects: list[dict[str, Any]] = []
        self._down: dict[str, Taken] = {}
        self._events = self._bytes = 0
        columns = ["content_hash", "path", "n_rejected", "n_trajectories", "recorded_at"]
        sources = sorted(lake.read("sources", columns=columns).to_pylist(), key=lambda r: r["recorded_at"])
        self._hashes = {
            bytes.fromhex(r["content_hash"]) for r in sources if r["n_trajectories"] and not r["n_rejected"]
        }
        self._places = {_place(r["content_hash"], r["path"]) for r in sources}
        self._latest = {r["path"]: bytes.fromhex(r["content_hash"]) for r in sources}

    def know(self, content_hash: str, path: str, reported: bool = False) -> bool:
        """Whether this content was taken in before; a path it had not then is noted.

        Content that is `reported` on is new again when its path had other content, or other reports, since.
        """
        known = bytes.fromhex(content_hash)
        if known not in self._hashes or (reported and self._latest.get(storable(path), known) != known):
            return False
        if _place(content_hash, path) not in self._places:
            self._places.add(_place(content_hash, path))
            self._aliases.append((content_hash, path))
        return True

    def hold(self, held: Held) -> None:
        """Write a trajectory with the next batch."""
        if held.trajectory.n_records is not None and any(
            h.trajectory.trajectory_id == held.trajectory.trajectory_id for h in self._held
        ):
            self.flush()  # two states of one session: each is compared with what is in the log
        self._held.append(held)
        held.file.trajectory_ids.append(held.trajectory.trajectory_id)
        held.file.n_steps += held.trajectory.n_steps
        held.file.n_events += len(held.events)
        self._events += len(held.events)
        self._full(sum(len(e.extra or "") + 200 for e in held.events) if held.raw is None else len(held.raw))

    def done(self, file: Taken) -> None:
        """Note a file all of whose trajectories are held or written: its row is written after them.

        One with rejects is read again wherever it is met: they may be taken now, and every path has its own.
        """
        self._done.append(file)
        self._latest[storable(file.path)] = bytes.fromhex(file.content_hash)
        if file.trajectory_ids and not file.n_rejected:
            self._hashes.add(bytes.fromhex(file.content_hash))
        self._places.add(_place(file.content_hash, file.path))

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
        detail = rejected.detail
        if self.redactor is not None:
            raw, detail = self.redactor.raw(raw), self.redactor.redact(detail)
        self._rejects.append(reject_row(path, rejected.offset, rejected.reason, detail, raw, format, self.batch_id))

    def _left(self, reject: dict[str, Any]) -> dict[str, Any]:
        """A reject; without its bytes when they are of trajectories that were taken down."""
        file = self._down.get(reject["path"])
        if file is None:
            return reject
        whole = file.n_down == len(file.trajectory_ids) or len(reject["raw"]) == kept_of(file.n_bytes)
        return without_bytes(reject) if whole else reject

    def _full(self, n_bytes: int) -> None:
        self._bytes += n_bytes
        if self._events >= self.batch_events or self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Events first, then the sources that claim them, then other paths of the same content."""
        if self._held:
            self._commit(self._held)
        if self._rejects:
            rows = {r["reject_id"]: r for r in map(self._left, self._rejects)}
            self.lake.add("rejects", pa.Table.from_pylist(list(rows.values()), REJECTS.schema))
        self._add_sources([*self._rows, *map(self._file_source, self._done)])
        self._add_sources(self._elsewhere())
        self._held, self._done, self._rows, self._aliases, self._rejects = [], [], [], [], []
        self._events = self._bytes = 0

    def _commit(self, held: list[Held]) -> None:
        """Write these trajectories; one that Arrow cannot hold is rejected alone, not with its batch."""
        try:
            self._append(held)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            self._append([h for h in held if self._fits(h)])

    def _append(self, held: list[Held]) -> None:
        with self.lake.lock("growing"):  # no redaction or other state of a session between the look and the append
            self._append_new(held)

    def _append_new(self, held: list[Held]) -> None:
        corpora, redacted = self._stored({h.trajectory.trajectory_id for h in held})
        salt = salt_of(self.lake) if redacted else b""
        graded = self._graded({h.trajectory.trajectory_id for h in held if h.reported} & corpora.keys())
        events: list[Event] = []
        for one in held:
            stored = corpora.get(one.trajectory.trajectory_id)
            if stored == _DOWN:
                stored = None  # taken down: it does not come back
                one.file.n_down += 1
                self._down[storable(one.file.path)] = one.file
            elif stored is None:
                corpora[one.trajectory.trajectory_id] = one.trajectory.corpus
                events += one.events
            else:
                told = [replace(e, corpus=stored, caused_by=None) for e in one.reported]
                left = [e for e in told if not redacted or secret_id(e.event_id, salt) not in redacted]
                before = graded.get((one.trajectory.trajectory_id, WHOLE))
                events += corrected(left, before) if left and before and len(left) == len(told) else left
                events += self._grown(one)
            one.file.corpus = one.file.corpus or stored or one.trajectory.corpus
        if events:
            appended = self.log.append(events, self.batch_id)
            self.n_new, self.n_known = self.n_new + appended.new, self.n_known + appended.known

    def _fits(self, held: Held) -> bool:
        try:
            to_table(held.events, self.batch_id, datetime.now(UTC))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            self._refuse(held, Rejected("malformed", f"cannot be stored: {error}", held.offset))
            return False
        return True

    def _refuse(self, held: Held, rejected: Rejected) -> None:
        file = held.file
        self.refused.append((held, rejected.reason))
        file.trajectory_ids.remove(held.trajectory.trajectory_id)
        file.n_steps, file.n_events = file.n_steps - held.trajectory.n_steps, file.n_events - len(held.events)
        file.n_rejected += 1
        if not file.growing:
            self._keep(file.path, rejected, read_head(Path(file.path)) if held.raw is None else held.raw, file.format)

    def _grown(self, held: Held) -> list[Event]:
        """What a trajectory that is in the log and may grow has gained."""
        if held.trajectory.n_records is None:
            return []
        rows = self.log.read(trajectory_ids=[held.trajectory.trajectory_id], columns=COLUMNS).to_pylist()
        redacted = bool(redactions(rows))
        events = additions(rows, held.trajectory, salt_of(self.lake) if redacted else b"")
        if events is None:
            detail = "the session is in the log with other content and as many records or more; give it another id."
            without = replace(held, raw=b"") if redacted else held  # its bytes may hold what was redacted
            self._refuse(without, Rejected("diverged", detail, held.offset))
        return events or []

    def _graded(self, trajectory_ids: set[str]) -> dict[tuple[str, str], list[Row]]:
        """The gradings of these trajectories in the log, by trajectory and subject."""
        if not trajectory_ids:
            return {}
        columns = ["event_id", "trajectory_id", "kind", "recorded_at", "outcome", "retraction"]
        rows = self.log.read(trajectory_ids=sorted(trajectory_ids), kinds=["outcome", "retraction"], columns=columns)
        return by_subject(live(rows).to_pylist())

    def _stored(self, trajectory_ids: set[str]) -> tuple[dict[str, str], set[str]]:
        """Corpora of these trajectories in the log, _DOWN of those taken down; what stands for the ids of redacted events."""
        found: dict[str, str] = {}
        columns, kinds = ["trajectory_id", "corpus", "kind", "retraction"], ["start", "retraction"]
        rows = self.log.read(trajectory_ids=sorted(trajectory_ids), kinds=kinds, columns=columns).to_pylist()
        for row in rows:
            if row["kind"] == "start":
                found.setdefault(row["trajectory_id"], row["corpus"])
            elif row["retraction"]["action"] == "takedown":
                found[row["trajectory_id"]] = _DOWN
        return found, set(redactions(rows))

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
            "n_records": None,
            "fidelity": None,
            "outcome_path": None,
            "trajectory_ids": [],
            "batch_id": self.batch_id,
            "recorded_at": datetime.now(UTC),
        }

    def _file_source(self, file: Taken) -> dict[str, Any]:
        row = self._source(file.content_hash, file.path, file.format, file.corpus, file.n_bytes)
        return row | {
            "n_trajectories": len(file.trajectory_ids),
            "n_steps": file.n_steps,
            "n_events": file.n_events,
            "n_rejected": file.n_rejected,
            "n_records": file.fidelity.records,
            "fidelity": orjson.dumps(file.fidelity.row()).decode(),
            "outcome_path": storable(file.outcome_path),
            "trajectory_ids": file.trajectory_ids,
        }


def _place(content_hash: str, path: str) -> bytes:
    return bytes.fromhex(sha256(f"{content_hash} {storable(path)}"))[:16]
