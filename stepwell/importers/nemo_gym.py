"""NeMo Gym rollouts: one line of JSON is one rollout of an agent or model on one task, with its reward.

Kept where: `response.output` is a flat list of items of the Responses API; items of the agent (reasoning, messages, calls)
up to the next answer are one step, or up to the item that carries the token ids of the model call; outputs of calls and
messages to the agent are its observations. `responses_create_params.input` and `instructions` are instructions (where they
are empty the statement stands for the prompt around it), its tools stand with the first of them, the rest of it is
`start.config`. `reward` is a `reward` event, with a group where the source numbers tasks (`_ng_task_index`), and an
`outcome`: resolved as `resolved` says, else by a reward of exactly 1 or 0. The patch, code or answer handed in is
`end.submission`. A rollout marked `mask_sample` gets a mask of weight 0 on every step. A rollout with a result and no items
keeps both: it has no steps.

In `extra`: what is left of every item (token ids and log probabilities among it), of the response, the request's metadata (of
the task), and all other fields of the line (of `end`). What `instance_config` repeats of the request is told once.
Never logged: gold patches, hidden tests and expected answers, only their hashes (`task`, and in place in `extra`).
Not in the format: time and cost of a step; usage is of the whole run, and 0 where it was not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.ids import sha256
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import (
    Obj,
    obj,
    pack,
    responses_output,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
)
from stepwell.importers.response_items import Turn, exit_code, lean, rest_of_item, turns
from stepwell.importers.sealed import SOLUTIONS, TESTS, Seal
from stepwell.importers.streams import command_of

_SUBMITTED = ("model_patch", "extracted_model_code", "extracted_answer")


class NemoGym:
    """Reads NeMo Gym rollouts; one record is one trajectory."""

    name = "nemo-gym-rollouts"
    versions = ("",)
    unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "yes",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "of the response",
        "exact prompts": "no",
        "tool schemas": "yes",
        "token ids": "where the run trained",
    }

    def tells(self, record: Obj) -> str:
        """The request and the response side by side."""
        both = "responses_create_params" in record and "response" in record
        return "`responses_create_params`, `response`" if both else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A line -> one trajectory, or one reject when it has no request."""
        try:
            yield _read(obj(data), source)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = NemoGym()


def _read(rest: Obj, source: SourceFile) -> Imported:
    if not isinstance(rest.get("responses_create_params"), dict):
        raise BadInput("malformed", "`responses_create_params` is no object.")
    _once(rest, rest["responses_create_params"])
    request, response = take_obj(rest, "responses_create_params"), take_obj(rest, "response")
    seal = Seal(TESTS, SOLUTIONS)
    metadata = take_obj(request, "metadata")
    given, task = _given(request), obj(obj(seal.open(metadata)).get("instance_dict"))
    statement = take_text(metadata, "problem_statement") or _asked(given)
    instance = _instance(rest, metadata)
    rest, kept, response_rest = (
        seal.strip(rest),
        seal.strip(metadata),
        {k: v for k, v in response.items() if k != "output"},
    )
    agent = take_text(obj(rest.get("agent_ref")), "name")
    model = take_text(dict(response), "model") or take_text(dict(request), "model") or None
    builder = Builder.of(source, NemoGym.name, instance, f"NeMo Gym {agent}" if agent else "NeMo Gym")
    settings = obj(rest.get("instance_config"))
    run = take_text(dict(settings), "run_session_id")

    if isinstance(kept.get("instance_dict"), dict) and kept["instance_dict"].get("problem_statement") == statement:
        kept["instance_dict"] = {k: v for k, v in kept["instance_dict"].items() if k != "problem_statement"}
    builder.task(
        instance,
        statement,
        kept,
        suite=_first(("dataset_name", metadata), ("subset", rest), ("dataset", rest)),
        split=_first(("split", metadata), ("split", rest)),
        repo=_first(("repo", task)),
        base_commit=_first(("base_commit", task)),
        created_at=_first(("created_at", task)),
        tests_hash=seal.tests_hash,
        solution_hash=seal.solution_hash,
        compared=seal.compared,
    )
    items = response.get("output")
    before, found, odd = turns(items if isinstance(items, list) else [])
    tools = request.pop("tools", None)
    told = {"tools": tools} if tools and not given + before and statement is None else {}
    attempt = take_int(dict(rest), "_ng_rollout_index", 32)
    builder.start(
        {
            "task_id": instance,
            "attempt": attempt,
            "model": model,
            "environment": _first(("image", rest), ("container", settings)),
            "run_id": run,
            "config": pack(lean(seal.strip(request))),
        },
        told,
    )
    if not given + before and statement is not None:
        before = [{"role": "user", "content": statement, "not_in_source": "the prompt around the statement"}]
    for position, message in enumerate(given + before):
        left = dict(message)
        offered = orjson.dumps(tools).decode() if tools and position == 0 else None
        role = take_text(left, "role") or "user"
        builder.instruction(position, role, take_content(left), False, lean(left), tools=offered)
    actions = [_act(builder, turn, model) for turn in found]
    if odd or not isinstance(items, list | None):
        response_rest["output"] = odd or items
    _end(builder, rest, seal.strip(response_rest))
    end = builder.events[-1]
    about = [instance or (sha256(statement)[:16] if statement else ""), str(rest.get("_ng_task_index")), agent or ""]
    numbered = take_int(dict(rest), "_ng_task_index") is not None
    _grade(builder, rest, end, "/".join([*about, model or "", run or ""]) if numbered else None)
    if rest.get("mask_sample") is True:
        for action in actions:
            payload = {"mask_rule": "nemo-gym mask_sample", "weight": 0.0, "reason": "mask_sample"}
            evidence = {"evidence": [end.event_id]}
            builder.add("mask", "system", payload | evidence, step=action.step, caused_by=end.event_id)
    return builder.imported(instance)


