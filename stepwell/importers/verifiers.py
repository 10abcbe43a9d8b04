"""verifiers runs: traces and episodes of version 1 (`traces.jsonl`), and rows of the releases before it (`results.jsonl`).

Kept where: a trace is a trajectory. Its nodes are messages of a graph; every sampled one is one step, once: the line that ends
last is the trajectory, and one that leaves it (compaction, a subagent) is a trajectory that continues it from the step it
forks from (`extra.without_prefix` of its start: no training row is made of it). The call of a node gives usage, cost, time and
sampling; `tokens_in` includes cached tokens. A row of an older release is a trajectory of the steps in its `trajectory`, with
their prompts (`dialogue` says how those are kept), else of its completion. Rewards are one reward event, the sum of score by
weight, and an outcome: score when it is in [0, 1], resolved when it is 1 and not when it is 0. A reward that is null was not
scored. The group of an episode is the group of its rewards.

Never logged: answers, solutions and tests of the task's data, only their hashes. In `extra`: token ids, masks, log
probabilities, advantages and loss weights of each message, as the source has them; metrics, errors and timing in the end;
the environment, the run and the episode's own errors in the start. Not in the format: exit codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.dialogue import Dialogue
from stepwell.importers.messages import (
    Obj,
    obj,
    objects,
    pack,
    take_calls,
    take_content,
    take_float,
    take_int,
    take_obj,
    take_text,
    take_time,
)
from stepwell.importers.sealed import SOLUTIONS, TESTS, Seal
from stepwell.importers.span_messages import plain
from stepwell.importers.streams import Stream, lines_of


class Verifiers:
    """Reads traces, episodes and older rows; a record has as many trajectories as lines of its traces."""

    name = "verifiers"
    versions = ("",)
    unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "rewards",
        "step cost": "where the provider said",
        "step tokens": "yes",
        "timestamps": "version 1",
        "exact prompts": "yes",
        "tool schemas": "version 1",
        "token ids": "in `extra`",
    }

    def tells(self, o: Obj) -> str:
        """Why an object is a row of a release before version 1."""
        return "`example_id`, `prompt`, `completion`" if {"example_id", "prompt", "completion"} <= o.keys() else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A line -> its traces, line by line of their graphs."""
        record = obj(data)
        try:
            if "nodes" in record:
                yield from _trace(record, {}, source)
            elif isinstance(record.get("traces"), list):
                yield from _episode(record, source)
            elif "completion" in record or isinstance(record.get("trajectory"), list):
                yield _row(record, source)
            else:
                yield Rejected("malformed", "neither `nodes`, nor `traces`, nor `completion`.")
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


def _seal() -> Seal:
    return Seal(TESTS, ("answer", *SOLUTIONS))


def _episode(record: Obj, source: SourceFile) -> Iterator[Imported | Rejected]:
    traces = record.pop("traces")
    if not traces:
        yield from _trace({"task": record.pop("task", None), "nodes": []}, record, source)
    for place, trace in enumerate(traces):
        try:
            if not isinstance(trace, dict):
                raise BadInput("malformed", f"`traces[{place}]` is no object.")
            episode = {k: v for k, v in record.items() if k != "task" or v != trace.get("task")}
            yield from _trace(dict(trace), episode, source, place)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


