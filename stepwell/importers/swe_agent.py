"""SWE-agent trajectories (`.traj`), 0.x and 1.x.

Kept where: each item of `trajectory` is one step; `response` is the text, `thought` and `action` the thought and command,
`observation` the raw observation, `execution_time` its duration. `history` gives the messages around them: what stands before
the first reply are instructions (demonstrations marked `is_demo`, wherever they stand, and never a step); the entry of a step
gives its tool calls, and the entry after it what the agent was shown. The two lists do not always agree (replays edited by
hand), so entries are matched by content; what matches no step goes to `end`. Actions the harness writes itself (`exit_...`)
are steps without a command; so are replies it refused and asked anew (1.x), which are in no later prompt
(`extra.not_in_prompt`). A reply the harness wrote when it gave up (`Exit due to ...`) is a step of `system`. Costs and tokens
are those of `info.model_stats`, in `end`; `total_cost` adds up over a whole batch and is only kept in `extra`. The statement
is the one of `replay_config`, where there is one.

In `extra`: state after each step, the rest of `info`, of history entries and of steps. Prompts (`query`, or `messages` which
is the history after the step) are not stored: `usage.prompt_hash` is the sha256 of the prompt's JSON with sorted keys, and
`extra.prompt` holds its length and what in it differs from `history` or from a difference recorded before: it can be rebuilt.
Not in the format: outcome, cost and time per step, exit codes, sampling, token ids; in 0.x the task text is in the prompt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.messages import (
    Obj,
    obj,
    objects,
    take_calls,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
)

_GENERIC = ("", "main", "swe_main")
_LOOK_AHEAD = 3
_HARNESS = "exit due to "
"""How the reply begins that the harness writes in the model's place when it gives up."""


class SweAgent:
    """Reads SWE-agent `.traj` files; one file is one trajectory."""

    name = "swe-agent"
    versions = ("0.x", "1.x")
    unit: Unit = "document"
    capabilities: Mapping[str, str] = {
        "outcome": "from reports beside it",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "1.x",
        "tool schemas": "no",
        "token ids": "no",
    }

    def goes_on(self, record: Obj) -> bool:
        """Whether the file is of a run that goes on: it is written after every step, without a status until the last."""
        return obj(record.get("info")).get("exit_status") is None

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A parsed file -> one trajectory, or one reject when it is not as the format is written."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = SweAgent()


def _read(rest: Obj, source: SourceFile) -> Imported:
    steps = objects(rest.pop("trajectory", None), "trajectory")
    history = objects(rest.pop("history", None), "history")
    info = take_obj(rest, "info")
    replay = rest.pop("replay_config", None)
    config = _config(replay)
    problem, env, agent = (obj(config.get(k)) for k in ("problem_statement", "env", "agent"))
    environment = take_text(rest, "environment")
    named = environment if environment not in _GENERIC else take_text(dict(problem), "id")
    instance = named or source.stem
    version = take_text(info, "swe_agent_version") or source.version
    model = obj(agent.get("model"))
    builder = Builder.of(source, SweAgent.name, named, f"SWE-agent {version}")

    builder.task(instance, take_text(dict(problem), "text"))
    builder.start(
        {
            "task_id": instance,
            "model": take_text(dict(model), "name"),
            "environment": take_text(obj(env.get("deployment")), "image") or environment,
            "cost_limit_usd": take_float(dict(model), "per_instance_cost_limit") or None,
            "config": replay if isinstance(replay, str) else None if replay is None else orjson.dumps(replay).decode(),
        },
        {"environment": environment} if environment is not None else None,
    )
    first = next((i for i, m in enumerate(history) if _is_reply(m)), len(history))
    used = {i for i, m in enumerate(history) if i < first or m.get("is_demo")}
    for i in sorted(used):
        left = dict(history[i])
        role = take_text(left, "role") or "user"
        is_demo = left.pop("is_demo") if isinstance(left.get("is_demo"), bool) else left.get("is_demo")
        builder.instruction(i, role, take_content(left), bool(is_demo), left)
    entries = _match(steps, history)
    prompts = _Prompts(history)
    requeries = any(entry is not None for entry in entries)
    for k, step in enumerate(steps):
        entry = entries[k]
        answer = None if entry is None else _answer(history, entry)
        used |= {i for i in (entry, answer) if i is not None}
        said = {} if entry is None else dict(history[entry])
        _step(
            builder,
            dict(step),
            said,
            None if answer is None else dict(history[answer]),
            prompts,
            take_text(dict(model), "name"),
            refused=requeries and entry is None and not step.get("observation") and step.get("state") in ({}, None),
        )
    unmatched = [{"index": i, "message": m} for i, m in enumerate(history) if i not in used]
    _end(builder, rest, info, unmatched)
    return builder.imported(instance)


def _config(replay: Any) -> Obj:
    try:
        return obj(orjson.loads(replay) if isinstance(replay, str) else replay)
    except orjson.JSONDecodeError:
        return {}


def _is_reply(message: Obj) -> bool:
    return message.get("role") == "assistant" and not message.get("is_demo")


def _match(steps: list[Obj], history: list[Obj]) -> list[int | None]:
    """For each step the history entry of its reply: equal text, else equal action, looking a few replies ahead."""
    replies = [i for i, m in enumerate(history) if _is_reply(m)]
    found: list[int | None] = []
    at = 0
    for step in steps:
        window = range(at, min(at + _LOOK_AHEAD, len(replies)))
        same = [j for j in window if history[replies[j]].get("content") == step.get("response")]
        same += [j for j in window if step.get("action") and history[replies[j]].get("action") == step.get("action")]
        found.append(replies[same[0]] if same else None)
        at = same[0] + 1 if same else at
    return found