def _given(request: Obj) -> list[Obj]:
    """The messages of the request, in order; what is no message stays in it."""
    system = take_text(request, "instructions")
    first: list[Obj] = [] if system is None else [{"role": "system", "content": system}]
    asked = request.get("input")
    if isinstance(asked, str):
        return [*first, {"role": "user", "content": request.pop("input")}]
    if isinstance(asked, list) and all(isinstance(m, dict) for m in asked):
        return [*first, *request.pop("input")]
    return first


def _asked(given: list[Obj]) -> str | None:
    texts = [take_content(dict(m)) for m in given if m.get("role") == "user"]
    return "\n\n".join(t for t in texts if t) or None


def _instance(rest: Obj, metadata: Obj) -> str | None:
    """Identity of the task, under the names the environments give it."""
    inner, own = obj(rest.get("verifier_metadata")), obj(rest.get("metadata"))
    places = (("instance_id", metadata), ("instance_id", rest), ("task_id", rest), ("task_id", inner))
    return _first(*places, ("instance_id", inner), ("task_name", own), ("hash_id", rest), ("uuid", rest))


def _first(*places: tuple[str, Obj]) -> str | None:
    return next((o[key] for key, o in places if isinstance(o.get(key), str) and o[key]), None)


def _once(rest: Obj, request: Obj) -> None:
    """Take out of `instance_config` what it repeats of the request."""
    settings = take_obj(rest, "instance_config")
    for name, known in (("problem_info", obj(request.get("metadata"))), ("body", request)):
        again = take_obj(settings, name)
        differs = {k: v for k, v in again.items() if k not in known or known[k] != v}
        settings |= {name: differs} if differs else {}
    if settings:
        rest["instance_config"] = settings


def _act(builder: Builder, turn: Turn, model: str | None) -> Event:
    text, calls = responses_output(turn.reply)
    thoughts: list[str] = []
    left = [rest_of_item(dict(item), thoughts) for item in turn.reply]
    payload = {
        "text": text,
        "command": command_of(calls),
        "reasoning": "\n\n".join(thoughts) or None,
    }
    extra = {"items": left} if any(left) else {}
    action = builder.action(payload, calls=calls, usage={}, policy=model, extra=extra)
    for position, answer in enumerate(turn.answers):
        _observe(builder, action, position, dict(answer))
    return action


def _observe(builder: Builder, action: Event, position: int, left: Obj) -> None:
    is_output = str(left.get("type")).endswith("_output")
    raw = take_content(left, "output") if is_output else take_content(left)
    payload = {
        "position": position,
        "raw": raw,
        "role": "tool" if is_output else take_text(left, "role"),
        "tool_call_id": take_text(left, "call_id"),
        "exit_code": exit_code(raw),
    }
    builder.observation(action, payload, lean(left))


def _end(builder: Builder, rest: Obj, response: Obj) -> None:
    usage = dict(obj(response.get("usage")))
    counted = any(take_int(dict(usage), k) for k in ("input_tokens", "output_tokens"))
    why = take_text(dict(obj(response.get("incomplete_details"))), "reason")
    submitted = next((take_text(rest, k) for k in _SUBMITTED if isinstance(rest.get(k), str) and rest[k]), None)
    payload = {
        "exit_status": _first(("error_kind", rest)) or why or _first(("status", response)),
        "submission": submitted,
        "tokens_in": take_int(usage, "input_tokens") if counted else None,
        "tokens_out": take_int(usage, "output_tokens") if counted else None,
        "duration_s": take_float(rest, "agent_run_time"),
    }
    occurred_at = take_time(response, "created_at")
    response = lean(response)
    builder.end(payload, {**rest, **({"response": response} if response else {})}, occurred_at)


def _grade(builder: Builder, rest: Obj, end: Event, group: str | None) -> None:
    """The outcome and the reward of a rollout; neither where the source has none."""
    reward = take_float(dict(rest), "reward")
    resolved = rest.get("resolved") if isinstance(rest.get("resolved"), bool) else None
    if reward is None and resolved is None:
        return
    if resolved is None and reward in (0.0, 1.0):
        resolved = reward == 1.0
    score = reward if reward is not None and 0 <= reward <= 1 else None
    graded = {"subject": "trajectory", "grader": "NeMo Gym", "rule": "reported", "resolved": resolved, "score": score}
    told = builder.add("outcome", "grader", graded | {"rerun": 0}, policy="NeMo Gym", caused_by=end.event_id)
    if reward is not None:
        payload = {"group_id": group, "reward": reward, "rule": "NeMo Gym reward"}
        builder.add("reward", "grader", payload, policy="NeMo Gym", caused_by=told.event_id)
