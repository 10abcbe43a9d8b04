"""The scaffold, in mini-swe-agent's manner: text to command, result to text.

One reply is a THOUGHT and exactly one bash block; anything else is a format error, answered with a fixed message and no
command run. What does not belong here: running commands (`environment.py`) and choosing them (`policies.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SUBMITTED = "SUBMITTED"
KEEP = 5_000  # characters kept at either end of a long output
BLOCK = re.compile(r"```bash[ \t]*\n(.*?)\n?```", re.DOTALL)
FORMAT_ERROR = "FORMAT ERROR: {count} bash blocks, want exactly 1."


@dataclass(frozen=True)
class Parsed:
    """The command of a reply, or the message that says why there is none: exactly one of the two is set."""

    command: str | None
    error: str | None


@dataclass(frozen=True)
class Rendered:
    """An observation as the agent reads it, with the number of characters left out of the middle."""

    text: str
    elided: int


def parse_action(text: str) -> Parsed:
    """Find the one bash block of a reply."""
    blocks = [block.strip() for block in BLOCK.findall(text)]
    if len(blocks) != 1 or not blocks[0]:
        return Parsed(None, FORMAT_ERROR.format(count=len([block for block in blocks if block])))
    return Parsed(blocks[0], None)


def format_action(thought: str, *commands: str) -> str:
    """Write a reply; well formed when there is exactly one command."""
    return f"THOUGHT: {thought}" + "".join(f"\n\n```bash\n{command}\n```" for command in commands)


def render(raw: str, exit_code: int | None, *, timed_out: bool = False) -> Rendered:
    """Show a result to the agent, eliding the middle of more than 10,000 characters; no exit code shows as -1."""
    body, elided = raw, 0
    if len(raw) > 2 * KEEP:
        elided = len(raw) - 2 * KEEP
        body = f"{raw[:KEEP]}\n<elided {elided} characters>\n{raw[-KEEP:]}"
    if timed_out:
        body += ("" if not body or body.endswith("\n") else "\n") + "killed: time limit\n"
    if body and not body.endswith("\n"):
        body += "\n"
    code = -1 if exit_code is None else exit_code
    return Rendered(f"<returncode>{code}</returncode>\n<output>\n{body}</output>", elided)


def is_submission(raw: str, exit_code: int | None) -> bool:
    """Tell whether a command's result ends the episode: it succeeded and its last line is the marker."""
    lines = raw.rstrip().splitlines()
    return exit_code == 0 and bool(lines) and lines[-1] == SUBMITTED
