"""OpenHands SDK conversations (`openhands-sdk` 1.x): a stream of events told apart by `kind`, as lines, a list or `items`.

Files of a folder named `event-NUMBER-ID.json` with an event each are one conversation in the order of their numbers: the
same trajectory as those events in one file. Of `base_state.json` beside them nothing is read.

Kept where: `SystemPromptEvent` and messages before the first action are instructions (with the tool schemas offered), later
messages of others are observations by a human. Every `ActionEvent` is one step, as is every message of the agent; actions
of one model response share `usage.call_id`. Its `critic_result` is a verdict of a critic: `confidence` is the score
(predicted probability of success), `guidance` the message, `raw` the whole result; no label and no judgment follow from a
score. Results, rejections and errors are observations of the action they name. `ConversationStateUpdateEvent` with key
`stats` holds running totals: the last ones are the totals of the end. An id or error that names no known action is an
observation of the last step.

In `extra`: what else an event holds (ids, risk, summary, the rest of its action), and in `extra.records` of the end, in
their order, all events that are no step's: state updates, condensations, pauses, hooks. Other kinds are kept there too. Not
in the format: outcome, cost and tokens per step, hidden tests. Times have no zone; token ids are in `TokenEvent` records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import (
    Obj,
    obj,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
)
from stepwell.importers.streams import Stream, function_call

_ANSWERS = ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent")


class OpenHandsSdk:
    """Reads the events of one conversation; a file, or the event files of a folder, is one trajectory."""

    name = "openhands-sdk-events"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "without a zone",
        "exact prompts": "no",
        "tool schemas": "yes",
        "token ids": "in `extra`",
    }

    def tells(self, o: Obj) -> str:
        """Why an object is such an event: a `kind` of this format with an id (some writers leave `source` out)."""
        kind = o.get("kind")
        told = isinstance(kind, str) and kind.endswith(("Event", "Observation")) and "id" in o and "timestamp" in o
        return f"`kind` {kind[:40]}, `id`, `timestamp`" if told and isinstance(kind, str) else ""

    def goes_on(self, record: Obj) -> bool:
        """Whether a document is one event of many: more may follow, and each state would be a trajectory."""
        return "kind" in record

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All events of a file -> one trajectory."""
        records = data if isinstance(data, list) else [data]
        for one in records:
            if isinstance(one, dict) and isinstance(one.get("items"), list) and "kind" not in one:
                records = one["items"]
                break
        if not any(isinstance(r, dict) and isinstance(r.get("kind"), str) for r in records):
            yield Rejected("malformed", "no event with a `kind`; a conversation has at least one.")
            return
        yield _read(records, source)


def _read(records: list[Any], source: SourceFile) -> Imported:
    builder = Builder.of(source, OpenHandsSdk.name, None, "OpenHands SDK")
    stream = Stream(builder)
    stats = _stats(records)
    model = next((m for m in map(_model, stats.values()) if m), None)
    builder.start({"model": model})
    actions: dict[str, Event] = {}
    for record in records:
        event = obj(record)
        kind = event.get("kind")
        if kind == "ActionEvent":
            _act(stream, actions, event, model)
        elif kind in _ANSWERS:
            _answer(stream, actions, event)
        elif kind == "MessageEvent" and isinstance(event.get("llm_message"), dict):
            _message(stream, actions, event, model)
        elif kind == "SystemPromptEvent" and isinstance(event.get("system_prompt"), dict):
            _system(stream, event)
        elif record is not None:
            stream.records.append(record)
    _end(builder, stream, stats)
    return builder.imported(None)


def _stats(records: list[Any]) -> Obj:
    """Running totals per use of a model, as last stated."""
    for record in reversed(records):
        event = obj(record)
        value = obj(event.get("value"))
        told = value if event.get("key") == "stats" else obj(value.get("stats"))
        if told.get("usage_to_metrics"):
            return obj(told["usage_to_metrics"])
    return {}


def _model(metrics: Any) -> str | None:
    return take_text(obj(metrics), "model_name")


def _act(stream: Stream, actions: dict[str, Event], event: Obj, model: str | None) -> None:
    event.pop("kind")
    told = obj(event.get("tool_call"))
    call_id = take_text(event, "tool_call_id") or take_text(dict(told), "id") or take_text(dict(event), "id")
    name = take_text(event, "tool_name") or take_text(dict(told), "name")
    inner = take_obj(event, "action")
    arguments = told.pop("arguments", None)
    call = function_call(call_id, name, arguments if arguments is not None else inner or None)
    if told:
        event["tool_call"] = {k: v for k, v in told.items() if v not in (call_id, name)}
    command = take_text(inner, "command") if inner.get("kind") in ("TerminalAction", "ExecuteBashAction") else None
    if arguments is not None:
        inner = _unsaid(inner, arguments)
    text = take_content(event, "thought")
    usage = {"call_id": take_text(event, "llm_response_id")}
    critic = event.pop("critic_result", None)
    executed = inner or command is not None or "action" not in event
    action = stream.act(
        text,
        [call],
        command=command,
        reasoning=take_text(event, "reasoning_content") or _reasoned(event),
        parse_error=None if executed else "the call was not executable",
        usage=usage,
        policy=model,
        occurred_at=take_time(event, "timestamp"),
        extra={**_kept(event), **({"action": inner} if inner else {})},
    )
    _remember(stream, actions, event, action, critic)


