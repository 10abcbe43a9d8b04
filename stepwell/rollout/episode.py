"""An episode: one task worked on, one reply at a time, from outside. It knows no policy and no clock.

Belongs here: what a turn does to the environment and to the transcript. Does not belong here: who replies and how many at
once (`playing`), events for the log (`record`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.chat import prompt_hash
from stepwell.conversation import Message, Transcript, said
from stepwell.errors import UsageError
from stepwell.rollout.environments import Environment, Grade, Label, Observation
from stepwell.rollout.policies import Reply, ScriptedPolicy, View
from stepwell.rollout.scaffolds import Parsed, Scaffold, is_submission, render
from stepwell.rollout.scaffolds.bash import BashScaffold


@dataclass(frozen=True)
class Turn:
    """One turn; `observation` is None on a format error. States are hashes; without one of the environment, the prompt's.

    `messages` answered the reply, `shown` is their text, `elided` characters of the output are not in it.
    """

    index: int
    text: str
    tool_calls: Sequence[Mapping[str, Any]]
    reasoning: str | None
    parsed: Parsed
    observation: Observation | None
    messages: Sequence[Message]
    shown: str
    elided: int
    prompt_hash: str
    state_before: str
    state_after: str | None
    label: Label | None
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Episode:
    """One task played once: the turns, how it ended, what it left and its grade."""

    turns: tuple[Turn, ...]
    exit_status: str
    submission: str
    grade: Grade | None


class EpisodeRunner:
    """An episode being played in an open environment."""

    def __init__(
        self, env: Environment, *, max_turns: int, scaffold: Scaffold | None = None, key: str = "", seed: int = 0
    ) -> None:
        self.env, self.max_turns, self.key, self.seed = env, max_turns, key, seed
        self.scaffold: Scaffold = scaffold or BashScaffold()
        self.transcript = Transcript()
        self.instruction = self.scaffold.instruct(env.brief)
        self.transcript.add(*self.instruction)
        self.turns: list[Turn] = []
        self._states: list[str] = [] if env.state is None else [env.state]
        self.exit_status: str | None = None if max_turns > 0 else "turn_limit"

    @property
    def finished(self) -> bool:
        """Tell whether no further turn is taken."""
        return self.exit_status is not None

    def view(self, role: str = "") -> View:
        """What a policy sees before the next turn; chance follows from seed, turn and role only."""
        n = len(self.turns)
        return View(
            messages=self.transcript.prompt(),
            key=f"{self.key}/{n}/{role or 'agent'}",
            tools=self.scaffold.tools,
            turns=[(t.parsed.command, t.shown) for t in self.turns],
            task=self.env.task,
            source=self.env.source,
            states=tuple(self._states),
            rng=random.Random(f"{self.seed}:{n}" + (f":{role}" if role else "")),
            seed=self.seed,
        )

    def stop(self, reason: str) -> None:
        """End the episode from outside (no reply fits the context, a budget is spent)."""
        if not self.finished:
            self.exit_status = reason

    def advance(self, reply: Reply | str) -> Turn:
        """Take one turn: run the command of the reply and answer it."""
        if self.exit_status is not None:
            raise UsageError(f"the episode has ended ({self.exit_status}); start another runner")
        reply = Reply(reply) if isinstance(reply, str) else reply
        text = reply.text or ""
        asked = prompt_hash(self.transcript.prompt())
        before = self.env.state
        parsed = self.scaffold.parse(text, reply.tool_calls)
        observation, shown, elided, submitted = None, parsed.error or "", 0, False
        if parsed.command is not None:
            observation = self.env.execute(parsed.command)
            submitted = is_submission(observation.raw, observation.exit_code)
            rendered = render(observation)
            shown, elided = rendered.text, rendered.elided
        exit_code = observation.exit_code if observation else None
        label = self.env.judge(parsed.command, exit_code, submitted)
        messages = self.scaffold.answer(shown, reply.tool_calls)
        turn = Turn(
            len(self.turns), text, reply.tool_calls, reply.reasoning, parsed, observation, messages, shown, elided, asked,
            before or asked, self.env.state, label, reply.usage,
        )  # fmt: skip
        self.turns.append(turn)
        if self.env.state is not None:
            self._states.append(self.env.state)
        self.transcript.add(said(text, reply.tool_calls), *messages)
        if submitted:
            self.exit_status = "submitted"
        elif len(self.turns) >= self.max_turns:
            self.exit_status = "turn_limit"
        return turn

    def finish(self) -> Episode:
        """Grade what stands there now and return the episode; an unfinished one ends as `stopped`."""
        return Episode(tuple(self.turns), self.exit_status or "stopped", self.env.submission(), self.env.grade())


def run_episode(env: Environment, policy: ScriptedPolicy, *, max_turns: int, seed: int) -> Episode:
    """Play one task with a scripted policy."""
    runner = EpisodeRunner(env, max_turns=max_turns, seed=seed)
    while not runner.finished:
        runner.advance(policy.act(runner.view()))
    return runner.finish()
