"""What the attributes of a model call's span say: prompt and reply as chat messages, tools offered, usage.

Read are `gen_ai.*` of the OpenTelemetry conventions (messages as JSON in attributes, or as events of the span), the
numbered `gen_ai.prompt.N` and `gen_ai.completion.N` that came before them, and OpenInference (`llm.*`). What is taken
leaves the attributes. Belongs here: conventions. Not here: how spans become events (`spans`).
"""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.ids import sha256
from stepwell.importers.messages import Obj, obj, take_float, take_int, take_obj, take_text
from stepwell.importers.streams import function_call

_GIVEN = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")
_REPEATED = ("input.value", "input.mime_type")
SAID_BY_EVENT = {f"gen_ai.{r}.message": r for r in ("system", "user", "assistant", "tool")}
"""Names of span events that are a message of the prompt -> its role; `gen_ai.choice` is the reply."""


def written(value: Any) -> str | None:
    """Text as it is; any other value as JSON."""
    return value if isinstance(value, str | None) else orjson.dumps(value).decode()


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def numbered(attributes: Obj, prefix: str) -> list[Any]:
    """Remove `prefix.N.a.b` keys from attributes and return them as a list of nested objects."""
    found: Obj = {}
    for key in [k for k in attributes if k.startswith(prefix)]:
        path = key.removeprefix(prefix).split(".")
        if len(path) > 1 and path[0].isdigit() and len(path[0]) < 7:
            at = found
            for part in path[:-1]:
                inner = at.setdefault(part, {})
                if not isinstance(inner, dict):
                    break
                at = inner
            else:
                at[path[-1]] = attributes.pop(key)
    return _listed(found) if found else []


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {k: _listed(v) for k, v in value.items()}
    return [inner[k] for k in sorted(inner, key=int)] if inner and all(k.isdigit() for k in inner) else inner


def messages(left: Obj, events: list[Obj]) -> tuple[list[Obj], list[Obj]]:
    """Prompt and reply of a model call in chat shape, taken out of its attributes."""
    given, said = _from_json(left)
    if not given and not said:
        read, wrote = numbered(left, "llm.input_messages."), numbered(left, "llm.output_messages.")
        given, said = [_open_inference(m) for m in read], [_open_inference(m) for m in wrote]
    if not given and not said:
        read, wrote = numbered(left, "gen_ai.prompt."), numbered(left, "gen_ai.completion.")
        given, said = [plain(m) for m in read], [plain(m) for m in wrote]
    if not given and not said:
        given, said = _from_events(events)
    if given and isinstance(left.get("input.value"), str):
        left["input.value_sha256"] = sha256(left["input.value"])
        for key in _REPEATED:
            left.pop(key, None)
    return given, said


def _from_json(left: Obj) -> tuple[list[Obj], list[Obj]]:
    read, wrote, told = (_parsed(left.get(k)) for k in _GIVEN)
    given = [m for one in read for m in _from_parts(one)] if isinstance(read, list) else []
    said = [m for one in wrote for m in _from_parts(one)] if isinstance(wrote, list) else []
    if isinstance(told, list | str) and told:
        parts = told if isinstance(told, list) else [{"type": "text", "content": told}]
        given = [*_from_parts({"role": "system", "parts": parts}), *given]
    for key, value in zip(_GIVEN, (read, wrote, told), strict=False):
        if isinstance(value, list) or (key == _GIVEN[2] and isinstance(value, str)):
            left.pop(key)
    return given, said


def _from_parts(message: Any) -> list[Obj]:
    """A message of parts -> messages in chat shape: one a tool's response, one for all the rest."""
    left = obj(message)
    if not left:
        return [{"role": "user", "content": written(message)}]
    parts = left.pop("parts", None)
    if not isinstance(parts, list):
        return [plain(left)]
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Obj] = []
    answers: list[Obj] = []
    others: list[Any] = []
    for part in parts:
        rest = obj(part)
        kind, content = rest.get("type"), rest.get("content")
        if kind in ("text", "reasoning", "thinking") and isinstance(content, str):
            (texts if kind == "text" else thoughts).append(content)
            others += [rest] if rest.keys() - {"type", "content"} else []
        elif kind == "tool_call":
            rest.pop("type")
            calls.append(_call(rest))
        elif kind == "tool_call_response":
            rest.pop("type")
            key = next((k for k in ("result", "response", "content") if k in rest), "")
            answers.append(
                {"role": "tool", "tool_call_id": rest.pop("id", None), "content": written(rest.pop(key, None)), **rest}
            )
        else:
            others.append(part)
    whole = {**left, **({"content": "".join(texts)} if texts else {}), **({"tool_calls": calls} if calls else {})}
    whole |= ({"reasoning": "\n".join(thoughts)} if thoughts else {}) | ({"parts": others} if others else {})
    return [*answers, whole] if not answers or whole.keys() - {"role"} else answers


