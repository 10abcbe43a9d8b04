"""A trajectory as a critic that reads text sees it: the task, its turns as pairs of messages, solutions, feedback.

Belongs here: reading these out of events, and counting their tokens once. Does not belong here: what of it a request
shows (`context`), what the step rules see (`turns`). Demonstrations are left out, as are replies the source says the agent
was never shown again; feedback is an event of its own and therefore in no turn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.critics.turns import superseded
from stepwell.log import live
from stepwell.rendering import Renderer

COLUMNS = (
    "event_id", "trajectory_id", "corpus", "step", "kind", "policy", "caused_by", "usage", "extra", "task", "start",
    "instruction", "action", "observation", "verdict", "feedback", "attempt", "end", "retraction",
)  # fmt: skip
"""Columns of `events` that `streams` reads."""
KINDS = ("task", "start", "instruction", "action", "observation", "feedback", "attempt", "end", "retraction")
"""Kinds of events that can change what a critic sees."""
MESSAGE_TOKENS = 8
"""Tokens a chat template puts around one message, at most."""
NO_OBSERVATION = "(no observation)"
NO_TASK = "(the task is not recorded)"
_KNOWN = ("event_id", "trajectory_id", "corpus", "step", "caused_by", "usage", "extra", "verdict")


@dataclass(frozen=True)
class Counter:
    """A way to count tokens; `exact` when it is the model's own tokenizer."""

    name: str
    count: Callable[[str], int]
    exact: bool

    @classmethod
    def of(cls, directory: str | Path) -> Counter:
        """The tokenizer of a model directory; raises UsageError when there is none."""
        renderer = Renderer.load(directory)
        tokenizer = renderer.tokenizer
        name = f"tokenizer:{renderer.hashes['tokenizer_hash'][:12]}"
        return cls(name, lambda text: len(tokenizer.encode(text, add_special_tokens=False)), True)

    def message(self, text: str) -> int:
        """Tokens of one message with what the template adds."""
        return self.count(text) + MESSAGE_TOKENS


