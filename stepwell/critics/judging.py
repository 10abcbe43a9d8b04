"""Judging with a model: only what is missing is asked, every reply is kept, verdicts go to the log in batches.

Belongs here: which calls are made, in which order, at what cost, and what was done when a run ends, however it ends. Does
not belong here: what is asked (`context`), how (`stepwell.chat`), what replies mean (`model_critic`), pairs (`pairing`).

What is in the log for the very same request is not asked again, nor is what the cache holds. A trajectory's points are
asked one after the other, so that each call finds the one before in the server's prefix cache; trajectories run side by
side. Verdicts of an earlier state of a trajectory, or of other settings, are superseded together with their replacement.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stepwell.chat import Backend, Completion, Failure
from stepwell.critics.cache import Completions, place
from stepwell.critics.context import Request
from stepwell.critics.due import alone, finished_key, pending
from stepwell.critics.model_critic import (
    Due,
    ModelCritic,
    advance,
    call_key,
    cost_of,
    guidance,
    most_cost,
    verdicts,
    walk,
)
from stepwell.critics.run import superseding
from stepwell.critics.streams import COLUMNS, Feedback, Stream, streams
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.spending import Purse

READ_AT_ONCE = 100
"""Trajectories read at a time."""
_BATCH, _SECONDS = 500, 2.0  # verdicts are appended when there are so many, or after so long
_WHY = "what the critic is shown, or how it is asked, changed"
_GIVE_UP = 20  # calls that fail one after the other before a run gives up


@dataclass
class Report:
    """What judging did.

    `n_known` verdicts were in the log and `n_cached` replies in the cache; `not_judged` and `failed` count points and
    calls by reason; `stopped` says why the run ended early, None when it went through. Tokens and cost are those of the
    calls made in this run. A pair of attempts counts as two trajectories, one for each order.
    """

    critic: str
    events_version: int | None
    n_trajectories: int = 0
    n_done: int = 0
    n_verdicts: int = 0
    n_superseded: int = 0
    n_unparseable: int = 0
    n_known: int = 0
    n_cached: int = 0
    n_calls: int = 0
    tokens_in: int = 0
    cache_read: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    not_judged: Tally[str] = field(default_factory=Tally)
    failed: Tally[str] = field(default_factory=Tally)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether there is nothing left that another run could judge."""
        return self.stopped is None and not self.failed


class Work(Protocol):
    """What there is to judge."""

    def read(self, log: EventLog, version: int, completions: Completions) -> tuple[int, Iterator[list[Stream]]]:
        """How many streams, and these, some at a time."""

    def finish(self, version: int, completions: Completions) -> None:
        """Nothing is left to judge at this version of `events`."""


def judge(
    lake: Lake,
    critic: ModelCritic,
    backend: Backend,
    *,
    corpora: Sequence[str] | None = None,
    max_cost: float | None = None,
    progress: Callable[[Report], None] | None = None,
    cache: Path | None = None,
    only: Collection[str] | None = None,
) -> Report:
    """Judge what this critic has not judged yet, in these corpora or all; `only` these trajectories where some are named.

    `max_cost` (US dollars, for the calls of this run) is never exceeded: a call is made only if it stays below even when
    its reply has full length; what a server charges for tries it never answered is not known and not counted. An interrupt
    (SIGINT) ends the run with what is done in the log. Raises UsageError for a `max_cost` without prices and for a prompt
    that compares, and StepwellError while another process judges with this critic.
    """
    if critic.prompt.kind == "pair":
        raise UsageError(
            f"prompt {critic.prompt.name!r} compares two attempts at a task; use python -m jobs.evaluate_judge --pairs."
        )
    work = _Trajectories(lake, critic, corpora, only)
    return ask(lake, critic, backend, work, max_cost=max_cost, progress=progress, cache=cache)


