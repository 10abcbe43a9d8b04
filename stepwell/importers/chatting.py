"""Chat messages as the events of a trajectory, for formats that keep a conversation: what every such format does alike.

A message of the assistant is one step, marked demonstrations are not. What stands before the first one are instructions; what
comes after one is what came back for it, whichever role it is labelled with (environment output is often labelled `user`).
A reply without an action is no format error: it may be an answer, and only the harness could tell. A reply that the source
keeps out of the loss (`train` or `mask` false, `weight` 0) gets a mask of weight 0 of the source's own.
Not here: the fields of a row around its messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.importers.messages import Obj, objects, take_calls, take_content, take_text
from stepwell.importers.streams import Stream, command_of, function_call

_LOSS = ("train", "weight", "mask")
"""Fields of a reply that say by false or 0 that it is in no loss: of Stepwell's chat exports, OpenAI's rows, nebius' rows."""
_FENCE = re.compile(r"^```[a-zA-Z_]*[^\S\n]*\n", re.M)


def messages_of(value: Any, where: str) -> list[Obj]:
    """A list of messages, also one that is written as a JSON string. Raises BadInput."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise BadInput("malformed", f"`{where}` is text that is no JSON list: {error.msg}.") from error
    return objects(value, where)


def converse(stream: Stream, messages: Sequence[Obj], policy: str | None, tools: str | None = None) -> None:
    """Write a conversation: every message in its order; `tools` are offered with the first, or alone before a reply."""
    if tools is not None and not messages:
        stream.tell("system", None, {}, tools=tools)
    for i, message in enumerate(messages):
        left = dict(message)
        role = take_text(left, "role") or "user"
        acts = role == "assistant" and left.get("is_demo") is not True
        if tools is not None and i == 0 and acts:
            stream.tell("system", None, {}, tools=tools)
        if acts:
            reply(stream, left, policy)
        else:
            shown(stream, role, left, **({} if tools is None or i else {"tools": tools}))


def reply(stream: Stream, left: Obj, policy: str | None, **more: Any) -> Event:
    """One message of the assistant as the next step; `more` is of the action (`usage`, `occurred_at`)."""
    text, calls = take_content(left), take_calls(left)
    legacy = left.get("function_call")
    if not calls and isinstance(legacy, dict) and isinstance(legacy.get("name"), str):
        calls = [function_call(None, legacy["name"], legacy.get("arguments"))]
        del left["function_call"]
    command = command_of(calls) if calls else written_command(text)
    columns = {
        "thought": take_text(left, "thought"),
        "reasoning": take_text(left, "reasoning_content") or take_text(left, "reasoning"),
        "command": command,
    }
    usage = more.pop("usage", {})
    action = stream.act(
        text,
        calls,
        usage=usage,
        extra={k: v for k, v in left.items() if v is not None},
        policy=policy,
        **columns,
        **more,
    )
    flag = next((k for k in _LOSS if type(left.get(k)) in (bool, int, float) and left[k] == 0), None)
    if flag is not None:
        masked = {"mask_rule": f"source {flag}", "weight": 0.0, "reason": "not in the loss of the source"}
        masked |= {"evidence": [action.event_id]}
        stream.builder.add("mask", "system", masked, step=action.step, caused_by=action.event_id)
    return action


def shown(stream: Stream, role: str, left: Obj, **envelope: Any) -> None:
    """One message to the agent: an answer to a call where it says so, else an instruction or what came back."""
    text, call = take_content(left), take_text(left, "tool_call_id")
    ids = left.get("tool_call_ids")
    if call is None and isinstance(ids, list) and ids and isinstance(ids[0], str):
        call = ids[0]
        if len(ids) == 1:
            del left["tool_call_ids"]
    left = {k: v for k, v in left.items() if v is not None}
    if left.get("is_demo") is True and stream.last is None:
        stream.tell(role, text, {k: v for k, v in left.items() if k != "is_demo"}, **envelope)
        event = stream.builder.events[-1]
        stream.builder.events[-1] = replace(event, payload={**event.payload, "is_demo": True})
    elif call is not None or role == "tool":
        stream.answer(call, {"rendered": text, "role": role}, left, **envelope)
    else:
        stream.tell(role, text, left, actor="environment", **envelope)


def written_command(text: str | None) -> str | None:
    """The command in a reply that has no tool calls: its `<function=...>` blocks, else its last fenced block, else nothing.

    SWE-agent executes the last fenced block, OpenHands and SWE-smith the function blocks.
    """
    if text is None:
        return None
    blocks, at = [], 0
    while (opened := text.find("<function=", at)) >= 0:
        closed = text.find("</function>", opened)
        at = len(text) if closed < 0 else closed + len("</function>")
        blocks.append(_called(text[opened:at]))
    if blocks:
        return "\n".join(blocks)
    fenced, at = None, 0
    while (found := _FENCE.search(text, at)) and (closed := text.find("\n```", found.end() - 1)) >= 0:
        fenced, at = text[found.end() : closed], closed + 4
    return fenced.strip() or None if fenced is not None else None


def _called(block: str) -> str:
    """A function block: the command of a shell function alone, else the block as it is written."""
    name, _, rest = block.removeprefix("<function=").partition(">")
    key = "<parameter=cmd>" if "<parameter=cmd>" in rest else "<parameter=command>"  # R2E-Gym's shell has `cmd`
    head, found, command = rest.partition(key)
    if name.strip() not in ("bash", "execute_bash", "terminal") or not found or head.strip():
        return block
    command, closed, tail = command.partition("</parameter>")
    return command.strip("\n") if closed and tail.removesuffix("</function>").strip() == "" else block
