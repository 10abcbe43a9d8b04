"""What session logs, event streams and spans share: calls and their answers, prompts that repeat, lines that fork.

Belongs here: how a running conversation becomes the events of one trajectory, for formats that record it piece by piece.
Does not belong here: fields of any one format.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.importers.base import Builder
from stepwell.importers.messages import Obj, is_call

_SHELLS = frozenset(
    (
        "bash", "sh", "shell", "cmd", "terminal", "execute_bash", "exec_command", "local_shell", "run_shell_command",
        "run_command", "execute_command", "run_terminal_cmd", "python", "execute_ipython_cell",
    )
)  # fmt: skip
_RUN_KEYS = ("command", "cmd", "script", "code", "keystrokes")


def function_call(call_id: Any, name: Any, arguments: Any, **more: Any) -> Obj:
    """A tool call in chat shape; arguments that are no text become JSON."""
    plain = arguments is None or isinstance(arguments, str)
    written = arguments if plain else orjson.dumps(arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}, **more}


def command_of(calls: Sequence[Any]) -> str | None:
    """What calls in chat shape execute: the command of a shell call, else `name arguments`; one line a call, None for none."""
    lines = []
    for call in calls:
        if not is_call(call):
            continue
        name, written = call["function"]["name"], call["function"].get("arguments")
        shell = _shell_command(written) if name.lower() in _SHELLS and isinstance(written, str) else None
        lines.append(shell if shell is not None else f"{name} {'' if written is None else written}".rstrip())
    return "\n".join(lines) if lines else None


def _shell_command(written: str) -> str | None:
    try:
        arguments = orjson.loads(written)
    except orjson.JSONDecodeError:
        return None
    found = [arguments[k] for k in _RUN_KEYS if k in arguments] if isinstance(arguments, dict) else []
    if not found:
        return None
    words = found[0]
    if isinstance(words, list) and words and all(isinstance(w, str) for w in words):
        return words[-1] if len(words) == 3 and words[1] in ("-c", "-lc") else shlex.join(words)
    return words if isinstance(words, str) else None


@dataclass
class Stream:
    """Writes the events of one trajectory as they come; who answers which call is told by the call's id."""

    builder: Builder
    last: Event | None = None
    """The action that came last; None before the first."""
    records: list[Any] = field(default_factory=list)
    """What belongs to the trajectory and to none of its steps; the reader puts it into `extra` of the end."""
    _told: int = 0
    _calls: dict[str, Event] = field(default_factory=dict)
    _answers: dict[int | None, int] = field(default_factory=dict)

    def tell(self, role: str, text: str | None, extra: Obj, *, actor: str = "human", **envelope: Any) -> None:
        """A message to the policy: an instruction before the first action, an observation of the last step after it."""
        if self.last is not None:
            tools = envelope.pop("tools", None)
            extra = extra if tools is None else {**extra, "tools": tools}
            self._observe(self.last, {"rendered": text, "role": role}, extra, actor=actor, **envelope)
            return
        self.builder.instruction(self._told, role, text, role == "assistant", extra, **envelope)
        self._told += 1

    def act(
        self,
        text: str | None,
        calls: list[Any],
        *,
        usage: Obj,
        extra: Obj,
        thought: str | None = None,
        reasoning: str | None = None,
        command: str | None = None,
        parse_error: str | None = None,
        policy: str | None = None,
        **more: Any,
    ) -> Event:
        """The next action: what was said, and calls in chat shape; `command` follows from the calls unless it is given."""
        if command is None and parse_error is None:
            command = command_of(calls)
        payload = {
            "text": text, "thought": thought, "reasoning": reasoning, "command": command, "parse_error": parse_error
        }  # fmt: skip
        self.last = self.builder.action(payload, calls=calls, usage=usage, policy=policy, extra=extra, **more)
        for call in calls:
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                self._calls[call["id"]] = self.last
        return self.last

    def step_of(self, call: str | None) -> Event | None:
        """The action that made a call; None when no action did."""
        return None if call is None else self._calls.get(call)

    def answer(self, call: str | None, payload: Obj, extra: Obj, **envelope: Any) -> None:
        """What came back for a call: an observation of the step that made it, or of the last step when none did."""
        action = self.step_of(call) or self.last
        payload = {"role": "tool", "tool_call_id": call, **payload}
        if action is not None:
            self._observe(action, payload, extra, **envelope)
            return
        text = payload.pop("rendered", None)
        self.builder.instruction(self._told, payload.pop("role"), text, False, {**payload, **extra}, **envelope)
        self._told += 1

    def _observe(self, action: Event, payload: Obj, extra: Obj, **envelope: Any) -> None:
        position = self._answers.get(action.step, 0)
        self._answers[action.step] = position + 1
        self.builder.observation(action, {"position": position, **payload}, extra, **envelope)


