"""What a dataset method is given of a trajectory, and what it gives back.

Belongs here: reading whole trajectories out of a batch of events. Does not belong here: choosing (`methods`) and tokens
(`build`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.asking import COLUMNS as ASKED
from stepwell.asking import Asked, Asker, Said
from stepwell.conversation import READS, REPLAYED, SHOWN, Conversation, Message, Prompt, conversations, prompts
from stepwell.data_settings import DatasetSettings
from stepwell.log import live

COLUMNS = tuple(dict.fromkeys([*READS, *REPLAYED, "label"]))
"""Columns of `events` that `cases` reads."""
OF_CRITICS = tuple(dict.fromkeys([*COLUMNS, *ASKED, "recorded_at"]))
"""The same for methods of critics."""
_LOOPS = ("task", "verdict", "attempt", "hint", "outcome", "reward")
Row = dict[str, Any]


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
    them; `labels` are those of a step, by teacher and resample. For methods of critics: `said` are the replies of those that
    count, `asked` the requests of the method's own kind, `rows` the events of critique-revision loops by kind.
    """

    chat: Conversation
    resolved: bool | None
    mask_rule: str
    settings: DatasetSettings
    interrupted: bool = False
    prompts: Sequence[Prompt] = ()
    labels: Mapping[int, Sequence[Label]] | None = None
    said: Sequence[Said] = ()
    asked: Sequence[Asked | str] = ()
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One row to be: messages; the step, weight (0 or 1) and event of each assistant message; events that set the weights.

    `rejected` is the reply that is preferred less than the last message. From message `shortens` on, pairs of messages may
    be left out where the row is too long, the oldest first. `judgment` is what the trained reply says of the work.
    `group_id`, `rewards` (event_id, critique_id, reward, format_ok) and `reference` (what is needed to run the tests) are for
    training on rewards; without an assistant message to train, the row is a prompt alone.
    """

    messages: list[Message]
    steps: list[int]
    weights: list[float]
    event_ids: list[str]
    evidence: list[str]
    rejected: Message | None = None
    shortens: int | None = None
    judgment: bool | None = None
    group_id: str | None = None
    rewards: Sequence[Row] | None = None
    reference: Row | None = None


@dataclass(frozen=True)
class Dropped:
    """Why a trajectory, or a part of it that could have been a row, yields none."""

    reason: str


Parts = Sequence[Sample | Dropped] | Dropped
"""What a method makes of a trajectory: rows to be, and parts that are none."""


@dataclass(frozen=True)
class Found:
    """One trajectory of a batch, as `Case` wants it."""

    chat: Conversation
    interrupted: bool
    prompts: Sequence[Prompt]
    labels: Mapping[int, Sequence[Label]]
    said: Sequence[Said] = ()
    asked: Sequence[Asked | str] = ()
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)


def found(events: pa.Table, per_turn: bool, asker: Asker | None = None, kind: str | None = None) -> Iterator[Found]:
    """Events of whole trajectories in canonical order (COLUMNS) -> one each; `per_turn` with prompts and labels.

    With an `asker` (columns OF_CRITICS) also what critics said; with a `kind` what one of that kind would be asked.
    """
    shown = _interrupted(events)
    asked: dict[str, list[Prompt]] = {}
    said = asker.said(events) if asker else {}
    requests = asker.asked(events, kind) if asker and kind else {}
    loops = _loops(events) if asker else {}
    labels: dict[str, dict[int, list[Label]]] = {}
    if per_turn:
        for prompt in prompts(events):
            asked.setdefault(prompt.trajectory_id, []).append(prompt)
        labels = _labels(events)
    for chat in conversations(events):
        name = chat.trajectory_id
        critics = (said.get(name, ()), requests.get(name, ()), loops.get(name, {}))
        yield Found(chat, name in shown, asked.get(name, ()), labels.get(name, {}), *critics)


def _loops(events: pa.Table) -> dict[str, dict[str, list[Row]]]:
    """Trajectory -> kind -> events of critique-revision loops that hold, envelope and payload together."""
    kept = events.filter(pc.is_in(events.column("kind"), pa.array([*_LOOPS, "retraction"])))
    by_kind: dict[str, dict[str, list[Row]]] = {}
    envelope = ["event_id", "trajectory_id", "step", "kind", "policy", "recorded_at", "caused_by", "extra"]
    for row in live(kept).select([*envelope, *_LOOPS]).to_pylist():
        if row["kind"] in _LOOPS:
            plain = {**{k: row[k] for k in envelope}, **row[row["kind"]]}
            by_kind.setdefault(row["trajectory_id"], {}).setdefault(row["kind"], []).append(plain)
    return by_kind


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
