"""What an OpenAI-shaped server sends: completions, streams of chunks put together again, usage as columns.

Does not belong here: whose call it was and what came before it (`trajectory`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from stepwell.proxy.messages import parse

_WHOLE = {"role", "id", "type", "name", "finish_reason", "object", "model", "created", "index"}
DONE = b"[DONE]"


class Events:
    """Splits a stream of server-sent events, however it is cut, into whole events with their data."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """More bytes -> (bytes of the event, its data) for each event that is complete."""
        self.rest += data
        while True:
            ends = [(i + len(s), s) for s in (b"\n\n", b"\r\n\r\n", b"\r\r") if (i := self.rest.find(s)) >= 0]
            if not ends:
                return
            cut = min(ends)[0]
            event, self.rest = self.rest[:cut], self.rest[cut:]
            yield event, data_of(event)


def data_of(event: bytes) -> bytes:
    """The data lines of one event."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


class Assembly:
    """A completion put together from its chunks; `error` is what the server said instead."""

    def __init__(self) -> None:
        self.whole: dict[str, Any] = {}
        self.error: Any = None
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Any) -> bool:
        """Take in one chunk; True when it carries nothing but usage."""
        if not isinstance(chunk, dict):
            return False
        if chunk.get("error"):
            self.error = chunk["error"]
        choices = chunk.get("choices")
        choices = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
        self.whole |= {k: v for k, v in chunk.items() if k != "choices" and v is not None}
        for choice in choices:
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            _merge(self._choices.setdefault(index, {"index": index}), choice)
        return not choices and isinstance(chunk.get("usage"), dict)

    def completion(self) -> dict[str, Any]:
        """What has come so far, as one completion."""
        choices = []
        for _, merged in sorted(self._choices.items()):
            choice = dict(merged)
            delta = choice.pop("delta", None)
            if isinstance(delta, dict):
                choice["message"] = {"role": "assistant", "content": None} | delta
            choices.append(choice)
        return self.whole | {"choices": choices}

    @property
    def empty(self) -> bool:
        """Whether nothing was said yet."""
        return all(not any(v for k, v in m.items() if k != "role") for m in said(self.completion()))


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        known = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif known is None or key in _WHOLE:
            into[key] = _fresh(value)
        elif isinstance(known, str) and isinstance(value, str):
            into[key] = known + value
        elif isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            _extend(known, value)
        else:
            into[key] = value


def _fresh(value: Any) -> Any:
    """A copy that may be added to; pieces of a list that are numbered are put in their places."""
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        _merge(made, value)
        return made
    if isinstance(value, list):
        items: list[Any] = []
        _extend(items, value)
        return items
    return value


def _extend(known: list[Any], more: list[Any]) -> None:
    for item in more:
        same = [k for k in known if isinstance(k, dict) and isinstance(item, dict) and "index" in item
                and k.get("index") == item["index"]]  # fmt: skip
        if same:
            _merge(same[0], item)
        else:
            known.append(_fresh(item))


def said(completion: Any) -> list[dict[str, Any]]:
    """The assistant messages of a completion, chat or text; none when it is no completion."""
    choices = completion.get("choices") if isinstance(completion, dict) else None
    found = []
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and isinstance(choice.get("message"), dict):
            message = dict(choice["message"])
            if isinstance(message.get("tool_calls"), list):  # numbers of a stream's pieces
                message["tool_calls"] = [_unnumbered(c) for c in message["tool_calls"]]
            found.append(message)
        elif isinstance(choice, dict) and isinstance(choice.get("text"), str):
            found.append({"role": "assistant", "content": choice["text"]})
    return found


def _unnumbered(call: Any) -> Any:
    return {k: v for k, v in call.items() if k != "index"} if isinstance(call, dict) else call


def usage_of(completion: dict[str, Any]) -> dict[str, Any]:
    """Columns of `usage` that a completion states."""
    counts = _object(completion.get("usage"))
    first = (completion.get("choices") or [{}])[0]
    call_id, finish, cost = completion.get("id"), first.get("finish_reason"), counts.get("cost")
    priced = isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost)
    return {
        "call_id": call_id if isinstance(call_id, str) else None,
        "tokens_in": _count(counts.get("prompt_tokens")),
        "tokens_out": _count(counts.get("completion_tokens")),
        "cache_read": _count(_object(counts.get("prompt_tokens_details")).get("cached_tokens")),
        "reasoning": _count(_object(counts.get("completion_tokens_details")).get("reasoning_tokens")),
        "cost_usd": float(cost) if priced and cost is not None else None,
        "price_policy": "source" if priced else None,
        "finish": finish if isinstance(finish, str) else None,
    }


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def completion_of(body: bytes) -> dict[str, Any] | None:
    """A whole reply as a completion; None when it is none."""
    found = parse(body)
    return found if isinstance(found, dict) and said(found) else None