class Prompts:
    """The messages of prompts that repeat what went before: each is numbered once, in the order of its first appearance."""

    def __init__(self) -> None:
        self.differing: list[list[Any]] = []
        """Number and differing fields of messages that were repeated in other words than they first had (ids, markers)."""
        self._numbers: dict[bytes, int] = {}
        self._first: list[Any] = []
        self._before: list[Any] = []
        self._places: list[int] = []

    def read(self, messages: Sequence[Any]) -> tuple[list[tuple[int, Any]], list[list[int]]]:
        """A prompt -> its messages that were in none before, numbered; and all of it as ranges [from, to) of numbers."""
        known = len(self._before) if list(messages[: len(self._before)]) == self._before else 0
        places, new = self._places[:known], []
        for message in messages[known:]:
            number = self._number(message)
            if number == len(self._first):
                self._first.append(message)
                new.append((number, message))
            elif message != self._first[number]:
                self._differ(number, message)
            places.append(number)
        self._before, self._places = list(messages), places
        return new, _ranges(places)

    def reply(self, message: Obj) -> int:
        """The number of a reply, which later prompts repeat; known by its text and its calls, whatever else they drop."""
        number = self._number(message)
        if number == len(self._first):
            self._first.append(message)
        return number

    def _number(self, message: Any) -> int:
        return self._numbers.setdefault(_key(message), len(self._first))

    def _differ(self, number: int, message: Any) -> None:
        first = self._first[number]
        fields = {k: v for k, v in message.items() if v and first.get(k) != v} if isinstance(first, dict) else {}
        if fields and [number, fields] not in self.differing:
            self.differing.append([number, fields])


def _key(message: Any) -> bytes:
    if isinstance(message, dict) and message.get("role") == "assistant":
        content, calls = message.get("content"), message.get("tool_calls")
        parts = [p.get("text") for p in content if isinstance(p, dict)] if isinstance(content, list) else [content]
        ids = [c.get("id") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
        said = "".join(p for p in parts if isinstance(p, str)).strip()
        message = ["assistant", said, ids]
    elif isinstance(message, dict):
        message = {k: v for k, v in message.items() if k != "id"}
    return hashlib.blake2b(orjson.dumps(message, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def _ranges(places: list[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for place in places:
        if ranges and ranges[-1][1] == place:
            ranges[-1][1] = place + 1
        else:
            ranges.append([place, place + 1])
    return ranges


def lines_of(parents: Sequence[int | None]) -> list[tuple[int | None, list[int]]]:
    """Nodes with earlier parents -> lines: the one that ends with the last node, then each that forks from one before it.

    A line is the node it forks from (None for a root) and its own nodes in order; every node is in one line.
    """
    taken = [False] * len(parents)
    lines = []
    for leaf in reversed(range(len(parents))):
        line, at = [], leaf if not taken[leaf] else None
        while at is not None and not taken[at]:
            taken[at] = True
            line.append(at)
            at = parents[at]
        if line:
            lines.append((at, line[::-1]))
    return lines
