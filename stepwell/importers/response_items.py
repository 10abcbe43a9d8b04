"""Items of the Responses API as turns: what the agent said and did, and what came back before it went on.

Belongs here: which items are one reply, the text, calls and thoughts in them, and exit codes in what comes back.
Not here: events. Chat messages are in `messages`, commands of calls in `streams`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.importers.messages import Obj, obj, take_content, take_int


@dataclass
class Turn:
    """Items of one reply, and what came back for it."""

    reply: list[Obj] = field(default_factory=list)
    answers: list[Obj] = field(default_factory=list)
    closed: bool = False


def turns(items: list[Any]) -> tuple[list[Obj], list[Turn], list[Any]]:
    """Items -> messages before the first reply, the turns, and what is no item."""
    before: list[Obj] = []
    found: list[Turn] = []
    odd: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            odd.append(item)
        elif str(item.get("type")).endswith("_output") or item.get("role", "assistant") != "assistant":
            (found[-1].answers if found else before).append(item)
        else:
            if not found or found[-1].answers or found[-1].closed:
                found.append(Turn())
            found[-1].reply.append(item)
            found[-1].closed = bool(item.get("generation_token_ids"))
    return before, found, odd


def rest_of_item(item: Obj, thoughts: list[str]) -> Obj:
    """What is left of an item of a reply without what the action holds; texts of reasoning are added to `thoughts`."""
    kind = item.get("type")
    if kind == "function_call":
        call = item.pop("call_id", None) or item.get("id")
        if item.get("id") == call:
            item.pop("id", None)
        item.pop("name", None), item.pop("arguments", None)
    elif kind == "message":
        take_content(item)
    elif kind == "reasoning":
        thoughts += [t for t in (take_content(item, "summary"), take_content(item)) if t]
    return lean(item)


def lean(item: Obj) -> Obj:
    """Without the nulls and empty lists that a data class writes for what it does not have."""
    return {k: v for k, v in item.items() if v is not None and v != []}


def exit_code(raw: str | None) -> int | None:
    """The exit code an output states, where it is JSON that has one."""
    if not raw or raw[0] != "{" or ('"exit_code"' not in raw and '"returncode"' not in raw):
        return None
    try:
        told = obj(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return None
    found = take_int(told, "exit_code", 32)
    return take_int(told, "returncode", 32) if found is None else found