def _trace(trace: Obj, episode: Obj, source: SourceFile, place: int = 0) -> Iterator[Imported]:
    nodes = objects(trace.pop("nodes", None), "nodes")
    calls = {
        c["node"]: dict(c) for c in trace.get("calls") or [] if isinstance(c, dict) and isinstance(c.get("node"), int)
    }
    loose = [c for c in trace.pop("calls", None) or [] if not (isinstance(c, dict) and isinstance(c.get("node"), int))]
    seal = _seal()
    task = take_obj(trace, "task")
    data = obj(task.get("data"))
    named = (take_text(dict(o), k) for o, k in ((data, "id"), (task, "key"), (data, "name")))
    instance = next(filter(None, named), None) or (f"{task.get('type')}/{data['idx']}" if "idx" in data else None)
    prompt = data.get("prompt")
    statement = prompt if isinstance(prompt, str) else _asked(prompt)
    kept, rest, about = seal.strip(task), seal.strip(trace), seal.strip(episode)
    ends: dict[int, tuple[str, int]] = {}
    for number, (fork, line) in enumerate(lines_of(_parents(nodes)) or [(None, [])]):
        agent = take_obj(rest, "agent") if not number else {}
        version = take_text(dict(obj(rest.get("verifiers"))), "version")
        own = f"#{place}" if place and trace.get("id") is None else trace.get("id")
        key = f"{episode.get('id')}/{own}/{number}"
        builder = Builder.of(source, Verifiers.name, key, " ".join(filter(None, ["verifiers", version])))
        if not number:
            hashes = {"tests_hash": seal.tests_hash, "solution_hash": seal.solution_hash}
            builder.task(instance, statement, kept, seal.compared, **hashes)
            ends[-1] = (builder.trajectory_id, 0)
        parent = None if not number else ends[fork] if fork is not None else (ends[-1][0], None)
        config = obj(agent.get("config"))
        extra: Obj = {"without_prefix": True} if fork is not None else {}
        if not number:
            extra = {"agent": {k: v for k, v in agent.items() if k != "config"}, "episode": about}
        models = (take_text(c, "model") for c in map(dict, calls.values()))
        builder.start(
            {
                "task_id": instance,
                "model": next(filter(None, models), None) or take_text(dict(config), "model"),
                "scaffold": take_text(dict(agent), "name"),
                "run_id": take_text(dict(obj(episode.get("run"))), "id"),
                "parent_trajectory": parent[0] if parent else None,
                "fork_step": parent[1] if parent else None,
                "config": pack(config),
            },
            extra,
        )
        stream = Stream(builder)
        _line(stream, nodes, line, calls, rest.get("tools") if not number else None)
        done = 0
        for node in line:
            done += nodes[node].get("sampled") is True
            ends[node] = (builder.trajectory_id, done)
        _end(builder, stream, rest if not number else {}, loose if not number else [])
        if not number:
            _grade(builder, obj(trace.get("rewards")), take_text(dict(obj(episode.get("group"))), "id"))
        yield builder.imported(instance)


def _parents(nodes: list[Obj]) -> list[int | None]:
    """Parents of nodes; only an earlier node can be one."""
    told = [n.get("parent") for n in nodes]
    return [p if isinstance(p, int) and not isinstance(p, bool) and 0 <= p < i else None for i, p in enumerate(told)]


def _asked(prompt: Any) -> str | None:
    told = (
        [take_content(dict(m)) for m in prompt if isinstance(m, dict) and m.get("role") == "user"]
        if isinstance(prompt, list)
        else []
    )
    return "\n\n".join(t for t in told if t) or None


def _line(stream: Stream, nodes: list[Obj], line: list[int], calls: dict[int, Obj], tools: Any) -> None:
    for position, place in enumerate(line):
        left = {k: v for k, v in nodes[place].items() if v not in (None, [], {})}
        left.pop("parent", None)
        message = plain(left.pop("message", None))
        role = take_text(message, "role") or "user"
        offered = left.pop("tools", None) or (tools if position == 0 else None)
        occurred_at = take_time(left, "timestamp")
        sampled = left.pop("sampled", None)
        text, made = take_content(message), take_calls(message)
        schemas = orjson.dumps(offered).decode() if offered else None
        more = {"node": place, **left, **{k: v for k, v in message.items() if v is not None}}
        if role == "assistant" and sampled is True:
            reasoning = take_text(more, "reasoning_content")
            call = calls.get(place, {})
            usage, policy = _usage(call), take_text(call, "model")
            more |= {"call": lean} if (lean := {k: v for k, v in call.items() if v is not None and k != "node"}) else {}
            more |= {"tools": offered} if offered else {}
            stream.act(text, made, reasoning=reasoning, usage=usage, policy=policy, occurred_at=occurred_at, extra=more)
            continue
        if made:
            more["tool_calls"] = made
        if role == "tool":
            stream.answer(take_text(more, "tool_call_id"), {"rendered": text}, more, occurred_at=occurred_at)
        else:
            actor = "system" if role == "system" else "environment"
            stream.tell(role, text, more, actor=actor, tools=schemas, occurred_at=occurred_at)


def _usage(call: Obj) -> Obj:
    """Usage of a call; `prompt_tokens` of the source leaves cached tokens out, the column does not."""
    counts, time = take_obj(call, "usage"), obj(call.get("time"))
    plain_in, cached = take_int(counts, "prompt_tokens"), take_int(counts, "cached_input_tokens")
    cost = take_float(counts, "cost")
    start, end = take_float(dict(time), "start"), take_float(dict(time), "end")
    sampling = take_obj(call, "sampling")
    usage = {
        "tokens_in": None if plain_in is None else plain_in + (cached or 0),
        "tokens_out": take_int(counts, "completion_tokens"),
        "cache_read": cached,
        "reasoning": take_int(counts, "reasoning_tokens"),
        "cost_usd": cost,
        "price_policy": None if cost is None else "source",
        "latency_s": end - start if start and end and end >= start else None,
        "finish": take_text(call, "finish_reason"),
        "sampling": pack(sampling),
    }
    left = {k: v for k, v in counts.items() if v is not None}
    if left:
        call["usage"] = left
    return usage


