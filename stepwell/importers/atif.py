"""ATIF trajectories (Harbor RFC 0001), versions 1.0 to 1.8.

Kept where: every step of source `agent` is a step, with its message, `reasoning_content`, tool calls (arguments as JSON text)
and, as observations, the results it holds. Steps of `user` and `system` before the first agent step are instructions, later
ones observations of the step before them, with their own results after them. A step with `is_copied_context` was made in
another trajectory, and one with an `llm_call_count` of 0 by the harness: they are steps of `system`, never trained on here.
`metrics` are usage, `final_metrics` the totals. Tool definitions are offered with the first instruction. Every embedded
subagent is a trajectory of its own, with this one as its parent.

What Stepwell exported under `extra.stepwell` is put back: columns, verdicts, masks, labels, feedback, outcomes.

In `extra`: token ids, logprobs, everything else under `extra`, references, content parts, whatever is not of the specification.
Not in the format: exit codes, latency; the task id and the outcome stand in Harbor's `result.json` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.messages import (
    Obj,
    obj,
    objects,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
)
from stepwell.importers.parse import document_identity
from stepwell.importers.restored import Restored, take_carried
from stepwell.importers.streams import command_of, function_call


class Atif:
    """Reads one document as one trajectory and one more for every embedded subagent."""

    name = "atif"
    versions = tuple(f"1.{minor}" for minor in range(9))
    unit: Unit = "document"
    capabilities: Mapping[str, str] = {
        "outcome": "from Harbor's result.json beside it",
        "step cost": "where the source has it",
        "step tokens": "where the source has them",
        "timestamps": "where the source has them",
        "exact prompts": "by replay",
        "tool schemas": "from 1.5",
        "token ids": "in `extra`, from 1.3",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A parsed document -> its trajectory and those of its subagents; a reject for each that is not as written."""
        try:
            yield from _read(obj(data), source, None)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = Atif()
_OF_CALL = frozenset(("tool_call_id", "function_name", "arguments"))


def _read(rest: Obj, source: SourceFile, parent: str | None) -> Iterator[Imported | Rejected]:
    steps = objects(rest.pop("steps", None), "steps")
    embedded = rest.pop("subagent_trajectories") if isinstance(rest.get("subagent_trajectories"), list) else []
    agent = take_obj(rest, "agent")
    name, version, model = (take_text(agent, k) for k in ("name", "version", "model_name"))
    tools = agent.pop("tool_definitions", None)
    own, session = take_text(rest, "trajectory_id"), take_text(rest, "session_id")
    builder = Builder.of(source, Atif.name, own or session, " ".join(filter(None, [name, version])) or "unknown")
    more = {**({"agent": agent} if agent else {}), **({"trajectory_id": own} if own else {})}
    schema, mine = take_text(rest, "schema_version"), take_carried(rest)
    builder.start({"model": model, "run_id": session, "parent_trajectory": parent}, {**more, "schema_version": schema})
    restored = Restored(builder)
    restored.over(take_obj(mine, "start"))
    writer = _Writer(builder, restored, model, None if tools is None else orjson.dumps(tools).decode())
    for step in steps:
        writer.step(dict(step))
    totals = take_obj(rest, "final_metrics")
    payload = {
        "tokens_in": take_int(totals, "total_prompt_tokens"),
        "tokens_out": take_int(totals, "total_completion_tokens"),
        "cost_usd": take_float(totals, "total_cost_usd"),
    }
    if not mine or "end" in mine or rest:
        builder.end(payload, {**rest, **({"final_metrics": totals} if totals else {})})
        restored.over(take_obj(mine, "end"))
    restored.wait(mine, None)
    restored.finish()
    yield builder.imported(None)
    for i, one in enumerate(embedded):
        try:
            inner = replace(source, identity=document_identity(one), around={}, key=None)
            yield from _read(obj(one), inner, builder.trajectory_id)
        except BadInput as error:
            raw = orjson.dumps(one)
            yield Rejected(error.reason, f"subagent_trajectories[{i}]: {error.detail}", raw=raw)


