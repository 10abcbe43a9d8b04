"""A model critic as the reviewer of a critique-revision loop: where critics and rollouts are wired together.

Belongs here: the very request that `stepwell judge` would build for an attempt, asked while the loop runs, so that a later
`judge` finds it answered; the same with a hint. Does not belong here: what is asked (`critics`), the loop (`rollout`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.chat import Backend, Completion, Failure, Message
from stepwell.critics.context import Request, Settings, build, points
from stepwell.critics.live import LiveModel, supervisor_of
from stepwell.critics.model_critic import Due, ModelCritic, most_cost, verdicts
from stepwell.critics.prompts import Prompt
from stepwell.critics.streams import ESTIMATE, Stream, streams
from stepwell.errors import RecipeError
from stepwell.event import Event, to_table
from stepwell.log import in_order, live
from stepwell.settings import RevisionArm

GUIDE = (
    "\n\nThe solution was executed. What came of it is between the tags below, for your eyes only: let it guide your review "
    "and do not mention that you were told.\n\n<hint>\n{hint}\n</hint>"
)
KINDS = ("task", "instruction", "attempt")
"""Kinds of events that a critic of solutions is shown anything of."""


def guided(prompt: Prompt) -> Prompt:
    """The prompt with a place for a hint at the end of its request (CTRL stage I)."""
    return replace(prompt, name=f"{prompt.name}-guided", request=prompt.request + GUIDE)


def critic_of(arm: RevisionArm) -> ModelCritic:
    """The model critic that an arm names; raises RecipeError when its prompt is for no critique."""
    settings = arm.settings.model_copy(update={"samples": arm.critiques})
    made = supervisor_of(settings, 1, _Nobody())
    assert isinstance(made, LiveModel)
    if made.critic.prompt.kind != "critique":
        raise RecipeError(
            f"arm {arm.name!r} has prompt {settings.prompt!r}, which judges no attempts; name `critique`."
        )
    return replace(made.critic, prompt=guided(made.critic.prompt)) if arm.guided else made.critic


class ModelReviewer:
    """A model critic that reviews attempts; its verdicts are those `stepwell judge` would write."""

    mode = "delivered"

    def __init__(self, critic: ModelCritic, backend: Backend) -> None:
        self.critic, self.backend = critic, backend
        self.name = critic.id

    async def review(
        self, events: Sequence[Event], attempt: Event, n: int, hint: str | None
    ) -> Sequence[Event] | Failure:
        """`n` candidates, asked at once; a single one that fails is the failure of all."""
        rows = in_order(to_table([e for e in events if e.kind in KINDS], "live", datetime.now(UTC)))
        found = requested(self.critic, rows, attempt.event_id, hint)
        if isinstance(found, str):
            return Failure("context", found)
        stream, due = found
        assert isinstance(due.request, Request)
        calls = [self.critic.call(due.request, candidate) for candidate in range(n)]
        answers = await asyncio.gather(*(self.backend.complete(call) for call in calls))
        made: list[Event] = []
        for candidate, said in enumerate(answers):
            if isinstance(said, Failure):
                return said
            assert isinstance(said, Completion)
            made += verdicts(self.critic, stream, due, candidate, said, None)
        return made

    def most_cost(self, events: Sequence[Event], attempt: Event, n: int, hint: str | None) -> float:
        """Cost of the prompts and of replies of full length."""
        if self.critic.prices is None:
            return 0.0
        rows = in_order(to_table([e for e in events if e.kind in KINDS], "live", datetime.now(UTC)))
        found = requested(self.critic, rows, attempt.event_id, hint)
        if isinstance(found, str) or isinstance(found[1].request, str):
            return 0.0
        return n * most_cost(self.critic, found[1].request)

    async def close(self) -> None:
        """Close the connections."""
        await self.backend.close()


class Given:
    """A model critic whose replies are there already, such as those sampled while it is trained.

    `said` gives those about an attempt, and the hash of the messages they answered; another prompt raises RecipeError, as a
    verdict would then be recorded under a prompt it does not answer.
    """

    mode = "delivered"

    def __init__(self, critic: ModelCritic, said: Callable[[Event], tuple[Sequence[Completion], str]]) -> None:
        self.critic, self.said, self.name = critic, said, critic.id

    async def review(
        self, events: Sequence[Event], attempt: Event, n: int, hint: str | None
    ) -> Sequence[Event] | Failure:
        """The replies as verdicts, one a candidate."""
        rows = in_order(to_table([e for e in events if e.kind in KINDS], "live", datetime.now(UTC)))
        found = requested(self.critic, rows, attempt.event_id, hint)
        if isinstance(found, str):
            return Failure("context", found)
        stream, due = found
        assert isinstance(due.request, Request)
        replies, answered = self.said(attempt)
        if due.request.hash != answered:
            raise RecipeError(
                f"the dataset asks about {attempt.payload['attempt_id']} otherwise than {self.critic.prompt.id} does now; "
                "build the dataset again."
            )
        return [v for i, said in enumerate(replies) for v in verdicts(self.critic, stream, due, i, said, None)]

    def most_cost(self, events: Sequence[Event], attempt: Event, n: int, hint: str | None) -> float:
        """Nothing: they are there."""
        return 0.0

    async def close(self) -> None:
        """Nothing is open."""


def requested(critic: ModelCritic, rows: pa.Table, attempt: str, hint: str | None) -> tuple[Stream, Due] | str:
    """The request about one attempt, by its event id, from the events of its tree; or why there can be none."""
    (stream,) = streams(rows, critic.counter, critic.id)
    point = next((p for p in points(stream, "critique", critic.k) if p.key == attempt), None)
    if point is None:
        return "the solution is empty"
    request = build(stream, point, [], critic.prompt, critic.settings, critic.counter)
    if isinstance(request, str):
        return request
    if hint is not None:
        *before, last = request.messages
        text = last["content"].replace("{hint}", hint)
        added = critic.counter.count(text) - critic.counter.count(last["content"])
        tokens = (*request.tokens[:-1], request.tokens[-1] + max(added, 0))
        request = replace(request, messages=(*before, {**last, "content": text}), tokens=tokens)
        if sum(tokens) > critic.settings.prompt_tokens:
            return f"the hint leaves no room within {critic.settings.prompt_tokens} tokens"
    return stream, Due(point, request, critic.key(request), {}, [])


def rebuilt(rows: pa.Table, prompt: Prompt) -> Iterator[tuple[str, tuple[Message, ...], str]]:
    """Events of whole trees in canonical order -> (event id, messages, recorded hash) of every verdict under a prompt.

    Guided verdicts are found under the prompt they were guided from. The hash of the messages equals the recorded one.
    """
    held = live(rows)
    trees = {stream.trajectory_id: stream for stream in streams(held, ESTIMATE)}
    hints: dict[str, str] = {}
    attempts: dict[str, str] = {}
    for row in held.select(["event_id", "trajectory_id", "kind", "attempt", "hint"]).to_pylist():
        if row["kind"] == "attempt":
            attempts[row["event_id"]] = row["attempt"]["attempt_id"]
        elif row["kind"] == "hint":
            hints[row["hint"]["attempt_id"]] = row["hint"]["text"]
    for row in held.filter(pc.equal(held.column("kind"), "verdict")).to_pylist():
        made = {p.id: p for p in (prompt, guided(prompt))}.get(row["verdict"]["prompt_id"] or "")
        if made is None:
            continue
        extra = orjson.loads(row["extra"])
        stream = trees[row["trajectory_id"]]
        point = next(p for p in points(stream, "critique", 1) if p.key == row["caused_by"])
        request = build(stream, point, [], made, Settings(**extra["request"]), ESTIMATE, extra["omitted"])
        assert isinstance(request, Request)
        *before, last = request.messages
        text = last["content"].replace("{hint}", hints.get(attempts[row["caused_by"]], "{hint}"))
        yield row["event_id"], (*before, {**last, "content": text}), row["usage"]["prompt_hash"]


class _Nobody:
    """A backend that is never asked: settings are read before there is one."""

    concurrency = 1

    async def complete(self, call: object) -> Completion | Failure:
        """Nobody is there."""
        return Failure("fatal", "there is no model")

    async def close(self) -> None:
        """Nothing is open."""
