"""Asking a teacher afterwards: a label for every state of stored trajectories that has none of this teacher yet.

Belongs here: rebuilding the prompts, asking many at a time, writing what came back. Does not belong here: labels given
while a trajectory is played (`playing`). A teacher sees what the log holds: messages and tools, no environment.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from schemas.kinds import UNFINISHED
from stepwell.batching import Crowd
from stepwell.chat import prompt_hash
from stepwell.conversation import REPLAYED, prompts
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.ids import canonical, storable
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.rollout.policies import Policy, Reply, View
from stepwell.spending import Purse

_COLUMNS = tuple(dict.fromkeys([*REPLAYED, "label"]))
_EVENTS, _SECONDS, _TRAJECTORIES = 500, 3.0, 100


@dataclass(frozen=True)
class Question:
    """One state to be labelled: the action taken in it, the prompt and tools of its turn, and which resample it is."""

    trajectory_id: str
    step: int
    action: str
    state: str | None
    resample: int
    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]]

    @property
    def view(self) -> View:
        """What the teacher is shown; its chance follows from trajectory, step and resample."""
        return View(self.messages, f"{self.trajectory_id}/{self.step}/teacher/{self.resample}", self.tools)


@dataclass
class Labelled:
    """What asking did: labels wanted, known before, written, and failed; `most_usd` is the most the missing can cost."""

    n_wanted: int = 0
    n_known: int = 0
    n_new: int = 0
    n_failed: int = 0
    cost_usd: float = 0.0
    most_usd: float = 0.0
    seconds: float = 0.0
    stopped: str | None = None
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every label wanted is in the log."""
        return self.n_known + self.n_new == self.n_wanted

    def line(self) -> str:
        """One line for people."""
        cost = f", ${self.cost_usd:.4f}" if self.cost_usd else ""
        return f"{self.n_known + self.n_new}/{self.n_wanted} labels, {self.n_failed} failed{cost}"


def counted(lake: Lake, corpus: str, teacher: str, resamples: int = 1, only: Sequence[str] | None = None) -> Labelled:
    """How many labels of this teacher a corpus (or `only` these trajectories of it) wants and has; asks nobody."""
    report = Labelled()
    for _ in _questions(EventLog(lake), corpus, teacher, resamples, only, report):
        pass
    return report


def label_new(
    lake: Lake,
    corpus: str,
    teacher: Callable[[Crowd], Policy],
    *,
    resamples: int = 1,
    only: Sequence[str] | None = None,
    parallel: int = 16,
    max_cost: float | None = None,
    dry_run: bool = False,
    progress: Callable[[Labelled], None] | None = None,
) -> Labelled:
    """Ask for the labels that are missing, `parallel` at a time, and write them as they come (METHODS.md 4 and K15).

    Each label wanted is one of `resamples` for a turn of a finished trajectory (with `only`: of these). A reply that never
    came is asked for again by the next call. `dry_run` only counts, and says what the rest can cost at most. Raises
    UsageError for a scripted teacher, and LakeError while another process labels this corpus.
    """
    with lake.alone(f"label-{corpus}", f"labelling {corpus}"):
        return asyncio.run(
            _Asking(EventLog(lake), corpus, parallel, Purse(max_cost), progress).run(teacher, resamples, only, dry_run)
        )


