"""Tool calls: a model calls the function `bash` with one command a turn.

A reply with no call, several calls, another function or arguments that are no JSON object with a `command` is a format
error; every call of it is answered, as chat templates demand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from stepwell.rollout.environments import Brief
from stepwell.rollout.scaffolds import Message, Parsed

BASH: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run one bash command in the working directory; it starts a fresh shell each time.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The command."}},
            "required": ["command"],
        },
    },
}
PROTOCOL = "Think, then call the function bash with one command."


class ToolScaffold:
    """Commands are the arguments of calls of `bash`."""

    name = "stepwell-tools@1"
    tools: Sequence[Mapping[str, Any]] = (BASH,)

    def instruct(self, brief: Brief) -> list[Message]:
        """System: job, protocol, commands; user: the task."""
        system = "\n".join(part for part in (brief.job, PROTOCOL, brief.commands) if part)
        return [{"role": "system", "content": system}, {"role": "user", "content": brief.task}]

    def parse(self, text: str, tool_calls: Sequence[Mapping[str, Any]]) -> Parsed:
        """Find the command of the one call."""
        if len(tool_calls) != 1:
            return Parsed(None, f"FORMAT ERROR: {len(tool_calls)} function calls, want exactly 1.")
        function = tool_calls[0].get("function") or {}
        if function.get("name") != "bash":
            return Parsed(None, f"FORMAT ERROR: no function {function.get('name')!r}; there is only bash.")
        try:
            arguments = orjson.loads(function.get("arguments") or "")
        except orjson.JSONDecodeError as error:
            return Parsed(None, f"FORMAT ERROR: the arguments are no JSON ({error.msg}).")
        command = arguments.get("command") if isinstance(arguments, dict) else None
        if not isinstance(command, str) or not command.strip():
            return Parsed(None, 'FORMAT ERROR: the arguments must be {"command": "..."}.')
        return Parsed(command, None)

    def answer(self, body: str, tool_calls: Sequence[Mapping[str, Any]]) -> list[Message]:
        """One tool message a call, or a user message when there was none."""
        if not tool_calls:
            return [{"role": "user", "content": body}]
        return [{"role": "tool", "tool_call_id": call.get("id"), "content": body} for call in tool_calls]
