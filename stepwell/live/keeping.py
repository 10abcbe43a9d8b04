"""What was received on its way into the lake: the journal, the queue, commits, and what becomes of it when the server dies.

Does not belong here: HTTP (`server`), what an event is (`shapes`). What is acknowledged is in the journal; what is in the
journal is written to the lake, after a start as before it, and known by its ids when it was written already.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from schemas.rejects import REJECTS
from stepwell.appending import append_fitting, names_in, reject_row, taken_down, without_bytes, without_taken_out
from stepwell.event import Event
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.live.lifecycle import BATCH, Lifecycle
from stepwell.live.shapes import Bad, packed, unpacked
from stepwell.live.traces import Batch, Traces
from stepwell.log import EventLog
from stepwell.secrets.redact import Redactor

EVENTS = "POST /v1/events"
FORMAT = "stepwell-events"


@dataclass
class Counts:
    """What happened since the start: acknowledged requests and events, events that were new, rejected, closed for silence.

    `known` are events that were sent and not written, as the lake has them or a redaction or takedown took them out of it.
    """

    requests: int = 0
    received: int = 0
    events: int = 0
    known: int = 0
    rejected: int = 0
    spans: int = 0
    closed: int = 0
    commits: int = 0


@dataclass
class _Batch:
    """What the next commit writes."""

    keys: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    n_bytes: int = 0


class Keeper:
    """Takes what the server has checked. Times in seconds; `most_events`, `most_bytes`: what may wait for the lake."""

    def __init__(
        self, lake: Lake, journal: Journal, *, idle: float = 3600.0, every: float = 2.0, batch: int = 1000,
        most_events: int = 100_000, most_bytes: int = 256 << 20, corpus: str = "traces",
        redactor: Redactor | None = None, tell: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self.lake, self.log, self.journal, self.redactor, self.tell = lake, EventLog(lake), journal, redactor, tell
        self.idle, self.every, self.batch = idle, every, batch
        self.most_events, self.most_bytes = most_events, most_bytes
        self.counts, self.traces = Counts(), Traces(lake, corpus)
        self.lifecycle: Lifecycle
        self.failing: str | None = None
        """Why the lake took nothing the last time; None when it did."""
        self._waiting, self._writing = _Batch(), _Batch()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def n_waiting(self) -> int:
        """Events that are acknowledged and not in the lake yet."""
        return len(self._waiting.events) + len(self._writing.events)

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return self.n_waiting >= self.most_events or self._waiting.n_bytes + self._writing.n_bytes >= self.most_bytes

    async def start(self) -> int:
        """Take up what a killed server left in its journal; returns the number of requests."""
        self.lifecycle = await asyncio.to_thread(Lifecycle, self.lake)
        n = 0
        for path, offset, line, record in self.journal.replay():
            if record is None:
                # at most the last line of a segment is cut off: nobody was told that it was taken
                self._waiting.bad.append(
                    Bad(offset, "bad_line", f"journal {path.name}: the line is cut off or damaged", line)
                )
                continue
            n += 1
            self.journal.live[path].add(record["t"])
            if "traces" in record:
                self.traces.add(record["t"], record["traces"], len(line))
                continue
            bad = [Bad(i, reason, detail, raw.encode("latin-1")) for i, reason, detail, raw in record["bad"]]
            self._queue(record["t"], [unpacked(e) for e in record["events"]], bad, len(line))
            if self.full:
                await self._commit()
        await self._commit()
        self._task = asyncio.create_task(self._run())
        return n

    async def take(self, events: Sequence[Event], bad: Sequence[Bad]) -> None:
        """Keep the events of a request and what of it was none; returns when they are on disk. Raises OSError."""
        key = uuid.uuid4().hex
        record = {
            "t": key, "events": [packed(e) for e in events],
            "bad": [(b.index, b.reason, b.detail, b.raw.decode("latin-1")) for b in bad],
        }  # fmt: skip
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        await self.journal.append(key, line)
        self._queue(key, list(events), list(bad), len(line))
        self.counts.requests, self.counts.received = self.counts.requests + 1, self.counts.received + len(events)

    async def take_traces(self, batch: Batch, n_spans: int) -> None:
        """Keep a request of spans; returns when it is on disk. Raises OSError."""
        key = uuid.uuid4().hex
        line = orjson.dumps({"t": key, "traces": batch}, option=orjson.OPT_APPEND_NEWLINE)
        await self.journal.append(key, line)
        self.traces.add(key, batch, len(line))
        self.counts.requests, self.counts.spans = self.counts.requests + 1, self.counts.spans + n_spans

    def _queue(self, key: str, events: list[Event], bad: list[Bad], n_bytes: int) -> None:
        waiting = self._waiting
        waiting.keys.add(key)
        waiting.events += events
        waiting.bad += bad
        waiting.n_bytes += n_bytes
        if len(waiting.events) >= self.batch:
            self._wake.set()

    async def _run(self) -> None:
        while not self._stopped:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(self.every, self.idle / 2))
            self._wake.clear()
            try:
                await self._commit()
                await asyncio.to_thread(self._close_silent)
                self.failing = None
            except Exception as error:  # whatever a store can raise: all is in the journal, and tried again
                self.failing = str(error)
                self.tell(f"the lake takes nothing, {self.n_waiting} events wait: {error}")
                await asyncio.sleep(min(self.every, 1.0))

    async def _commit(self) -> None:
        """Write what waits, then let go of it."""
        self._writing, self._waiting = self._waiting, _Batch()
        done = self._writing
        try:
            await asyncio.to_thread(self._write, done)
        except BaseException:
            late = self._waiting
            self._waiting = _Batch(
                done.keys | late.keys, done.events + late.events, done.bad + late.bad, done.n_bytes + late.n_bytes
            )
            raise
        finally:
            self._writing = _Batch()
        self.journal.forget(done.keys)

    def _write(self, batch: _Batch) -> None:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        if batch.events:
            with self.lake.lock("growing"):  # no redaction may come between the look and the append
                self._append(batch, f"{BATCH}{name}")
        if batch.bad:
            down = taken_down(self.log, {t for b in batch.bad for t in names_in(b.raw)})
            rows = [reject_row(EVENTS, b.index, b.reason, b.detail, b.raw, FORMAT, f"{BATCH}{name}") for b in batch.bad]
            rows = [r if names_in(r["raw"]).isdisjoint(down) else without_bytes(r) for r in rows]
            unique = {r["reject_id"]: r for r in rows}
            self.counts.rejected += self.lake.add(
                "rejects", pa.Table.from_pylist(list(unique.values()), REJECTS.schema)
            )
        self.counts.events += self.traces.write(f"serve-traces:{name}")

    def _append(self, batch: _Batch, name: str) -> None:
        kept = without_taken_out(self.log, batch.events)
        self.counts.known += len(batch.events) - len(kept)
        batch.events = kept + self.lifecycle.received(kept)  # a batch that is tried again still has them
        if not batch.events:
            return
        n_bad = len(batch.bad)
        new = append_fitting(self.log, batch.events, name, self._unfit(batch))
        self.counts.known += len(batch.events) - new - (len(batch.bad) - n_bad)
        self.counts.events += new
        self.counts.commits += 1

    def _unfit(self, batch: _Batch) -> Callable[[Event, str], None]:
        def refuse(event: Event, why: str) -> None:
            batch.bad.append(
                Bad(0, "malformed", f"cannot be stored: {why}", repr(packed(event)).encode("utf-8", "replace"))
            )

        return refuse

    def _close_silent(self) -> None:
        ends = self.lifecycle.silent(self.idle)
        if ends:
            name = f"{BATCH}{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
            kept = without_taken_out(self.log, ends)  # what was taken down gets no end, and is open no more
            if kept:
                self.log.append(kept, name)
            self.lifecycle.close(ends)
            self.counts.closed += len(kept)
        self.journal.forget(self.traces.silent(self.idle, "serve-traces:silent"))

    async def stop(self) -> None:
        """Write what waits; what is open stays open, and goes on when a server is started again."""
        self._stopped = True
        self._wake.set()
        if self._task is not None:
            await self._task
        try:
            await self._commit()
        finally:
            await self.journal.close()


def clean(redactor: Redactor | None, events: list[Event], bad: list[Bad]) -> tuple[list[Event], list[Bad]]:
    """The same without secrets; the ids of events are those of what is left."""
    if redactor is None:
        return events, bad
    kept = [Bad(b.index, b.reason, redactor.redact(b.detail), redactor.raw(b.raw)) for b in bad]
    return redactor.events(events), kept


def clean_traces(redactor: Redactor | None, batch: dict[str, Any]) -> dict[str, Any]:
    """Spans without secrets, each text alone: a message is the same in every prompt that repeats it."""
    return batch if redactor is None else redactor.apart(batch)
