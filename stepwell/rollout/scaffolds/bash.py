"""One bash block a turn, in mini-swe-agent's manner.

One reply is a THOUGHT and exactly one bash block; anything else is a format error, answered with a fixed message and no
command run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stepwell.rollout.environments import Brief
from stepwell.rollout.scaffolds import Message, Parsed

BLOCK = re.compile(r"```bash[ \t]*\n(.*?)\n?```", re.DOTALL)
FORMAT_ERROR = "FORMAT ERROR: {count} bash blocks, want exactly 1."
PROTOCOL = "Reply with a THOUGHT and one bash block."


class BashScaffold:
    """Commands are written in the text, as one fenced block."""

    name = "stepwell-bash@1"
    tools: Sequence[Mapping[str, Any]] = ()

    def instruct(self, brief: Brief) -> list[Message]:
        """System: job, protocol, commands; user: the task."""
        system = "\n".join(part for part in (brief.job, PROTOCOL, brief.commands) if part)
        return [{"role": "system", "content": system}, {"role": "user", "content": brief.task}]

    def parse(self, text: str, tool_calls: Sequence[Mapping[str, Any]] = ()) -> Parsed:
        """Find the one bash block of a reply."""
        return parse_action(text)

    def answer(self, body: str, tool_calls: Sequence[Mapping[str, Any]] = ()) -> list[Message]:
        """One user message."""
        return [{"role": "user", "content": body}]


def parse_action(text: str) -> Parsed:
    """Find the one bash block of a reply."""
    blocks = [block.strip() for block in BLOCK.findall(text)]
    if len(blocks) != 1 or not blocks[0]:
        return Parsed(None, FORMAT_ERROR.format(count=len([block for block in blocks if block])))
    return Parsed(blocks[0], None)


def format_action(thought: str, *commands: str) -> str:
    """Write a reply; well formed when there is exactly one command."""
    return f"THOUGHT: {thought}" + "".join(f"\n\n```bash\n{command}\n```" for command in commands)
