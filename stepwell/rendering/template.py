"""A model's chat template: the text it makes of a conversation, and where each reply lies in that text.

Belongs here: text. Does not belong here: tokens (`renderer`).

What the template writes before and after a reply is learnt once from a conversation of three messages. In any other one
the replies are then what lies between the two. Content cannot pass for either: before the template sees it, every special
token spelt out in it is replaced by as many characters that occur nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import Any

from jinja2.exceptions import TemplateError

from stepwell.errors import RenderError

Message = dict[str, Any]
_MARK = "\U0010fffd"
_PRIVATE = range(0xF0000, 0x10FFFD)
_THINKING = "</think>"
_TODAY = datetime(2024, 7, 26)
"""What a template that asks for the date is told: a dataset must not depend on the day it is built."""


@dataclass(frozen=True)
class Written:
    """A conversation as text. `literals`: stand-in -> the special token that some content spells out, of equal length."""

    text: str
    literals: dict[str, str]

    def restore(self, text: str) -> str:
        """A part of `text` as it is meant."""
        for stand_in, literal in self.literals.items():
            text = text.replace(stand_in, literal)
        return text


@dataclass(frozen=True)
class _Frame:
    """What the template writes around replies; `header` is the part of the generation `prompt` every reply has."""

    prompt: str
    header: str
    closing: str


class Template:
    """A chat template with the names (`bos_token`...) and the special tokens it may write; `source` is for messages."""

    def __init__(self, template: str, names: dict[str, str], specials: Sequence[str], source: str) -> None:
        self.template, self.names, self.specials, self.source = template, names, list(specials), source

    def text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation as the template writes it; `prompt` adds the header of the next reply.

        Tools offered are those of the first message that has a `tools` key (a JSON string or a list). Arguments of tool
        calls given as JSON strings are handed over as objects, as servers do; content that is null as empty text. Raises
        RenderError when the template refuses the conversation.
        """
        from transformers.utils.chat_template_utils import render_jinja_template  # a second, for those who render only

        plain, tools = _plain(messages)
        try:
            rendered, _ = render_jinja_template(
                [plain], tools=tools, chat_template=self.template, add_generation_prompt=prompt,
                strftime_now=_TODAY.strftime, **self.names,
            )  # fmt: skip
        except (TemplateError, TypeError) as error:
            roles = " ".join(str(m.get("role")) for m in messages[:8]) + (" ..." if len(messages) > 8 else "")
            raise RenderError(
                f"the template refuses the conversation: {self.source!r} says {str(error)!r} of {roles}. Leave it out, or "
                "use a model whose template takes it."
            ) from error
        return str(rendered[0])

    def write(self, messages: Sequence[Message], *, prompt: bool = False) -> Written:
        """The same with stand-ins for special tokens that content spells out, so that all others are the template's."""
        changed, literals = self._without_literals(messages, self.special if prompt else self._literal)
        written = Written(self.text(changed, prompt=prompt), literals)
        if literals and written.restore(written.text) != self.text(messages, prompt=prompt):
            raise RenderError(
                f"the template changes special tokens spelt out in content: {self.source!r} writes "
                f"{sorted(literals.values())} otherwise; remove them from the source."
            )
        return written

    def _without_literals(
        self, messages: Sequence[Message], literal: re.Pattern[str]
    ) -> tuple[list[Message], dict[str, str]]:
        """Messages with stand-ins for what `literal` matches, and what each stands for."""
        found: set[str] = set()

        def note(text: str) -> str:
            found.update(literal.findall(text))
            return text

        mapped(messages, note)
        if not found:
            return list(messages), {}
        used = set(json.dumps(messages, ensure_ascii=False))
        free = (c for c in map(chr, _PRIVATE) if c not in used)
        stand_ins = {text: next(free) * len(text) for text in sorted(found)}
        changed: list[Message] = mapped(messages, lambda s: literal.sub(lambda m: stand_ins[m[0]], s))
        return changed, {stand_in: text for text, stand_in in stand_ins.items()}

    def replies(self, messages: Sequence[Message], written: Written) -> list[tuple[tuple[int, int], int]]:
        """Of each assistant message the characters of `written.text` where it may start, best first, and where it ends.

        A reply starts where the prompt for it ends, or else where the header ends; it ends with the closing token. Raises
        RenderError when they are not all there, as they are.
        """
        frame, text, at = self.frame, written.text, 0
        ranges: list[tuple[tuple[int, int], int]] = []
        replies = [m for m in messages if m["role"] == "assistant"]
        for n, message in enumerate(replies):
            head = text.find(frame.header, at)
            header = head + len(frame.header)
            start = head + len(frame.prompt) if text.startswith(frame.prompt, head) else header
            stop = text.find(frame.closing, start)
            if head < 0 or stop < 0 or 0 <= text.find(frame.header, start) < stop:
                raise RenderError(
                    f"the template does not write every reply by itself: {self.source!r} has {n} of {len(replies)} between "
                    f"{frame.header!r} and {frame.closing!r}."
                )
            left_out = missing(message, written.restore(text[start:stop]))
            if left_out:
                raise RenderError(
                    f"the template does not write reply as it is: {self.source!r} leaves out or changes {left_out} of "
                    f"reply {n}; it cannot be masked."
                )
            at = stop + len(frame.closing)
            ranges.append(((start, header), at))
        if text.find(frame.header, at) >= 0:
            raise RenderError(f"the template writes more than {len(replies)} replies: see the one of {self.source!r}.")
        return ranges

    @cached_property
    def frame(self) -> _Frame:
        """What surrounds a reply, from a question, a reply and another question."""
        asked, again = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
        before, prompt = self.text([asked]), self.text([asked], prompt=True)
        whole = self.text([asked, {"role": "assistant", "content": _MARK}, again])
        head, _, after = whole.removeprefix(before).partition(_MARK)
        added = prompt.removeprefix(before)
        header = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(added, head, strict=False)))
        if not header or not prompt.startswith(before) or not whole.startswith(before):
            raise RenderError(
                f"the template has no generation prompt that its replies start with: {self.source!r} adds {added!r} and "
                f"writes {head!r}."
            )
        closing = next((t for t in self.specials if after.startswith(t)), None)
        if closing is None:
            raise RenderError(
                f"no special token closes a reply: the template of {self.source!r} goes on with {after[:40]!r}."
            )
        return _Frame(added, header, closing)

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Any special token, as a group."""
        return re.compile("|".join(map(re.escape, sorted(self.specials, key=len, reverse=True))) or r"(?!)")

    @cached_property
    def _literal(self) -> re.Pattern[str]:
        """What content must not be taken for: a special token, or a header that has none."""
        header = "" if self.special.search(self.frame.header) else f"|{re.escape(self.frame.header.strip())}"
        return re.compile(self.special.pattern + header)


def _plain(messages: Sequence[Message]) -> tuple[list[Message], list[Any] | None]:
    """Messages as templates want them, and the tools offered."""
    tools = next((m["tools"] for m in messages if m.get("tools")), None)
    plain = []
    for message in messages:
        made = {k: v for k, v in message.items() if k != "tools"}
        if made.get("content") is None:
            made["content"] = ""
        if made.get("tool_calls"):
            made["tool_calls"] = [_object(call) for call in made["tool_calls"]]
        else:
            made.pop("tool_calls", None)
        plain.append(made)
    return plain, json.loads(tools) if isinstance(tools, str) else tools


def _object(call: Any) -> dict[str, Any]:
    """A tool call with its arguments as an object."""
    function = (call.get("function") or call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RenderError(f"a tool call that names no function: {call!r:.80}; mask or leave out the trajectory.")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    if not isinstance(arguments, dict):
        raise RenderError(
            f"a tool call has arguments that are no JSON object: {function.get('name')!r} got "
            f"{function.get('arguments')!r:.80}; mask or leave out the trajectory."
        )
    made = {**function, "arguments": arguments}
    return {**call, "function": made} if "function" in call else made


def missing(message: Message, written: str) -> str | None:
    """What of a reply is not in the text written of it; thinking may be absent, as templates drop it."""
    said, answer = (s.rpartition(_THINKING)[2].strip() for s in (str(message.get("content") or ""), written))
    calls = message.get("tool_calls") or ()
    if said != answer and not (calls and answer.startswith(said)):
        return "the text"
    at = len(said)
    for call in map(_object, calls):
        function = call.get("function") or call
        for leaf in (str(function["name"]), *_leaves(function["arguments"])):
            places = [answer.find(form, at) for form in (leaf, json.dumps(leaf, ensure_ascii=False)[1:-1])]
            if max(places) < 0:
                return f"{leaf!r:.80} of tool call {function['name']!r}"
        at = answer.find(str(function["name"]), at) + 1
    return None


def _leaves(value: Any) -> Iterator[str]:
    """Keys and texts anywhere in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed but roles."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(k): v if k == "role" else mapped(v, change) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [mapped(v, change) for v in value]
    return value
