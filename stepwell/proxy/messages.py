"""Chat messages as columns and back, exactly; what makes two of them the same; a prompt as spans of an earlier one.

Does not belong here: trajectories (`trajectory`), what a server sends (`replies`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson

from stepwell.chat import Message
from stepwell.ids import canonical, digest, storable_whole

Then = list[Any]
"""A prompt over an earlier conversation: `[from, to]` are messages of it, objects are messages as they are."""


def parse(data: bytes) -> Any:
    """JSON as it can be stored: lone surrogates (which orjson refuses) written out; None when it is no JSON."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return orjson.loads(orjson.dumps(storable_whole(json.loads(data))))
        except (ValueError, TypeError, RecursionError):
            return None


def split(message: Message) -> tuple[str | None, str | None, dict[str, Any]]:
    """A message -> role, text, and what `join` needs besides them; of content in parts the texts are joined."""
    role, content = message.get("role"), message.get("content")
    rest = {k: v for k, v in message.items() if k not in ("role", "content")}
    if not isinstance(role, str):
        rest |= {"role": role} if "role" in message else {}
        role = None
    if not isinstance(content, str):
        rest |= {"content": content} if "content" in message else {}
    return role, text_of(content), rest


def join(role: str | None, text: str | None, rest: dict[str, Any]) -> Message:
    """The message that `split` took apart."""
    said = {} if text is None or "content" in rest else {"content": text}
    return ({} if role is None else {"role": role}) | said | rest


def text_of(content: Any) -> str | None:
    """The text of a message's content: itself, or the texts of its parts; None when it has none."""
    if isinstance(content, str):
        return content
    parts = [p["text"] for p in content if _is_text(p)] if isinstance(content, list) else []
    return "".join(parts) if parts else None


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def reply_message(text: str | None, tool_calls: str | None) -> Message:
    """The assistant message an action stands for, unless a later prompt says otherwise."""
    return {"role": "assistant", "content": text} | ({"tool_calls": orjson.loads(tool_calls)} if tool_calls else {})


def mark(message: Message) -> str:
    """Digest of a message, nulls included."""
    return digest(orjson.dumps(message, option=orjson.OPT_SORT_KEYS).decode())


def echo_key(message: Message) -> str:
    """Equal for a reply and for what a harness sends back of it: text without white space around it, and tool calls."""
    calls = message.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    parts = [p for p in functions if isinstance(p, dict)]
    named = [(str(f.get("name")), _arguments(f.get("arguments"))) for f in parts]
    return digest((text_of(message.get("content")) or "").strip(), named)


def _arguments(value: Any) -> str:
    parsed = parse(value.encode()) if isinstance(value, str) else value
    return str(value) if parsed is None else canonical(parsed).decode()


def spans(base: Sequence[str], marks: Sequence[str], messages: Sequence[Message]) -> Then:
    """Messages over a base of marks: spans where a message stands in it, in any order, and messages where it does not."""
    places: dict[str, int] = {}
    for i, known in enumerate(base):
        places.setdefault(known, i)
    then: Then = []
    for own, message in zip(marks, messages, strict=True):
        span = then[-1] if then and isinstance(then[-1], list) else None
        if span and span[1] < len(base) and base[span[1]] == own:
            span[1] += 1
        else:
            then.append([places[own], places[own] + 1] if own in places else message)
    return then


def unfold(then: Then, base: Sequence[Any], own: Any) -> list[Any]:
    """What `spans` stands for; `own` is called on each message that is no span."""
    found: list[Any] = []
    for item in then:
        if isinstance(item, list):
            found += base[item[0] : item[1]]
        else:
            found.append(own(item))
    return found
