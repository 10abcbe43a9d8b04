"""A trajectory as the chat it was: the messages the policy saw and said, with the events they come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from stepwell.log import live

READS = (
    "event_id", "trajectory_id", "corpus", "step", "kind", "actor", "policy", "extra", "instruction", "action", "observation",
    "mask", "retraction",
)  # fmt: skip


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
        if kind == "instruction":
            message = {"role": payload["role"] or "user", "content": payload["content"] or ""}
            if payload["is_demo"]:
                message["is_demo"] = True
            instructions.append((payload["position"] or 0, message))
        elif kind == "action":
            current.messages += [m for _, m in sorted(instructions, key=lambda x: x[0])]
            current.messages += [m for _, m in sorted(observations, key=lambda x: x[0])]
            instructions, observations = [], []
            if row.get("extra") and json.loads(row["extra"]).get("not_in_prompt"):
                continue
            said: dict[str, Any] = {"role": "assistant", "content": payload["text"] or ""}
            if payload["tool_calls"]:
                said["tool_calls"] = json.loads(payload["tool_calls"])
            current.messages.append(said)
            current.steps.append(row["step"])
            current.event_ids.append(row["event_id"])
        elif kind == "observation":
            shown = payload["rendered"] if payload["rendered"] is not None else payload["raw"]
            observations.append((payload["position"] or 0, {"role": payload["role"] or "user", "content": shown or ""}))
        elif kind == "mask":
            current.masks[payload["mask_rule"], row["step"]] = (payload["weight"], row["event_id"])
    if current is not None:
        yield current
