"""Messages of a mini-swe-agent file as turns: each reply with what came back for it, and how the run ended.

A reply is an assistant message, a response item without a role (Responses API), a command a person typed, or the reply that
survives only inside the message about its format error (2.x).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from stepwell.importers.messages import Obj, obj

EXIT_CODE = re.compile(r"\s*<returncode>(-?\d{1,9})</returncode>")
_SUBMIT = re.compile(r"COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT")


@dataclass
class Turn:
    """A reply and what came back before the next one."""

    reply: Obj
    actor: str = "agent"
    answers: list[Obj] = field(default_factory=list)


def split(messages: list[Obj]) -> tuple[list[Obj], list[Turn], list[Obj]]:
    """Messages -> those before the first reply, the turns, and those with role `exit`."""
    before: list[Obj] = []
    turns: list[Turn] = []
    exits: list[Obj] = []
    for message in messages:
        extra = obj(message.get("extra"))
        if message.get("role") == "assistant" or message.get("object") == "response":
            turns.append(Turn(message))
        elif message.get("role") == "exit":
            exits.append(message)
        elif message.get("role") == "user" and isinstance(extra.get("actions"), list):
            turns.append(Turn(message, "human"))
        elif extra.get("interrupt_type") == "FormatError" and not _awaits(turns):
            turns.append(_hidden_reply(message))
        else:
            (turns[-1].answers if turns else before).append(message)
    return before, turns, exits


def _awaits(turns: list[Turn]) -> bool:
    """Whether the last reply has neither commands nor an answer, so that a format error is about it."""
    return bool(turns) and not turns[-1].answers and not obj(turns[-1].reply.get("extra")).get("actions")


def _hidden_reply(message: Obj) -> Turn:
    """The turn of a format error in 2.x, where the reply survives only inside the message about it."""
    about, told = obj(message), obj(message.get("extra"))
    response = told.pop("response", None)
    inner: Obj = {"role": "assistant", "content": told.pop("model_response", None)}
    if isinstance(response, dict) and response.get("object") == "response":
        inner = response
    elif isinstance(response, dict):
        choices = response.get("choices")
        first = obj(choices[0]) if isinstance(choices, list) and choices else {}
        inner |= {k: v for k, v in obj(first.get("message")).items() if k != "role"}
    extra: Obj = {"cost": told.pop("cost")} if "cost" in told else {}
    if response is not None and inner is not response:
        extra["response"] = response
    about["extra"] = told
    return Turn({**inner, "not_in_prompt": True, "extra": extra}, answers=[about])


def closing_of(turns: list[Turn], exits: list[Obj], submission: str | None, bare: bool) -> list[Obj]:
    """The messages that tell how it ended; in version 1 the last user message, taken from the last turn."""
    closing = list(exits)
    last = turns[-1] if turns else None
    if not closing and last and last.answers:
        content = last.answers[-1].get("content")
        marked = bool(_SUBMIT.search(str(last.reply.get("content"))))
        told = bare and marked and isinstance(content, str) and not EXIT_CODE.match(content)
        if "extra" not in last.answers[-1] and (told or (submission is not None and content == submission)):
            closing = [last.answers.pop()]
    if closing and last and not last.answers:
        last.answers.append({k: v for k, v in closing[0].items() if k != "extra"})
    return closing
