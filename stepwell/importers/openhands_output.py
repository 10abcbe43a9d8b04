"""OpenHands evaluation output (`output.jsonl`, V0 events): one record an instance, with its `history`.

Kept where: every action of the agent is one step, except those that steer the harness (recall, state changes, condensation;
what came back for these is no observation either). The reply is that of the model response the action came from; when several
actions share one response, each is a step with the response's `call_id`, and text, tokens and cost stand with the first. An
observation belongs to the action it names as `cause`. Tokens and latency are joined by response id; a cost a step only where
`metrics.costs` has one for every call. System prompt and messages of the user are instructions before the first step,
observations after it. `instance` is the task: its gold patch and tests are hashes only. `test_result.report` (or `report`) is
the outcome; the resolver's `success` is an opinion of a model, and so a verdict. `error` is the exit status.

In `extra`: the rest of each event and response, `metrics`, `metadata` beside what has a column, and in `records` of the end all
events that are no step's. Times have no zone. Not in the format: the prompts, token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.messages import (
    Obj,
    inner_message,
    obj,
    pack,
    take_calls,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
    take_usage,
)
from stepwell.importers.sealed import Seal
from stepwell.importers.streams import Stream, command_of

_STEERING = ("system", "recall", "change_agent_state", "condensation", "condensation_request", "null", "pause", "resume",
             "stop", "start", "initialize", "push", "send_pr", "add_task", "modify_task")  # fmt: skip
_UNSEEN = ("recall", "agent_state_changed", "null", "condense")
"""Observations whose `content` no model is shown: of a recall the prompt has what is in its `extras`, in other words."""
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS", "test_patch", "f2p_tests", "p2p_tests", "s2p_tests", "n2p_tests", "run_result",
          "test_patch_result", "fix_patch_result", "fixed_tests", "tests")  # fmt: skip
_SOLUTIONS = ("patch", "gold_patch", "fix_patch", "resolved_issues_patch")
_RUNNING = -1
"""The exit code of a command that had none yet."""
_LEADS = {"run": "command", "run_ipython": "code"}


class OpenHandsOutput:
    """Reads one record as one trajectory."""

    name = "openhands-output"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "where it was evaluated",
        "step cost": "where every call has one",
        "step tokens": "yes",
        "timestamps": "without a zone",
        "exact prompts": "no",
        "tool schemas": "yes",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One record -> one trajectory, or one reject when it is no object or its history no list."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = OpenHandsOutput()


def _read(rest: Obj, source: SourceFile) -> Imported:
    if not rest:
        raise BadInput("malformed", "the record is no object, or an empty one.")
    history = rest.pop("history", None)
    if not isinstance(history, list | None):
        raise BadInput("malformed", "`history` is neither a list nor null.")
    seal = Seal(_TESTS, _SOLUTIONS)
    instance = seal.strip(take_obj(rest, "instance"))
    metadata, metrics = take_obj(rest, "metadata"), take_obj(rest, "metrics")
    named = take_text(rest, "instance_id") or take_text(instance, "instance_id")
    config = take_obj(metadata, "llm_config")
    model = take_text(config, "model")
    builder = Builder.of(source, OpenHandsOutput.name, named, "OpenHands")
    builder.agent = " ".join(filter(None, ["OpenHands", take_text(metadata, "agent_class")]))
    statement = take_text(instance, "problem_statement")
    builder.task(
        named, statement, instance, repo=take_text(instance, "repo"), base_commit=take_text(instance, "base_commit"),
        tests_hash=seal.tests_hash, solution_hash=seal.solution_hash,
        compared=seal.compared,
    )  # fmt: skip
    start = {
        "task_id": named,
        "model": model,
        "step_limit": take_int(metadata, "max_iterations", 32),
        "config": pack({**metadata, "llm_config": config}),
    }
    builder.start(start)
    instruction = take_text(rest, "instruction")
    writer = _Writer(_Events(builder), _Spent(metrics), model)
    for event in _flat(history or []):
        writer.event(event)
    if instruction is not None and not any(e.payload.get("content") == instruction for e in builder.events):
        rest["instruction"] = instruction
    _end(builder, rest, metrics, writer.stream.records)
    return builder.imported(named)


def _flat(history: list[Any]) -> Iterator[Any]:
    """Events one after the other; the oldest files have pairs of action and observation."""
    for item in history:
        yield from item if isinstance(item, list) else [item]


class _Spent:
    """Tokens, latency and cost of each response, by its id."""

    def __init__(self, metrics: Obj) -> None:
        self._usage = _by_response(metrics.get("token_usages"))
        self._latency = _by_response(metrics.get("response_latencies"))
        usages, costs = metrics.get("token_usages"), metrics.get("costs")
        paired = isinstance(usages, list) and isinstance(costs, list) and len(usages) == len(costs)
        self._costs = {}
        for usage, cost in zip(usages, costs, strict=True) if paired else ():  # type: ignore[arg-type]
            value = cost.get("cost") if isinstance(cost, dict) else cost
            if isinstance(usage, dict) and isinstance(usage.get("response_id"), str):
                self._costs[usage["response_id"]] = take_float({"cost": value}, "cost")

    def of(self, response_id: str | None) -> Obj:
        """Usage columns of a response; empty for one that is not known."""
        counts, latency = dict(self._usage.get(response_id, {})), dict(self._latency.get(response_id, {}))
        cost = self._costs.get(response_id or "")
        return {
            "tokens_in": take_int(counts, "prompt_tokens"),
            "tokens_out": take_int(counts, "completion_tokens"),
            "cache_read": take_int(counts, "cache_read_tokens"),
            "cache_write": take_int(counts, "cache_write_tokens"),
            "latency_s": take_float(latency, "latency"),
            "cost_usd": cost,
            "price_policy": None if cost is None else "source",
        }


def _by_response(items: Any) -> dict[str | None, Obj]:
    rows = items if isinstance(items, list) else []
    return {r["response_id"]: r for r in rows if isinstance(r, dict) and isinstance(r.get("response_id"), str)}


class _Events(Stream):
    """A stream whose answers may name their action, as `cause` does."""

    def answer_to(self, action: Event | None, call: str | None, payload: Obj, extra: Obj, **envelope: Any) -> None:
        """What came back for an action; where none is named, for the call."""
        if action is None:
            self.answer(call, payload, extra, **envelope)
        else:
            self._observe(action, {"role": "tool", "tool_call_id": call, **payload}, extra, **envelope)


class _Writer:
    """Writes the events of a history."""

    def __init__(self, stream: _Events, spent: _Spent, model: str | None) -> None:
        self.stream, self.spent, self.model = stream, spent, model
        self._actions: dict[int, Event] = {}
        self._responses: dict[str, Any] = {}

    def event(self, event: Any) -> None:
        """One event of the history."""
        if not isinstance(event, dict):
            self.stream.records.append(event)
            return
        kind = event.get("action")
        if isinstance(kind, str) and "observation" not in event:
            self._action(dict(event), kind)
        elif isinstance(event.get("observation"), str) and event["observation"] not in _UNSEEN:
            self._observation(dict(event))
        else:
            self.stream.records.append(event)

    def _action(self, left: Obj, kind: str) -> None:
        args = take_obj(left, "args")
        ours = left.get("source") in ("agent", None) and kind not in _STEERING
        if kind in ("system", "message") and not ours:
            self._message(left, args, kind)
        elif ours:
            self._act(left, args or left, kind)
        else:
            self.stream.records.append({**left, "args": args} if args else left)

    def _message(self, left: Obj, args: Obj, kind: str) -> None:
        text, at = take_content(args), take_time(left, "timestamp")
        shown = left.pop("message", None)
        tools = args.pop("tools", None)
        extra = {
            **left,
            **({"args": args} if args else {}),
            **({"message": shown} if shown not in (None, text) else {}),
        }
        role = "system" if kind == "system" else "user"
        self.stream.tell(
            role, text, extra, occurred_at=at, **({} if tools is None else {"tools": orjson.dumps(tools).decode()})
        )

    def _act(self, left: Obj, args: Obj, kind: str) -> None:
        at, number = take_time(left, "timestamp"), left.get("id")
        told = take_obj(left, "tool_call_metadata")
        response = take_obj(told, "model_response")
        response_id = response.get("id") if isinstance(response.get("id"), str) else None
        first = response_id is None or response_id not in self._responses
        if response_id is not None:
            self._responses.setdefault(response_id, dict(response))
        text, calls, usage, reasoning = self._said(told, response, response_id, first)
        thought = take_text(args, "thought")
        if text is None and first:
            text = thought or (take_text(args, "content") if kind == "message" else None)
        command = take_text(args, _LEADS[kind]) if kind in _LEADS else None
        if command is None and kind != "message":
            command = command_of(calls) or " ".join([kind, orjson.dumps(args if args is not left else {}).decode()])
        extra = {
            **left,
            **({"args": args} if args and args is not left else {}),
            **({"tool_call_metadata": told} if told else {}),
            **({"response": response} if response and first else {}),
        }
        action = self.stream.act(
            text, calls, usage=usage, extra=extra, policy=self.model, occurred_at=at, thought=thought, reasoning=reasoning,
            command=command,
        )  # fmt: skip
        if isinstance(number, int):
            self._actions[number] = action

    def _said(
        self, told: Obj, response: Obj, response_id: str | None, first: bool
    ) -> tuple[str | None, list[Any], Obj, str | None]:
        """Text, calls, usage and reasoning of the response an action came from; of a later action its call only."""
        message = inner_message(response, {})
        calls = take_calls(message)
        mine = [c for c in calls if isinstance(c, dict) and c.get("id") == told.get("tool_call_id")]
        if not first:
            return None, mine, {"call_id": response_id}, None
        text = take_content(message)
        reasoning = take_text(message, "reasoning_content") or take_text(message, "reasoning")
        spare: Obj = {}
        own = take_usage(response, spare)
        known = {k: v for k, v in self.spent.of(response_id).items() if v is not None}
        if len(calls) > len(mine):
            message["tool_calls"] = [c for c in calls if c not in mine]
        choices = response.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            response["choices"] = [{**choices[0], "message": message}, *choices[1:]]
        response |= spare
        return text, mine, {**own, **known, "call_id": response_id}, reasoning

    def _observation(self, left: Obj) -> None:
        at, cause = take_time(left, "timestamp"), left.get("cause")
        action = self._actions.get(cause) if isinstance(cause, int) else None
        told = take_obj(left, "tool_call_metadata")
        response = told.get("model_response")
        if isinstance(response, dict) and response == self._responses.get(str(response.get("id"))):
            del told["model_response"]
        call = take_text(told, "tool_call_id")
        text, shown = take_content(left), left.pop("message", None)
        extras = take_obj(left, "extras")
        codes = (take_int(dict(o), "exit_code", 32) for o in (obj(extras.get("metadata")), extras))
        code = next((c for c in codes if c not in (None, _RUNNING)), None)
        extra = {
            **left,
            **({"extras": extras} if extras else {}),
            **({"tool_call_metadata": told} if told else {}),
            **({"message": shown} if shown not in (None, text) else {}),
        }
        if action is None and self.stream.last is None:
            self.stream.tell("user", text, extra, occurred_at=at)
        elif action is None and call is None:
            self.stream.tell("user", text, extra, actor="environment", occurred_at=at)
        else:
            self.stream.answer_to(action, call, {"rendered": text, "exit_code": code}, extra, occurred_at=at)


def _end(builder: Builder, rest: Obj, metrics: Obj, records: list[Any]) -> None:
    result = take_obj(rest, "test_result")
    patch = take_text(result, "git_patch") or take_text(rest, "git_patch")
    report = take_obj(result, "report") or take_obj(rest, "report")
    totals, calls = obj(metrics.get("accumulated_token_usage")), metrics.get("token_usages")
    success = rest.pop("success") if isinstance(rest.get("success"), bool) else None
    explained = (
        None if success is None else take_text(rest, "result_explanation") or take_text(rest, "success_explanation")
    )
    payload = {
        "exit_status": take_text(rest, "error"),
        "submission": patch,
        "n_calls": len(calls) if isinstance(calls, list) else None,
        "tokens_in": take_int(dict(totals), "prompt_tokens"),
        "tokens_out": take_int(dict(totals), "completion_tokens"),
        "cost_usd": take_float(dict(metrics), "accumulated_cost"),
    }
    parts = {"test_result": result, "metrics": metrics, "records": records}
    builder.end(payload, {**rest, **{k: v for k, v in parts.items() if v}})
    ended = builder.events[-1].event_id
    if success is not None:
        opinion = {"scope": "trajectory", "judgment": success, "guidance": explained, "parse_status": "ok"}
        builder.add("verdict", "critic", opinion, policy="OpenHands resolver", caused_by=ended)
    if report:
        resolved = report.pop("resolved") if isinstance(report.get("resolved"), bool) else None
        graded = {"subject": "trajectory", "grader": "OpenHands evaluation", "rule": "reported", "resolved": resolved}
        builder.add(
            "outcome", "grader", {**graded, "rerun": 0}, policy="OpenHands evaluation", caused_by=ended, extra=report
        )
