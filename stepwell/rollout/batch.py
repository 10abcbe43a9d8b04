"""Many episodes in lockstep, so that a policy answers a whole batch of conversations at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.rollout.environment import RepairEnvironment
from stepwell.rollout.episode import Episode, EpisodeRunner
from stepwell.rollout.repair import RepairTask


@dataclass(frozen=True)
class Reply:
    """What a policy said: `text` is None when the conversation no longer fits its context."""

    text: str | None
    tokens_in: int
    tokens_out: int
    latency_s: float
    finish: str


class BatchPolicy(Protocol):
    """A policy that answers many conversations at once."""

    name: str
    backend: str

    def act_many(self, chats: Sequence[Sequence[dict[str, Any]]]) -> list[Reply]:
        """One reply per conversation, in order."""
        ...


def run_batch(
    tasks: Sequence[RepairTask],
    open_environment: Callable[[RepairTask], RepairEnvironment],
    policy: BatchPolicy,
    *,
    max_turns: int,
    workers: int = 2,
) -> list[Episode]:
    """Roll the policy out on every task, one environment each; returns the episodes in the order of the tasks."""
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        environments = [stack.enter_context(open_environment(task)) for task in tasks]
        runners = [EpisodeRunner(e, policy.name, max_turns=max_turns) for e in environments]
        while live := [r for r in runners if not r.finished]:
            replies = policy.act_many([r.messages for r in live])

            def advance(pair: tuple[EpisodeRunner, Reply]) -> None:
                runner, reply = pair
                if reply.text is None:
                    runner.stop(reply.finish)
                    return
                usage = {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out}
                runner.advance(reply.text, {**usage, "latency_s": reply.latency_s, "finish": reply.finish})

            list(pool.map(advance, zip(live, replies, strict=True)))
        return list(pool.map(EpisodeRunner.finish, runners))
