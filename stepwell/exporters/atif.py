"""ATIF 1.7 trajectories (Harbor RFC 0001): one document each, in a file of its own or a line of JSON lines.

Held: everything. An action is a step of source `agent` with its tool calls (arguments as objects), the observations of the
environment and of tools as its results, usage as `metrics`; an instruction, and an observation that is a message of a person
or of the system, is a step of its own, as is an attempt where nothing but attempts was made; `final_metrics` are the totals
of the end. Everything else stands under `extra.stepwell` of the step, the result or the document, as `stepwell.carried`
says: columns without a place, values the place cannot hold (arguments that are no JSON object, absent text), verdicts, masks,
labels, feedback and notices of a step, the task, outcomes and rewards of the whole. Replies of a demonstration, and those
copied from another trajectory, are marked `is_copied_context`, which readers must not train on. Steps that a person typed or
the harness wrote have an `llm_call_count` of 0, and so neither model, reasoning nor metrics of their own.

Not held: the ids of the trajectory and its events (a reader gives new ones; references between them are kept), numbers of
steps in which nobody acted, when it was recorded. Left out: tasks nobody worked on, as ATIF has no document without
steps. Subagents are documents of their own that name their parent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import orjson

from stepwell.carried import ENVELOPE, KEY, NATIVE, NATIVE_USAGE, PLACELESS
from stepwell.conversation import is_of_source
from stepwell.exporters.base import (
    LeftOut,
    Make,
    Obj,
    OpenSink,
    Options,
    Row,
    Trajectory,
    by_position,
    by_step,
    flagged,
    loaded,
)
from stepwell.exporters.reading import columns_of
from stepwell.exporters.writing import Documents, JsonLines

_USAGE = {"tokens_in": "prompt_tokens", "tokens_out": "completion_tokens", "cache_read": "cached_tokens"}
_TOTALS = {"tokens_in": "total_prompt_tokens", "tokens_out": "total_completion_tokens", "cost_usd": "total_cost_usd"}
_KINDS = frozenset((*NATIVE, *PLACELESS))
_NO_MODEL = ("human", "system")
"""Actors whose steps no call of a model made."""


class Atif:
    """Writes one document a trajectory."""

    name = "atif"
    reads: Literal["trajectories", "dataset"] = "trajectories"
    kinds = _KINDS
    holds: Mapping[str, tuple[str, ...]] = {
        **{kind: columns_of(kind) for kind in sorted(_KINDS)},
        "usage": columns_of("usage"),
    }
    sinks: Mapping[str, OpenSink] = {".jsonl": JsonLines, "": Documents}

    def make(self, options: Options) -> Make:
        """Documents with the masks of their source, and of the rule named or of all rules."""
        return partial(document, mask_rule=options.mask_rule)


EXPORTER = Atif()


def document(trajectory: Trajectory, mask_rule: str | None = None) -> Obj | LeftOut:
    """A trajectory -> its ATIF document, with the masks of its source, and those of one rule or of all."""
    if not any(trajectory.of(kind) for kind in ("instruction", "action", "attempt")):
        return LeftOut("nobody said anything: ATIF has no document without steps")
    if mask_rule is not None:
        masks = [
            m
            for m in trajectory.of("mask")
            if m["payload"]["mask_rule"] == mask_rule or is_of_source(m["policy"], m["payload"]["weight"])
        ]
        trajectory = replace(trajectory, events={**trajectory.events, "mask": masks})
    try:
        made = _Document(trajectory).whole(parsed=True)
        orjson.dumps(made)
    except orjson.JSONEncodeError:  # nested too deep to be written inside a document: kept as text
        made = _Document(trajectory).whole(parsed=False)
    return made


class _Document:
    """One document in the making."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.of, self.steps = trajectory, list[Obj]()
        self.placed: dict[int | None, Obj] = {}

    def whole(self, parsed: bool) -> Obj:
        """The document; `parsed`: arguments and tool schemas as objects."""
        start, end = self.of.of("start"), self.of.of("end")
        model = self.of.first("start").get("model")
        offered = [i for i in self.of.of("instruction") if i["payload"]["tools"] is not None]
        tools = _objects(offered[0]["payload"]["tools"]) if offered and parsed else None
        for n, row in enumerate(by_position(self.of.of("instruction"))):
            self._instruction(row, tools if n == 0 else None)
        observed = by_step(self.of.of("observation"))
        for row in self.of.of("action"):
            step = self._action(row, model, parsed)
            for seen in observed.pop(row["step"], ()):
                step = self._observation(seen, step)
        acted = "action" if self.of.of("action") else "attempt"
        for row in self.of.of("attempt") if acted == "attempt" else ():
            self._attempt(row)
        mine: Obj = {"trajectory_id": self.of.trajectory_id, "corpus": self.of.corpus}
        mine |= {"start": flat(start[0], NATIVE["start"])} if start else {}
        mine |= {"end": flat(end[-1], NATIVE["end"])} if end else {}
        self.placed[None] = mine
        rest = [*start[1:], *end[:-1], *(r for rows in observed.values() for r in rows)]
        rest += [r for kind in PLACELESS if kind != acted for r in self.of.of(kind)]
        for row in rest:
            self._place(row)
        agent: Obj = _agent(self.of.first("start").get("agent")) | ({"model_name": model} if model is not None else {})
        made: Obj = {"schema_version": "ATIF-v1.7"}
        made |= {"session_id": run} if (run := self.of.first("start").get("run_id")) is not None else {}
        made |= {"trajectory_id": self.of.trajectory_id, "agent": agent, "steps": self.steps}
        agent |= {"tool_definitions": tools} if tools is not None else {}
        totals = _named(self.of.last("end"), _TOTALS)
        made |= {"final_metrics": {**totals, "total_steps": len(self.steps)}} if end else {}
        return made | {"extra": {KEY: mine}}

    def _step(self, row: Row, source: str, text: str | None, mine: Obj) -> Obj:
        step: Obj = {"step_id": len(self.steps) + 1, "source": source, "message": text or ""}
        if row["occurred_at"] is not None:
            step["timestamp"] = _time(row["occurred_at"])
        step["extra"] = {KEY: {"kind": row["kind"], **mine}}
        self.steps.append(step)
        return step

    def _instruction(self, row: Row, tools: list[Obj] | None) -> None:
        payload = row["payload"]
        native = ["content"] if payload["content"] is not None else []
        exact = tools is not None and orjson.dumps(tools).decode() == payload["tools"]
        mine = flat(row, [*native, *(["tools"] if exact else []), "occurred_at"])
        mine |= {} if native else {"content": None}
        mine |= {"tools": None} if payload["tools"] is None and tools is not None else {}
        role = payload["role"]
        source = "agent" if role == "assistant" else role if role in ("system", "user") else "user"
        step = self._step(row, source, payload["content"], mine)
        step |= {"is_copied_context": True} if source == "agent" else {}

    def _action(self, row: Row, model: str | None, parsed: bool) -> Obj:
        payload, usage = row["payload"], row["usage"] or {}
        calls = _calls(payload["tool_calls"], parsed)
        exact = bool(calls) and _as_imported(calls) == payload["tool_calls"]
        copied = flagged(row, "is_copied_context")
        ours = row["actor"] not in _NO_MODEL or copied
        places = ("text", "reasoning") if ours else ("text",)
        native = [c for c in places if payload[c] is not None] + (["tool_calls"] if exact else [])
        mine = flat(row, [*native, "occurred_at"], NATIVE_USAGE if ours else ())
        mine |= {"text": None} if payload["text"] is None else {}
        step = self._step(row, "agent", payload["text"], mine)
        step |= {"tool_calls": calls} if calls else {}
        if ours:
            step |= {"model_name": row["policy"]} if row["policy"] not in (None, model) else {}
            step |= {"reasoning_content": payload["reasoning"]} if payload["reasoning"] is not None else {}
            metrics = _named(usage, _USAGE | {"cost_usd": "cost_usd"})
            step |= {"metrics": metrics} if metrics else {}
            step |= {"is_copied_context": True} if copied else {}
        else:
            step["llm_call_count"] = 0
        self.placed.setdefault(row["step"], step["extra"][KEY])
        return step

    def _attempt(self, row: Row) -> None:
        code = row["payload"]["code"]
        mine = flat(row, ["code"]) | {"step": row["step"]} | ({"code": None} if code is None else {})
        self.placed.setdefault(row["step"], self._step(row, "agent", code, mine)["extra"][KEY])

    def _observation(self, row: Row, step: Obj) -> Obj:
        """Add an observation to a step, or as a step; returns the step that later ones are added to."""
        payload = row["payload"]
        shown = payload["rendered"] if payload["rendered"] is not None else payload["raw"]
        told = row["actor"] != "environment" and payload["role"] != "tool"
        called = any(c["tool_call_id"] == payload["tool_call_id"] for c in step.get("tool_calls", ()))
        native = ["rendered"] if payload["rendered"] is not None else []
        native += ["raw"] if payload["raw"] == shown else []
        native += ["tool_call_id"] if called and not told else []
        mine = flat(row, [*native, "occurred_at"] if told else native)
        mine |= {"rendered": None} if payload["rendered"] is None else {}
        mine |= {"same": ["raw"]} if payload["raw"] is not None and payload["raw"] == shown else {}
        if told:
            return self._step(row, payload["role"] if payload["role"] in ("system", "user") else "user", shown, mine)
        result: Obj = {"source_call_id": payload["tool_call_id"]} if called else {}
        result |= {"content": shown} if shown is not None else {}
        held = step.setdefault("observation", {"results": []})
        held["results"].append({**result, "extra": {KEY: {"kind": row["kind"], **mine}}})
        return step

    def _place(self, row: Row) -> None:
        """Add an event without a place of its own to the step it is about, else to the document."""
        at = self.placed.get(row["step"])
        more = {} if at is not None else {"step": row["step"]}
        at = self.placed[None] if at is None else at
        at.setdefault("events", {}).setdefault(row["kind"], []).append(flat(row) | more)


