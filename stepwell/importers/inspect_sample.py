"""One sample of an Inspect log as the events of one trajectory.

Belongs here: attachments and pools put back, model calls as steps, tool results, scores. Not here: files, headers, samples
in archives (`inspect_log`, which states what is kept where).
"""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder
from stepwell.importers.dialogue import Dialogue, first_message
from stepwell.importers.files import LARGEST
from stepwell.importers.messages import Obj, obj, take_content, take_float, take_int, take_obj, take_text, take_time
from stepwell.importers.sealed import Seal
from stepwell.importers.streams import function_call

_POINTER = 8
"""Bytes of an item that is in a list once more."""
_REFERENCES = ("attachment://", "tc://")
_PROMPT_KEYS = ("messages", "contents", "input", "inputs", "system", "tools")
_LETTERS: dict[str, tuple[bool | None, float]] = {
    "C": (True, 1.0), "I": (False, 0.0), "P": (None, 0.5), "N": (False, 0.0), "yes": (True, 1.0), "no": (False, 0.0),
    "true": (True, 1.0), "false": (False, 0.0),
}  # fmt: skip


def whole(sample: Obj) -> Obj:
    """A sample with its attachments in place, the events of the old `transcript`, and pooled messages in each call.

    Raises BadInput for one that names them so often that it would be more than LARGEST bytes.
    """
    sample, room = dict(sample), _Room()
    old = take_obj(sample, "transcript")
    attachments = take_obj(sample, "attachments") or obj(old.get("content"))
    sample.setdefault("events", old.get("events"))
    if isinstance(sample["events"], list):
        sample["events"] = [_asked_once(e) for e in sample["events"]]
    if attachments:
        sample = {k: _resolved(v, attachments, room) for k, v in sample.items()}
    pools = take_obj(sample, "events_data")
    pool = pools.pop("messages") if isinstance(pools.get("messages"), list) else None
    if any(pools.values()):
        sample["pools"] = pools
    if pool is not None:
        sample["events"] = [_unpooled(e, pool, room) for e in _list(sample.get("events"))]
        if "message_refs" in sample:
            sample["messages"] = _expanded(sample.pop("message_refs"), pool, room)
    return sample


def _asked_once(event: Any) -> Any:
    """A model event whose raw request is without the prompt, which it repeats in the provider's own form."""
    call = obj(event).get("call")
    request = call.get("request") if isinstance(call, dict) else None
    if not isinstance(request, dict) or obj(event).get("event") != "model":
        return event
    return {**event, "call": {**obj(call), "request": {k: v for k, v in request.items() if k not in _PROMPT_KEYS}}}


class _Room:
    """How many bytes a sample may still gain by what it refers to."""

    def __init__(self) -> None:
        self.left = LARGEST

    def take(self, n: int) -> None:
        """Raise BadInput where these are too many."""
        self.left -= n
        if self.left < 0:
            raise BadInput("too_large", f"a sample of more than {LARGEST} bytes with all that it refers to; split it.")


def _resolved(value: Any, attachments: Obj, room: _Room) -> Any:
    if isinstance(value, str):
        found = attachments.get(value.partition("://")[2], value) if value.startswith(_REFERENCES) else value
        if found is not value:
            room.take(len(found) if isinstance(found, str) else 0)
        return found
    if isinstance(value, dict):
        return {k: _resolved(v, attachments, room) for k, v in value.items()}
    return [_resolved(v, attachments, room) for v in value] if isinstance(value, list) else value


def _unpooled(event: Any, pool: list[Any], room: _Room) -> Any:
    if not isinstance(event, dict) or not event.get("input_refs"):
        return event
    left = {k: v for k, v in event.items() if k != "input_refs"}
    return {**left, "input": _expanded(event["input_refs"], pool, room)}


