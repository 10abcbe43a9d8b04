"""Fields out of messages and provider responses, typed: what is taken leaves the object, what does not fit stays in it.

What is left at the end is what has no column; an importer puts it into `extra`, so that nothing is dropped by forgetting it.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import orjson

from stepwell.errors import BadInput

Obj = dict[str, Any]
_EXACT = re.compile(r"[^.]*T[^.]*(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)")


def pack(extra: Obj | None) -> str | None:
    """Fields without a column as a JSON string; null when there are none."""
    return orjson.dumps(extra).decode() if extra else None


def objects(value: Any, where: str) -> list[Obj]:
    """A list of objects, or BadInput naming the first item that is none."""
    if not isinstance(value, list):
        raise BadInput("malformed", f"`{where}` is {_kind(value)}, must be a list of objects.")
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise BadInput("malformed", f"`{where}[{i}]` is {_kind(item)}, must be an object.")
    return value


def obj(value: Any) -> Obj:
    """A shallow copy of an object; anything else is an empty one."""
    return dict(value) if isinstance(value, dict) else {}


def _kind(value: Any) -> str:
    names = {"NoneType": "null", "str": "a string", "list": "a list", "dict": "an object", "bool": "a boolean"}
    return names.get(type(value).__name__, "a number")


def take_text(rest: Obj, key: str) -> str | None:
    """Remove and return a string; another type stays where it is and counts as absent."""
    value = rest.get(key)
    if not isinstance(value, str):
        return None
    del rest[key]
    return value


def take_obj(rest: Obj, key: str) -> Obj:
    """Remove an object and return a copy of it; another type stays where it is and counts as empty."""
    value = rest.get(key)
    if not isinstance(value, dict):
        return {}
    del rest[key]
    return dict(value)


def take_int(rest: Obj, key: str, bits: int = 64) -> int | None:
    """Remove and return an integer that fits; anything else stays where it is and counts as absent."""
    value = rest.get(key)
    if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits - 1:
        return None
    del rest[key]
    return value


def take_float(rest: Obj, key: str) -> float | None:
    """Remove and return a finite number; anything else stays where it is and counts as absent."""
    value = rest.get(key, math.nan)
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    del rest[key]
    return float(value)


def take_time(rest: Obj, key: str) -> datetime | None:
    """Remove and return Unix seconds or ISO 8601 text as UTC; anything else, and what no calendar has, stays where it is.

    Text without a zone counts as UTC, and stays as well, as does what is finer than microseconds: both are not exact.
    """
    value = rest.get(key)
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
            exact = _EXACT.fullmatch(value) is not None
            zone = parsed.tzinfo
            told = parsed if zone is UTC else parsed.astimezone(UTC) if zone else parsed.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
        if not 1 < told.year < 9999:
            return None
        if exact:
            del rest[key]
        return told
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**33:
        return None
    del rest[key]
    return datetime.fromtimestamp(value, UTC)


def take_content(rest: Obj, key: str = "content") -> str | None:
    """Remove a message's content and return its text.

    A string is itself. Of a list of parts the texts are joined; the parts stay in `rest`, without the text when it is
    the only one. Null, and anything else, stays and counts as absent.
    """
    content = rest.get(key)
    if isinstance(content, str):
        del rest[key]
        return content
    if not isinstance(content, list):
        return None
    parts = [p for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
    if len(parts) == 1 == len(content):
        rest[key] = [{k: v for k, v in parts[0].items() if k != "text"}]
    return "".join(p["text"] for p in parts) if parts else None


def take_usage(response: Obj, extra: Obj) -> Obj:
    """Tokens, cost, call and finish reason of a chat or Responses API response, as the source states them.

    `extra.cost` (the harness) wins over `usage.cost` (the provider). Counts without a column are left in `extra.usage`.
    """
    counts = take_obj(response, "usage")
    read = take_obj(counts, "prompt_tokens_details") or take_obj(counts, "input_tokens_details")
    made = take_obj(counts, "completion_tokens_details") or take_obj(counts, "output_tokens_details")
    cost = take_float(extra, "cost")
    cost = take_float(counts, "cost") if cost is None else cost
    usage = {
        "call_id": take_text(response, "id"),
        "tokens_in": _first_int(counts, "prompt_tokens", "input_tokens"),
        "tokens_out": _first_int(counts, "completion_tokens", "output_tokens"),
        "cache_read": _first_int(read, "cached_tokens"),
        "cache_write": _first_int(counts, "cache_creation_input_tokens"),
        "reasoning": _first_int(made, "reasoning_tokens"),
        "cost_usd": cost,
        "price_policy": None if cost is None else "source",
        "finish": _finish(response),
    }
    left = {**counts, **({"details_in": read} if read else {}), **({"details_out": made} if made else {})}
    if left:
        extra["usage"] = left
    return usage


def _first_int(counts: Obj, *keys: str) -> int | None:
    found = [v for v in (take_int(counts, k) for k in keys) if v is not None]
    return found[0] if found else None


def _finish(response: Obj) -> str | None:
    choices = response.get("choices")
    if not isinstance(choices, list):
        return take_text(response, "status")
    return take_text(choices[0], "finish_reason") if choices and isinstance(choices[0], dict) else None


def inner_message(response: Obj, reply: Obj) -> Obj:
    """The message of the first choice without what `reply` repeats, put back into `response` so that taking empties it."""
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return {}
    inner = {k: v for k, v in obj(choices[0].get("message")).items() if k not in reply or reply[k] != v}
    same = choices[0] if not isinstance(choices[0].get("message"), dict) else {**choices[0], "message": inner}
    response["choices"] = [dict(same), *choices[1:]]
    return inner


def take_calls(left: Obj) -> list[Any]:
    """Remove the tool calls of a chat message; arguments become JSON strings where the source has objects."""
    return [_text_arguments(c) for c in left.pop("tool_calls")] if isinstance(left.get("tool_calls"), list) else []


def is_call(value: Any) -> bool:
    """Whether a value is a tool call in chat shape: a function with a name, its arguments as text or absent."""
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return False
    written = function.get("arguments")
    return written is None or isinstance(written, str)


def _text_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str | None):
        return call
    return {**call, "function": {**function, "arguments": orjson.dumps(function["arguments"]).decode()}}


def responses_output(output: Any) -> tuple[str | None, list[Any]]:
    """Items of the Responses API -> text and calls in chat shape; the items themselves stay where they are."""
    items = [i for i in output if isinstance(i, dict)] if isinstance(output, list) else []
    texts = [take_content(dict(i)) for i in items if i.get("type") == "message"]
    calls: list[Any] = []
    for item in items:
        if item.get("type") == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls.append({"id": item.get("call_id") or item.get("id"), "type": "function", "function": function})
    said = [t for t in texts if t is not None]
    return ("".join(said) if said else None), [_text_arguments(c) for c in calls]


def responses_reasoning(output: Any) -> str | None:
    """What the reasoning items of the Responses API say, summaries first; the items themselves stay where they are."""
    items = (
        [i for i in output if isinstance(i, dict) and i.get("type") == "reasoning"] if isinstance(output, list) else []
    )
    said = [t for i in items for key in ("summary", "content") if (t := take_content(dict(i), key))]
    return "\n\n".join(said) or None
