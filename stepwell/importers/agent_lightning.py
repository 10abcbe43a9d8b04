"""Agent-lightning event stores: events of 1.x (`event_type`) and spans of 0.x (`sequence_id`), as lines or a list.

Kept where: an attempt at a rollout is one trajectory. In 1.x every `model_request` that was answered is one step, with the
usage, latency and finish reason of its call, at the time the store gave it; a `reward` is a reward event. In 0.x spans are
read as OTLP spans are, and `agentlightning.reward.N.value` of a span are reward events. The last reward is the outcome: its
score when it is in [0, 1], resolved when it is 1 and not when it is 0. `dialogue` says how prompts are kept; a call's
sampling is its request without messages and tools. `run_id` is the rollout.

In `extra`: the rest of responses (token ids and log probabilities where the server gave them), model version and routing;
failed calls and events of other types are in `extra.records` of the end. Order is the order of the file. Not in the format:
the task beyond what prompts say, what tools did beyond what prompts show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.dialogue import Dialogue, first_message
from stepwell.importers.messages import (
    Obj,
    obj,
    responses_output,
    responses_reasoning,
    take_calls,
    take_content,
    take_float,
    take_obj,
    take_text,
    take_time,
    take_usage,
)
from stepwell.importers.span_messages import numbered, plain
from stepwell.importers.spans import Span, SpanReader

_ABOUT = ("event_type", "rollout_id", "attempt_id")
_ASKED = ("messages", "input", "tools", "model", "instructions")


class AgentLightning:
    """Reads events and spans of agent-lightning; a file has as many trajectories as attempts."""

    name = "agent-lightning"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "rewards",
        "step cost": "no",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "yes",
        "tool schemas": "yes",
        "token ids": "where the server gave them",
    }

    def goes_on(self, record: Obj) -> bool:
        """Whether more records may follow one, and each state of the file would be trajectories of its own."""
        return "rollout_id" in record

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All records of a file -> a trajectory an attempt; a record without a rollout is rejected."""
        groups: dict[tuple[str, str], list[Obj]] = {}
        for place, record in enumerate(data if isinstance(data, list) else [data]):
            if isinstance(record, dict) and isinstance(record.get("rollout_id"), str):
                groups.setdefault((record["rollout_id"], str(record.get("attempt_id"))), []).append(record)
            else:
                yield Rejected("malformed", f"record {place} has no `rollout_id`.")
        for (rollout, attempt), records in groups.items():
            yield _read(rollout, attempt, records, source)


def _read(rollout: str, attempt: str, records: list[Obj], source: SourceFile) -> Imported:
    spans = [r for r in records if "event_type" not in r]
    builder = Builder.of(source, AgentLightning.name, f"{rollout}/{attempt}", "agent-lightning")
    number = int(attempt) if attempt.isdecimal() and len(attempt) < 10 else None
    builder.start(
        {"run_id": rollout, "attempt": number, "model": _model(records)},
        {} if number is not None else {"attempt": attempt},
    )
    reader = SpanReader(builder)
    if spans:
        reader.read([_span(r) for r in spans])
    rewards = [r for s in spans for r in _span_rewards(s)]
    for record in records:
        if "event_type" in record:
            _event(reader, record, rewards)
    builder.end({}, reader.records)
    _grade(builder, rewards, attempt)
    return builder.imported(None)


def _model(records: list[Obj]) -> str | None:
    for record in records:
        told = take_text(obj(record.get("data")), "model")
        attributes = obj(record.get("attributes"))
        told = told or next(
            (a for k in ("gen_ai.request.model", "llm.model_name") if isinstance(a := attributes.get(k), str)), None
        )
        if told:
            return told
    return None


def _event(dialogue: Dialogue, record: Obj, rewards: list[Obj]) -> None:
    """One event of 1.x: a step, a reward, or a record of the end."""
    data = take_obj(record := dict(record), "data")
    kind = record.get("event_type")
    if kind == "reward" and take_float(dict(data), "value") is not None:
        rewards.append({**data, **{k: v for k, v in record.items() if k not in _ABOUT}})
    elif kind != "model_request" or not _call(dialogue, record, data):
        dialogue.stream.records.append({**record, "data": data} if "data" not in record else record)