def _expanded(ranges: Any, pool: list[Any], room: _Room) -> list[Any]:
    """Ranges [from, to) of a pool -> its items; what is no range is none."""
    items: list[Any] = []
    for pair in _list(ranges):
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(i, int) and i >= 0 for i in pair):
            part = pool[pair[0] : pair[1]]
            room.take(_POINTER * len(part))
            items += part
    return items


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class SampleReader(Dialogue):
    """Writes the conversation of a sample: prompts, replies and tool results in their order."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder, outside="environment")
        self.n_calls = 0
        self.graders: list[tuple[str, Obj]] = []
        """Model and usage of every call by which a scorer graded; one that failed or came from Inspect's cache used nothing."""
        self._final = False
        self._tools: dict[str, Obj] = {}
        self._grading: set[str] = set()
        self._in_scorer = 0

    def read(self, sample: Obj) -> None:
        """All events, then what the final messages hold beyond them; takes both out of the sample."""
        for event in _list(sample.pop("events", None)):
            self._event(event)
        self._final = True
        self.show(_list(sample.pop("messages", None)))
        for call in list(self._tools):
            self.answer({"tool_call_id": call})

    def _event(self, event: Any) -> None:
        told = obj(event)
        kind = told.get("event")
        self._follow(kind, told)
        grading = self._in_scorer > 0 or told.get("span_id") in self._grading
        if kind == "model" and not grading and first_message(told.get("output")) is not None:
            self._act(dict(told))
        elif kind == "tool" and isinstance(told.get("id"), str) and not grading:
            self._tools[told["id"]] = dict(told)
        else:
            self.stream.records.append(event)
            if kind == "model" and grading and told.get("cache") != "read" and not told.get("error"):
                self.graders.append((str(told.get("model")), obj(obj(told.get("output")).get("usage"))))

    def _follow(self, kind: Any, told: Obj) -> None:
        """Spans and steps of scorers, whose calls are the grader's."""
        scorer = str(told.get("type")) in ("scorer", "scorers")
        if kind == "span_begin" and (scorer or told.get("parent_id") in self._grading):
            self._grading.add(str(told.get("id")))
        elif kind == "step" and scorer:
            self._in_scorer += 1 if told.get("action") == "begin" else -1

    def _put_in(self, left: Obj, message: Any) -> None:
        """Of the final messages, replies that no event told are steps; all of them where there are no events."""
        if self._final and (not self.n_calls or left.get("source") == "generate"):
            self._write(left, dict(message), {}, {}, None)
        else:
            super()._put_in(left, message)

    def _act(self, event: Obj) -> None:
        self.n_calls += 1
        extra = self.show(_list(event.pop("input", None)), event.pop("tools", None))
        for key in ("event", "input_refs"):
            event.pop(key, None)
        message = first_message(event["output"]) or {}
        self._write(dict(message), message, event, extra, take_text(dict(event), "model"))

    def _write(self, message: Obj, repeated: Obj, event: Obj, extra: Obj, policy: str | None) -> None:
        """One reply as a step; what is left of the message, of the output and of the event goes into `extra`."""
        message = {k: v for k, v in message.items() if k != "message" and (k != "role" or v != "assistant")}
        output = take_obj(event, "output")
        choices = _list(output.pop("choices", None))
        first = {k: v for k, v in obj(choices[0] if choices else None).items() if k != "message"}
        usage = _usage(output, event, first)
        calls = [_call(c) for c in _list(message.pop("tool_calls", None))]
        text, reasoning = take_content(message), _reasoning(message.get("content"))
        if isinstance(message.get("content"), str) or message.get("content") in (None, []):
            message.pop("content", None)
        errors = [c["parse_error"] for c in calls if isinstance(c, dict) and isinstance(c.get("parse_error"), str)]
        sampling = event.pop("config", None)
        usage["sampling"] = orjson.dumps(sampling).decode() if sampling else None
        occurred_at = take_time(event, "completed") or take_time(event, "timestamp")
        self.said(
            [repeated],
            text,
            calls,
            reasoning=reasoning,
            parse_error="; ".join(errors) or None,
            usage=usage,
            policy=policy or take_text(dict(message), "model"),
            occurred_at=occurred_at,
            extra={
                **extra,
                "reply": message,
                "choice": first,
                "choices": choices[1:],
                "output": output,
                **{k: v for k, v in event.items() if k != "model"},
            },
        )

    def answer(self, message: Obj) -> None:
        """A tool message with what the event of its call says: the same result, its time, and how long it took.

        Of a call that failed the content is empty, and providers show the model the message of the error in its place.
        """
        call = take_text(message, "tool_call_id")
        event = self._tools.pop(call or "", {})
        for key, repeated in (("event", "tool"), ("id", call), ("type", "function")):
            if event.get(key) == repeated:
                event.pop(key, None)
        made = self.stream.step_of(call)
        if made is not None and obj(event.get("arguments")):
            event.pop("arguments")
        shown = take_content(message)
        result = event.get("result")
        raw = event.pop("result") if isinstance(result, str) else None
        left = {**message, **({"tool": event} if event else {})}
        error = obj(message.get("error")) or obj(event.get("error"))
        shown = take_text(dict(error), "message") if not shown and error else shown
        self.stream.answer(
            call,
            {"rendered": shown if shown is not None else raw, "raw": raw if shown is not None and raw != shown else None,
             "duration_s": take_float(event, "working_time"), "timed_out": True if error.get("type") == "timeout" else None},
            {k: v for k, v in left.items() if v not in (None, [], {})},
            occurred_at=take_time(event, "completed"),
        )  # fmt: skip