class _Writer:
    """Writes the steps of one trajectory."""

    def __init__(self, builder: Builder, restored: Restored, model: str | None, tools: str | None) -> None:
        self.builder, self.restored, self.model, self.tools = builder, restored, model, tools
        self.last: Event | None = None
        self.given = self.answered = 0

    def step(self, left: Obj) -> None:
        """One step of the source."""
        number = left.pop("step_id", None)
        left |= {} if number is None else {"step_id": number}
        mine = take_carried(left)
        at = take_time(left, "timestamp")
        role = take_text(left, "source") or "user"
        text = take_content(left, "message")
        held = take_obj(left, "observation")
        results = held.pop("results") if isinstance(held.get("results"), list) else []
        if held:
            left["observation"] = held
        if role == "agent" and mine.get("kind") == "attempt":
            self.restored.attempt(mine, text)
        elif role == "agent" and (mine.get("kind") != "instruction" or self.last is not None):
            self._act(left, text, at)
            self.last, self.answered = self.restored.over(mine), 0
            for result in results:
                self._answer(result, {})
        else:
            self._tell(role, text, left, at)
            self.restored.over(mine)
            for result in results:
                self._answer(result, {"step_id": number})

    def _act(self, left: Obj, text: str | None, at: Any) -> None:
        if self.tools is not None and self.last is None and not self.given:
            self._tell("system", None, {}, None)
        metrics = take_obj(left, "metrics")
        cost = take_float(metrics, "cost_usd")
        usage = {
            "tokens_in": take_int(metrics, "prompt_tokens"),
            "tokens_out": take_int(metrics, "completion_tokens"),
            "cache_read": take_int(metrics, "cached_tokens"),
            "cost_usd": cost,
            "price_policy": None if cost is None else "source",
        }
        written = left.pop("tool_calls") if isinstance(left.get("tool_calls"), list) else []
        calls = [_call(c) for c in written]
        dispatched = type(n := left.get("llm_call_count")) is int and n == 0
        others = left.get("is_copied_context") is True or dispatched
        payload = {"text": text, "reasoning": take_text(left, "reasoning_content"), "command": command_of(calls)}
        policy = None if others else take_text(left, "model_name") or self.model
        if metrics:
            left["metrics"] = metrics
        actor = "system" if others else "agent"
        self.builder.action(payload, calls=calls, usage=usage, policy=policy, extra=left, actor=actor, occurred_at=at)

    def _tell(self, role: str, text: str | None, extra: Obj, at: Any) -> None:
        if self.last is None:
            tools = self.tools if not self.given else None
            self.builder.instruction(self.given, role, text, False, extra, tools=tools, occurred_at=at)
            self.given += 1
        else:
            actor = "human" if role == "user" else "system"
            self._observe({"rendered": text, "role": role}, extra, actor=actor, occurred_at=at)

    def _answer(self, result: Any, more: Obj) -> None:
        left = dict(result) if isinstance(result, dict) else {"result": result}
        mine = take_carried(left)
        call, text = take_text(left, "source_call_id"), take_content(left)
        left = {k: v for k, v in left.items() if v is not None} | more
        if self.last is None:
            self._tell("system", text, {**left, **({"source_call_id": call} if call else {})}, None)
        else:
            self._observe({"rendered": text, "role": "tool", "tool_call_id": call}, left)
        self.restored.over(mine)

    def _observe(self, payload: Obj, extra: Obj, **envelope: Any) -> None:
        assert self.last is not None
        self.builder.observation(self.last, {"position": self.answered, **payload}, extra, **envelope)
        self.answered += 1


def _call(written: Any) -> Any:
    """A tool call in chat shape; what is none stays as it is."""
    if not isinstance(written, dict) or not isinstance(written.get("function_name"), str):
        return written
    left = {k: v for k, v in written.items() if k not in _OF_CALL}
    return function_call(written.get("tool_call_id"), written["function_name"], written.get("arguments"), **left)
