"""OTLP JSON traces of model calls: `resourceSpans`, one document or a line a batch.

Kept where: spans of one conversation (`gen_ai.conversation.id` or `session.id`, else the trace) are one trajectory, in the
order they started; of spans with the same `traceId` and `spanId` (exporters send again) the last one is read. A span of a
model call is one step, with usage and latency; messages of prompts are instructions before the first step and observations
after it, each once: `dialogue` says how prompts are kept. Spans of tools give results, their raw text and their time. An
evaluation event is an outcome; of several the last that says pass or fail stands, as the highest `rerun`. Prompts without
content (it is opt-in) leave a step with what the span says. Conventions read are those of `span_messages`.

In `extra`: all other attributes; spans that are neither (agents, chains, HTTP) are in `extra.records` of the end, resource
and scope in `extra` of the start. Not kept: OpenInference's `input.value` of a model call repeats its prompt; its sha256 is
kept. Not in the format: cost (no convention, though some write one), token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_text
from stepwell.importers.spans import Span, SpanReader, outcomes

_EMPTY = {"scope", "schemaUrl"}
"""What may stand around no spans without being missed."""
_TIMES = ("startTimeUnixNano", "endTimeUnixNano")
_KINDS = ("stringValue", "intValue", "doubleValue", "boolValue", "arrayValue", "kvlistValue", "bytesValue")
_CONVERSATION = ("gen_ai.conversation.id", "session.id")


class Otlp:
    """Reads OTLP JSON; a file has as many trajectories as conversations."""

    name = "otlp-genai"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "evaluation events",
        "step cost": "where the instrumentation said",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "where content was recorded",
        "tool schemas": "where content was recorded",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All batches of a file -> a trajectory a conversation; a trace without a span about models is rejected."""
        groups: dict[str, list[tuple[Span, Obj]]] = {}
        odd: list[Any] = []
        for conversation, span, place in _placed(data if isinstance(data, list) else [data], odd):
            groups.setdefault(conversation, []).append((span, place))
        if odd or not groups:
            detail = f"{len(odd)} items are not as OTLP writes them, first {orjson.dumps(odd[:1]).decode()[:80]}"
            yield Rejected("malformed", detail if odd else "no span in `resourceSpans`.", raw=orjson.dumps(odd))
        for conversation, held in groups.items():
            if any(s.about_models for s, _ in held):
                yield _read(conversation, held, source)
            else:
                detail = f"trace {conversation[:40]!r} has no span about models; it has {len(held)} others."
                yield Rejected("malformed", detail)


def trajectories_of(batches: list[Any]) -> list[str]:
    """The trajectory of every span of received batches, which are read together, in the order in which they stand there."""
    source = SourceFile("", "", "", "", "", "")
    names = [conversation for conversation, _, _ in _placed(batches, [])]
    ids = {name: _growing(source, name, 0, "").trajectory_id for name in set(names)}
    return [ids[name] for name in names]


def _placed(batches: list[Any], odd: list[Any]) -> Iterator[tuple[str, Span, Obj]]:
    """Every span with its conversation, else its trace, and what stands around it."""
    spans = [s for batch in batches for s in _spans(batch, odd)]
    named = _conversations(spans)
    for span, place in spans:
        own = _conversation(span)
        trace = str(span.rest.get("traceId"))
        told = named.get(trace, set())
        yield own or (next(iter(told)) if len(told) == 1 else trace), span, place


def _growing(source: SourceFile, conversation: str, n_records: int, agent: str) -> Builder:
    """Of spans that are received, not read from a file: the conversation grows, also by one that is sent again."""
    return Builder.of_session(source, Otlp.name, conversation, "", n_records, agent)


def _spans(batch: Any, odd: list[Any]) -> Iterator[tuple[Span, Obj]]:
    """Every span of a batch with what stands around it; what is no object where one must be is added to `odd`."""
    for resource, around in _inside(batch, "resourceSpans", odd):
        about = obj(resource.get("resource"))
        attributes = _attributes(about.pop("attributes", None))
        named = about or not isinstance(resource.get("resource"), dict | None)
        kept = {**around, "resource": attributes, **({"resource_rest": about or resource["resource"]} if named else {})}
        for scope, outer in _inside(resource, "scopeSpans", odd, "resource"):
            for span, inner in _inside(scope, "spans", odd):
                yield _span(span), {**kept, **outer, **inner}


