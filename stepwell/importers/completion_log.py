"""One call of a model as OpenHands logs it (`log_completions`): the prompt as sent, the response, cost and latency.

Kept where: the call is a trajectory of one step. All messages of the prompt are instructions, with the tool schemas; earlier
replies among them were made in other calls and are marked `is_demo`, as no step is theirs here. Text, tool calls, tokens,
reasoning and finish reason of the step are those of `response`; cost is `cost`, `latency_s` is `latency_sec`, sampling what
`kwargs` has beside the tools. `prompt_hash` is the sha256 of the messages as JSON with sorted keys.

In `extra`: the rest of the response and of the log. Not in the format: the outcome, the task, what was executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.chatting import messages_of, reply
from stepwell.importers.messages import (
    Obj,
    inner_message,
    obj,
    pack,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
    take_usage,
)
from stepwell.importers.streams import Stream


class CompletionLog:
    """Reads one logged call as a trajectory of one step."""

    name = "openhands-llm-completion-log"
    versions = ("",)
    unit: Unit = "document"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "yes",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "yes",
        "tool schemas": "yes",
        "token ids": "no",
    }

    def tells(self, record: Obj) -> str:
        """A prompt and its response in one object."""
        told = isinstance(record.get("messages"), list) and isinstance(record.get("response"), dict)
        return (
            "`messages` and the `response` to them"
            if told and isinstance(record["response"].get("choices"), list)
            else ""
        )

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One call -> one trajectory, or one reject when its messages are no messages."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = CompletionLog()


def _read(rest: Obj, source: SourceFile) -> Imported:
    messages = messages_of(rest.pop("messages", None), "messages")
    response = take_obj(rest, "response")
    kwargs = take_obj(rest, "kwargs")
    tools = rest.pop("tools", None)
    if tools is None or kwargs.get("tools") == tools:
        tools = kwargs.pop("tools", tools)
    model = take_text(dict(response), "model") or take_text(dict(rest), "model")
    builder = Builder.of(source, CompletionLog.name, None, "OpenHands")
    builder.start({"model": model, "context_limit": take_int(rest, "context_window")})
    for i, message in enumerate(messages):
        left = dict(message)
        role = take_text(left, "role") or "user"
        builder.instruction(
            i,
            role,
            take_content(left),
            role == "assistant",
            {k: v for k, v in left.items() if v is not None},
            tools=pack_any(tools) if i == 0 else None,
        )
    if not messages and tools is not None:
        builder.instruction(0, "system", None, False, tools=pack_any(tools))
    usage = take_usage(response, rest)
    usage |= {
        "cache_write": usage["cache_write"],
        "latency_s": take_float(rest, "latency_sec"),
        "prompt_hash": hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        "sampling": pack(kwargs),
    }
    occurred_at = take_time(rest, "timestamp") or take_time(response, "created")
    said = inner_message(response, {})
    choices = response.pop("choices", None)
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        choices[0] = {k: v for k, v in choices[0].items() if k != "message"} if said else choices[0]
    said.pop("role", None)
    left = {**said, **({"response": response} if response else {}), **({"choices": choices} if choices else {})}
    reply(Stream(builder), left, model, usage=usage, occurred_at=occurred_at)
    builder.end({}, rest)
    return builder.imported(None)


def pack_any(value: Any) -> str | None:
    """A value as JSON; text as it is."""
    return value if isinstance(value, str | None) else orjson.dumps(value).decode()
