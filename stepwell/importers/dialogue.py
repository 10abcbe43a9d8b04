"""Model calls with their prompts as events: every message once, and each step's exact prompt by reference.

`extra.message` numbers messages in the order of their first appearance (of a reply in several messages, a list);
`extra.prompt` of a step is its prompt as ranges [from, to) of these numbers. Messages are in chat shape. Belongs here: what
a prompt adds. Not here: fields of any one format; conversations that are kept once (`chatting`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.importers.base import Builder
from stepwell.importers.messages import Obj, obj, take_content, take_text
from stepwell.importers.streams import Prompts, Stream


class Dialogue:
    """Writes prompts and replies; `outside` is the actor of user messages that come between steps."""

    def __init__(self, builder: Builder, outside: str = "human") -> None:
        self.stream = Stream(builder)
        self._outside = outside
        self._prompts = Prompts()
        self._offered: Any = None
        self._inserted: list[Any] = []

    def show(self, messages: Sequence[Any], tools: Any = None) -> Obj:
        """A prompt: what no prompt before it held becomes events; returns what to keep in `extra` of the step that follows.

        Tools are with the first message, and in `extra` where they change. A message of the assistant that no step said is a
        demonstration before the first step, and `inserted` in `extra` after it; what a repeated message has that it did not
        have at first is `differing` there.
        """
        new, places = self._prompts.read(messages)
        for number, message in new:
            left = {"message": number, **(message if isinstance(message, dict) else {"content": message})}
            role = take_text(left, "role") or "user"
            if role == "tool":
                self.answer(left)
            elif role == "assistant":
                self._put_in(left, message)
            else:
                actor = "human" if left.get("source") == "operator" else self._outside if role == "user" else "system"
                schemas = orjson.dumps(tools).decode() if tools and number == 0 else None
                self._offered = tools if schemas else self._offered
                self.stream.tell(role, take_content(left), left, actor=actor, tools=schemas)
        extra: Obj = {"prompt": places} if places else {}
        if tools and tools != self._offered:
            extra["tools"] = self._offered = tools
        return extra

    def _put_in(self, left: Obj, message: Any) -> None:
        if self.stream.last is None:
            self.stream.tell("assistant", take_content(left), left)
        else:
            self._inserted.append(message)

    def answer(self, left: Obj) -> None:
        """A tool's message, without its role."""
        call, text = take_text(left, "tool_call_id"), take_content(left)
        self.stream.answer(call, {"rendered": text}, left)

    def said(self, messages: Sequence[Obj], text: str | None, calls: list[Any], *, extra: Obj, **more: Any) -> Event:
        """A reply as the next step: `messages` as later prompts repeat them, and the columns of the step."""
        numbers = [self._prompts.reply(m) for m in messages]
        if numbers:
            extra = {**extra, "message": numbers[0] if len(numbers) == 1 else numbers}
        extra = {**extra, **self._odd}
        self._inserted, self._prompts.differing = [], []
        return self.stream.act(text, calls, extra={k: v for k, v in extra.items() if v not in (None, [], {})}, **more)

    @property
    def _odd(self) -> Obj:
        return {"inserted": self._inserted, "differing": self._prompts.differing}

    @property
    def records(self) -> Obj:
        """What `extra` of the end keeps: records of no step, and messages put in after the last one."""
        kept = {"records": self.stream.records, **self._odd}
        return {k: v for k, v in kept.items() if v}


def first_message(response: Any) -> Obj | None:
    """The message of the first choice of a response; None when there is none."""
    choices = obj(response).get("choices")
    message = obj(choices[0]).get("message") if isinstance(choices, list) and choices else None
    return dict(message) if isinstance(message, dict) else None