def _inside(item: Any, key: str, odd: list[Any], *taken: str) -> list[tuple[Obj, Obj]]:
    """The objects in a list of an object, each with the object's other fields; anything else is added to `odd`."""
    if not isinstance(item, dict) or not isinstance(item.get(key), list):
        odd.append(item)
        return []
    around = {k: v for k, v in item.items() if k != key and k not in taken}
    inside = [i for i in item[key] if isinstance(i, dict)]
    odd += [i for i in item[key] if not isinstance(i, dict)] if inside or not around.keys() - _EMPTY else [item]
    return [(i, around) for i in inside]


def _span(told: Obj) -> Span:
    left = dict(told)
    attributes = _attributes(left.pop("attributes", None))
    events = left.pop("events") if isinstance(left.get("events"), list) else []
    events = [
        {**e, "attributes": _attributes(e.get("attributes"))} if isinstance(e, dict) else {"event": e} for e in events
    ]
    start, end = (_nanoseconds(left.get(k)) for k in _TIMES)
    left = {k: v for k, v in left.items() if k not in _TIMES or not _nanoseconds(v)}
    return Span(take_text(left, "name") or "", start, end, attributes, events, left)


def _nanoseconds(value: Any) -> int:
    """Times are decimal text in OTLP JSON; some write numbers. 0 is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else 0


def _attributes(pairs: Any) -> Obj:
    """Key-value pairs as an object; what is no pair, or says a key again, is kept under its place."""
    found: Obj = {}
    for place, pair in enumerate(pairs if isinstance(pairs, list) else [] if pairs is None else [pairs]):
        key = pair.get("key") if isinstance(pair, dict) and pair.keys() <= {"key", "value"} else None
        if isinstance(key, str) and key not in found:
            found[key] = _value(pair.get("value"))
        else:
            found[f"#{place}"] = pair
    return found


def _value(told: Any) -> Any:
    """One AnyValue as a plain value; 64-bit integers are text in JSON."""
    if not isinstance(told, dict) or len(told) != 1:
        return told or None
    ((kind, value),) = told.items()
    if kind not in _KINDS:
        return told
    if kind == "intValue" and isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
        return int(value)
    if kind == "arrayValue":
        values = obj(value).get("values")
        return [_value(v) for v in values] if isinstance(values, list) and len(value) == 1 else value
    if kind == "kvlistValue":
        values = obj(value).get("values")
        return _attributes(values) if isinstance(values, list) and len(value) == 1 else value
    return value


def _conversation(span: Span) -> str | None:
    told = (span.attributes.get(k) for k in _CONVERSATION)
    return next((t for t in told if isinstance(t, str) and t), None)


def _conversations(spans: list[tuple[Span, Obj]]) -> dict[str, set[str]]:
    """The conversations that each trace names."""
    named: dict[str, set[str]] = {}
    for span, _ in spans:
        told = _conversation(span)
        if told:
            named.setdefault(str(span.rest.get("traceId")), set()).add(told)
    return named


def _once(held: list[tuple[Span, Obj]]) -> list[tuple[Span, Obj]]:
    """Of spans with the same ids the last one; one without both is like no other."""
    kept: dict[object, tuple[Span, Obj]] = {}
    for place, (span, around) in enumerate(held):
        ids = (span.rest.get("traceId"), span.rest.get("spanId"))
        kept[ids if all(isinstance(i, str) and i for i in ids) else place] = (span, around)
    return list(kept.values())


def _read(conversation: str, received: list[tuple[Span, Obj]], source: SourceFile) -> Imported:
    held = _once(received)
    spans = [s for s, _ in held]
    about = next((p for s, p in held if s.about_models), {})
    scope = obj(about.get("scope"))
    agent = " ".join(str(scope[k]) for k in ("name", "version") if scope.get(k)) or "unknown"
    attributes = [s.attributes for s in sorted(spans, key=lambda s: s.start)]
    if source.identity:
        builder = Builder.of(source, Otlp.name, conversation, agent)
    else:
        builder = _growing(source, conversation, len(received), agent)
    builder.start(
        {
            "model": _first(attributes, "gen_ai.request.model", "gen_ai.response.model", "llm.model_name"),
            "scaffold": _first(attributes, "gen_ai.agent.name", "agent.name"),
            "run_id": conversation,
        },
        {"places": list({id(p): p for _, p in held}.values())},
    )
    reader = SpanReader(builder)
    reader.read(spans)
    builder.end({}, reader.records)
    outcomes(builder, reader.graded)
    return builder.imported(None)


def _first(attributes: list[Obj], *keys: str) -> str | None:
    return next((a[k] for k in keys for a in attributes if isinstance(a.get(k), str)), None)


IMPORTER = Otlp()
