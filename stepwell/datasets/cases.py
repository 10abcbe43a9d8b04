"""What a dataset method is given of a trajectory, and what it gives back.

Belongs here: reading whole trajectories out of a batch of events. Does not belong here: choosing (`methods`) and tokens
(`build`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.conversation import READS, REPLAYED, SHOWN, Conversation, Message, Prompt, conversations, prompts
from stepwell.log import live
from stepwell.recipe import DatasetSettings

COLUMNS = tuple(dict.fromkeys([*READS, *REPLAYED, "label"]))
"""Columns of `events` that `cases` reads."""


@dataclass(frozen=True)
class Label:
    """What a teacher would have said in a state, as the event that records it."""

    event_id: str
    teacher: str
    text: str
    tool_calls: tuple[Mapping[str, Any], ...]
    resample: int


@dataclass(frozen=True)
class Case:
    """One trajectory before a method: its chat, its grading, and what else was recorded of its turns.

    `interrupted`: feedback or a notice was shown to the agent. `prompts` has one entry per turn, for methods that ask for
    them; `labels` are those of a step, by teacher and resample.
    """

    chat: Conversation
    resolved: bool | None
    mask_rule: str
    settings: DatasetSettings
    interrupted: bool = False
    prompts: Sequence[Prompt] = ()
    labels: Mapping[int, Sequence[Label]] | None = None


@dataclass(frozen=True)
class Sample:
    """One row to be: messages; the step, weight (0 or 1) and event of each assistant message; events that set the weights."""

    messages: list[Message]
    steps: list[int]
    weights: list[float]
    event_ids: list[str]
    evidence: list[str]


@dataclass(frozen=True)
class Dropped:
    """Why a trajectory yields no row."""

    reason: str


@dataclass(frozen=True)
class Found:
    """One trajectory of a batch, as `Case` wants it."""

    chat: Conversation
    interrupted: bool
    prompts: Sequence[Prompt]
    labels: Mapping[int, Sequence[Label]]


def found(events: pa.Table, per_turn: bool) -> Iterator[Found]:
    """Events of whole trajectories in canonical order (COLUMNS) -> one each; `per_turn` with prompts and labels."""
    shown = _interrupted(events)
    asked: dict[str, list[Prompt]] = {}
    labels: dict[str, dict[int, list[Label]]] = {}
    if per_turn:
        for prompt in prompts(events):
            asked.setdefault(prompt.trajectory_id, []).append(prompt)
        labels = _labels(events)
    for chat in conversations(events):
        name = chat.trajectory_id
        yield Found(chat, name in shown, asked.get(name, ()), labels.get(name, {}))


def _interrupted(events: pa.Table) -> set[str]:
    """Trajectories in which the agent was shown anything but instructions and answers."""
    kept = events.filter(pc.is_in(events.column("kind"), pa.array(["feedback", "notice", "retraction"])))
    rows = live(kept).select(["trajectory_id", "feedback", "notice"]).to_pylist()
    return {
        r["trajectory_id"]
        for r in rows
        if (r["feedback"] or {}).get("mode") in SHOWN or (r["notice"] or {}).get("target") == "agent"
    }


def _labels(events: pa.Table) -> dict[str, dict[int, list[Label]]]:
    kept = events.filter(pc.is_in(events.column("kind"), pa.array(["label", "retraction"])))
    by_step: dict[str, dict[int, list[Label]]] = {}
    for r in live(kept).select(["event_id", "trajectory_id", "step", "policy", "extra", "label"]).to_pylist():
        if r["label"] is None or r["step"] is None:
            continue
        calls = tuple(json.loads(r["extra"] or "{}").get("tool_calls") or ())
        label = Label(r["event_id"], r["policy"], r["label"]["text"], calls, r["label"]["resample"] or 0)
        by_step.setdefault(r["trajectory_id"], {}).setdefault(r["step"], []).append(label)
    for steps in by_step.values():
        for labels in steps.values():
            labels.sort(key=lambda label: (label.teacher, label.resample, label.event_id))
    return by_step
