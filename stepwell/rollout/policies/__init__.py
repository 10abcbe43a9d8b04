"""Policies: who replies. One file a kind; a new one is a new file.

Belongs here: what a policy is shown and says, and each kind that needs no model in this process: scripted ones, endpoints,
recorded and listed replies. Does not belong here: models in this process (`jobs`), and the loop (`episode`).

May import: the standard library and the modules directly under `stepwell`; what they know of tasks is in `rollout`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from stepwell.batching import Batcher, Crowd
from stepwell.rollout.scaffolds.bash import BLOCK

Message = dict[str, Any]


@dataclass(frozen=True)
class View:
    """What a policy may see before a turn.

    `messages` are exactly what a model is sent, `tools` the functions it may call; `key` names this very turn, so that
    chance drawn from it can be drawn again. The rest is for scripted policies: the turns so far as (command, answer), the
    task, the text worked on, the state hash before each turn so far and, last, the present one (without them the effect
    of a command is inferred from the command), chance that is fresh each turn, and a seed that is the same all episode.
    """

    messages: Sequence[Message]
    key: str = ""
    tools: Sequence[Mapping[str, Any]] = ()
    turns: Sequence[tuple[str | None, str]] = ()
    task: Any = None
    source: str = ""
    states: Sequence[str] = ()
    rng: random.Random = field(default_factory=random.Random)
    seed: int = 0

    @property
    def sampling_seed(self) -> int:
        """31 bits that follow from `key`."""
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Reply:
    """What a policy said; without `text` there is no reply, and `finish` says why.

    `usage` holds columns of the event's usage; `tool_calls` are in chat shape, arguments as JSON strings.
    """

    text: str | None
    finish: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    reasoning: str | None = None
    detail: str = ""

    @property
    def cost_usd(self) -> float | None:
        """US dollars it cost; None where it came and nobody says what it used."""
        known: float | None = self.usage.get("cost_usd")
        return 0.0 if known is None and self.text is None else known


class Policy(Protocol):
    """Anything that replies to a view; `backend` says what runs it, for the record."""

    name: str
    backend: str

    async def reply(self, view: View) -> Reply:
        """Reply to one view; never raises for what a model or server did."""

    def most_cost(self, view: View) -> float:
        """US dollars a reply can cost at most."""

    async def close(self) -> None:
        """Release what was opened."""


class ScriptedPolicy(Protocol):
    """A policy that is a function of the view; it may see the task."""

    @property
    def name(self) -> str:
        """Name recorded with each turn."""

    def act(self, view: View) -> str:
        """The assistant's text."""


class BatchPolicy(Protocol):
    """A policy that answers many views at once, such as a model in this process."""

    name: str
    backend: str

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        """One reply per view, in order."""


class Free:
    """A policy whose replies cost nothing, and that has nothing to close."""

    def most_cost(self, view: View) -> float:
        """Nothing."""
        return 0.0

    async def close(self) -> None:
        """Nothing to do."""


class Scripted(Free):
    """A scripted policy as one that replies."""

    backend = "scripted"

    def __init__(self, policy: ScriptedPolicy) -> None:
        self.policy, self.name = policy, policy.name

    async def reply(self, view: View) -> Reply:
        """What the script says; where functions are called, each bash block of it is a call."""
        text = self.policy.act(view)
        if not view.tools:
            return Reply(text)
        thought, _, _ = text.partition("\n\n```bash")
        calls = [
            {"id": f"call_{len(view.turns)}_{n}", "type": "function",
             "function": {"name": "bash", "arguments": orjson.dumps({"command": block.strip()}).decode()}}
            for n, block in enumerate(BLOCK.findall(text))
        ]  # fmt: skip
        return Reply(thought, tool_calls=tuple(calls))


class Batched(Free):
    """A batch policy as one that replies: views that wait together are answered together."""

    def __init__(self, policy: BatchPolicy, crowd: Crowd, size: int, linger_s: float = 0.25) -> None:
        self.name, self.backend = policy.name, policy.backend
        self._batcher: Batcher[View, Reply] = Batcher(policy.act_many, size, crowd, linger_s)

    async def reply(self, view: View) -> Reply:
        """Wait for the batch that holds this view."""
        return await self._batcher.ask(view)


class Listed(Free):
    """Replies given in advance, by turn; when they are used up there is none. For tests and for replaying by hand."""

    backend = "listed"

    def __init__(self, texts: Sequence[str], name: str = "listed") -> None:
        self.texts, self.name = list(texts), name

    async def reply(self, view: View) -> Reply:
        """The text for this turn."""
        turn = len(view.turns)
        return Reply(self.texts[turn]) if turn < len(self.texts) else Reply(None, "no_more_replies")
