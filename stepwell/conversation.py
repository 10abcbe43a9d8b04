"""A trajectory as the chat it was: the messages the policy saw and said, with the events they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

READS = (
    "event_id", "trajectory_id", "corpus", "step", "kind", "actor", "policy", "instruction", "action", "observation", "mask",
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

    What follows the last reply was never part of a prompt and is left out. Raises KeyError when a column of READS is missing.
    """
    current: Conversation | None = None
    instructions: list[tuple[int, dict[str, Any]]] = []
    observations: list[tuple[int, dict[str, Any]]] = []
    for row in events.select([c for c in READS if c in events.column_names]).to_pylist():
        if current is None or row["trajectory_id"] != current.trajectory_id:
            if current is not None:
                yield current
            current = Conversation(row["trajectory_id"], row["corpus"])
            instructions, observations = [], []
        kind, payload = row["kind"], row.get(row["kind"])
        if kind == "instruction":
            message = {"role": payload["role"] or "user", "content": payload["content"] or ""}
            instructions.append((payload["position"] or 0, message))
        elif kind == "action":
            current.messages += [m for _, m in sorted(instructions, key=lambda x: x[0])]
            current.messages += [m for _, m in sorted(observations, key=lambda x: x[0])]
            instructions, observations = [], []
            current.messages.append({"role": "assistant", "content": payload["text"] or ""})
            current.steps.append(row["step"])
            current.event_ids.append(row["event_id"])
        elif kind == "observation":
            shown = payload["rendered"] if payload["rendered"] is not None else payload["raw"]
            observations.append((payload["position"] or 0, {"role": payload["role"] or "user", "content": shown or ""}))
        elif kind == "mask":
            current.masks[payload["mask_rule"], row["step"]] = (payload["weight"], row["event_id"])
    if current is not None:
        yield current
