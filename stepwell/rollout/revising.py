"""One tree of a critique-revision loop: a solution, what tests and critics say of it, its revisions (CTRL, METHODS.md 2).

Belongs here: the rounds, and which events they make. Does not belong here: how many trees are under way and when events
are written (`revision`), what a generator is sent (`solving`), running tests (`solutions`), who reviews (`reviewers`).

Stateless: a critic sees the task and the present solution, a generator the task, the present solution and one critique.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import orjson

from stepwell.chat import Failure, prompt_hash
from stepwell.conversation import Message
from stepwell.errors import SandboxError
from stepwell.event import Event
from stepwell.ids import canonical, sha256, storable
from stepwell.rollout.drafts import Drafts, Known
from stepwell.rollout.environments import Grade
from stepwell.rollout.hints import Hint, Reveal, derive, leaks
from stepwell.rollout.playing import Stopped, exit_status
from stepwell.rollout.policies import Policy, Reply, View
from stepwell.rollout.problems import Problem
from stepwell.rollout.record import Record
from stepwell.rollout.reviewers import Reviewer, vote
from stepwell.rollout.rewards import Rule, reward
from stepwell.rollout.solutions import GRADER, Ran, Tester
from stepwell.rollout.solving import FINALISE, block, code_of, first_prompt, revision_prompt
from stepwell.spending import Overspent, Purse
from stepwell.syntax import ast_hash

SCAFFOLD = "stepwell-revision@1"
T = TypeVar("T")


@dataclass(frozen=True)
class Arm:
    """How solutions are revised: with a critic (`reviewer`), on what execution says alone, or not (fresh samples).

    `guided`: the critic sees the hint of the result. Of `critiques` the majority's is answered, or `each` (a group, as
    rewards need; one round only). `stop`: a solution judged Correct is final.
    """

    name: str
    kind: Literal["critic", "execution", "none"] = "critic"
    reviewer: Reviewer | None = None
    guided: bool = False
    critiques: int = 1
    each: bool = False
    stop: bool = False


@dataclass(frozen=True)
class Loop:
    """What the trees of a run share: `first` writes solutions, `reviser` answers critiques.

    Tests are run again `reruns` times.
    """

    first: Policy
    reviser: Policy
    tester: Tester
    rounds: int = 1
    rule: Rule = "all"
    reveal: Reveal = "visible"
    reruns: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """A solution that was tested: its event, its code, what the tests said, the event of that."""

    event: Event
    code: str
    ran: Ran
    outcome: Event

    @property
    def id(self) -> str:
        """Its attempt id."""
        return str(self.event.payload["attempt_id"])


class Attempts(Record):
    """The record of a tree: what it cost is counted over attempts (the generator) and verdicts (the critic) apart."""

    def end(
        self, exit_status: str, submission: str | None, grade: Grade | None, detail: str = "", same: Sequence[bool] = ()
    ) -> None:
        """How it ended, what it left, totals of the generator; those of the critic are in `extra`."""
        more: dict[str, Any] = {"detail": detail} if detail else {}
        more |= {"critic": totals} if (totals := _totals(self.events, "verdict"))["n_calls"] else {}
        extra = canonical(more).decode() if more else None
        payload = {"exit_status": exit_status, "submission": submission, **_totals(self.events, "attempt")}
        self.add("end", "environment", payload, extra=extra)
        self.ended = True


def _totals(events: Sequence[Event], kind: str) -> dict[str, Any]:
    used = [e.usage for e in events if e.kind == kind and e.usage and e.usage.get("tokens_out") is not None]
    sums = {
        name: [u[name] for u in used if u.get(name) is not None] for name in ("tokens_in", "tokens_out", "cost_usd")
    }
    return {"n_calls": len(used), **{name: sum(known) if known else None for name, known in sums.items()}}


class Tree:
    """One problem, one initial sample, one arm. `halt` says why to stop, or None; `took` is told of every attempt."""

    def __init__(
        self, problem: Problem, sample: int, arm: Arm, loop: Loop, record: Record, drafts: Drafts, purse: Purse,
        halt: Callable[[], str | None], took: Callable[[str | None], Awaitable[None]],
    ) -> None:  # fmt: skip
        self.problem, self.sample, self.arm, self.loop, self.record = problem, sample, arm, loop, record
        self.drafts, self.purse, self.halt, self.took = drafts, purse, halt, took
        self.asked = first_prompt(problem)
        self.attempts: list[Attempt] = []

    async def play(self, start: Mapping[str, Any]) -> None:
        """Play to the end and record it; a model or a sandbox that fails ends this tree alone."""
        status, detail = "rounds_done", ""
        try:
            self._open(start)
            frontier = [await self._write(0)]
            for number in range(1, self.loop.rounds + 1):
                following = await self._round(frontier[0], number)
                if not following:
                    status = "judged_correct"
                    break
                frontier = following
        except (Stopped, Overspent) as reason:
            await self.took(str(reason))
            status, detail = "aborted", str(reason)
        except SandboxError as error:
            status, detail = "environment_error", str(error)
        except _Ended as ended:
            status, detail = ended.status, ended.detail
        done = status not in ("aborted", "environment_error", "model_unavailable")
        last = self.attempts[-1] if done and self.attempts and not self.arm.each else None
        self.record.end(status, last.code if last else None, None, detail)
        if last is not None:
            payload = last.ran.payload("trajectory", self.loop.rule)
            self.record.add("outcome", "grader", payload, policy=GRADER, caused_by=last.event.event_id)

    def _open(self, start: Mapping[str, Any]) -> None:
        facts = canonical(self.problem.facts()).decode()
        self.record.add("task", "system", self.problem.about(), extra=facts)
        common = {
            "task_id": self.problem.task_id, "attempt": self.sample, "agent": SCAFFOLD, "scaffold": SCAFFOLD,
            "model": self.loop.first.name, "environment": f"solutions/{self.loop.tester.sandbox.mode}",
            "arm": self.arm.name, "seed": self.loop.seed,
        }  # fmt: skip
        self.record.add("start", "system", {**common, **start})
        for position, message in enumerate(self.asked):
            self.record.add("instruction", "system", {"position": position, **message})

    async def _round(self, attempt: Attempt, number: int) -> list[Attempt]:
        """Revisions of an attempt: one, one a critique, or none when it is final."""
        if self.arm.kind == "none":
            return [await self._write(number, attempt)]
        hint, cause = self._hint(attempt)
        if self.arm.kind == "execution" or self.arm.reviewer is None:
            assert hint is not None
            assert cause is not None
            if self.arm.stop and hint.kind == "pass":
                self._feedback(hint.text, cause, None, "suppressed", "every test passes: final", number)
                return []
            return [
                await self._write(number, attempt, self._feedback(hint.text, cause, None, "delivered", None, number))
            ]
        verdicts = await self._review(attempt, hint)
        if self.arm.each:
            chosen, correct, why = list(verdicts), False, None
        else:
            one, correct, why = vote(verdicts, f"{attempt.id}/vote")
            chosen = [one]
        if correct and self.arm.stop:
            self._feedback(
                str(chosen[0].payload.get("raw")), chosen[0], chosen[0], "suppressed", f"{why}: final", number
            )
            return []
        mode = self.arm.reviewer.mode
        told = [self._feedback(str(v.payload.get("raw") or ""), v, v, mode, why, number) for v in chosen]
        pairs = list(zip(chosen, told, strict=True))
        writing = (self._write(number, attempt, f, v, i) for i, (v, f) in enumerate(pairs))
        made = await asyncio.gather(*writing, return_exceptions=True)
        if failed := [m for m in made if isinstance(m, BaseException)]:
            raise failed[0]
        revisions = [m for m in made if isinstance(m, Attempt)]
        for (v, _), revised in zip(pairs, revisions, strict=True):
            judged = v.payload.get("judgment") is not None
            worth = reward(judged, revised.ran.resolved, revised.ran.score, self.loop.rule)
            payload = {
                "group_id": attempt.id, "attempt_id": revised.id, "critique_id": v.event_id, "reward": worth,
                "format_ok": judged, "rule": f"format*{self.loop.rule}",
            }  # fmt: skip
            self.record.add("reward", "grader", payload, number, policy=GRADER, caused_by=revised.outcome.event_id)
        return revisions

    def _hint(self, attempt: Attempt) -> tuple[Hint, Event] | tuple[None, None]:
        if not self.arm.guided and self.arm.kind == "critic":
            return None, None
        hint = derive(self.problem, attempt.ran, attempt.code, f"{attempt.id}/hint", self.loop.reveal)
        payload = hint.payload(attempt.id)
        step, cause = attempt.event.step, attempt.outcome.event_id
        return hint, self.record.add("hint", "grader", payload, step, policy=GRADER, caused_by=cause)

    async def _review(self, attempt: Attempt, hint: Hint | None) -> list[Event]:
        """The verdicts of the critic, each with what it gives away; raises _Ended when there are none."""
        reviewer, n, text = self.arm.reviewer, self.arm.critiques, hint.text if hint else None
        assert reviewer is not None
        most = reviewer.most_cost(self.record.events, attempt.event, n, text)
        found = await self.purse.pay(
            "critic", most, reviewer.review(self.record.events, attempt.event, n, text), lambda v: _cost(v, n)
        )
        if isinstance(found, Failure):
            status = found.reason if found.permanent else "model_unavailable"
            raise _Ended(status, f"critic, {found.reason}: {found.detail}")
        marked = []
        for v in found:
            known = orjson.loads(v.extra or "{}")
            known["leaks"] = leaks(str(v.payload.get("raw") or ""), hint, self.problem.tests, self.problem.solution)
            marked.append(replace(v, extra=orjson.dumps(known).decode()))
        self.record.events += marked
        return marked

    def _feedback(
        self, text: str, cause: Event, verdict: Event | None, mode: str, why: str | None, number: int
    ) -> Event:
        payload = {
            "verdict_id": verdict and verdict.event_id, "mode": mode, "reason": why, "role": "user",
            "text": f"{text}\n\n{FINALISE}", "active_from": number, "active_to": number,
        }  # fmt: skip
        return self.record.add("feedback", "system", payload, number - 1, caused_by=cause.event_id)

    async def _write(
        self, number: int, parent: Attempt | None = None, feedback: Event | None = None, critique: Event | None = None,
        index: int = 0,
    ) -> Attempt:  # fmt: skip
        """Ask for a solution, record it, test it."""
        if (reason := self.halt()) is not None:
            raise Stopped(reason)
        turn = turn_key(self.problem, self.loop.seed, self.sample)
        extra: dict[str, Any] = {}
        if feedback is None:  # the same in every arm
            messages, key = self.asked, f"{turn}/{number}"
            draw = self.drafts.draw(key, messages)
            draft = await self.drafts.get(draw, lambda: self._first(messages, key))
            text, usage = draft.text, dict(draft.usage)
            extra = {"draw": draw} | ({"same_as": draft.event_id} if draft.event_id else {})
        else:
            assert parent is not None
            messages = revision_prompt(self.asked, parent.code, feedback.payload["text"])
            key = f"{turn}/{self.arm.name}/{number}/{index}"
            reply = await self._ask(self.loop.reviser, messages, key)
            text, usage = str(reply.text), dict(reply.usage)
        text = storable(text)
        code = code_of(text)
        extra |= {"reply": text} if text.strip() != block(code) else {}
        payload = {
            "attempt_id": f"{self.record.trajectory_id}/{number}" + (f".{index}" if self.arm.each and number else ""),
            "parent_attempt": parent.id if parent else None, "critique_id": critique.event_id if critique else None,
            "round": number, "code": code, "code_hash": sha256(code), "ast_hash": ast_hash(code),
        }  # fmt: skip
        cause = feedback or (parent.event if parent else None)
        event = self.record.add(
            "attempt", "agent", payload, number, policy=self.loop.first.name, caused_by=cause and cause.event_id,
            usage={**usage, "prompt_hash": prompt_hash(messages)}, extra=canonical(extra).decode() if extra else None,
        )  # fmt: skip
        if feedback is None:
            self.drafts.keep(extra["draw"], Known(event.event_id, text, usage))
        attempt = await self._test(event, code)
        self.attempts.append(attempt)
        await self.took(None)
        return attempt

    async def _test(self, event: Event, code: str) -> Attempt:
        """Run the tests, and run them again where that is asked for (METHODS.md K17)."""
        ran = await self.loop.tester.test(self.problem, code)
        outcomes = [self._outcome(event, ran, 0)]
        for again in range(1, self.loop.reruns + 1):
            other = await self.loop.tester.test(self.problem, code, again=True)
            outcomes.append(self._outcome(event, other, again))
        return Attempt(event, code, ran, outcomes[0])

    def _outcome(self, event: Event, ran: Ran, rerun: int) -> Event:
        payload = ran.payload(event.payload["attempt_id"], self.loop.rule, rerun)
        extra = canonical({"from_cache": True}).decode() if ran.known else None
        return self.record.add(
            "outcome", "grader", payload, event.step, policy=GRADER, caused_by=event.event_id, extra=extra
        )  # fmt: skip

    async def _first(self, messages: Sequence[Message], key: str) -> Known:
        reply = await self._ask(self.loop.first, messages, key)
        return Known("", str(reply.text), reply.usage)

    async def _ask(self, policy: Policy, messages: Sequence[Message], key: str) -> Reply:
        rng = random.Random(f"{key}:{policy.name}")
        view = View(messages=list(messages), key=key, task=self.problem, rng=rng, seed=self.loop.seed)
        reply = await self.purse.pay("agent", policy.most_cost(view), policy.reply(view), lambda r: r.cost_usd)
        if reply.text is None:
            raise _Ended(exit_status(reply), f"generator, {reply.finish}: {reply.detail}")
        return reply


def turn_key(problem: Problem, seed: int, sample: int) -> str:
    """What names the turns of a sample; its first solution is that of round 0."""
    return f"{problem.task_id}/{seed}/{sample}"


class _Ended(Exception):
    """The tree ends here, with this status."""

    def __init__(self, status: str, detail: str) -> None:
        self.status, self.detail = status, detail


def _cost(found: Sequence[Event] | Failure, n: int) -> float | None:
    """US dollars of a review; None where a server does not say, or where one of `n` calls failed and others may not have."""
    if isinstance(found, Failure):
        return None if n > 1 and not found.permanent else 0.0
    known = [c for e in found if (c := (e.usage or {}).get("cost_usd")) is not None]
    return sum(known) if len(known) == len(found) else None
