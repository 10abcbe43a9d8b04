"""Spans of model calls and tools as the events of one trajectory, in the order they started.

Belongs here: which span is a step, and which tool's span tells the result of which call. Not here: what attributes say
(`span_messages`), and how files hold spans (`otlp`, `agent_lightning`).
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stepwell.importers.base import Builder
from stepwell.importers.dialogue import Dialogue
from stepwell.importers.messages import Obj, obj, take_float, take_text
from stepwell.importers.span_messages import SAID_BY_EVENT, messages, tools, usage, written

_MODEL_CALLS = ("chat", "completion", "text_completion", "generate_content", "generate")
_GOOD, _BAD = (
    ("pass", "passed", "correct", "true", "yes", "success"),
    ("fail", "failed", "incorrect", "false", "no", "failure"),
)


@dataclass
class Span:
    """One span: its attributes as plain values, its times in nanoseconds, and all else it has."""

    name: str
    start: int
    end: int
    attributes: Obj
    events: list[Obj] = field(default_factory=list)
    rest: Obj = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What it is about: a model call, a tool, or something else (`model`, `tool`, `other`)."""
        a = self.attributes
        operation, open_kind = a.get("gen_ai.operation.name"), a.get("openinference.span.kind")
        if operation == "execute_tool" or open_kind == "TOOL":
            return "tool"
        numbered = any(k.startswith(("gen_ai.completion.", "gen_ai.prompt.")) for k in a)
        said = numbered and open_kind is None and operation in (None, *_MODEL_CALLS)
        return "model" if operation in _MODEL_CALLS or open_kind == "LLM" or said else "other"

    @property
    def about_models(self) -> bool:
        """Whether any attribute follows a convention for models and agents."""
        return any(k.startswith(("gen_ai.", "llm.", "openinference.", "agentlightning.")) for k in self.attributes)

    def record(self) -> Obj:
        """All of it, as it is kept when no step is made of it."""
        told = {"name": self.name, "start": str(self.start), "end": str(self.end), "attributes": self.attributes}
        return {**told, **({"events": self.events} if self.events else {}), **self.rest}


class _Tools:
    """Spans of tools whose results no prompt has shown yet, found by the id or the name of their call, or by their end."""

    def __init__(self) -> None:
        self._by_id: dict[str, Span] = {}
        self._by_name: dict[Any, deque[Span]] = defaultdict(deque)
        self._by_end: list[tuple[int, int, Span]] = []
        self._told: set[int] = set()

    def add(self, span: Span) -> None:
        call = span.attributes.get("gen_ai.tool.call.id")
        if isinstance(call, str):
            self._by_id[call] = span
        else:
            self._by_name[_tool_name(span)].append(span)
        heapq.heappush(self._by_end, (span.end, len(self._told) + len(self._by_end), span))

    def of(self, call: str | None, name: Any) -> Span | None:
        """The span of a call: by its id, else the first of that name that has no id."""
        found = self._by_id.pop(call or "", None)
        named = self._by_name[name] if found is None else deque()
        while found is None and named:
            first = named.popleft()
            found = None if id(first) in self._told else first
        if found is not None:
            self._told.add(id(found))
        return found

    def ended(self, before: int | None) -> list[Span]:
        """Those that ended by a time (None: all that are left), each once."""
        done = []
        while self._by_end and (before is None or self._by_end[0][0] <= before):
            span = heapq.heappop(self._by_end)[2]
            if id(span) not in self._told:
                self._told.add(id(span))
                done.append(span)
        return done


