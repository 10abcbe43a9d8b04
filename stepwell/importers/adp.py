"""Agent Data Protocol std: `content` of items told apart by `class_`, with `id` and `details`.

Kept where: every `..._action` item is one step: a code action's command is its content, an API action's the call with its
arguments (also as a tool call), a message action says its content and executes nothing. `description` is the thought. What
stands before the first action are instructions, whatever comes after one is its observation: `source` is not used to tell
them apart, it calls environment output `user`. `details` give the model, exit status, submission, and, where a set has it,
`resolved` as text, which is the outcome; it is graded by whoever made the set.

In `extra`: everything else of items and details. Not in the format: cost, tokens, time, exit codes, tool schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.chat_rows import finish
from stepwell.importers.messages import Obj, obj, objects, take_content, take_obj, take_text
from stepwell.importers.streams import Stream, command_of, function_call

_TRUTH = {"true": True, "false": False}


class AdpStd:
    """Reads one record as one trajectory."""

    name = "adp-std"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "where details have it",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One record -> one trajectory, or one reject when its content is no list of items."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = AdpStd()


def _read(rest: Obj, source: SourceFile) -> Imported:
    items = objects(rest.pop("content", None), "content")
    details = take_obj(rest, "details")
    told = _TRUTH.get(str(details.get("resolved")).lower())
    if told is not None:
        details["resolved"] = told
    instance = take_text(details, "instance_id") or take_text(rest, "id")
    model = take_text(details, "model_name") or take_text(details, "model")
    builder = Builder.of(source, AdpStd.name, instance, "ADP")
    builder.task(instance, None)
    builder.start({"task_id": instance, "model": model})
    stream = Stream(builder)
    for item in items:
        left = dict(item)
        if str(left.get("class_")).endswith("_action"):
            _act(stream, left, model)
        else:
            text = take_content(left)
            stream.tell("user", text, {k: v for k, v in left.items() if v is not None}, actor="environment")
    finish(builder, details, {"row": rest} if rest else None)
    return builder.imported(instance)


def _act(stream: Stream, left: Obj, model: str | None) -> None:
    kind, thought = left.pop("class_"), take_text(left, "description")
    content, calls = take_content(left), []
    if kind == "api_action" and isinstance(left.get("function"), str):
        calls = [function_call(None, left.pop("function"), left.pop("kwargs", None))]
    command = content if kind == "code_action" else command_of(calls)
    text = "\n\n".join(t for t in (thought, content) if t) or None
    extra = {k: v for k, v in {**left, "class_": kind}.items() if v is not None}
    stream.act(
        text,
        calls,
        usage={},
        extra=extra,
        policy=model,
        thought=thought,
        command=command,
    )