def ask(
    lake: Lake,
    critic: ModelCritic,
    backend: Backend,
    work: Work,
    *,
    max_cost: float | None = None,
    progress: Callable[[Report], None] | None = None,
    cache: Path | None = None,
) -> Report:
    """Ask what this work needs and the log does not have; limits and errors are those of `judge`."""
    if max_cost is not None and critic.prices is None:
        raise UsageError(
            f"a limit of {max_cost} US dollars cannot be kept without prices; give --price-in and --price-out."
        )
    log = EventLog(lake)
    version = log.version
    report = Report(critic.id, version)
    if version is None:
        return report
    path = cache or place(lake)
    with Completions(path) as completions, alone(path, critic):
        report.n_trajectories, parts = work.read(log, version, completions)
        run = _Run(log, version, critic, backend, completions, report, Purse(max_cost), progress or (lambda _: None))
        asyncio.run(run.run(parts))
        if report.complete and not run.refused:
            work.finish(version, completions)
    return report


@dataclass(frozen=True)
class _Trajectories:
    """The trajectories of a lake that a critic has to look at."""

    lake: Lake
    critic: ModelCritic
    corpora: Sequence[str] | None
    only: Collection[str] | None

    def read(self, log: EventLog, version: int, completions: Completions) -> tuple[int, Iterator[list[Stream]]]:
        since = completions.finished(finished_key(self.lake, self.critic, self.corpora))
        ids = [i for i in pending(log, version, since, self.corpora) if self.only is None or i in self.only]
        parts = log.batches(ids, version, READ_AT_ONCE, COLUMNS)
        return len(ids), (list(streams(rows, self.critic.counter, self.critic.id)) for rows in parts)

    def finish(self, version: int, completions: Completions) -> None:
        if self.only is None:
            completions.finish(finished_key(self.lake, self.critic, self.corpora), version)


