"""Collecting rollouts into the log: many environments in flight, every event written soon, each rollout counted once.

A rollout's identity is known before it is run, so collecting again runs only what is missing. What a killed run left
unfinished is ended as `aborted` and run again under another trajectory id; what a model said in it stays in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from schemas.kinds import UNFINISHED
from stepwell.batching import Crowd
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.environments import Environment
from stepwell.rollout.episode import EpisodeRunner
from stepwell.rollout.playing import Replayed, Setting, Wheel
from stepwell.rollout.record import Record, run_again
from stepwell.spending import Purse

_EVENTS, _SECONDS = 2_000, 3.0  # events are written when there are so many, or after so long


@dataclass(frozen=True)
class Wanted:
    """One rollout: its identity, the environment it is played in, the seed of scripted chance, its `start` payload, the key
    its draws follow from (default: the identity; arms to be compared share one), and the turns of another trajectory that are
    taken again before the agent acts."""

    identity: str
    open: Callable[[], Environment]
    seed: int
    start: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    prefix: Sequence[Replayed] = ()


@dataclass
class Report:
    """What a collection did: `n_known` were finished before, `n_aborted` found unfinished and ended.

    Cost is in US dollars, in all and by role (agent, teacher, critic).
    """

    n_wanted: int = 0
    n_known: int = 0
    n_aborted: int = 0
    n_done: int = 0
    n_failed: int = 0
    n_steps: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    stopped: str | None = None
    trajectories: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every rollout wanted is finished."""
        return self.n_known + self.n_done == self.n_wanted

    def plus(self, part: Report) -> Report:
        """This with what another part of the same collection did; `n_wanted` stays."""
        names = (
            "n_known",
            "n_aborted",
            "n_done",
            "n_failed",
            "n_steps",
            "tokens_in",
            "tokens_out",
            "cost_usd",
            "seconds",
        )
        sums = {name: getattr(self, name) + getattr(part, name) for name in names}
        sums["costs"] = {r: self.costs.get(r, 0.0) + part.costs.get(r, 0.0) for r in self.costs.keys() | part.costs}
        return Report(self.n_wanted, **sums, stopped=part.stopped, trajectories=self.trajectories + part.trajectories)

    def line(self) -> str:
        """One line for people."""
        rate = self.n_steps / self.seconds if self.seconds else 0.0
        done = f"{self.n_known + self.n_done}/{self.n_wanted} rollouts, {self.n_steps} steps at {rate:.1f}/s"
        cost = f", ${self.cost_usd:.4f}" if self.cost_usd else ""
        return done + cost + (f", {self.n_failed} failed" if self.n_failed else "")


def now_and_then(tell: Callable[[Report], None], seconds: float = 5.0) -> Callable[[Report], None]:
    """Progress for a log: tell at most every so many seconds, and of the end."""
    told = time.monotonic()

    def progress(report: Report) -> None:
        nonlocal told
        if report.complete or report.stopped or time.monotonic() - told > seconds:
            told = time.monotonic()
            tell(report)

    return progress


