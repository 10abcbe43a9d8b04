"""A trajectory as chat messages, one an event, each with whether it is trained on: what chat formats share.

Belongs here: which messages a conversation is told in, and which of them may be in a loss. Does not belong here: the names a
format has for them.

A reply may be in the loss when everything the policy saw stands before it: not after feedback or a notice was shown to the
agent (prompts no longer grow then), not in a demonstration, not when it was copied from another trajectory, a person or the
harness wrote it, or the source masks it. Of these a mask rule, where one is named, says which are. Replies the source says the
model was never shown again are left out, as they were in no prompt.
"""

from __future__ import annotations

from typing import Any

import orjson

from stepwell.conversation import POLICIES, SHOWN, is_of_source
from stepwell.exporters.base import LeftOut, Obj, Row, Trajectory, by_position, by_step, flagged, loaded

KINDS = frozenset(
    ("task", "start", "instruction", "notice", "action", "observation", "feedback", "mask", "end", "outcome")
)
"""Kinds of events a conversation is made of."""


def conversation(trajectory: Trajectory, mask_rule: str | None) -> list[Obj] | LeftOut:
    """Messages in order: role, content, train, and where there are any tool_calls, tool_call_id, thought,
    reasoning_content, is_demo.

    With a mask rule, trajectories it has not decided as a whole and those it masks as a whole are left out.
    """
    if any(flagged(start, "without_prefix") for start in trajectory.of("start")):
        return LeftOut("what came before it is in the trajectory it continues")
    weights = {
        r["step"]: r["payload"]["weight"] for r in trajectory.of("mask") if r["payload"]["mask_rule"] == mask_rule
    }
    masked = {r["step"] for r in trajectory.of("mask") if is_of_source(r["policy"], r["payload"]["weight"])}
    seen_until = _interrupted(trajectory)
    observed = by_step(trajectory.of("observation"))
    made = [_instruction(row) for row in by_position(trajectory.of("instruction"))]
    undecided = trained = False
    for row in trajectory.of("action"):
        if not flagged(row, "not_in_prompt"):
            may = row["actor"] in POLICIES and not flagged(row, "is_copied_context") and row["step"] not in masked
            undecided |= may and mask_rule is not None and row["step"] not in weights
            weight = weights.get(row["step"], 0.0) if mask_rule is not None else 1.0
            train = may and row["step"] <= seen_until and weight > 0
            trained |= train
            made.append(_reply(row, train))
        made += [_answer(seen) for seen in observed.get(row["step"], ())]
    if not trajectory.of("action"):
        return LeftOut("no action")
    if undecided:
        return LeftOut("not decided by the mask rule")
    return made if trained or mask_rule is None else LeftOut("masked as a whole")


def calls_of(row: Row) -> list[Obj]:
    """The tool calls of an action: id, type, and function with name and arguments as JSON text; what is none has no id."""
    calls = loaded(row["payload"]["tool_calls"])
    return [_call(c) for c in calls] if isinstance(calls, list) else []


def _call(call: Any) -> Obj:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return {
            "id": None,
            "type": "function",
            "function": {"name": "unknown", "arguments": orjson.dumps(call).decode()},
        }
    name, arguments = function.get("name"), function.get("arguments")
    written = arguments if isinstance(arguments, str | None) else orjson.dumps(arguments).decode()
    number = call.get("id")
    return {
        "id": number if isinstance(number, str) else None,
        "type": "function",
        "function": {"name": name if isinstance(name, str) else "unknown", "arguments": written},
    }


def _instruction(row: Row) -> Obj:
    payload = row["payload"]
    made = {"role": payload["role"] or "user", "content": payload["content"] or "", "train": False}
    return made | ({"is_demo": True} if payload["is_demo"] else {})


def _reply(row: Row, train: bool) -> Obj:
    payload = row["payload"]
    made: Obj = {"role": "assistant", "content": payload["text"] or "", "train": train}
    calls = calls_of(row)
    made |= {"tool_calls": calls} if calls else {}
    more = {"thought": payload["thought"], "reasoning_content": payload["reasoning"]}
    return made | {k: v for k, v in more.items() if v is not None}


def _answer(row: Row) -> Obj:
    payload = row["payload"]
    shown = payload["rendered"] if payload["rendered"] is not None else payload["raw"]
    made = {"role": payload["role"] or "user", "content": shown or "", "train": False}
    return made | ({} if payload["tool_call_id"] is None else {"tool_call_id": payload["tool_call_id"]})


def _interrupted(trajectory: Trajectory) -> float:
    """The last step whose prompt held nothing but instructions, replies and answers."""
    shown = [r["step"] for r in trajectory.of("feedback") if r["payload"]["mode"] in SHOWN]
    shown += [r["step"] for r in trajectory.of("notice") if r["payload"]["target"] == "agent"]
    return min((-1 if s is None else s for s in shown), default=float("inf"))


def about(trajectory: Trajectory) -> Obj:
    """What a row says of its trajectory besides its messages; nulls left out."""
    task, start, end = trajectory.first("task"), trajectory.first("start"), trajectory.last("end")
    tools = [i["payload"]["tools"] for i in trajectory.of("instruction") if i["payload"]["tools"] is not None]
    row = {
        "stepwell_trajectory": trajectory.trajectory_id,
        "corpus": trajectory.corpus,
        "instance_id": trajectory.facts["task_id"],
        "problem_statement": task.get("statement"),
        "repo": task.get("repo"),
        "base_commit": task.get("base_commit"),
        "run_id": start.get("run_id"),
        "agent": start.get("agent"),
        "model": start.get("model"),
        "resolved": trajectory.facts["resolved"],
        "exit_status": end.get("exit_status"),
        "model_patch": end.get("submission"),
        "tools": tools[0] if tools else None,
    }
    return {k: v for k, v in row.items() if v is not None}
