"""Playing one trajectory: who acts in a turn, what it is told afterwards, and how it ends, whatever goes wrong.

Belongs here: the loop over turns. Does not belong here: how many are under way and when events are written (`collect`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from schemas.kinds import UNFINISHED
from stepwell.errors import SandboxError
from stepwell.rollout.environments import Environment
from stepwell.rollout.episode import EpisodeRunner
from stepwell.rollout.mixing import Decision, Mixing
from stepwell.rollout.policies import Policy, Reply, View
from stepwell.rollout.record import Record
from stepwell.rollout.scaffolds import Scaffold
from stepwell.rollout.scaffolds.bash import BashScaffold
from stepwell.spending import Overspent, Purse

T = TypeVar("T")


class Companion(Protocol):
    """Something that looks on and may speak between turns: a critic at the wheel, a budget notice."""

    async def after(self, wheel: Wheel, runner: EpisodeRunner, record: Record) -> None:
        """Called after every turn but the last; adds events to the record and text to the transcript."""


class Closing(Protocol):
    """Something with connections to close."""

    async def close(self) -> None:
        """Release what was opened."""


@dataclass(frozen=True)
class Setting:
    """What the trajectories of a run share.

    With `mixing`, the `teacher` is asked in every state whoever acts. `companions` makes those of one trajectory.
    `cost_limit_usd` is for the calls of those who act in one trajectory. `closing` is closed
    when the run is over, as are the policies.
    """

    agent: Policy
    max_turns: int
    scaffold: Scaffold = field(default_factory=BashScaffold)
    teacher: Policy | None = None
    mixing: Mixing | None = None
    companions: Callable[[], Sequence[Companion]] = tuple
    cost_limit_usd: float | None = None
    closing: Sequence[Closing] = ()
    answered: set[str] = field(default_factory=set)
    """Policies that gave a reply in this run: who refused every call so far may refuse how they are made."""

    async def close(self) -> None:
        """Release what policies and companions opened."""
        for one in (self.agent, *([self.teacher] if self.teacher else []), *self.closing):
            await one.close()


@dataclass(frozen=True)
class Replayed:
    """A turn of another trajectory that is taken again: its reply, who gave it, and what answered it then."""

    reply: Reply
    policy: str
    shown: str


class Stopped(Exception):
    """The run ends: nothing more is asked of any model."""


class Wheel:
    """The turns of one trajectory.

    `executor` runs commands, `purse` pays for calls, `halt` says why to stop, or None; `took` is told of every turn taken
    (None) and of why the run cannot go on. The turns of `prefix` are taken again first.
    """

    def __init__(
        self,
        setting: Setting,
        record: Record,
        executor: Executor,
        purse: Purse,
        halt: Callable[[], str | None],
        took: Callable[[str | None], Awaitable[None]],
        prefix: Sequence[Replayed] = (),
    ) -> None:
        self.setting, self.record, self.executor, self.purse = setting, record, executor, purse
        self.halt, self.took, self.prefix = halt, took, prefix
        self.same: list[bool] = []

    async def play(self, env: Environment, runner: EpisodeRunner) -> None:
        """Play to the end and record it; a model or an environment that fails ends this trajectory alone."""
        detail = ""
        companions = self.setting.companions()
        try:
            while not runner.finished:
                if (reason := self.halt()) is not None:
                    raise Stopped(reason)
                failed = await self._turn(runner)
                if failed is not None:
                    runner.stop(exit_status(failed))
                    detail = f"{failed.finish}: {failed.detail}"
                    continue
                await self.took(None)
                for companion in companions if not runner.finished else ():
                    await companion.after(self, runner, self.record)
        except (Stopped, Overspent) as reason:
            await self.took(str(reason))
            runner.stop("aborted")
            detail = str(reason)
        except SandboxError as error:
            runner.stop("environment_error")
            detail = str(error)
        status = runner.exit_status or "stopped"
        if status in UNFINISHED:
            self.record.end(status, None, None, detail)
            return
        try:
            episode = await self._in_thread(runner.finish)
        except SandboxError as error:
            self.record.end("environment_error", None, None, f"grading: {error}")
            return
        self.record.end(status, episode.submission, episode.grade, detail, self.same)

    async def _turn(self, runner: EpisodeRunner) -> Reply | None:
        """Take one turn; returns the reply that never came, else None."""
        setting, n = self.setting, len(runner.turns)
        decision, label = Decision("agent"), None
        if n < len(self.prefix):
            reply, name, decision = self.prefix[n].reply, self.prefix[n].policy, Decision("agent", "replay")
        elif setting.mixing is None or setting.teacher is None:
            reply = await self._ask(setting.agent, runner.view())
            name = setting.agent.name
        else:
            mixing = setting.mixing
            decision = mixing.schedule.decide(self.record.identity, n, mixing.iteration)
            acting = setting.teacher if decision.chosen == "teacher" else setting.agent
            name = acting.name
            taught = self._ask(setting.teacher, runner.view("teacher"))
            if acting is setting.teacher and not mixing.relabel:
                reply = await taught
                label = (setting.teacher.name, reply, "executed")
            else:
                reply, wanted = await asyncio.gather(self._ask(acting, runner.view()), taught)
                if wanted.text is None:
                    return wanted
                label = (setting.teacher.name, wanted, "queried")
        if reply.text is None:
            return reply
        turn = await self._in_thread(runner.advance, reply)
        self.record.turn(turn, decision, name, label)
        if n < len(self.prefix):
            self.same.append(turn.shown == self.prefix[n].shown)
        spent = sum(t.usage.get("cost_usd") or 0.0 for t in runner.turns)
        if setting.cost_limit_usd is not None and spent >= setting.cost_limit_usd:
            runner.stop("cost_limit")
        return None

    async def _ask(self, policy: Policy, view: View) -> Reply:
        role = "teacher" if policy is self.setting.teacher else "agent"
        reply = await self.purse.pay(role, policy.most_cost(view), policy.reply(view), lambda r: r.cost_usd)
        if reply.text is not None:
            self.setting.answered.add(policy.name)
        elif reply.finish == "refused" and policy.name not in self.setting.answered:
            return replace(reply, finish="every call so far was refused")  # it says nothing about the policy
        return reply

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)


def exit_status(reply: Reply) -> str:
    """How a trajectory ends whose model gave no reply: what is the model's own limit, and what another run may mend."""
    own = ("context", "refused", "no_more_replies")
    return reply.finish if reply.finish in own else "model_unavailable"
