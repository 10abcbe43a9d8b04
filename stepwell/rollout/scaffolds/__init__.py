"""Scaffolds: how replies become commands and results become messages. One file a kind; a new one is a new file.

Belongs here: the protocol an agent is told and held to. Does not belong here: running commands (`environments`) and
choosing them (`policies`).

May import: the standard library and `environments` for its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepwell.rollout.environments import Brief, Observation

Message = dict[str, Any]
KEEP = 5_000  # characters kept at either end of a long output
SUBMITTED = "SUBMITTED"


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


class Scaffold(Protocol):
    """A protocol between agent and environment."""

    @property
    def name(self) -> str:
        """Name and version, for the record."""

    @property
    def tools(self) -> Sequence[Mapping[str, Any]]:
        """Schemas of the functions a model may call; none where commands are written in the text."""

    def instruct(self, brief: Brief) -> list[Message]:
        """The messages an agent is given before it acts."""

    def parse(self, text: str, tool_calls: Sequence[Mapping[str, Any]]) -> Parsed:
        """Find the command of a reply."""

    def answer(self, body: str, tool_calls: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages that answer a reply: what its command printed, or why it was not run."""


def render(observation: Observation) -> Rendered:
    """Show a result to the agent, eliding the middle of more than 10,000 characters; no exit code shows as -1."""
    body, elided = observation.raw, 0
    if len(body) > 2 * KEEP:
        elided = len(body) - 2 * KEEP
        body = f"{body[:KEEP]}\n<elided {elided} characters>\n{body[-KEEP:]}"
    if observation.timed_out:
        body += ("" if not body or body.endswith("\n") else "\n") + "killed: time limit\n"
    if body and not body.endswith("\n"):
        body += "\n"
    code = -1 if observation.exit_code is None else observation.exit_code
    return Rendered(f"<returncode>{code}</returncode>\n<output>\n{body}</output>", elided)


def is_submission(raw: str, exit_code: int | None) -> bool:
    """Tell whether a command's result ends the episode: it succeeded and its last line is the marker."""
    lines = raw.rstrip().splitlines()
    return exit_code == 0 and bool(lines) and lines[-1] == SUBMITTED