def _call(dialogue: Dialogue, record: Obj, data: Obj) -> bool:
    """Whether a model request was answered; it is a step then."""
    data, about = dict(data), {k: v for k, v in record.items() if k not in _ABOUT}
    request, response = take_obj(data, "request"), take_obj(data, "response")
    message = first_message(response)
    items = response.get("output")
    if message is None and not isinstance(items, list):
        return False
    given = request.get("messages", request.get("input"))
    given = [{"role": "user", "content": given}] if isinstance(given, str) else given if isinstance(given, list) else []
    if isinstance(request.get("instructions"), str):
        given = [{"role": "system", "content": request["instructions"]}, *given]
    extra = dialogue.show([plain(m) for m in given], request.get("tools"))
    repeated = plain({"role": "assistant", **message}) if message is not None else {}
    left = dict(repeated)
    text, calls = (take_content(left), take_calls(left)) if message is not None else responses_output(items)
    if message is not None:
        left.pop("role")
        response["choices"] = [
            {k: v for k, v in response["choices"][0].items() if k != "message"},
            *response["choices"][1:],
        ]
    if data.get("usage") == response.get("usage"):
        data.pop("usage", None)
    usage = take_usage(response, extra)
    milliseconds = take_float(data, "latency_ms")
    asked = {k: v for k, v in request.items() if k not in _ASKED}
    if usage["finish"] in (None, data.get("finish_reason")):
        usage["finish"] = take_text(data, "finish_reason")
    dialogue.said(
        [repeated] if repeated else [],
        text,
        calls,
        reasoning=take_text(left, "reasoning_content") or take_text(left, "reasoning") or responses_reasoning(items),
        usage={
            **usage,
            "latency_s": None if milliseconds is None else milliseconds / 1000,
            "sampling": orjson.dumps(asked).decode() if asked else None,
        },
        policy=take_text(dict(data), "model") or take_text(dict(request), "model"),
        occurred_at=take_time(about, "timestamp"),
        extra={
            **extra,
            "reply": {k: v for k, v in left.items() if v is not None},
            "response": response,
            "call": data,
            "event": about,
        },
    )
    return True


def _span(record: Obj) -> Span:
    left = dict(record)
    attributes = take_obj(left, "attributes")
    events = left.pop("events") if isinstance(left.get("events"), list) else []
    events = [e if isinstance(e, dict) else {"event": e} for e in events]
    times = (take_float(left, k) for k in ("start_time", "end_time"))
    start, end = (int(t * 1e9) if t is not None and 0 < t < 2**33 else 0 for t in times)
    return Span(
        take_text(left, "name") or "", start, end, attributes, events, {k: v for k, v in left.items() if v is not None}
    )


def _span_rewards(record: Obj) -> list[Obj]:
    """Rewards a span of 0.x holds; the first of several is the primary one."""
    told = numbered(dict(obj(record.get("attributes"))), "agentlightning.reward.")
    found = [{**obj(r), "timestamp": record.get("end_time")} for r in told]
    return [r for r in found if take_float(dict(r), "value") is not None][:1] and found


def _grade(builder: Builder, rewards: list[Obj], attempt: str) -> None:
    """A reward event each, and the outcome of the last one."""
    end = builder.events[-1].event_id
    last: float | None = None
    for place, told in enumerate(rewards):
        left = dict(told)
        value = take_float(left, "value")
        if value is None:
            builder.add(
                "reward", "grader", {"attempt_id": attempt, "rule": "agent-lightning"}, caused_by=end, extra=left
            )
            continue
        last = value
        named = take_text(left, "name") or take_text(left, "source")
        rule = f"agent-lightning {named}" if named else "agent-lightning"
        builder.add(
            "reward",
            "grader",
            {"reward": value, "attempt_id": attempt, "rule": rule},
            policy="agent-lightning",
            caused_by=end,
            occurred_at=take_time(left, "timestamp"),
            extra=left,
            discriminator=str(place),
        )
    if last is not None:
        score = last if 0 <= last <= 1 else None
        resolved = last == 1 if last in (0, 1) else None
        graded = {
            "subject": "trajectory",
            "grader": "agent-lightning",
            "rule": "reported",
            "resolved": resolved,
            "score": score,
        }
        builder.add("outcome", "grader", graded, policy="agent-lightning", caused_by=end)


IMPORTER = AgentLightning()
