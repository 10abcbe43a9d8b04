"""One trajectory as its calls come in: each is placed after an earlier one and becomes events.

Belongs here: where a call's prompt continues an earlier call, which replies were dropped, and the events that say so. Does
not belong here: prompts out of events (`prompts`), files (`journal`), time (`recorder`). Everything is a function of the
records in their order, so the records of a journal give the same events with the same ids again.

An action becomes an event once a later call shows whether the harness kept the reply, or at the end: a reply that is not in
the next prompt is marked `not_in_prompt`, as importers mark it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.chat import Message
from stepwell.event import Event
from stepwell.proxy.messages import echo_key, mark, parse, reply_message, spans, split, text_of, unfold
from stepwell.proxy.replies import said, usage_of

Record = dict[str, Any]
_RECENT = 16
"""Calls a later one may continue; what goes further back is written out in full."""
STOPPED = "proxy stopped"


@dataclass
class _Step:
    """A call that later ones may continue; marks are digests of messages."""

    number: int
    prompt: list[str]
    n: int
    """Number of its record; `at`: when that was made."""
    at: float
    keys: list[str]
    replies: list[str]
    pending: Record | None
    action_id: str = ""
    chosen: int | None = None
    observed: list[str] = field(default_factory=list)

    def base(self, seen: Sequence[str] = ()) -> list[str]:
        """Marks of the prompt, the reply (none while it may still change) and what came back for it."""
        return [*self.prompt, "" if self.chosen is None else self.replies[self.chosen], *(self.observed or seen)]


@dataclass
class Trajectory:
    """State of one trajectory; `opened` says whose it is, `n` counts records."""

    trajectory_id: str
    opened: dict[str, Any]
    n: int = 0
    n_actions: int = 0
    ended: str | None = None
    """Event id of its end: it is retracted if the trajectory goes on."""
    over: Record | None = None
    """The end it was given by the client or for silence: no call begins in it any more, some may still be under way."""
    last_at: float = 0.0
    active: int = 0
    _steps: dict[int, _Step] = field(default_factory=dict)
    _before: list[Record] = field(default_factory=list)
    _tools: str = "null"
    _first_at: float | None = None
    _totals: dict[str, int] = field(default_factory=dict)
    _begun: bool = False

    def place(self, messages: list[Message], known: int) -> dict[str, Any]:
        """Where a prompt continues: the call it comes `after`, what was `seen` since, `then` if it is edited.

        `known` is how many records there were when it was sent: not a time, because clocks are set back.
        `kept` is the number of the choice the harness kept of that call's reply, -1 when it dropped the reply, None when
        that cannot be told.
        """
        if not self._steps:
            return {"seen": messages}
        marks = [mark(m) for m in messages]
        step, kept, start = self._continues(messages, marks, known)
        new = [] if start is None or step.observed else messages[start:]
        seen = [] if any(m.get("role") == "assistant" for m in new) else new
        if kept is not None and kept >= 0:
            base = [*step.prompt, step.replies[kept], *(step.observed or map(mark, seen))]
        else:
            base = step.base([mark(m) for m in seen])
        then = spans(base, marks, messages)
        plain = then == [[0, len(base)]] and step.number == self.n_actions - 1 and bool(step.observed or seen)
        return {"after": step.number, "kept": kept, "seen": seen, "then": None if plain else then}

    def _continues(self, messages: list[Message], marks: list[str], known: int) -> tuple[_Step, int | None, int | None]:
        """The step a prompt continues, what became of its reply, and where what is new begins."""
        last = max((i for i, m in enumerate(messages) if m.get("role") == "assistant"), default=-1)
        key = echo_key(messages[last]) if last >= 0 else ""
        recent = [s for s in reversed(self._steps.values()) if s.n < known]
        begun = [s for s in recent if s.prompt == marks[: len(s.prompt)]]
        at = max((len(s.prompt) for s in begun), default=0)
        longest = [s for s in begun if len(s.prompt) == at]
        echoed = [s for s in (longest if last == at else recent) if key in s.keys]
        if longest and last < at:
            return longest[0], -1, at
        if echoed or (longest and last == at):
            step = (echoed or longest)[0]
            kept = step.keys.index(key) if step.chosen is None and key in step.keys else step.chosen or 0
            return step, kept, last + 1
        return (longest or [next(reversed(self._steps.values()))])[0], None, None

    def absorb(self, record: Record) -> list[Event]:
        """Take in the next record; returns the events it makes certain."""
        self.n += 1
        self.last_at = record["at"]
        if self._first_at is None:
            self._first_at = record.get("sent", record["at"])
        events = []
        if self.ended is not None and not (record["kind"] == "end" and record["exit_status"] == STOPPED):
            why = {"target_event": self.ended, "action": "supersede", "reason": "the trajectory went on"}
            events.append(self._event("retraction", "system", why))
            self.ended = None
        if record["kind"] == "call":
            events += self._call(record)
        elif record["kind"] == "end":
            events += self._end(record)
        else:
            self._before.append({k: v for k, v in record.items() if k not in ("t", "n", "opened", "known", "over")})
        if "over" in record:
            events += self._end(record["over"])
        return events

    def _call(self, record: Record) -> list[Event]:
        place = record["place"]
        marks = [mark(m) for m in place["seen"]]
        if self._steps:
            step = self._steps[place["after"]]
            events = self._settle(step, place["kept"]) if place["kept"] is not None else []
            if place["seen"]:
                events += self._seen(step, place["seen"])
                step.observed = marks
            base = step.base()
            prompt = base if place["then"] is None else unfold(place["then"], base, mark)
            for other in [s for s in self._steps.values() if s.pending and _answered(s, record)]:
                if other.prompt == prompt[: len(other.prompt)] and other is not step:
                    events += self._settle(other, -1)
        else:
            events, prompt = self._begin(record, place["seen"]), marks
        tools = orjson.dumps(record["tools"], option=orjson.OPT_SORT_KEYS).decode()
        extra: dict[str, Any] = {}
        if self._steps and tools != self._tools:
            extra["tools"] = tools
        self._tools = tools
        if place.get("then") is not None:
            extra["prompt"] = {"after": place["after"], "then": place["then"]}
        if self._before:
            extra["before"], self._before = self._before, []
        told = said(record["reply"])
        pending = {**record, "extra": extra}
        keys = [echo_key(m) for m in told]
        replies = [mark(self._canonical(m)) for m in told]
        self._steps[self.n_actions] = _Step(self.n_actions, prompt, self.n - 1, record["at"], keys, replies, pending)
        self.n_actions += 1
        for name, value in usage_of(record["reply"]).items():
            if name in ("tokens_in", "tokens_out") and value is not None:
                self._totals[name] = self._totals.get(name, 0) + value
        while len(self._steps) > _RECENT:
            oldest = next(iter(self._steps))
            events += self._settle(self._steps.pop(oldest), None)
        return events

    def _begin(self, record: Record | None, messages: list[Message]) -> list[Event]:
        """The task, the start and the instructions."""
        self._begun = True
        about, task = self.opened, self.opened["task_id"]
        payload = {
            "task_id": task, "attempt": about["attempt"], "agent": about.get("agent"), "run_id": about.get("run_id"),
            "model": record and record["model"], "config": orjson.dumps(about["config"]).decode(),
        }  # fmt: skip
        start = self._event("start", "system", payload, occurred_at=_time(self._first_at))
        events = [self._event("task", "system", {"task_id": task}), start] if task else [start]
        for position, message in enumerate(messages):
            role, text, rest = split(message)
            given: dict[str, Any] = {"position": position, "role": role, "content": text}
            if role == "assistant":
                given["is_demo"] = True  # a reply that no call of this trajectory gave
            if position == 0 and record and record["tools"] is not None:
                given["tools"] = orjson.dumps(record["tools"]).decode()
            events.append(self._event("instruction", "system", given, extra={"message": rest} if rest else {}))
        return events

    def _seen(self, step: _Step, messages: list[Message]) -> list[Event]:
        events = []
        for position, message in enumerate(messages):
            role, text, rest = split(message)
            call = rest.get("tool_call_id")
            seen = {"position": position, "rendered": text, "role": role}
            seen["tool_call_id"] = call if isinstance(call, str) else None
            extra = {"message": rest} if rest else {}
            events.append(
                self._event("observation", "environment", seen, step.number, caused_by=step.action_id, extra=extra)
            )
        return events

    def _settle(self, step: _Step, kept: int | None) -> list[Event]:
        """The action of a step, once it is known which choice was kept; -1: none, None: not known."""
        if step.pending is None:
            return []
        record, step.pending = step.pending, None
        step.chosen = max(kept or 0, 0)
        extra, told = dict(record["extra"]), said(record["reply"])
        if kept == -1:
            extra["not_in_prompt"] = True
        message = told[step.chosen]
        left = {k: v for k, v in message.items() if k not in ("role", "content", "tool_calls")}
        reasoning = left.get("reasoning_content") or left.get("reasoning")
        if isinstance(reasoning, str):
            left = {k: v for k, v in left.items() if v != reasoning}
        if not isinstance(message.get("content"), str | None):
            left["content"] = message["content"]
        choices = record["reply"]["choices"]
        others = [c for i, c in enumerate(choices) if i != step.chosen]
        choice = {
            k: v for k, v in choices[step.chosen].items() if k not in ("message", "text", "finish_reason", "index")
        }
        top = ("id", "choices", "usage", "object", "model", "created")
        response = {k: v for k, v in record["reply"].items() if k not in top}
        extra |= {"message": left, "choice": choice, "choices": others, "response": response}
        extra |= {"first_token_s": record.get("first_token_s"), "api": record["api"], "aborted": record.get("aborted")}
        calls = message.get("tool_calls") or None
        payload = {
            "text": text_of(message.get("content")),
            "command": _command(calls),
            "reasoning": reasoning if isinstance(reasoning, str) else None,
            "tool_calls": orjson.dumps(calls).decode() if calls else None,
        }
        usage = usage_of(record["reply"]) | {
            "latency_s": record["latency_s"],
            "prompt_hash": record["prompt_hash"],
            "sampling": orjson.dumps(record["sampling"]).decode(),
        }
        if record.get("aborted"):
            usage["finish"] = "aborted"
        model = record["reply"].get("model")
        policy = model if isinstance(model, str) else record["model"]
        action = self._event(
            "action", "agent", payload, step.number, policy=policy, extra=extra, occurred_at=_time(record["at"]),
            usage={k: v for k, v in usage.items() if v is not None},
        )  # fmt: skip
        step.action_id = action.event_id
        return [action]

    @staticmethod
    def _canonical(message: Message) -> Message:
        calls = message.get("tool_calls") or None
        return reply_message(text_of(message.get("content")), orjson.dumps(calls).decode() if calls else None)

    def _end(self, record: Record) -> list[Event]:
        events = [] if self._begun else self._begin(None, [])
        for step in self._steps.values():
            events += self._settle(step, None)
        payload = {
            "exit_status": record["exit_status"], "submission": record.get("submission"), "n_calls": self.n_actions,
            "duration_s": round(record["at"] - (self._first_at or record["at"]), 6), **self._totals,
        }  # fmt: skip
        extra = dict(record.get("extra") or {}) | ({"before": self._before} if self._before else {})
        when = _time(record["at"])
        end = self._event("end", "system", payload, extra=extra, occurred_at=when, discriminator=str(self.n))
        events.append(end)
        if record.get("outcome") is not None:
            graded = {"subject": "trajectory", "rule": "reported", "grader": "harness"} | record["outcome"]
            events.append(self._event("outcome", "grader", graded, policy=graded["grader"], occurred_at=when))
        self.ended = end.event_id
        return events

    def _event(
        self, kind: str, actor: str, payload: dict[str, Any], step: int | None = None, *, extra: Any = None, **rest: Any
    ) -> Event:
        told = {k: v for k, v in (extra or {}).items() if v not in (None, [], {})}
        payload = {k: v for k, v in payload.items() if v is not None}
        packed = orjson.dumps(told).decode() if told else None
        corpus = self.opened["corpus"]
        return Event(kind, self.trajectory_id, corpus, actor, payload, step=step, extra=packed, **rest)


def _answered(step: _Step, record: Record) -> bool:
    """Whether a step's reply was there when a call was sent; journals of earlier versions tell it by the clock only."""
    return bool(step.n < record["known"] if "known" in record else step.at <= record["sent"])


def _command(calls: Any) -> str | None:
    """The `command` arguments of tool calls, one a line; None when a call has none: what is run is then unknown."""
    found = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        parsed = parse(arguments.encode()) if isinstance(arguments, str) else arguments
        if not isinstance(parsed, dict) or not isinstance(parsed.get("command"), str):
            return None
        found.append(parsed["command"])
    return "\n".join(found) if found else None


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