class _Asking:
    def __init__(
        self, log: EventLog, corpus: str, parallel: int, purse: Purse, progress: Callable[[Labelled], None] | None
    ) -> None:
        self.log, self.corpus, self.parallel, self.purse = log, corpus, parallel, purse
        self.progress = progress or (lambda _: None)
        self.report = Labelled()
        self.events: list[Event] = []
        self.began = self.wrote = time.monotonic()
        self.writing = asyncio.Lock()

    async def run(
        self, make: Callable[[Crowd], Policy], resamples: int, only: Sequence[str] | None, dry_run: bool
    ) -> Labelled:
        crowd = Crowd()
        teacher = make(crowd)
        if teacher.backend == "scripted":
            raise UsageError(
                f"the scripted teacher {teacher.name!r} reads the state of the environment, which the log does not hold; "
                "have it label while the trajectories are collected, or name an endpoint or a model as the teacher."
            )
        questions = _questions(self.log, self.corpus, teacher.name, resamples, only, self.report)
        if dry_run:
            self.report.most_usd = sum(teacher.most_cost(q.view) for q in questions)
            return self.report
        workers = [asyncio.create_task(self._work(questions, teacher, crowd)) for _ in range(self.parallel)]
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            self.report.stopped = "interrupted"
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            await teacher.close()
            await self._write(everything=True)
        for _ in questions:  # what nobody asked for is counted all the same
            pass
        self.progress(self.report)
        return self.report

    async def _work(self, questions: Iterator[Question], teacher: Policy, crowd: Crowd) -> None:
        with crowd.member():
            for question in questions:
                view = question.view
                most = teacher.most_cost(view)
                if self.report.stopped or not await self.purse.reserve(most):
                    self.report.stopped = (
                        self.report.stopped or f"the limit of {self.purse.limit} US dollars is reached"
                    )
                    return
                reply = Reply(None, "interrupted")
                try:
                    reply = await teacher.reply(view)
                finally:
                    await self.purse.settle(most, self.purse.due(most, reply.cost_usd))
                self._took(question, teacher.name, reply)
                await self._write()

    def _took(self, question: Question, teacher: str, reply: Reply) -> None:
        self.report.cost_usd, self.report.seconds = self.purse.spent, time.monotonic() - self.began
        if reply.text is None:
            self.report.n_failed += 1
            self.report.reasons[reply.finish] = self.report.reasons.get(reply.finish, 0) + 1
        else:
            self.report.n_new += 1
            self.events.append(_label(question, self.corpus, teacher, reply))
        self.progress(self.report)

    async def _write(self, *, everything: bool = False) -> None:
        late = time.monotonic() - self.wrote > _SECONDS
        if not self.events or not (everything or len(self.events) >= _EVENTS or late):
            return
        async with self.writing:
            events, self.events, self.wrote = self.events, [], time.monotonic()
            if events:
                await asyncio.to_thread(self.log.append, events, f"label:{self.corpus}")


def _label(question: Question, corpus: str, teacher: str, reply: Reply) -> Event:
    payload = {
        "state_hash": question.state, "text": storable(reply.text), "source": "queried", "timing": "posthoc",
        "resample": question.resample,
    }  # fmt: skip
    return Event(
        "label", question.trajectory_id, corpus, "teacher", payload, question.step, teacher, caused_by=question.action,
        usage={**reply.usage, "prompt_hash": prompt_hash(list(question.messages))},
        extra=canonical({"tool_calls": reply.tool_calls}).decode() if reply.tool_calls else None,
    )  # fmt: skip


def _questions(
    log: EventLog, corpus: str, teacher: str, resamples: int, only: Sequence[str] | None, report: Labelled
) -> Iterator[Question]:
    """The labels that are missing, trajectory by trajectory; counts what is wanted and known on the way."""
    version = log.version
    ends = log.read(version, corpora=[corpus], kinds=["end"], columns=["trajectory_id", "end"]).to_pylist()
    ids = {r["trajectory_id"] for r in ends if r["end"]["exit_status"] not in UNFINISHED}
    ids &= ids if only is None else set(only)
    for events in log.batches(sorted(ids), version, _TRAJECTORIES, _COLUMNS):
        known, tools = _known(events, teacher), _tools(events)
        for prompt in prompts(events):
            for row in prompt.rows.get("action", ()):
                report.n_wanted += resamples
                there = [r for r in range(resamples) if (prompt.trajectory_id, prompt.step, r) in known]
                report.n_known += len(there)
                for resample in sorted(set(range(resamples)) - set(there)):
                    yield Question(
                        prompt.trajectory_id, prompt.step, row["event_id"], row["action"]["state_hash"], resample,
                        prompt.messages, tools.get(prompt.trajectory_id, ()),
                    )  # fmt: skip


def _known(events: pa.Table, teacher: str) -> set[tuple[str, int, int]]:
    rows = live(events).select(["trajectory_id", "step", "policy", "label"]).to_pylist()
    return {
        (r["trajectory_id"], r["step"], r["label"]["resample"] or 0)
        for r in rows
        if r["label"] and r["policy"] == teacher
    }


def _tools(events: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Functions offered, by trajectory."""
    rows = live(events).select(["trajectory_id", "instruction"]).to_pylist()
    return {
        r["trajectory_id"]: json.loads(r["instruction"]["tools"]) for r in rows if (r["instruction"] or {}).get("tools")
    }