def _reasoned(told: Obj) -> str | None:
    """Reasoning that stands in the provider's own shape alone: blocks of thinking, or an item of the Responses API."""
    blocks, item = told.get("thinking_blocks"), obj(told.get("responses_reasoning_item"))
    said = [obj(b).get("thinking") for b in blocks] if isinstance(blocks, list) else []
    said += [t for key in ("summary", "content") if isinstance(parts := item.get(key), list) for t in parts]
    return "\n\n".join(t for t in said if isinstance(t, str) and t) or None


def _unsaid(inner: Obj, arguments: Any) -> Obj:
    """Fields of the executed action that its call does not say."""
    try:
        said = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        said = None
    return {k: v for k, v in inner.items() if obj(said).get(k) != v or k not in obj(said)}


def _kept(event: Obj) -> Obj:
    return {k: v for k, v in event.items() if v not in (None, [], {})}


def _remember(stream: Stream, actions: dict[str, Event], event: Obj, action: Event, critic: Any) -> None:
    """Note an action under its id, and the verdict on it."""
    if isinstance(event.get("id"), str):
        actions[event["id"]] = action
    if critic is None:
        return
    result = obj(critic)
    told = take_float(result, "score")
    score = told if told is not None and 0 <= told <= 1 else None
    stream.builder.add(
        "verdict",
        "critic",
        {
            "scope": "step",
            "confidence": score,
            "guidance": take_text(result, "message"),
            "parse_status": "unparseable" if score is None else "ok",
            "raw": orjson.dumps(critic).decode(),
        },
        step=action.step,
        policy="openhands-critic",
        caused_by=action.event_id,
        extra={"metadata": result["metadata"]} if result.get("metadata") else None,
    )


def _answer(stream: Stream, actions: dict[str, Event], event: Obj) -> None:
    if event["kind"] == "ObservationEvent":
        event.pop("kind")
    observation = take_obj(event, "observation")
    metadata = obj(observation.get("metadata"))
    text = take_content(observation) if "content" in observation else None
    text = text if text is not None else take_text(event, "error") or take_text(event, "rejection_reason")
    codes = (take_int(dict(told), "exit_code", 32) for told in (observation, metadata))
    code = next((c for c in codes if c not in (None, -1)), None)
    call = take_text(event, "tool_call_id")
    about = actions.get(str(event.get("action_id")))
    if about is not None and stream.step_of(call) is None and call is None:
        call = _only_call(about)
    timed_out = observation.get("timeout")
    stream.answer(
        call,
        {
            "rendered": text,
            "exit_code": code,
            "timed_out": timed_out if isinstance(timed_out, bool) else None,
        },
        {**_kept(event), **({"observation": _kept(observation)} if _kept(observation) else {})},
        occurred_at=take_time(event, "timestamp"),
    )


def _only_call(action: Event) -> str | None:
    calls = orjson.loads(action.payload.get("tool_calls") or "[]")
    return calls[0]["id"] if calls else None


def _message(stream: Stream, actions: dict[str, Event], event: Obj, model: str | None) -> None:
    event.pop("kind")
    message = take_obj(event, "llm_message")
    role = take_text(message, "role") or "user"
    text = take_content(message)
    occurred_at = take_time(event, "timestamp")
    reasoning = take_text(message, "reasoning_content")
    if event.get("source") != "agent" and role != "assistant":
        extra = {**_kept(event), **_kept(message), **({"reasoning_content": reasoning} if reasoning else {})}
        stream.tell(role, text, extra, occurred_at=occurred_at)
        return
    critic = event.pop("critic_result", None)
    usage = {"call_id": take_text(event, "llm_response_id")}
    message |= {} if role == "assistant" else {"role": role}
    extra = {**_kept(event), **({"llm_message": _kept(message)} if _kept(message) else {})}
    action = stream.act(
        text, [], usage=usage, extra=extra, reasoning=reasoning or _reasoned(message), policy=model, occurred_at=occurred_at
    )  # fmt: skip
    _remember(stream, actions, event, action, critic)


def _system(stream: Stream, event: Obj) -> None:
    event.pop("kind")
    prompt, tools = take_obj(event, "system_prompt"), event.pop("tools", None)
    text = take_text(prompt, "text")
    stream.tell(
        "system",
        text,
        {**_kept(event), **({"system_prompt": _kept(prompt)} if _kept(prompt) else {})},
        actor="system",
        tools=orjson.dumps(tools).decode() if tools else None,
        occurred_at=take_time(event, "timestamp"),
    )


def _end(builder: Builder, stream: Stream, stats: Obj) -> None:
    used = [obj(obj(m).get("accumulated_token_usage")) for m in stats.values()]
    builder.end(
        {
            "tokens_in": _total(take_int(u, "prompt_tokens") for u in used),
            "tokens_out": _total(take_int(u, "completion_tokens") for u in used),
            "cost_usd": _total(take_float(obj(m), "accumulated_cost") for m in stats.values()),
        },
        {"records": stream.records} if stream.records else {},
    )


def _total(values: Iterator[Any]) -> Any:
    known = [v for v in values if v is not None]
    return sum(known) if known else None


IMPORTER = OpenHandsSdk()