class SpanReader(Dialogue):
    """Writes the events of one trajectory from its spans, in the order they started."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self.graded: list[Obj] = []
        self._tools = _Tools()
        self._names: dict[str, Any] = {}
        self._last_of: dict[Any, str] = {}

    def read(self, spans: list[Span]) -> None:
        """All spans; results that no later prompt shows are told by the span of their tool."""
        for span in sorted(spans, key=lambda s: s.start):
            self.graded += [e for e in span.events if e.get("name") == "gen_ai.evaluation.result"]
            if span.kind == "model":
                self._call(span)
            elif span.kind == "tool":
                self._tools.add(span)
            else:
                self.stream.records.append(span.record())
        self._flush(None)

    def _flush(self, before: int | None) -> None:
        """Results of tools that ended by a time and that no prompt has shown."""
        for span in self._tools.ended(before):
            told = span.attributes.get("gen_ai.tool.call.id")
            call = told if isinstance(told, str) else self._last_of.pop(_tool_name(span), None)
            if call is None and span.attributes.get("openinference.span.kind") and self._names:
                self.stream.records.append(span.record())
            else:
                self._answer(call, None, {}, span)

    def _call(self, span: Span) -> None:
        left = dict(span.attributes)
        given, said = messages(left, span.events)
        extra = self.show(given, tools(left))
        self._flush(span.start)
        repeated = [dict(m) for m in said]
        calls = [c for m in said for c in m.pop("tool_calls", [])]
        for call in calls:
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                name = obj(call.get("function")).get("name")
                self._names[call["id"]] = name
                self._last_of[name if isinstance(name, str) else None] = call["id"]
        texts = [t for m in said if (t := take_text(m, "content")) is not None]
        thoughts = [t for m in said if (t := take_text(m, "reasoning")) is not None]
        replies = [m for m in said if m.keys() - {"role"} or m.get("role") != "assistant"]
        policy = take_text(dict(left), "gen_ai.response.model") or take_text(dict(left), "gen_ai.request.model")
        policy = policy or take_text(dict(left), "llm.model_name")
        used = {**usage(left), "latency_s": _seconds(span)}
        events = [e for e in span.events if e.get("name") not in (*SAID_BY_EVENT, "gen_ai.choice")]
        self.said(
            repeated,
            "".join(texts) if texts else None,
            calls,
            reasoning="\n".join(thoughts) or None,
            parse_error=take_text(dict(left), "error.type") if not said else None,
            usage=used,
            policy=policy,
            occurred_at=_instant(span.end),
            extra={**extra, "reply": replies, "attributes": left, "events": events, **_rest(span)},
        )

    def answer(self, left: Obj) -> None:
        """A tool's message with what the span of its tool says."""
        call = take_text(left, "tool_call_id")
        self._answer(call, take_text(left, "content"), left, self._tools.of(call, self._names.get(call or "")))

    def _answer(self, call: str | None, text: str | None, rest: Obj, span: Span | None) -> None:
        left = dict(span.attributes) if span else {}
        key = next((k for k in ("gen_ai.tool.call.result", "output.value") if k in left), "")
        raw = written(left.pop(key, None))
        if self.stream.step_of(call) is not None:
            for told in ("gen_ai.tool.call.id", "gen_ai.tool.call.arguments"):
                left.pop(told, None)
        shown = text if text is not None else raw
        self.stream.answer(
            call,
            {"rendered": shown, "raw": raw if raw != shown else None, "duration_s": _seconds(span) if span else None},
            {**rest, **({"attributes": left, **_rest(span)} if span else {})},
            occurred_at=_instant(span.end) if span else None,
        )


def _rest(span: Span) -> Obj:
    """Name, ids and start of a span; nanoseconds as text, because they are finer than columns hold."""
    return {"span": {"name": span.name, "start": str(span.start), "end": str(span.end), **span.rest}}


def _instant(nanoseconds: int) -> datetime | None:
    return datetime.fromtimestamp(nanoseconds // 1000 / 1e6, UTC) if 0 < nanoseconds < 2**63 else None


def _seconds(span: Span) -> float | None:
    return (span.end - span.start) / 1e9 if 0 < span.start <= span.end else None


def _tool_name(span: Span) -> str:
    told = (span.attributes.get(k) for k in ("gen_ai.tool.name", "tool.name"))
    return next((t for t in told if isinstance(t, str) and t), span.name)


def outcomes(builder: Builder, graded: list[Obj]) -> None:
    """An outcome an evaluation event: its score where it is in [0, 1], and its label where that says pass or fail.

    Of several the last that says pass or fail stands, as the highest `rerun`.
    """
    end = builder.events[-1].event_id
    decided = [_label(event) is not None for event in graded]
    order = sorted(range(len(graded)), key=lambda place: decided[place])
    for place, event in enumerate(graded):
        told = obj(event.get("attributes"))
        name = take_text(told, "gen_ai.evaluation.name") or "gen_ai.evaluation"
        score = take_float(dict(told), "gen_ai.evaluation.score.value")
        payload: Obj = {"subject": "trajectory", "grader": name, "rule": "reported", "resolved": _label(event)}
        payload["score"] = score if score is not None and 0 <= score <= 1 else None
        payload |= {"rerun": order.index(place)} if len(graded) > 1 else {}
        extra = {**{k: v for k, v in event.items() if k != "attributes"}, "attributes": told}
        builder.add("outcome", "grader", payload, policy=name, caused_by=end, extra=extra)


def _label(event: Obj) -> bool | None:
    label = str(obj(event.get("attributes")).get("gen_ai.evaluation.score.label")).lower()
    return True if label in _GOOD else False if label in _BAD else None