def _open_inference(item: Any) -> Obj:
    """`message.*` keys -> a message in chat shape."""
    left = take_obj(dict(obj(item)), "message") or obj(item)
    contents = [obj(obj(c).get("message_content")) for c in left.get("contents") or [] if isinstance(c, dict)]
    texts = [c["text"] for c in contents if isinstance(c.get("text"), str)]
    if len(texts) == len(contents):
        left.pop("contents", None)
    if not isinstance(left.get("content"), str) and texts:
        left["content"] = "".join(texts)
    calls = left.pop("tool_calls", None)
    if isinstance(calls, list):
        told = [obj(obj(c).get("tool_call")) for c in calls]
        left["tool_calls"] = [
            function_call(t.get("id"), obj(t.get("function")).get("name"), obj(t.get("function")).get("arguments"))
            for t in told
        ]
    return left


def plain(item: Any) -> Obj:
    """A chat message whose calls may be flat or JSON text, and whose content may be no text, as one in chat shape."""
    left = obj(item) or {"role": "user", "content": item}
    if "content" in left and not isinstance(left["content"], str | list | None):
        left["content"] = written(left["content"])
    calls = left.get("tool_calls")
    if isinstance(calls, list):
        calls = [_parsed(c) for c in calls]
        left["tool_calls"] = [_call(c) if isinstance(c, dict) and "function" not in c else c for c in calls]
    return left


def _call(flat: Obj) -> Obj:
    left = dict(flat)
    named = [left.pop(k, None) for k in ("id", "name", "arguments")]
    left = {k: v for k, v in left.items() if k not in ("type", "function") or v != "function"}
    return function_call(*named, **({"rest": left} if left else {}))


def _from_events(events: list[Obj]) -> tuple[list[Obj], list[Obj]]:
    """Messages that a span holds as its events."""
    given: list[Obj] = []
    said: list[Obj] = []
    for event in events:
        told = {k: _parsed(v) if k in ("message", "tool_calls") else v for k, v in obj(event.get("attributes")).items()}
        role = SAID_BY_EVENT.get(str(event.get("name")))
        if role is not None:
            told.setdefault("role", role)
            if role == "tool" and "id" in told:
                told["tool_call_id"] = told.pop("id")
            given.append(plain(told))
        elif event.get("name") == "gen_ai.choice":
            message = told.pop("message", None)
            said.append(
                plain({"role": "assistant", **(message if isinstance(message, dict) else {"content": message}), **told})
            )
    return given, said


def tools(left: Obj) -> Any:
    """Schemas of the tools offered, taken out of the attributes of a call; empty for none."""
    told = _parsed(left.get("gen_ai.tool.definitions"))
    if isinstance(told, list):
        left.pop("gen_ai.tool.definitions")
        return told
    listed = numbered(left, "llm.tools.")
    return [_parsed(obj(obj(t).get("tool")).get("json_schema")) or t for t in listed]


def usage(left: Obj) -> Obj:
    """Usage as columns, without the time: tokens, cost, finish reason and sampling, taken out of the attributes of a call."""
    counts = {
        "tokens_in": ("gen_ai.usage.input_tokens", "llm.token_count.prompt", "gen_ai.usage.prompt_tokens"),
        "tokens_out": ("gen_ai.usage.output_tokens", "llm.token_count.completion", "gen_ai.usage.completion_tokens"),
        "cache_read": ("gen_ai.usage.cache_read.input_tokens", "llm.token_count.prompt_details.cache_read"),
        "cache_write": ("gen_ai.usage.cache_creation.input_tokens", "llm.token_count.prompt_details.cache_write"),
        "reasoning": ("gen_ai.usage.reasoning.output_tokens", "llm.token_count.completion_details.reasoning"),
    }
    told: Obj = {}
    for column, keys in counts.items():
        found = [v for k in keys if (v := take_int(left, k)) is not None]
        told[column] = found[0] if found else None
    costs = [
        c for k in ("llm.cost.total", "gen_ai.usage.cost", "operation.cost") if (c := take_float(left, k)) is not None
    ]
    reasons = left.get("gen_ai.response.finish_reasons")
    asked = {k: v for k, v in left.items() if k.startswith("gen_ai.request.") and k != "gen_ai.request.model"}
    for key in asked:
        left.pop(key)
    sampling = orjson.dumps(asked).decode() if asked else take_text(left, "llm.invocation_parameters")
    return {
        **told,
        "call_id": take_text(left, "gen_ai.response.id"),
        "cost_usd": costs[0] if costs else None,
        "price_policy": "source" if costs else None,
        "finish": reasons[0] if isinstance(reasons, list) and reasons and isinstance(reasons[0], str) else None,
        "sampling": sampling,
    }