def _reasoning(content: Any) -> str | None:
    said = [p["reasoning"] for p in _list(content) if isinstance(p, dict) and isinstance(p.get("reasoning"), str)]
    return "\n".join(said) if said else None


def _call(call: Any) -> Any:
    left = obj(call)
    if "function" not in left:
        return call
    left.pop("type", None)
    return function_call(left.pop("id", None), left.pop("function"), left.pop("arguments", None), **left)


def _usage(output: Obj, event: Obj, choice: Obj) -> Obj:
    """Usage of a call; `tokens_in` is the total without what was written, because providers count the cache differently."""
    counts = take_obj(output, "usage")
    told = dict(counts)
    total, into, out = (take_int(told, k) for k in ("total_tokens", "input_tokens", "output_tokens"))
    cost = take_float(told, "total_cost")
    if counts:
        output["usage"] = counts
    return {
        "call_id": take_text(obj(obj(event.get("call")).get("response")), "id"),
        "tokens_in": total - out if total is not None and out is not None and total >= out else into,
        "tokens_out": out,
        "cache_read": take_int(told, "input_tokens_cache_read"),
        "cache_write": take_int(told, "input_tokens_cache_write"),
        "reasoning": take_int(told, "reasoning_tokens"),
        "cost_usd": cost,
        "price_policy": None if cost is None else "source",
        "latency_s": take_float(output, "time"),
        "finish": take_text(choice, "stop_reason"),
    }


def outcomes(builder: Builder, scores: Obj, seal: Seal) -> None:
    """An outcome a scorer: letters, numbers and booleans as Inspect reads them; anything else is null and in `extra`.

    Of several the first that says resolved or not stands, as the highest `rerun`.
    """
    end = builder.events[-1].event_id
    graded = {name: _graded(obj(told).get("value")) for name, told in scores.items()}
    least = [*graded][::-1]
    least.sort(key=lambda name: graded[name][0] is not None)
    for name, told in scores.items():
        score, (resolved, number) = obj(told), graded[name]
        payload = {"subject": "trajectory", "grader": name, "rule": "reported", "resolved": resolved, "score": number}
        payload |= {"rerun": least.index(name)} if len(scores) > 1 else {}
        kept = seal.strip({k: v for k, v in score.items() if v is not None} if score else {"value": told})
        builder.add("outcome", "grader", payload, policy=name, caused_by=end, extra=kept)


def _graded(value: Any) -> tuple[bool | None, float | None]:
    if isinstance(value, str):
        return _LETTERS.get(value, _LETTERS.get(value.lower(), (None, None)))
    if isinstance(value, bool):
        return value, float(value)
    if isinstance(value, int | float) and 0 <= value <= 1:
        return (bool(value) if value in (0, 1) else None), float(value)
    return None, None