class _Run:
    """One run: workers take trajectories from a queue that a reader keeps filled."""

    def __init__(
        self,
        log: EventLog,
        version: int,
        critic: ModelCritic,
        backend: Backend,
        completions: Completions,
        report: Report,
        purse: Purse,
        progress: Callable[[Report], None],
    ) -> None:
        self.log, self.version, self.critic, self.backend = log, version, critic, backend
        self.completions, self.report, self.purse, self.progress = completions, report, purse, progress
        self.held: list[Event] = []
        self.parts, self.appended_at, self.failed_in_a_row = 0, time.monotonic(), 0
        self.appending: asyncio.Task[object] | None = None
        self.refused = False

    async def run(self, parts: Iterator[list[Stream]]) -> None:
        """Judge what is read; whatever ends it, the verdicts there are get into the log."""
        queue: asyncio.Queue[Stream | None] = asyncio.Queue(2 * self.backend.concurrency)
        workers = [asyncio.create_task(self._work(queue)) for _ in range(self.backend.concurrency)]
        tasks = [asyncio.create_task(self._read(parts, queue)), *workers]
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            self.report.stopped = "interrupted"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.backend.close()
            if self.appending is not None:
                await self.appending
            self._append(self._take())
            self.progress(self.report)

    async def _read(self, parts: Iterator[list[Stream]], queue: asyncio.Queue[Stream | None]) -> None:
        while not self.report.stopped and (found := await asyncio.to_thread(next, parts, None)) is not None:
            for stream in found:
                await queue.put(stream)
        for _ in range(self.backend.concurrency):
            await queue.put(None)

    async def _work(self, queue: asyncio.Queue[Stream | None]) -> None:
        while (stream := await queue.get()) is not None:
            if not self.report.stopped:
                await self._stream(stream)

    async def _stream(self, stream: Stream) -> None:
        dues, said = walk(self.critic, stream), None
        while (due := advance(dues, said)) is not None:
            try:
                said = await self._point(stream, due)
            except _Unanswered:
                break
            await self._append_now_and_then()
        else:
            self.report.n_done += 1
        self.progress(self.report)

    async def _point(self, stream: Stream, due: Due) -> Feedback | None:
        """Judge one point; raises _Unanswered where what follows has to wait for it."""
        report, request = self.report, due.request
        if isinstance(request, str):
            report.not_judged.update([request] if request else [])
            self._hold(due, {}, whole=True)
            return None
        wanted = [c for c in range(self.critic.samples) if c not in due.have]
        report.n_known += self.critic.samples - len(wanted)
        answers = await asyncio.gather(*(self._answer(request, call_key(due.key, c), c) for c in wanted))
        said = {c: a for c, a in zip(wanted, answers, strict=True) if isinstance(a, Completion)}
        new = {c: verdicts(self.critic, stream, due, c, a, self.version) for c, a in said.items()}
        if request.omitted and self.critic.prompt.kind == "steps" and new:
            report.not_judged["the step was left out to fit the context"] += request.omitted
        self._hold(due, new, whole=len(new) == len(wanted))
        if any(isinstance(a, Failure) and not a.permanent for a in answers):
            raise _Unanswered
        return guidance(due, new)

    def _hold(self, due: Due, new: dict[int, list[Event]], *, whole: bool) -> None:
        """Queue the new verdicts of a point, and retractions of those they replace (of all stale ones if `whole`)."""
        replaced = {(e.step, c): e.event_id for c, events in new.items() for e in events}
        for events in new.values():
            self.held += events
            self.report.n_verdicts += len(events)
            self.report.n_unparseable += all(e.payload["parse_status"] == "unparseable" for e in events)
        for row in due.stale:
            candidate = row["verdict"]["candidate"]
            if whole or candidate in new:
                self.held.append(superseding(row, self.critic.id, replaced.get((row["step"], candidate)), _WHY))
                self.report.n_superseded += 1

    async def _answer(self, request: Request, key: str, candidate: int) -> Completion | Failure:
        """The reply to one call: kept from before, or asked for now and kept."""
        if (kept := self.completions.get(key)) is not None:
            self.report.n_cached += 1
            return kept
        most = 0.0 if self.purse.limit is None else most_cost(self.critic, request)
        if not await self.purse.reserve(most):
            spent = f"{self.purse.spent:.6f} are spent and the next could cost {most:.6f}"
            self.report.stopped = f"another call could exceed the limit of {self.purse.limit} US dollars: {spent}"
            return Failure("stopped", self.report.stopped)
        answer: Completion | Failure = Failure("stopped", "")
        paid = 0.0
        try:
            if not self.report.stopped:
                answer = await self.backend.complete(self.critic.call(request, candidate))
            if isinstance(answer, Completion):
                self.completions.put(key, answer)
                cost = cost_of(self.critic, answer)
                paid = most if cost is None else cost
        finally:
            await self.purse.settle(most, paid)
        self._count(answer)
        return answer

    def _count(self, answer: Completion | Failure) -> None:
        report = self.report
        report.cost_usd = self.purse.spent
        if isinstance(answer, Completion):
            self.failed_in_a_row = 0
            report.n_calls += 1
            report.tokens_in += answer.tokens_in or 0
            report.cache_read += answer.cache_read or 0
            report.tokens_out += answer.tokens_out or 0
        elif answer.permanent:
            report.not_judged[f"{answer.reason}: {answer.detail}"] += 1
            self.refused = True  # another server may take it
        elif answer.reason != "stopped":
            report.failed[answer.reason] += 1
            self.failed_in_a_row += 1
            if answer.reason == "fatal":
                report.stopped = answer.detail
            elif self.failed_in_a_row >= _GIVE_UP:
                report.stopped = f"{_GIVE_UP} calls failed in a row, the last one: {answer.detail}"

    async def _append_now_and_then(self) -> None:
        """Append in a thread while judging goes on; wait for it only when it cannot keep up."""
        if self.appending is not None and (self.appending.done() or len(self.held) > 10 * _BATCH):
            await self.appending
            self.appending = None
        late = time.monotonic() - self.appended_at > _SECONDS
        if self.held and self.appending is None and (late or len(self.held) >= _BATCH):
            self.appending = asyncio.create_task(asyncio.to_thread(self._append, self._take()))

    def _take(self) -> list[Event]:
        events, self.held = self.held, []
        self.appended_at = time.monotonic()
        self.parts += 1
        return events

    def _append(self, events: list[Event]) -> None:
        if events:
            self.log.append(events, f"judge:{self.critic.id}:v{self.version}:part-{self.parts}")


class _Unanswered(Exception):
    """A call failed that another run may answer: what follows in the trajectory has to wait for it."""
