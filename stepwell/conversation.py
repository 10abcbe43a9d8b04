"""A trajectory as the chat it was: the messages the policy saw and said, with the events they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from stepwell.log import live

Message = dict[str, Any]
READS = (
    "event_id", "trajectory_id", "corpus", "step", "kind", "actor", "policy", "extra", "instruction", "action", "observation",
    "mask", "retraction",
)  # fmt: skip


SHOWN = ("delivered", "placebo")
"""Modes of feedback that is in the agent's prompt."""
POLICIES = ("agent", "teacher")
"""Actors whose replies may be learnt; what a person typed, the harness wrote or another trajectory holds is context."""
REPLAYED = (*READS[:-2], "notice", "feedback", "turn", "usage", "retraction")
"""Columns of `events` that `prompts` reads."""


def is_of_source(policy: str | None, weight: float) -> bool:
    """Whether a mask is the source's own and keeps its step out of the loss; one by a rule of ours has the rule as `policy`."""
    return policy is None and weight == 0


class Transcript:
    """The messages an agent is shown, as they grow turn by turn: the one place that says what a prompt is.

    At most one piece of advice is in a prompt, where it was given; the next takes its place (STEER, METHODS.md 1.3).
    """

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._advice: tuple[int, Message] | None = None

    def add(self, *messages: Message) -> None:
        """Append messages: instructions, a reply, its answers."""
        self._messages += messages

    def notice(self, text: str) -> None:
        """Append a notice to the last message."""
        last = self._messages[-1]
        self._messages[-1] = {**last, "content": f"{last['content']}\n\n{text}"}

    def advise(self, text: str, role: str) -> None:
        """Put advice after the last message; advice given before is no longer shown."""
        self._advice = (len(self._messages), {"role": role, "content": text})

    def prompt(self) -> list[Message]:
        """The messages of the next request."""
        if self._advice is None:
            return list(self._messages)
        at, message = self._advice
        return [*self._messages[:at], message, *self._messages[at:]]


def said(text: str | None, tool_calls: Sequence[Mapping[str, Any]]) -> Message:
    """A reply as a message."""
    message: Message = {"role": "assistant", "content": text or ""}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    return message


@dataclass
class Conversation:
    """One trajectory; `steps` and `event_ids` have one entry per assistant message, in message order."""

    trajectory_id: str
    corpus: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    masks: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict)
    """(mask rule, step) -> (weight, event id of the mask)."""
    context: dict[int, list[str]] = field(default_factory=dict)
    """Steps never learnt, with the masks of the source that say so; none for one that no policy of this run took."""
    headless: bool = False
    """Whether it goes on from a step of another trajectory, and what stood before that step is only there."""


def conversations(events: pa.Table) -> Iterator[Conversation]:
    """Events of whole trajectories in canonical order -> one conversation each, up to the last reply.

    What follows the last reply was never part of a prompt and is left out, as are retracted events and replies the source
    says the model was never shown again. Replies of a demonstration carry `is_demo` and have no step.
    """
    current: Conversation | None = None
    instructions: list[tuple[int, dict[str, Any]]] = []
    observations: list[tuple[int, dict[str, Any]]] = []
    for row in live(events).select([c for c in READS if c in events.column_names]).to_pylist():
        if current is None or row["trajectory_id"] != current.trajectory_id:
            if current is not None:
                yield current
            current = Conversation(row["trajectory_id"], row["corpus"])
            instructions, observations = [], []
        kind, payload = row["kind"], row.get(row["kind"])
        if kind == "start":
            current.headless |= bool(json.loads(row.get("extra") or "{}").get("without_prefix"))
        elif kind == "instruction":
            message = {"role": payload["role"] or "user", "content": payload["content"] or ""}
            if payload["is_demo"]:
                message["is_demo"] = True
            instructions.append((payload["position"] or 0, message))
        elif kind == "action":
            current.messages += [m for _, m in sorted(instructions, key=lambda x: x[0])]
            current.messages += [m for _, m in sorted(observations, key=lambda x: x[0])]
            instructions, observations = [], []
            extra = json.loads(row.get("extra") or "{}")
            if extra.get("not_in_prompt"):
                continue
            if row["actor"] not in POLICIES or extra.get("is_copied_context"):
                current.context.setdefault(row["step"], [])
            current.messages.append(said(payload["text"], json.loads(payload["tool_calls"] or "[]")))
            current.steps.append(row["step"])
            current.event_ids.append(row["event_id"])
        elif kind == "observation":
            observations.append((payload["position"] or 0, answered(payload)))
        elif kind == "mask":
            current.masks[payload["mask_rule"], row["step"]] = (payload["weight"], row["event_id"])
            if is_of_source(row["policy"], payload["weight"]):
                current.context.setdefault(row["step"], []).append(row["event_id"])
    if current is not None:
        yield current


@dataclass(frozen=True)
class Prompt:
    """What a policy was sent before a step, and the rows of that step by kind (a list each)."""

    trajectory_id: str
    corpus: str
    step: int
    messages: list[Message]
    rows: dict[str, list[dict[str, Any]]]


def prompts(events: pa.Table) -> Iterator[Prompt]:
    """Events of whole trajectories in canonical order (REPLAYED) -> the prompt of every step, rebuilt.

    Its `stepwell.chat.prompt_hash` equals the `usage.prompt_hash` recorded by the project's own rollouts. Retracted events
    do not count, nor do replies the source says the model was never shown again.
    """
    rows = live(events).select([c for c in REPLAYED if c in events.column_names]).to_pylist()
    for stream, of_stream in groupby(rows, key=lambda r: r["trajectory_id"]):
        transcript = Transcript()
        steps: dict[int, dict[str, list[dict[str, Any]]]] = {}
        instructions: list[dict[str, Any]] = []
        corpus = ""
        for row in of_stream:
            corpus = row["corpus"]
            if row["kind"] == "instruction":
                instructions.append(row["instruction"])
            elif row["step"] is not None:
                steps.setdefault(row["step"], {}).setdefault(row["kind"], []).append(row)
        for i in sorted(instructions, key=lambda i: i["position"] or 0):
            transcript.add({"role": i["role"] or "user", "content": i["content"] or ""})
        for step, kinds in sorted(steps.items()):
            yield Prompt(stream, corpus, step, transcript.prompt(), kinds)
            _replay(transcript, kinds)


def _replay(transcript: Transcript, kinds: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Add what a step put into the prompts that follow it."""
    for row in kinds.get("action", ()):
        if not json.loads(row.get("extra") or "{}").get("not_in_prompt"):
            transcript.add(said(row["action"]["text"], json.loads(row["action"]["tool_calls"] or "[]")))
    for row in sorted(kinds.get("observation", ()), key=lambda r: r["observation"]["position"] or 0):
        transcript.add(answered(row["observation"]))
    for row in kinds.get("notice", ()):
        if row["notice"]["target"] == "agent":
            transcript.notice(row["notice"]["text"])
    for row in kinds.get("feedback", ()):
        if row["feedback"]["mode"] in SHOWN:
            transcript.advise(row["feedback"]["text"], row["feedback"]["role"] or "user")


def answered(payload: Mapping[str, Any]) -> Message:
    """The payload of an observation as the message the agent was shown."""
    shown = payload["rendered"] if payload["rendered"] is not None else payload["raw"]
    message = {"role": payload["role"] or "user", "content": shown or ""}
    if payload.get("tool_call_id"):
        message["tool_call_id"] = payload["tool_call_id"]
    return message