def flat(row: Row, without: Sequence[str] = (), without_usage: Sequence[str] = ()) -> Obj:
    """An event as `stepwell.carried` says, without these columns."""
    made: Obj = {k: row[k] for k in ENVELOPE if k not in ("step", "usage", *without) and row[k] is not None}
    if "occurred_at" in made:
        made["occurred_at"] = _time(made["occurred_at"])
    usage = {k: v for k, v in (row["usage"] or {}).items() if v is not None and k not in without_usage}
    made |= {"usage": usage} if usage else {}
    return made | {k: v for k, v in row["payload"].items() if v is not None and k not in without}


def _named(columns: Obj, names: dict[str, str]) -> Obj:
    return {names[k]: columns[k] for k in names if columns.get(k) is not None}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _agent(written: str | None) -> Obj:
    """Name and version of an agent; both are required."""
    name, _, version = (written or "unknown").rpartition(" ")
    return {"name": name, "version": version} if name else {"name": version, "version": "unknown"}


def _objects(text: str) -> list[Obj] | None:
    """A list of objects written as JSON; None for anything else."""
    value = loaded(text)
    return value if isinstance(value, list) and all(isinstance(v, dict) for v in value) else None


def _calls(written: str | None, parsed: bool) -> list[Obj]:
    """Tool calls in chat shape -> as ATIF has them; an id or name that is missing is made up."""
    calls = loaded(written) if written else None
    made = []
    for i, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        function = function if isinstance(function, dict) else {}
        name, number = function.get("name"), call.get("id") if isinstance(call, dict) else None
        text = function.get("arguments")
        arguments = loaded(text) if parsed and isinstance(text, str) else None
        made.append(
            {
                "tool_call_id": number if isinstance(number, str) else f"call_{i}",
                "function_name": name if isinstance(name, str) else "unknown",
                "arguments": arguments if isinstance(arguments, dict) else {},
            }
        )
    return made


def _as_imported(calls: list[Obj]) -> str:
    """What a reader makes of these calls: chat shape, arguments as compact JSON."""
    shaped = [
        {
            "id": c["tool_call_id"],
            "type": "function",
            "function": {"name": c["function_name"], "arguments": orjson.dumps(c["arguments"]).decode()},
        }
        for c in calls
    ]
    return orjson.dumps(shaped).decode()