def _answer(history: list[Obj], entry: int) -> int | None:
    after = entry + 1
    return (
        after if after < len(history) and not _is_reply(history[after]) and not history[after].get("is_demo") else None
    )


def _why(written: Any, refused: bool) -> str:
    """Why nothing was executed."""
    if not written:
        return "no action in the reply"
    told = "refused the action and asked again" if refused else f"wrote {written!r}"
    return f"nothing executed: the harness {told}"


def _step(
    builder: Builder, left: Obj, said: Obj, shown: Obj | None, prompts: _Prompts, policy: str | None, refused: bool
) -> None:
    """One step; `refused`: the harness asked again, and the reply and what it answered are in no history."""
    prompt_hash, prompt = prompts.take(left)
    written = left.get("action")
    executed = isinstance(written, str) and bool(written.strip()) and not written.startswith("exit_") and not refused
    ours = not executed and str(left.get("response")).lower().startswith(_HARNESS)
    payload = {
        "text": take_text(left, "response"),
        "thought": take_text(left, "thought"),
        "command": take_text(left, "action") if executed else None,
        "parse_error": None if executed else _why(written, refused),
    }
    calls = take_calls(said)
    same = {"content": payload["text"], "thought": payload["thought"], "action": written}
    entry = {k: v for k, v in said.items() if k != "role" and (k not in same or same[k] != v)}
    raw, state, duration = None, {}, None
    if not refused:
        raw, state = take_text(left, "observation"), {"state": left.pop("state")} if "state" in left else {}
        duration = take_float(left, "execution_time")
    extra = {
        **({"not_in_prompt": True} if refused else {}),
        **({"step": left} if left else {}),
        **({"history": entry} if entry else {}),
        **({"prompt": prompt} if prompt else {}),
    }
    actor, policy = ("system", None) if ours else ("agent", policy)
    usage = {"prompt_hash": prompt_hash}
    action = builder.action(payload, calls=calls, usage=usage, policy=policy, extra=extra, actor=actor)
    if raw is None and shown is None:
        if state:
            builder.observation(action, {"position": 0}, state)
        return
    shown = shown or {}
    ids = shown.get("tool_call_ids")
    observed = {
        "position": 0,
        "raw": raw,
        "rendered": take_content(shown),
        "role": take_text(shown, "role"),
        "tool_call_id": ids[0] if isinstance(ids, list) and ids and isinstance(ids[0], str) else None,
        "duration_s": duration,
    }
    if observed["tool_call_id"] and ids == [observed["tool_call_id"]]:
        del shown["tool_call_ids"]
    builder.observation(action, observed, {**state, **({"history": shown} if shown else {})})


class _Prompts:
    """Hashes the prompt of each step and keeps what in it is not in the history, each difference once."""

    def __init__(self, history: list[Obj]) -> None:
        self.shown: list[Any] = list(history)

    def take(self, step: Obj) -> tuple[str | None, Obj]:
        """Remove the prompt of a step -> its sha256 and its differences; nothing where the step has none."""
        name = next((k for k in ("query", "messages") if isinstance(step.get(k), list)), None)
        if name is None:
            return None, {}
        messages = step.pop(name)
        changes = []
        for i, message in enumerate(messages):
            known = self.shown[i] if i < len(self.shown) else None
            if message != known:
                changes.append({"index": i, **_difference(message, known)})
                self.shown[i : i + 1] = [message]
        length = len(messages)
        if name == "messages":
            replies = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "assistant"]
            length = replies[-1] if replies else length
        hashed = hashlib.sha256(orjson.dumps(messages[:length], option=orjson.OPT_SORT_KEYS)).hexdigest()
        told = {"field": name, "length": length, "of": len(messages)}
        return hashed, {**told, "changes": changes} if changes else told


def _difference(message: Any, known: Any) -> Obj:
    """What turns one message into another: keys to set and to drop, a content of the same text as its shape only."""
    if not isinstance(message, dict) or not isinstance(known, dict):
        return {"whole": message}
    put = {k: v for k, v in message.items() if k not in known or known[k] != v}
    drop = [k for k in known if k not in message]
    if "content" in put:
        left, base = {"content": message["content"]}, {"content": known.get("content")}
        text = take_content(left)
        if text is not None and text == take_content(base) and _single(left):
            put["content"] = {"shape": left.get("content")}
    return {"set": put, **({"drop": drop} if drop else {})}


def _single(left: Obj) -> bool:
    """Whether taking the text left nothing but the shape of one part."""
    shape = left.get("content")
    return shape is None or (isinstance(shape, list) and len(shape) == 1 and "text" not in shape[0])


def _end(builder: Builder, rest: Obj, info: Obj, unmatched: list[Obj]) -> None:
    stats = take_obj(info, "model_stats")
    payload = {
        "exit_status": take_text(info, "exit_status"),
        "submission": take_text(info, "submission"),
        "n_calls": take_int(stats, "api_calls"),
        "tokens_in": take_int(stats, "tokens_sent"),
        "tokens_out": take_int(stats, "tokens_received"),
        "cost_usd": take_float(stats, "instance_cost"),
    }
    parts = {"info": info, "model_stats": stats, "history": unmatched}
    builder.end(payload, {**rest, **{k: v for k, v in parts.items() if v}})
