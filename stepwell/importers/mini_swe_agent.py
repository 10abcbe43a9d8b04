"""mini-swe-agent trajectories: `mini-swe-agent-1` (1.x) and `mini-swe-agent-1.1` (2.x), and bare message lists as 1.

Kept where: system and user messages before the first reply are instructions, verbatim. Every reply is one step: `text` is
the reply, `command` the one bash block of it (1) or the commands of `extra.actions` joined by newlines (1.1), `tool_calls`
in chat shape. What came back is the observation, whichever role it was labelled with; `raw` and `exit_code` from `extra`
(1.1), else only the exit code from `<returncode>`. A format error is a step without a command, and the message that came
back is its observation; 2.x keeps such a reply only inside that message, never in later prompts (`extra.not_in_prompt`).
A command typed by a person in interactive mode is a step of a human. Cost is `usage.cost` (1) or `extra.cost` (1.1); a step
without one has none. The last message (the submission in 1, role `exit` in 1.1) belongs to `end`, and is also the
observation of the last step when nothing else answered its command. The statement is what stands in place of `{{task}}` when
the instance template has no other tag.

In `extra`: the rest of each provider response, content parts, exception texts, the rest of `info`.
Not in the format: the outcome, hidden tests, tool schemas, token ids, the time of observations (1), a task id outside batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.messages import (
    Obj,
    inner_message,
    obj,
    objects,
    pack,
    responses_output,
    responses_reasoning,
    take_calls,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
    take_usage,
)
from stepwell.importers.turns import EXIT_CODE, Turn, closing_of, split

_TAG = re.compile(r"\{\{\s*task\s*\}\}")
_ELIDED = re.compile(
    r"</output_head>\s*<elided_chars>\s*(\d{1,12}) characters elided\s*</elided_chars>\s*<output_tail>"
)


class MiniSweAgent:
    """Reads mini-swe-agent files; one file is one trajectory."""

    name = "mini-swe-agent"
    versions = ("1", "1.1")
    unit: Unit = "document"
    capabilities: Mapping[str, str] = {
        "outcome": "from reports beside it",
        "step cost": "where the provider said",
        "step tokens": "yes",
        "timestamps": "actions; observations in 1.1",
        "exact prompts": "by replay",
        "tool schemas": "no",
        "token ids": "no",
    }

    def goes_on(self, record: Obj) -> bool:
        """Whether the file is of a run that goes on: version 1.1 is written after every step, with an empty status."""
        return obj(record.get("info")).get("exit_status") == ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A parsed file -> one trajectory, or one reject when it is not as the format is written."""
        try:
            yield _read({"messages": data} if isinstance(data, list) else obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = MiniSweAgent()


def _read(rest: Obj, source: SourceFile) -> Imported:
    messages = objects(rest.pop("messages", None), "messages")
    bare = "info" not in rest
    info = take_obj(rest, "info")
    config = take_obj(info, "config")
    settings, model_config, environment = (obj(config.get(k)) for k in ("agent", "model", "environment"))
    mini_version = take_text(info, "mini_version")
    instance = take_text(rest, "instance_id") or None
    folder_instance = source.stem if source.stem == source.folder else None
    builder = Builder.of(source, MiniSweAgent.name, instance, " ".join(filter(None, ["mini-swe-agent", mini_version])))
    before, turns, exits = split(messages)
    submission = take_text(info, "submission")
    closing = closing_of(turns, exits, submission, bare)
    model = take_text(dict(model_config), "model_name")
    fence = "mswea_bash_command" if any("```mswea_bash" in str(m.get("content")) for m in before) else "bash"

    builder.task(instance or folder_instance, _statement(settings.get("instance_template"), before))
    builder.start(
        {
            "task_id": instance or folder_instance,
            "model": model,
            "scaffold": take_text(dict(config), "agent_type"),
            "environment": take_text(dict(environment), "image") or take_text(dict(config), "environment_type"),
            "step_limit": take_int(dict(settings), "step_limit", 32) or None,
            "cost_limit_usd": take_float(dict(settings), "cost_limit") or None,
            "config": pack(config),
        },
        {"trajectory_format": take_text(rest, "trajectory_format") or "bare list of messages"},
    )
    for position, message in enumerate(before):
        left = dict(message)
        role = take_text(left, "role") or "user"
        builder.instruction(position, role, take_content(left), False, left)
    for turn in turns:
        action = _act(builder, turn, source.version, fence, model)
        for position, answer in enumerate(turn.answers):
            _observe(builder, action, position, answer, settings.get("timeout_template"))
    _end(builder, rest, info, closing, submission)
    return builder.imported(instance or folder_instance)


def _act(builder: Builder, turn: Turn, version: str, fence: str, model: str | None) -> Event:
    left = dict(turn.reply)
    extra = take_obj(left, "extra")
    left.pop("role", None)
    whole = left.get("object") == "response"
    response = left if whole else take_obj(extra, "response")
    policy = take_text(dict(response), "model") or model
    message = inner_message(response, turn.reply)
    reasoning = take_text(left, "reasoning_content") or take_text(left, "reasoning")
    reasoning = reasoning or take_text(message, "reasoning") or take_text(message, "reasoning_content")
    reasoning = responses_reasoning(left.get("output")) if whole and reasoning is None else reasoning
    text, calls = responses_output(left.get("output")) if whole else (take_content(left), take_calls(left))
    command, error = _command(turn, text, extra, version, fence)
    usage = take_usage(response, extra)
    occurred_at = take_time(extra, "timestamp") or take_time(response, "created") or take_time(response, "created_at")
    if response and not whole:
        extra["response"] = response
    payload = {
        "text": text,
        "command": command,
        "reasoning": reasoning,
        "parse_error": error,
    }
    policy = policy if turn.actor == "agent" else None
    return builder.action(
        payload,
        calls=calls,
        usage=usage,
        policy=policy,
        extra=_nested(left, extra),
        actor=turn.actor,
        occurred_at=occurred_at,
    )


def _command(turn: Turn, text: str | None, extra: Obj, version: str, fence: str) -> tuple[str | None, str | None]:
    """What is executed, or why nothing is."""
    if version == "1" and turn.actor == "agent":
        blocks = _blocks(text or "", fence)
        if len(blocks) == 1:
            return blocks[0].strip(), None
        return None, f"expected exactly 1 {fence} block, found {len(blocks)}"
    actions = extra.get("actions") if isinstance(extra.get("actions"), list) else None
    commands = [a["command"] for a in actions or () if isinstance(a, dict) and isinstance(a.get("command"), str)]
    if actions in ([], [{"command": "\n".join(commands)}]):
        del extra["actions"]
    if commands:
        return "\n".join(commands), None
    answer = obj(turn.answers[0].get("extra")) if turn.answers else {}
    return None, take_text(answer, "interrupt_type") or "no action in the reply"


def _blocks(text: str, fence: str) -> list[str]:
    """Fenced blocks of a reply, in one pass: replies are hostile, so no pattern that can look back."""
    blocks, at = [], 0
    opening = re.compile(rf"```{fence}[^\S\n]*\n")
    while (opened := opening.search(text, at)) and (closed := text.find("\n```", opened.end())) >= 0:
        blocks.append(text[opened.end() : closed])
        at = closed + 4
    return blocks


def _observe(builder: Builder, action: Event, position: int, answer: Obj, timeout_template: Any) -> None:
    left = dict(answer)
    extra = take_obj(left, "extra")
    role = take_text(left, "role")
    rendered = take_content(left) if "content" in left else take_content(left, "output")
    call = take_text(left, "tool_call_id") or take_text(left, "call_id")
    exit_code = take_int(extra, "returncode", 32)
    seen = EXIT_CODE.match(rendered or "") if exit_code is None and "raw_output" not in extra else None
    exit_code = int(seen[1]) if seen else exit_code
    prefix = timeout_template.split("{{")[0].strip() if isinstance(timeout_template, str) else ""
    timed_out = extra.get("exception_type") == "TimeoutExpired" or (
        exit_code is None and len(prefix) > 8 and (rendered or "").startswith(prefix)
    )
    elided = _ELIDED.findall(rendered or "")
    payload = {
        "position": position,
        "raw": take_text(extra, "raw_output"),
        "rendered": rendered,
        "role": "tool" if role is None and call else role if role != "exit" else None,
        "tool_call_id": call,
        "exit_code": exit_code,
        "timed_out": True if timed_out else None if exit_code is None else False,
        "elided_chars": int(elided[0]) if len(elided) == 1 else None,
    }
    actor = "human" if extra.get("interrupt_type") == "UserInterruption" else "environment"
    occurred_at = take_time(extra, "timestamp")
    builder.observation(action, payload, _nested(left, extra), actor=actor, occurred_at=occurred_at)


def _nested(left: Obj, extra: Obj) -> Obj:
    """What is left of a message, as it stood in the source."""
    return {**left, "extra": extra} if extra else left


def _statement(template: Any, before: list[Obj]) -> str | None:
    """What stands in place of `{{task}}`: exact, or nothing."""
    if not isinstance(template, str):
        return None
    parts = _TAG.split(template.removesuffix("\n"))
    if len(parts) != 2 or any(tag in part for tag in ("{{", "{%", "{#") for part in parts):
        return None
    head, tail = parts
    for message in before:
        content = message.get("content")
        if message.get("role") != "user" or not isinstance(content, str) or len(content) < len(head) + len(tail):
            continue
        if content.startswith(head) and content.endswith(tail):
            return content[len(head) : len(content) - len(tail)]
    return None


def _end(builder: Builder, rest: Obj, info: Obj, closing: list[Obj], submission: str | None) -> None:
    stats = take_obj(info, "model_stats")
    told = obj(closing[-1].get("extra")) if closing else {}
    text = take_content(dict(closing[-1])) if closing else None
    payload = {
        "exit_status": take_text(info, "exit_status") if "exit_status" in info else take_text(told, "exit_status"),
        "submission": submission if submission is not None else take_text(dict(told), "submission") or text,
        "n_calls": take_int(stats, "api_calls"),
        "cost_usd": take_float(stats, "instance_cost"),
    }
    occurred_at = take_time(told, "timestamp")
    repeated = [{k: v for k, v in m.items() if k != "content" or v != payload["submission"]} for m in closing]
    extra = {**rest, **({"info": info} if info else {}), **({"model_stats": stats} if stats else {})}
    builder.end(payload, {**extra, **({"closing": repeated} if repeated else {})}, occurred_at)