def collect(
    lake: Lake,
    corpus: str,
    wanted: Sequence[Wanted],
    setting: Callable[[Crowd], Setting],
    *,
    parallel: int = 16,
    max_cost: float | None = None,
    max_steps: int | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Run the rollouts that are not finished yet, `parallel` at a time; returns what was done, by trajectory id.

    `setting` makes policies whose calls are batched over the crowd. `max_cost` (US dollars) and `max_steps` hold for this
    call: when one is reached, what is under way ends as aborted. An interrupt (SIGINT) does the same. Raises LakeError
    while another process collects this corpus.
    """
    with lake.alone(f"rollout-{corpus}", f"collecting {corpus}"):
        run = Run(lake, corpus, setting, parallel, Purse(max_cost), max_steps, progress or (lambda _: None))
        asyncio.run(run.run(wanted))
    return run.report


def _close_opened(env: Environment, opening: Future[Environment]) -> None:
    with suppress(Exception):
        opening.result()
        env.__exit__(None, None, None)


class Run:
    """The driver of one collection; another kind of rollout takes the place of `_one`."""

    def __init__(
        self, lake: Lake, corpus: str, setting: Callable[[Crowd], Setting], parallel: int, purse: Purse,
        max_steps: int | None, progress: Callable[[Report], None],
    ) -> None:  # fmt: skip
        self.log, self.corpus, self.make, self.parallel = EventLog(lake), corpus, setting, parallel
        self.purse, self.max_steps, self.progress = purse, max_steps, progress
        self.report = Report(costs=purse.costs)
        self.live: dict[str, Record] = {}
        self.done: list[Record] = []
        self.began = self.wrote = time.monotonic()
        self.writing = asyncio.Lock()

    async def run(self, wanted: Sequence[Wanted]) -> None:
        """Play what is missing; whatever ends it, what happened gets into the log."""
        todo = iter(self._missing(wanted))
        crowd = Crowd()
        with ThreadPoolExecutor(self.parallel) as executor:
            setting = self.make(crowd)
            workers = [
                asyncio.create_task(self._work(todo, setting, crowd, executor)) for _ in range(self.parallel)
            ]  # fmt: skip
            try:
                await asyncio.gather(*workers)
            except asyncio.CancelledError:
                self.report.stopped = "interrupted"
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                for record in self.live.values():
                    if record.events and not record.ended:  # one without events had not begun
                        record.end("aborted", None, None, self.report.stopped or "the run failed")
                await setting.close()
                await self._write(everything=True)
                self.report.cost_usd = self.purse.spent  # calls after the last turn included
                self.progress(self.report)

    def _missing(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, str]]:
        """What is to be played, with its trajectory id; unfinished runs of a dead process are ended."""
        rows = self.log.read(corpora=[self.corpus], kinds=["start", "end"], columns=["trajectory_id", "kind", "end"])
        ended = {r["trajectory_id"]: r["end"]["exit_status"] for r in rows.to_pylist() if r["kind"] == "end"}
        started = set(rows.column("trajectory_id").to_pylist())
        todo, dead = [], []
        for w in wanted:
            rerun = 0
            while (stream := run_again(w.identity, rerun)) in started and ended.get(stream, "aborted") in UNFINISHED:
                if stream not in ended:
                    record = Record(stream, w.identity, self.corpus)
                    record.end("aborted", None, None, "the process that ran it is gone")
                    dead += record.events
                rerun += 1
            if stream not in started:
                todo.append((w, stream))
            self.report.trajectories.append(stream)
        self.report.n_wanted, self.report.n_known = len(wanted), len(wanted) - len(todo)
        self.report.n_aborted = len(dead)
        if dead:
            self.log.append(dead, f"rollout:{self.corpus}:aborted")
        return todo

    async def _work(
        self, todo: Iterator[tuple[Wanted, str]], setting: Setting, crowd: Crowd, executor: ThreadPoolExecutor
    ) -> None:
        for wanted, stream in todo:
            if self._halt() is not None:
                return
            with crowd.member():
                await self._one(wanted, stream, setting, executor)
            self.progress(self.report)

    async def _one(self, wanted: Wanted, stream: str, setting: Setting, executor: ThreadPoolExecutor) -> None:
        record = self.live[stream] = Record(stream, wanted.identity, self.corpus)
        env = wanted.open()
        opening = executor.submit(env.__enter__)
        try:
            await asyncio.shield(asyncio.wrap_future(opening))
        except asyncio.CancelledError:  # its thread goes on, and what it opens must be closed
            executor.submit(_close_opened, env, opening)
            raise
        except Exception as error:  # whatever an environment fails with, it is that trajectory's end alone
            record.end("environment_error", None, None, f"{type(error).__name__}: {error}")
        else:
            try:
                runner = EpisodeRunner(
                    env,
                    max_turns=setting.max_turns,
                    scaffold=setting.scaffold,
                    key=wanted.key or wanted.identity,
                    seed=wanted.seed,
                )
                mixing = {"iteration": setting.mixing.iteration} if setting.mixing else {}
                limits = {"step_limit": setting.max_turns, "cost_limit_usd": setting.cost_limit_usd}
                start = {"model": setting.agent.name, **limits, **mixing, **wanted.start}
                record.open(env, setting.scaffold, start, runner.instruction)
                wheel = Wheel(setting, record, executor, self.purse, self._halt, self._took, wanted.prefix)
                await wheel.play(env, runner)
            finally:
                closing = executor.submit(env.__exit__, None, None, None)
                await asyncio.shield(asyncio.wrap_future(closing))  # else a second cancellation takes it off the queue
        self._count(record)
        self.done.append(self.live.pop(stream))
        await self._write()

    def _halt(self) -> str | None:
        if self.max_steps is not None and self.report.n_steps >= self.max_steps:
            self.report.stopped = f"the limit of {self.max_steps} steps is reached"
        return self.report.stopped

    async def _took(self, reason: str | None) -> None:
        """A turn was taken, or why none can be."""
        if reason is not None:
            self.report.stopped = self.report.stopped or reason
            return
        self.report.n_steps += 1
        self.report.seconds = time.monotonic() - self.began
        self.report.cost_usd = self.purse.spent
        await self._write()

    def _count(self, record: Record) -> None:
        end = next(e for e in reversed(record.events) if e.kind == "end")
        again = end.payload["exit_status"] in UNFINISHED
        self.report.n_failed += again
        self.report.n_done += not again
        self.report.tokens_in += end.payload.get("tokens_in") or 0
        self.report.tokens_out += end.payload.get("tokens_out") or 0

    async def _write(self, *, everything: bool = False) -> None:
        """Write what is new when there is much of it, or it waits for long; in a thread, one commit at a time."""
        records = [*self.done, *self.live.values()]
        n_new = sum(len(r.events) - r.written for r in records)
        late = time.monotonic() - self.wrote > _SECONDS
        if not n_new or not (everything or n_new >= _EVENTS or late) or (self.writing.locked() and not everything):
            return
        async with self.writing:
            events: list[Event] = []
            for record in [*self.done, *self.live.values()]:
                events += record.events[record.written :]
                record.written = len(record.events)
            self.done, self.wrote = [], time.monotonic()
            if events:
                await asyncio.to_thread(self.log.append, events, f"rollout:{self.corpus}")