ESTIMATE = Counter("characters/4", lambda text: -(-len(text) // 4), False)
"""Where no tokenizer is given: a quarter of the characters."""


@dataclass(frozen=True)
class Turn:
    """One step as two messages, and the tokens of both."""

    step: int
    event_id: str
    said: str
    seen: str
    tokens: tuple[int, int]


@dataclass(frozen=True)
class Feedback:
    """Guidance given after a step, and the event that holds it."""

    event_id: str
    step: int
    text: str


@dataclass(frozen=True)
class Stream:
    """One trajectory: `attempts` are (event id, step, code), `end` is (event id, submission), `known` verdict rows.

    `superseded` are verdicts that the critic took back, and its retraction of each; `other` is the attempt it is compared
    with, shown after it (`pairing`).
    """

    trajectory_id: str
    corpus: str
    task: str
    turns: tuple[Turn, ...]
    attempts: tuple[tuple[str, int | None, str], ...]
    end: tuple[str, str] | None
    step_limit: int | None
    delivered: tuple[Feedback, ...]
    known: tuple[dict[str, Any], ...]
    superseded: Mapping[str, str] = field(default_factory=dict)
    other: Stream | None = None

    @property
    def attempt(self) -> str:
        """What is compared with an `other`: the event of its one solution, or where it has none the trajectory."""
        return self.attempts[0][0] if self.attempts else self.trajectory_id


def streams(rows: pa.Table, counter: Counter, critic: str | None = None) -> Iterator[Stream]:
    """Events of whole trajectories in canonical order (COLUMNS) -> one Stream each; retracted events are left out.

    `known` holds the verdicts of the policy `critic`.
    """
    taken = superseded(rows, critic) if critic else {}
    rows = live(rows)
    statements = _fields(rows, "task", "statement")
    starts = _fields(rows, "start", "step_limit")
    instructions = _fields(rows, "instruction", "position", "role", "content", "is_demo")
    actions = _fields(rows, "action", "text", "tool_calls")
    observations = _fields(rows, "observation", "position", "rendered", "raw")
    feedbacks = _fields(rows, "feedback", "mode", "text")
    attempts = _fields(rows, "attempt", "code")
    ends = _fields(rows, "end", "submission")
    hidden, known = _never_shown(rows), _verdicts(rows, critic)
    identities = zip(rows.column("trajectory_id").to_pylist(), rows.column("corpus").to_pylist(), strict=True)
    for stream, corpus in dict(identities).items():
        given = [i[3:] for i in sorted(instructions.get(stream, ()), key=lambda i: i[2] or 0) if not i[5]]
        answers: dict[int, list[tuple[int, str]]] = {}
        for _, step, position, rendered, raw in observations.get(stream, ()):
            answers.setdefault(step, []).append((position or 0, (raw if rendered is None else rendered) or ""))
        yield Stream(
            stream,
            corpus,
            _task(given, next((s for _, _, s in statements.get(stream, ()) if s), None)),
            tuple(
                _turn(step, event_id, _said(text or "", calls), answers.get(step), counter)
                for event_id, step, text, calls in actions.get(stream, ())
                if step is not None and event_id not in hidden
            ),
            tuple((event_id, step, code) for event_id, step, code in attempts.get(stream, ()) if code),
            next(((event_id, text) for event_id, _, text in ends.get(stream, ()) if text), None),
            next((limit for _, _, limit in starts.get(stream, ()) if limit), None),
            tuple(
                Feedback(event_id, step, text)
                for event_id, step, mode, text in feedbacks.get(stream, ())
                if mode == "delivered" and text and step is not None
            ),
            tuple(known.get(stream, ())),
            taken,
        )


def meeting(first: Stream, second: Stream | None, a: str, b: str) -> Stream:
    """The first of two trajectories beside the second, narrowed to the attempts `a` and `b` of them, and what is known of both.

    Without the second trajectory it is beside nothing, which is no point to judge.
    """
    known = []
    for row in first.known:
        extra = json.loads(row["extra"] or "{}")
        if (extra.get("first"), extra.get("second")) == (a, b):
            known.append(row)
    other = None if second is None else replace(_only(second, b), known=())
    return replace(_only(first, a), known=tuple(known), other=other)


def _only(stream: Stream, attempt: str) -> Stream:
    """The trajectory itself, or one solution of it and nothing else."""
    if attempt == stream.trajectory_id:
        return replace(stream, attempts=())
    return replace(stream, turns=(), attempts=tuple(a for a in stream.attempts if a[0] == attempt))


def _fields(rows: pa.Table, kind: str, *names: str) -> dict[str, list[tuple[Any, ...]]]:
    """Trajectory -> (event id, step, these payload fields) of its events of a kind, in the order of the rows."""
    part = rows.filter(pc.equal(rows.column("kind"), kind))
    columns = [part.column(c).to_pylist() for c in ("event_id", "step")]
    columns += [pc.struct_field(part.column(kind), name).to_pylist() for name in names]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for stream, *values in zip(part.column("trajectory_id").to_pylist(), *columns, strict=True):
        found.setdefault(stream, []).append(tuple(values))
    return found


def _never_shown(rows: pa.Table) -> set[str]:
    of_action = pc.and_(pc.equal(rows.column("kind"), "action"), pc.is_valid(rows.column("extra")))
    part = rows.filter(of_action).select(["event_id", "extra"]).to_pylist()
    return {row["event_id"] for row in part if json.loads(row["extra"]).get("not_in_prompt")}


def _verdicts(rows: pa.Table, critic: str | None) -> dict[str, list[dict[str, Any]]]:
    of_critic = pc.and_(pc.equal(rows.column("kind"), "verdict"), pc.equal(rows.column("policy"), critic or ""))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows.filter(pc.fill_null(of_critic, False)).select(_KNOWN).to_pylist():
        found.setdefault(row["trajectory_id"], []).append(row)
    return found


def _turn(step: int, event_id: str, said: str, seen: Iterable[tuple[int, str]] | None, counter: Counter) -> Turn:
    answer = NO_OBSERVATION if seen is None else "\n".join(text for _, text in sorted(seen))
    return Turn(step, event_id, said, answer, (counter.message(said), counter.message(answer)))


def _said(text: str, calls: str | None) -> str:
    """A reply as text: a critic has none of the agent's tools, so calls are written out."""
    lines = []
    for call in json.loads(calls) if calls else ():
        function = call.get("function") or call
        lines.append(f"[tool call] {function.get('name')} {function.get('arguments')}")
    return "\n".join([*([text] if text else []), *lines])


def _task(given: list[tuple[str | None, str | None, bool | None]], statement: str | None) -> str:
    system = "\n\n".join(content or "" for role, content, _ in given if role == "system")
    user = "\n\n".join(content or "" for role, content, _ in given if role != "system") or statement or NO_TASK
    return f"# What the agent was told\n\n{system}\n\n# The task\n\n{user}" if system else user