def _end(builder: Builder, stream: Stream, rest: Obj, loose: list[Any]) -> None:
    rest = {k: v for k, v in rest.items() if v not in (None, [], {})}
    span = obj(obj(rest.get("timing")).get("agent"))
    start, end = take_float(dict(span), "start"), take_float(dict(span), "end")
    rest |= ({"calls": loose} if loose else {}) | ({"records": stream.records} if stream.records else {})
    payload: Obj = {"exit_status": take_text(rest, "stop_condition"), "submission": take_text(rest, "root_reply")}
    payload["duration_s"] = end - start if start and end and end >= start else None
    builder.end(payload, rest)


def _grade(builder: Builder, rewards: Obj, group: str | None) -> None:
    """The reward of a trace, and the outcome it is; neither where nothing was scored."""
    total: float | None = None
    for told in rewards.values():
        reward = obj(told) or {"score": told}
        score, weight = take_float(dict(reward), "score"), take_float(dict(reward), "weight")
        if score is not None:
            total = (total or 0.0) + score * (1.0 if weight is None else weight)
    if total is None:
        return
    end = builder.events[-1].event_id
    score = total if 0 <= total <= 1 else None
    resolved = total == 1 if total in (0, 1) else None
    graded: Obj = {
        "subject": "trajectory",
        "grader": "verifiers",
        "rule": "reported",
        "resolved": resolved,
        "score": score,
    }
    told = builder.add("outcome", "grader", graded, policy="verifiers", caused_by=end)
    payload = {"reward": total, "group_id": group, "rule": "verifiers: sum of score by weight"}
    builder.add("reward", "grader", payload, policy="verifiers", caused_by=told.event_id, extra={"rewards": rewards})


def _row(rest: Obj, source: SourceFile) -> Imported:
    """A row of a release before version 1."""
    prompt, completion = _chat(rest.pop("prompt", None), "user"), _chat(rest.pop("completion", None), "assistant")
    steps = rest.pop("trajectory") if isinstance(rest.get("trajectory"), list) else None
    seal = _seal()
    rest = seal.strip(rest)
    example = rest.pop("example_id", rest.pop("id", None))
    named = take_text(rest, "task") or "verifiers"
    instance = f"{named}/{example}"
    builder = Builder.of(source, Verifiers.name, instance, "verifiers")
    hashes = {"tests_hash": seal.tests_hash, "solution_hash": seal.solution_hash}
    builder.task(instance, _asked(prompt), {}, seal.compared, **hashes)
    builder.start({"task_id": instance, "model": take_text(dict(rest), "model")})
    dialogue = Dialogue(builder, outside="environment")
    if steps:
        for step in steps:
            left = {k: v for k, v in obj(step).items() if v not in (None, [], {})} or {"step": step}
            extra = dialogue.show(_chat(left.pop("prompt", None), "user"))
            said = _chat(left.pop("completion", None), "assistant")
            others = [m for m in said if m.get("role") != "assistant"]
            _say(dialogue, [m for m in said if m.get("role") == "assistant"], {**extra, **left, "beside": others})
    else:
        for place, message in enumerate(completion):
            if message.get("role") == "assistant":
                _say(dialogue, [message], dialogue.show([*prompt, *completion[:place]]))
    dialogue.show([*prompt, *completion])
    stop = take_text(rest, "stop_condition")
    kept = {k: v for k, v in rest.items() if v not in (None, [], {})}
    builder.end({"exit_status": stop}, {**kept, **dialogue.records})
    reward = take_float(dict(rest), "reward")
    _grade(builder, {} if reward is None else {"reward": {"score": reward}}, None)
    return builder.imported(instance)


def _chat(value: Any, role: str) -> list[Obj]:
    """Messages in chat shape; text alone is one message."""
    items = value if isinstance(value, list) else [] if value is None else [{"role": role, "content": value}]
    return [plain(m) for m in items]


def _say(dialogue: Dialogue, said: list[Obj], extra: Obj) -> None:
    """The messages of one reply as a step."""
    left = [dict(m) for m in said]
    texts = [t for m in left if (t := take_content(m)) is not None]
    calls = [c for m in left for c in take_calls(m)]
    thoughts = [t for m in left if (t := take_text(m, "reasoning_content")) is not None]
    rest = [{k: v for k, v in m.items() if v is not None and k != "role"} for m in left]
    dialogue.said(
        said,
        "".join(texts) if texts else None,
        calls,
        reasoning="".join(thoughts) or None,
        usage={},
        extra={**extra, "reply": [r for r in rest if r]},
    )


IMPORTER = Verifiers()
