"""Calls into the lake: open trajectories, the journal, batches of events, idle trajectories, what is shown of it.

Does not belong here: HTTP (`server`), what a call means (`trajectory`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pyarrow as pa

from schemas.rejects import REJECTS
from stepwell.appending import append_fitting, reject_row, without_taken_out
from stepwell.chat import prompt_hash
from stepwell.event import Event
from stepwell.ids import digest, unfit_corpus
from stepwell.journal import Journal
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.proxy.address import Address
from stepwell.proxy.replies import usage_of
from stepwell.proxy.trajectory import STOPPED, Record, Trajectory
from stepwell.secrets.redact import Redactor


@dataclass
class Counts:
    """What was recorded since the start."""

    calls: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    trajectories: int = 0
    ended: int = 0
    events: int = 0
    rejected: int = 0


class Recorder:
    """Keeps what calls say; `idle`, `every`: seconds; `batch`: events that make a commit before `every` has passed."""

    def __init__(
        self, lake: Lake, journal: Journal, *, idle: float = 3600.0, every: float = 10.0, batch: int = 1000,
        most_bytes: int = 256 << 20, tell: Callable[[str], None] = lambda text: None,
        redactor: Redactor | None = None,
    ) -> None:  # fmt: skip
        self.lake, self.log, self.journal, self.tell = lake, EventLog(lake), journal, tell
        self.idle, self.every, self.batch, self.most_bytes = idle, every, batch, most_bytes
        self.redactor = redactor
        self.counts = Counts()
        self.open: dict[Address, Trajectory] = {}
        self.n_bytes = 0
        self._pending: list[Event] = []
        self._closed: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    @property
    def full(self) -> bool:
        """Whether more waits for the lake than may be held in memory."""
        return self.n_bytes > self.most_bytes

    async def start(self) -> int:
        """Take up what a killed or stopped process left in the journal; returns the number of records."""
        if self.redactor is not None:
            await asyncio.to_thread(self.redactor.redact, "warm")  # loading the rules takes seconds the first time
        n, damaged, cut, orphans, closed = 0, False, None, [], set[str]()
        by_id: dict[str, tuple[Address, Trajectory]] = {}
        unfit: dict[str, str] = {}
        for path, offset, line, record in self.journal.replay():
            damaged = damaged or cut == path  # a process that is killed leaves at most its last line cut off
            if record is None:
                cut = path
                self._reject(str(path), offset, line, "the line is cut off or damaged")
                continue
            if record["n"] == 0 and (why := unfit_corpus(record["opened"]["corpus"])):
                unfit[record["t"]] = why
            if record["t"] in unfit:
                self._reject(str(path), offset, line, unfit[record["t"]])
                continue
            if record["n"] == 0:
                address = Address(*record["opened"]["address"])
                by_id[record["t"]] = (address, Trajectory(record["t"], record["opened"]))
            if record["t"] not in by_id or by_id[record["t"]][1].n != record["n"]:
                orphans.append((path, offset, len(line)))  # of a trajectory that is in the lake as a whole
                continue
            n += 1
            address, trajectory = by_id[record["t"]]
            self.journal.live[path].add(record["t"])
            self._take(trajectory.absorb(record), len(line))
            last = record.get("over", record)
            if last["kind"] == "end" and last["exit_status"] != STOPPED:
                closed.add(record["t"])
            if len(self._pending) >= self.batch:
                await self._commit()
        for path, offset, length in orphans if damaged else ():
            with path.open("rb") as lines:
                lines.seek(offset)
                line = lines.read(length)
            self._reject(str(path), offset, line, "an earlier record of its trajectory is damaged")
        for address, trajectory in by_id.values():
            if trajectory.ended and time.time() - trajectory.last_at > self.idle:
                closed.add(trajectory.trajectory_id)
            if trajectory.trajectory_id not in closed:
                self.open[address] = trajectory
        self._closed |= closed
        self.counts.trajectories = len(self.open)
        await self._commit()
        self._task = asyncio.create_task(self._run())
        return n

    def trajectory(self, address: Address, about: dict[str, Any]) -> Trajectory:
        """The open trajectory at an address; a new one when there is none."""
        found = self.open.get(address)
        if found is None:
            where = [address.corpus, address.name, address.attempt]
            opened = self._clean(about) | {"address": where, "corpus": address.corpus, "attempt": address.attempt or 0}
            found = Trajectory(digest("proxy", where, uuid.uuid4().hex), opened)
            found.last_at = time.time()
            self.open[address] = found
            self.counts.trajectories += 1
        return found

    @contextmanager
    def under_way(self, trajectory: Trajectory) -> Iterator[None]:
        """While this lasts silence does not end the trajectory, and the journal has it even if it was ended."""
        trajectory.active += 1
        try:
            yield
        finally:
            trajectory.active -= 1
            if trajectory.over is not None and not trajectory.active:
                self._closed.add(trajectory.trajectory_id)

    async def record(self, trajectory: Trajectory, record: Record) -> None:
        """Keep one finished call; returns when it is on disk. A chat call gives its `messages`, which are placed here.

        `known` says how many records the trajectory had when the call was sent. If it has been ended meanwhile, its end is
        told again after the call.
        """
        record, said = self._clean(record), record.get("messages")
        messages = record.pop("messages", None)
        if messages is not None:
            record["prompt_hash"] = record["prompt_hash"] if messages == said else prompt_hash(messages)
            record["place"] = trajectory.place(messages, record["known"])
        if trajectory.over is not None:
            record["over"] = trajectory.over
        with self.under_way(trajectory):
            await self._keep(trajectory, record)
        counts = self.counts
        counts.calls += record["kind"] == "call"
        counts.failed += record["kind"] == "failed"
        if record["kind"] == "call":
            usage = usage_of(record["reply"])
            counts.tokens_in += usage["tokens_in"] or 0
            counts.tokens_out += usage["tokens_out"] or 0

    def _clean(self, told: dict[str, Any]) -> dict[str, Any]:
        """Without secrets, each text alone: a message is the same in every prompt, whatever stands around it."""
        return told if self.redactor is None else self.redactor.apart(told)

    async def _keep(self, trajectory: Trajectory, record: Record) -> None:
        record |= {"t": trajectory.trajectory_id, "n": trajectory.n}
        if trajectory.n == 0:
            record["opened"] = trajectory.opened
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        events = trajectory.absorb(record)
        await self.journal.append(trajectory.trajectory_id, line)
        self._take(events, len(line))  # not before: what is in the lake must be in the journal, whenever we are killed

    def _take(self, events: list[Event], n_bytes: int) -> None:
        self._pending += events
        self.n_bytes += n_bytes
        if len(self._pending) >= self.batch:
            self._wake.set()

    async def end(self, address: Address, told: dict[str, Any]) -> list[str]:
        """End every open trajectory at an address and below it; returns their ids."""
        found = [(a, t) for a, t in self.open.items() if address.covers(a)]
        await asyncio.gather(*(self._end(where, trajectory, self._clean(dict(told))) for where, trajectory in found))
        return [t.trajectory_id for _, t in found]

    async def _end(self, address: Address, trajectory: Trajectory, told: Record) -> None:
        del self.open[address]
        trajectory.over = {"kind": "end", "at": time.time(), **told}
        with self.under_way(trajectory):
            if trajectory.n:
                await self._keep(trajectory, dict(trajectory.over))
        self.counts.ended += 1

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(self.every, self.idle / 2))
            self._wake.clear()
            try:
                await self._end_silent()
                await self._commit()
            except Exception as error:  # whatever a store can raise: all is in the journal, and tried again
                self.tell(f"the lake takes nothing, {len(self._pending)} events wait: {error}")

    async def _end_silent(self) -> None:
        for address, trajectory in list(self.open.items()):
            if trajectory.active or time.time() - trajectory.last_at <= self.idle:
                continue
            if trajectory.ended:
                del self.open[address]
                self._closed.add(trajectory.trajectory_id)
            else:
                await self._end(address, trajectory, {"exit_status": "idle", "at": trajectory.last_at})

    async def _commit(self) -> None:
        """Write what waits, in a thread, then let go of what had ended before."""
        async with self._writing:
            events, closed, n_bytes = self._pending, self._closed, self.n_bytes
            self._pending, self._closed = [], set()
            try:
                if events:
                    await asyncio.to_thread(self._append, events)
            except BaseException:
                self._pending, self._closed = events + self._pending, closed | self._closed
                raise
            self.n_bytes -= n_bytes
            self.journal.forget(closed)

    def _append(self, events: list[Event]) -> None:
        batch_id = f"proxy:{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
        with self.lake.lock("growing"):  # no redaction may come between the look and the append
            kept = without_taken_out(self.log, events)
            self.counts.events += append_fitting(self.log, kept, batch_id, self._unfit) if kept else 0

    def _unfit(self, event: Event, why: str) -> None:
        row = {"kind": event.kind, "step": event.step, "payload": event.payload, "extra": event.extra}
        self._reject(event.trajectory_id, event.step or 0, repr(row).encode("utf-8", "replace"), why)

    def _reject(self, path: str, offset: int, raw: bytes, why: str) -> None:
        raw = raw if self.redactor is None else self.redactor.raw(raw)
        row = reject_row(path, offset, "malformed", f"proxy: {why}", raw, "stepwell-proxy", "proxy")
        self.counts.rejected += self.lake.add("rejects", pa.Table.from_pylist([row], REJECTS.schema))

    async def stop(self) -> None:
        """End what is open, write what waits. What is open can go on when a proxy is started again within `idle`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        left = [t for t in self.open.values() if t.n and not t.ended]
        ends = (self._keep(t, {"kind": "end", "at": time.time(), "exit_status": STOPPED}) for t in left)
        try:
            await asyncio.gather(*ends)
            await self._commit()
        finally:
            await self.journal.close()
