"""Small documents of the stream formats, made up here: event streams, logs, spans, traces and sessions.

`EXAMPLES` has format name, data as `read` is given it, and how many steps are in it; null where texts stand in other words
in the events (attribute names, references to attachments), which `test_importers_streams` looks at itself.
"""

from __future__ import annotations

import json
from typing import Any

Obj = dict[str, Any]
TARGET = "the anvil weighs one thousand pounds"
GOLD = "diff --git a/anvil.py b/anvil.py\n+weight = 1000  # the reference"
SECRET = "gAAAAAB-only-the-provider-can-read-this"
WEATHER = "It rains on the smithy, as it has all week."


def at(second: int) -> str:
    """A time with a zone."""
    return f"2026-03-01T10:00:{second:02d}.250Z"


# --- OpenHands SDK


def sdk_action(number: int, command: str, critic: Any = None, **more: Any) -> Obj:
    """An action on the terminal, judged or not."""
    said = {"command": command, "summary": f"the summary of action number {number}"}
    return {
        "id": f"action-{number:016d}",
        "timestamp": f"2026-03-01T10:00:{number:02d}.123456",
        "source": "agent",
        "thought": [{"type": "text", "text": f"This is the thought of action {number}.", "cache_prompt": False}],
        "reasoning_content": f"Reasoning about the anvil, part {number}.",
        "thinking_blocks": [],
        "action": {"command": command, "is_input": False, "timeout": None, "kind": "TerminalAction"},
        "tool_name": "terminal",
        "tool_call_id": f"call-sdk-{number:012d}",
        "tool_call": {
            "id": f"call-sdk-{number:012d}",
            "name": "terminal",
            "arguments": json.dumps(said),
            "origin": "completion",
        },
        "llm_response_id": f"response-{number:016d}",
        "security_risk": "LOW",
        "critic_result": critic,
        "kind": "ActionEvent",
        **more,
    }


def sdk_result(number: int, text: str, code: int | None) -> Obj:
    """What an action on the terminal gave."""
    told = {"content": [{"type": "text", "text": text}], "is_error": bool(code), "exit_code": code, "timeout": False}
    told |= {
        "metadata": {"exit_code": -1, "working_dir": "/workspace/the-anvil-project"},
        "kind": "TerminalObservation",
    }
    return {
        "id": f"result-{number:016d}",
        "timestamp": f"2026-03-01T10:01:{number:02d}",
        "source": "environment",
        "tool_name": "terminal",
        "tool_call_id": f"call-sdk-{number:012d}",
        "observation": told,
        "action_id": f"action-{number:016d}",
        "kind": "ObservationEvent",
    }


def openhands_sdk() -> list[Obj]:
    """A conversation of four steps: two judged, one rejected, one a message."""
    critic = {
        "score": 0.85,
        "message": "The agent looked before it leapt.",
        "metadata": {"event_ids": ["action-0000000000000001"]},
    }
    system = {
        "system_prompt": {"type": "text", "text": "You are a smith of software."},
        "tools": [{"name": "terminal"}],
    }
    stats = {
        "usage_to_metrics": {
            "agent": {
                "model_name": "lab/small-1",
                "accumulated_cost": 0.25,
                "accumulated_token_usage": {
                    "prompt_tokens": 900,
                    "completion_tokens": 80,
                    "response_id": "response-of-the-last-call",
                },
            }
        }
    }
    user = {"role": "user", "content": [{"type": "text", "text": "Please make the anvil heavier."}]}
    reply = {"role": "assistant", "content": [{"type": "text", "text": "The anvil is heavy enough now."}]}
    return [
        {
            "id": "system-000000000000001",
            "timestamp": "2026-03-01T10:00:00",
            "source": "agent",
            **system,
            "kind": "SystemPromptEvent",
        },
        {
            "id": "message-00000000000001",
            "timestamp": "2026-03-01T10:00:00",
            "source": "user",
            "llm_message": user,
            "activated_skills": ["a skill of weighing anvils"],
            "kind": "MessageEvent",
        },
        sdk_action(1, "cat anvil.py", critic),
        sdk_result(1, "weight = 1  # as it was found", 0),
        sdk_action(2, "rm -rf /the/whole/smithy", {"score": 0.05, "message": None}),
        {
            "id": "reject-000000000000002",
            "timestamp": "2026-03-01T10:01:02",
            "source": "user",
            "tool_name": "terminal",
            "tool_call_id": "call-sdk-000000000002",
            "rejection_reason": "Do not burn down the smithy.",
            "rejection_source": "user",
            "action_id": "action-0000000000000002",
            "kind": "UserRejectObservation",
        },
        sdk_action(3, "pytest -q"),
        sdk_result(3, "1 failed: the anvil is too light", 1),
        {
            "id": "stats-0000000000000001",
            "timestamp": "2026-03-01T10:02:00",
            "source": "environment",
            "key": "stats",
            "value": stats,
            "kind": "ConversationStateUpdateEvent",
        },
        {
            "id": "condensation-0000000001",
            "timestamp": "2026-03-01T10:02:01",
            "source": "environment",
            "kind": "Condensation",
            "forgotten_event_ids": ["action-0000000000000001"],
            "summary": "The agent looked at the anvil.",
            "llm_response_id": "c",
        },
        {
            "id": "message-00000000000002",
            "timestamp": "2026-03-01T10:02:03",
            "source": "agent",
            "llm_message": reply,
            "critic_result": {"score": 0.5, "message": "A claim without a test run."},
            "kind": "MessageEvent",
        },
    ]


# --- Inspect


def inspect_sample(number: int = 1, epoch: int = 1, value: Any = "C") -> Obj:
    """A sample of two model calls and one tool, graded with a model; texts in attachments."""
    call = {
        "id": "call-inspect-00000000001",
        "function": "bash",
        "arguments": {"cmd": "weigh the anvil"},
        "type": "function",
    }
    first = {
        "id": "reply-inspect-0000000001",
        "role": "assistant",
        "source": "generate",
        "content": [
            {
                "type": "reasoning",
                "reasoning": "The scales are in the cellar.",
                "signature": "signature-of-the-reasoning",
            },
            {"type": "text", "text": "attachment://aaaa"},
        ],
        "tool_calls": [call],
    }
    system = {"id": "system-inspect-000000001", "role": "system", "content": "attachment://bbbb"}
    user = {
        "id": "user-inspect-00000000001",
        "role": "user",
        "source": "input",
        "content": "How heavy is the anvil, in pounds?",
    }
    tool = {
        "id": "tool-inspect-00000000001",
        "role": "tool",
        "function": "bash",
        "tool_call_id": call["id"],
        "content": "1000 pounds, give or take",
    }
    last = {
        "id": "reply-inspect-0000000002",
        "role": "assistant",
        "source": "generate",
        "content": "It weighs a thousand pounds.",
    }
    tools = [{"name": "bash", "description": "Runs one command in the smithy.", "parameters": {"type": "object"}}]

    def model(second: int, given: list[Obj], reply: Obj, **more: Any) -> Obj:
        usage = {
            "input_tokens": 7,
            "output_tokens": 20,
            "total_tokens": 127,
            "input_tokens_cache_read": 100,
            "total_cost": 0.002,
        }
        output = {
            "model": "small-1-0301",
            "choices": [{"message": reply, "stop_reason": "stop"}],
            "usage": usage,
            "time": 1.5,
        }
        call = {
            "request": {"messages": given, "temperature": 0.5, "model": "small-1"},
            "response": {"id": f"provider-call-{second:08d}"},
        }
        return {
            "event": "model",
            "timestamp": at(second),
            "completed": at(second + 1),
            "model": "lab/small-1",
            "input": given,
            "tools": tools,
            "tool_choice": "auto",
            "config": {"temperature": 0.5},
            "output": output,
            "call": call,
            **more,
        }

    grading = {"role": "user", "content": f"Is this right? Expected is: {TARGET}. Said is: a thousand pounds."}
    events = [
        {
            "event": "sample_init",
            "timestamp": at(0),
            "sample": {"input": user["content"], "target": TARGET, "id": number},
        },
        {"event": "span_begin", "timestamp": at(0), "id": "span-solver", "type": "solver", "name": "generate"},
        model(1, [system, user], first, span_id="span-solver"),
        {
            "event": "tool",
            "timestamp": at(3),
            "completed": at(4),
            "id": call["id"],
            "function": "bash",
            "arguments": call["arguments"],
            "result": "1000 pounds, give or take",
            "working_time": 0.75,
            "type": "function",
            "agent": "the agent of the smithy",
        },
        {"event": "sandbox", "timestamp": at(4), "action": "exec", "cmd": "bash -c 'weigh the anvil'", "result": 0},
        model(5, [system, user, first, tool], last, span_id="span-solver"),
        {"event": "span_begin", "timestamp": at(8), "id": "span-scorers", "type": "scorers", "name": "scorers"},
        {
            "event": "span_begin",
            "timestamp": at(8),
            "id": "span-scorer",
            "parent_id": "span-scorers",
            "type": "scorer",
            "name": "judge",
        },
        model(8, [grading], {"role": "assistant", "content": "GRADE: C, the weights agree"}, span_id="span-scorer"),
        {"event": "score", "timestamp": at(9), "score": {"value": value}, "target": TARGET},
    ]
    score = {"value": value, "answer": "a thousand pounds", "explanation": "The submission agrees with the reference."}
    return {
        "id": number,
        "epoch": epoch,
        "input": user["content"],
        "target": TARGET,
        "messages": [system, user, first, tool, last],
        "output": {"model": "small-1-0301", "choices": [{"message": last, "stop_reason": "stop"}]},
        "scores": {"judge": score},
        "metadata": {"solution": GOLD, "difficulty": "harder than it looks at first"},
        "store": {"note": "left by the agent in its store"},
        "events": events,
        "model_usage": {"lab/small-1": {"input_tokens": 14, "output_tokens": 40, "total_tokens": 254}},
        "total_time": 9.5,
        "uuid": f"uuid-of-sample-{number}-{epoch}",
        "attachments": {
            "aaaa": "Let me weigh it on the scales.",
            "bbbb": "You work in a smithy. Answer with a number.",
        },
    }


def inspect_header(status: str = "success") -> Obj:
    """What stands around the samples of a log."""
    about = {
        "eval_id": "eval-of-the-smithy-0001",
        "run_id": "run-of-the-smithy-00001",
        "task": "weigh_anvil",
        "model": "lab/small-1",
        "created": "2026-03-01T10:00:00+00:00",
        "packages": {"inspect_ai": "0.3.200"},
        "sandbox": {"type": "docker"},
        "dataset": {"name": "anvils of the northern smithy"},
    }
    plan = {"name": "plan", "steps": [{"solver": "system_message", "params": {}}, {"solver": "generate", "params": {}}]}
    return {
        "version": 2,
        "status": status,
        "eval": about,
        "plan": plan,
        "results": {"scores": [{"name": "judge", "params": {}}]},
    }


def inspect_log() -> Obj:
    """A log of two epochs of one sample."""
    return {**inspect_header(), "samples": [inspect_sample(), inspect_sample(1, 2, "I")]}


def inspect_pooled() -> Obj:
    """A log of version 3: the messages of prompts are in a pool."""
    sample = inspect_sample()
    pool: list[Obj] = []
    for event in sample["events"]:
        if event["event"] == "model":
            start = len(pool)
            pool += event["input"]
            event |= {"input": [], "input_refs": [[start, len(pool)]]}
    sample["events_data"] = {"messages": pool, "calls": []}
    return {**inspect_header(), "version": 3, "samples": [sample]}


def inspect_archive() -> dict[str, bytes]:
    """An archive with a sample of one member and one in chunks."""
    chunked = inspect_pooled()["samples"][0] | {"id": "two"}
    events, data = chunked.pop("events"), chunked.pop("events_data")
    texts = chunked.pop("attachments")
    messages, metadata = chunked.pop("messages"), chunked.pop("metadata")
    pool = [*data["messages"], *messages]
    written = json.dumps([pool, events])
    for place, key in enumerate(texts):
        written = written.replace(f"attachment://{key}", f"attachment://{place}")
    pool, events = json.loads(written)
    chunked["message_refs"] = [[len(pool) - len(messages), len(pool)]]
    prefix = "samples/two_epoch_1"
    members = {
        "header.json": inspect_header(),
        "_journal/start.json": {"version": 2},
        "samples/1_epoch_1.json": inspect_sample(),
        f"{prefix}/sample.json": chunked,
        f"{prefix}/metadata.json": metadata,
        f"{prefix}/messages/0.json": pool[:3],
        f"{prefix}/messages/3.json": pool[3:],
        f"{prefix}/events/0.json": events,
        f"{prefix}/events/stats.json": {},
        f"{prefix}/attachments/0.json": list(texts.values()),
        "reductions.json": [{"scorer": "judge", "samples": []}],
    }
    return {name: json.dumps(value).encode() for name, value in members.items()}


# --- OTLP


def attributes(values: Obj) -> list[Obj]:
    """Attributes as OTLP JSON writes them."""

    def value(told: Any) -> Obj:
        if isinstance(told, bool):
            return {"boolValue": told}
        if isinstance(told, int):
            return {"intValue": str(told)}
        if isinstance(told, float):
            return {"doubleValue": told}
        if isinstance(told, list):
            return {"arrayValue": {"values": [value(t) for t in told]}}
        return {"stringValue": told if isinstance(told, str) else json.dumps(told)}

    return [{"key": k, "value": value(v)} for k, v in values.items()]


def span(number: int, name: str, told: Obj, trace: str = "a1" * 16, events: Any = ()) -> Obj:
    """One span of a second."""
    start = 1_772_359_200_000_000_000 + number * 1_000_000_000
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 500_000_123),
        "attributes": attributes(told),
        "status": {},
        "events": [{"name": n, "timeUnixNano": str(start), "attributes": attributes(a)} for n, a in events],
    }


def batch(*spans: Obj) -> Obj:
    """Spans as one export."""
    resource = {"attributes": attributes({"service.name": "the smithy of the north"})}
    scope = {"name": "instrumentation.of.the.smithy", "version": "1.2.3"}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": list(spans)}]}]}


def otlp_gen_ai() -> list[Obj]:
    """A conversation of two calls and a tool, graded; and a trace without content."""
    asked = {"role": "user", "parts": [{"type": "text", "content": "What is the weather like?"}]}
    call = {"type": "tool_call", "id": "call-otlp-1", "name": "get_weather", "arguments": {"place": "the smithy"}}
    reply = {
        "role": "assistant",
        "parts": [
            {"type": "reasoning", "content": "A tool knows about the weather."},
            {"type": "text", "content": "Let me look outside."},
            call,
        ],
    }
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call-otlp-1", "response": WEATHER}]}
    final = {
        "role": "assistant",
        "parts": [{"type": "text", "content": "Rain, and more of it."}],
        "finish_reason": "stop",
    }
    shared: Obj = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "lab/small-1",
        "gen_ai.conversation.id": "conversation-of-the-smith",
    }
    shared |= {
        "gen_ai.system_instructions": '[{"type": "text", "content": "You know about the weather."}]',
        "gen_ai.request.temperature": 0.5,
    }
    shared |= {"gen_ai.tool.definitions": json.dumps([{"name": "get_weather", "parameters": {"type": "object"}}])}
    used = {
        "gen_ai.usage.input_tokens": 61,
        "gen_ai.usage.output_tokens": 15,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    tool = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get_weather",
        "gen_ai.tool.call.id": "call-otlp-1",
        "gen_ai.tool.call.result": WEATHER,
    }
    graded = (
        "gen_ai.evaluation.result",
        {
            "gen_ai.evaluation.name": "relevance",
            "gen_ai.evaluation.score.value": 0.75,
            "gen_ai.evaluation.score.label": "pass",
            "gen_ai.evaluation.explanation": "It is about the weather.",
        },
    )
    bare = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "lab/small-1", "gen_ai.usage.input_tokens": 5}
    return [
        batch(
            span(
                0,
                "invoke_agent smith",
                {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "smith"},
                events=[graded],
            ),
            span(
                1,
                "chat",
                {
                    **shared,
                    **used,
                    "gen_ai.input.messages": json.dumps([asked]),
                    "gen_ai.output.messages": json.dumps([reply]),
                },
            ),
        ),
        batch(
            span(2, "execute_tool get_weather", tool),
            span(
                3,
                "chat",
                {
                    **shared,
                    **used,
                    "gen_ai.input.messages": json.dumps([asked, reply, result]),
                    "gen_ai.output.messages": json.dumps([final]),
                },
            ),
            span(4, "chat", bare, trace="b2" * 16),
            span(
                5,
                "execute_tool weigh",
                {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weigh"},
                trace="b2" * 16,
            ),
        ),
    ]


def otlp_open_inference() -> list[Obj]:
    """Two calls and a tool in OpenInference's names; the reply is two messages."""
    said = "llm.output_messages."
    asked = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "What is the weather like?",
    }
    reply = {
        "0.message.role": "assistant",
        "0.message.contents.0.message_content.type": "text",
        "0.message.contents.0.message_content.text": "Let me look outside.",
        "1.message.role": "assistant",
        "1.message.tool_calls.0.tool_call.id": "call-oi-1",
        "1.message.tool_calls.0.tool_call.function.name": "get_weather",
        "1.message.tool_calls.0.tool_call.function.arguments": "{}",
    }
    later = {f"llm.input_messages.{int(k[0]) + 1}{k[1:]}": v for k, v in reply.items()}
    later |= {
        "llm.input_messages.3.message.role": "tool",
        "llm.input_messages.3.message.tool_call_id": "call-oi-1",
        "llm.input_messages.3.message.content": WEATHER,
    }
    shared = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "small-1",
        "llm.token_count.prompt": 30,
        "llm.token_count.completion": 10,
        "input.value": '[{"role": "user"}]',
        "session.id": "session-of-the-smith",
    }
    tool = {"openinference.span.kind": "TOOL", "tool.name": "get_weather", "input.value": "{}", "output.value": WEATHER}
    final = {f"{said}0.message.role": "assistant", f"{said}0.message.content": "Rain, and more of it."}
    return [
        batch(
            span(1, "response", {**shared, **asked, **{said + k: v for k, v in reply.items()}}),
            span(2, "get_weather", tool),
            span(3, "response", {**shared, **asked, **later, **final}),
            span(4, "agent", {"openinference.span.kind": "AGENT", "agent.name": "the smith"}),
        )
    ]


# --- agent-lightning


def lightning_events() -> list[Obj]:
    """Two attempts at a rollout: two calls, one that failed, two rewards; and one without any."""
    tools = [{"type": "function", "function": {"name": "weigh", "parameters": {"type": "object"}}}]
    asked = {"role": "user", "content": "How heavy is the anvil, in pounds?"}
    call = {
        "id": "call-lightning-000000001",
        "type": "function",
        "function": {"name": "weigh", "arguments": '{"what": "the anvil"}'},
    }
    reply = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "The scales will tell me.",
        "tool_calls": [call],
    }
    tool = {"role": "tool", "tool_call_id": call["id"], "content": "a thousand pounds, roughly"}

    def request(second: float, messages: list[Obj], message: Obj) -> Obj:
        usage = {"prompt_tokens": 50, "completion_tokens": 9, "total_tokens": 59}
        response = {
            "id": f"chatcmpl-lightning-{second}",
            "object": "chat.completion",
            "usage": usage,
            "prompt_token_ids": [1, 2, 3],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "token_ids": [4, 5]}],
        }
        data = {
            "model": "lab/small-1",
            "model_version": 7,
            "request": {"messages": messages, "tools": tools, "temperature": 1.0},
            "response": response,
            "latency_ms": 1250.0,
            "status": "ok",
            "http_status": 200,
            "usage": usage,
            "finish_reason": "stop",
        }
        return {
            "event_type": "model_request",
            "rollout_id": "rollout-of-the-smithy-1",
            "attempt_id": "0",
            "timestamp": 1772359200.0 + second,
            "data": data,
        }

    def event(kind: str, second: float, data: Obj, attempt: str = "0") -> Obj:
        return {
            "event_type": kind,
            "rollout_id": "rollout-of-the-smithy-1",
            "attempt_id": attempt,
            "timestamp": 1772359200.0 + second,
            "data": data,
        }

    return [
        request(0.5, [asked], reply),
        event(
            "model_request",
            1.5,
            {
                "model": "lab/small-1",
                "request": {},
                "response": {"error": "the server was overloaded"},
                "status": "error",
            },
        ),
        request(2.5, [asked, reply, tool], {"role": "assistant", "content": "It weighs a thousand pounds."}),
        event("note", 3.0, {"text": "the runner left a note here"}),
        event("reward", 3.5, {"value": 0.25, "source": "agent", "reason": "halfway there, said the judge"}),
        event("reward", 3.75, {"value": 1.0, "source": "agent", "message": "the weight is right after all"}),
        event("note", 4.0, {"text": "the second attempt never called a model"}, attempt="1"),
    ]


def lightning_spans() -> list[Obj]:
    """Spans of a release before 1.0: a call with numbered attributes, and a reward."""
    told = {
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "How heavy is the anvil, in pounds?",
        "gen_ai.request.model": "small-1",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "It weighs a thousand pounds.",
        "gen_ai.usage.prompt_tokens": 12,
        "gen_ai.usage.completion_tokens": 8,
    }
    rewarded: Obj = {"agentlightning.reward.0.name": "weight of the anvil", "agentlightning.reward.0.value": 0.5}

    def one(number: int, name: str, values: Obj) -> Obj:
        return {
            "rollout_id": "rollout-of-the-smithy-2",
            "attempt_id": "attempt-of-the-smith-1",
            "sequence_id": number,
            "trace_id": "t" * 32,
            "span_id": f"{number:016x}",
            "parent_id": None,
            "name": name,
            "status": {"status_code": "OK"},
            "attributes": values,
            "events": [],
            "links": [],
            "start_time": 1772359200.0 + number,
            "end_time": 1772359200.5 + number,
            "resource": {},
        }

    return [one(1, "openai.chat.completion", told), one(2, "agentlightning.annotation", rewarded)]


# --- verifiers


def verifiers_episode() -> Obj:
    """An episode with one trace whose graph forks: two sampled messages on the line that ends last, one on the other."""
    call = {"id": "call-verifiers-00000001", "type": "function", "name": "weigh", "arguments": '{"what": "the anvil"}'}

    def node(parent: int | None, message: Obj, sampled: bool = False, **more: Any) -> Obj:
        return {
            "parent": parent,
            "semantic_parents": [],
            "message": message,
            "sampled": sampled,
            "timestamp": 1772359200.5,
            "token_ids": [1, 2],
            "mask": [False, sampled],
            "logprobs": [-0.5] if sampled else [],
            "is_content": [],
            **more,
        }

    nodes = [
        node(
            None, {"role": "system", "content": "You work in the smithy."}, tools=[{"name": "weigh", "parameters": {}}]
        ),
        node(0, {"role": "user", "content": "How heavy is the anvil, in pounds?"}),
        node(
            1,
            {
                "role": "assistant",
                "content": "First I weigh the anvil.",
                "reasoning_content": "The scales will tell.",
                "tool_calls": [call],
            },
            True,
            loss_weights={"rl": [0.0, 1.0]},
        ),
        node(2, {"role": "tool", "tool_call_id": call["id"], "content": "a thousand pounds, roughly"}),
        node(3, {"role": "assistant", "content": "This line was left behind."}, True),
        node(3, {"role": "user", "content": "Are you sure about that, smith?"}),
        node(5, {"role": "assistant", "content": "Quite sure: a thousand pounds."}, True, advantages=[0.25]),
    ]
    usage = {
        "prompt_tokens": 40,
        "completion_tokens": 8,
        "cached_input_tokens": 100,
        "reasoning_tokens": 3,
        "cost": 0.004,
    }
    calls = [
        {
            "node": 2,
            "model": "lab/small-1",
            "sampling": {"temperature": 1.0},
            "endpoint": "/chat/completions",
            "finish_reason": "tool_calls",
            "usage": usage,
            "time": {"start": 100.0, "end": 101.5},
        },
        {
            "node": None,
            "model": "lab/small-1",
            "error": {"type": "ProviderError", "message": "the provider was overloaded"},
        },
    ]
    task = {
        "type": "WeighTask",
        "key": "key-of-the-weighing-task",
        "data": {"idx": 3, "prompt": "How heavy is the anvil, in pounds?", "answer": TARGET},
    }
    trace = {
        "version": 1,
        "id": "trace-of-the-smithy-0001",
        "verifiers": {"version": "0.4.0"},
        "task": task,
        "agent": {"config": {"model": "lab/small-1", "harness": "the harness of the smithy"}, "name": "solver"},
        "tools": [],
        "nodes": nodes,
        "calls": calls,
        "rewards": {"right": {"score": 1.0, "weight": 0.5}, "brief": {"score": 0.5, "weight": 0.5}, "unscored": None},
        "metrics": {"turns": 3.0},
        "stop_condition": "agent_completed",
        "is_completed": True,
        "ok": True,
        "errors": [],
        "timing": {"agent": {"start": 100.0, "end": 109.5}},
    }
    return {
        "id": "episode-of-the-smithy-01",
        "env": {"id": "weigh-the-anvils-env"},
        "task": task,
        "group": {"id": "group-of-the-anvil-0001"},
        "run": {"type": "eval", "id": "run-of-the-smithy-00002"},
        "ok": True,
        "errors": [],
        "traces": [trace],
    }


def verifiers_row() -> Obj:
    """A row of a release before version 1, with its steps."""
    asked = [{"role": "user", "content": "How heavy is the anvil, in pounds?"}]
    first = {
        "role": "assistant",
        "content": "I weigh it twice to be sure.",
        "tool_calls": [
            json.dumps(
                {"id": "call-row-0000000000001", "type": "function", "function": {"name": "weigh", "arguments": "{}"}}
            )
        ],
    }
    tool = {"role": "tool", "tool_call_id": "call-row-0000000000001", "content": "a thousand pounds, twice over"}
    last = {"role": "assistant", "content": "It weighs a thousand pounds."}
    tokens = {"prompt_ids": [1, 2], "completion_ids": [3], "completion_mask": [1], "completion_logprobs": [-0.25]}
    steps = [
        {"prompt": asked, "completion": [first], "tokens": tokens, "reward": 0.5, "advantage": 0.1},
        {"prompt": [*asked, first, tool], "completion": [last], "tokens": tokens, "reward": 0.5, "advantage": 0.1},
    ]
    return {
        "example_id": 4,
        "task": "weigh-the-anvils",
        "prompt": asked,
        "completion": [first, tool, last],
        "reward": 0.5,
        "answer": TARGET,
        "metrics": {"right": 0.5},
        "trajectory": steps,
        "timing": {"total_ms": 1250.0},
    }


# --- sessions


def claude(kind: str, uuid: str, parent: str | None, content: Any, **more: Any) -> Obj:
    """A record of a Claude Code session."""
    message = {"role": kind, "content": content, **more.pop("message", {})}
    return {
        "type": kind,
        "uuid": f"uuid-{uuid}-000000000000",
        "parentUuid": parent and f"uuid-{parent}-000000000000",
        "isSidechain": False,
        "sessionId": "session-of-the-smithy-01",
        "cwd": "/the/smithy/of/the/north",
        "version": "2.1.0",
        "timestamp": at(len(uuid)),
        "message": message,
        **more,
    }


def claude_session() -> list[Obj]:
    """A reply in two records with its results between, a subagent, a rewound line, a compaction: three, one and one steps."""
    used = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "service_tier": "the standard tier of service",
    }
    first = {
        "id": "msg-claude-000000000000001",
        "model": "claude-small-1",
        "type": "message",
        "stop_reason": "tool_use",
    }
    use = {"type": "tool_use", "id": "toolu-claude-0000000001", "name": "Bash", "input": {"command": "weigh the anvil"}}
    task = {
        "type": "tool_use",
        "id": "toolu-claude-0000000002",
        "name": "Task",
        "input": {"prompt": "Go and look at the scales."},
    }

    def result(call: Obj, text: str) -> list[Obj]:
        return [{"type": "tool_result", "tool_use_id": call["id"], "content": text, "is_error": False}]

    def reply(number: int, **more: Any) -> Obj:
        return {"id": f"msg-claude-{number:015d}", "model": "claude-small-1", "usage": used, **more}

    told = {"agentId": "agent-of-the-scales", "isSidechain": True}
    thought = [{"type": "thinking", "thinking": "The anvil must be weighed.", "signature": "signature-of-the-thought"}]
    return [
        {"type": "summary", "summary": "Weighing anvils in the north", "leafUuid": "uuid-of-some-leaf-000000"},
        claude("user", "u", None, "How heavy is the anvil, in pounds?"),
        claude("assistant", "aa", "u", thought, message={**first, "usage": {**used, "output_tokens": 1}}),
        claude("assistant", "aaa", "aa", [use], message={**first, "usage": used}),
        claude(
            "user",
            "uuuu",
            "aaa",
            result(use, "a thousand pounds, roughly"),
            toolUseResult={"stdout": "a thousand pounds, roughly", "note": "kept beside the result"},
        ),
        claude("assistant", "aaaaa", "aaa", [task], message={**first, "usage": used}),
        claude("user", "us", None, "Go and look at the scales.", **told),
        claude(
            "assistant", "as", "us", [{"type": "text", "text": "The scales are a bit rusty."}], message=reply(9), **told
        ),
        claude(
            "user",
            "uuuuuu",
            "aaaaa",
            result(task, "The scales are a bit rusty."),
            toolUseResult={"agentId": "agent-of-the-scales"},
        ),
        claude("assistant", "x", "uuuuuu", [{"type": "text", "text": "This line was left behind."}], message=reply(2)),
        claude("user", "uuuuuuu", "uuuuuu", "Are you sure about that, smith?"),
        {
            "type": "system",
            "uuid": "uuid-boundary-0000000000",
            "parentUuid": None,
            "subtype": "compact_boundary",
            "content": "Conversation compacted here",
            "sessionId": "session-of-the-smithy-01",
            "timestamp": at(20),
        },
        claude(
            "assistant", "y", "uuuuuuu", [{"type": "text", "text": "Quite sure: a thousand pounds."}], message=reply(3)
        ),
        claude("user", "zz", None, [{"type": "text", "text": "Weigh it once more, would you?"}], isMeta=True),
        claude("assistant", "zzz", "zz", [{"type": "text", "text": "Still a thousand pounds."}], message=reply(4)),
    ]


def claude_stream() -> list[Obj]:
    """Turns of the stream-json output: no links, and a result at the end."""
    return [
        {
            "type": "system",
            "subtype": "init",
            "session_id": "session-of-the-smithy-02",
            "tools": ["Bash", "a tool with a long name"],
        },
        {
            "type": "assistant",
            "session_id": "session-of-the-smithy-02",
            "message": {
                "id": "m",
                "role": "assistant",
                "model": "claude-small-1",
                "content": [
                    {"type": "text", "text": "I shall weigh the anvil."},
                    {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "weigh"}},
                ],
            },
        },
        {
            "type": "user",
            "message": {
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [{"type": "text", "text": "a thousand pounds, roughly"}],
                    }
                ]
            },
        },
        {
            "type": "result",
            "subtype": "success",
            "total_cost_usd": 0.125,
            "duration_ms": 1500,
            "result": "It weighs a thousand pounds.",
        },
    ]


def codex_session() -> list[Obj]:
    """Three steps: two calls at once with their count after the results, a patch, and a last word."""

    def line(second: int, kind: str, **payload: Any) -> Obj:
        return {"timestamp": at(second), "type": kind, "payload": payload}

    def said(role: str, text: str) -> Obj:
        return {
            "type": "message",
            "role": role,
            "content": [{"type": "output_text" if role == "assistant" else "input_text", "text": text}],
        }

    def count(second: int, last: int, total: int) -> Obj:
        info = {
            "last_token_usage": {
                "input_tokens": last,
                "cached_input_tokens": 5,
                "output_tokens": 7,
                "reasoning_output_tokens": 2,
            },
            "total_token_usage": {"input_tokens": total, "output_tokens": total // 10},
        }
        return line(second, "event_msg", type="token_count", info=info, rate_limits={"plan": "the plan of the smithy"})

    return [
        line(
            0,
            "session_meta",
            id="session-of-the-smithy-03",
            cwd="/the/smithy/of/the/north",
            cli_version="0.142.0",
            originator="the command line",
        ),
        line(1, "turn_context", model="gpt-small-1", approval_policy="never ask for anything"),
        line(2, "response_item", **said("developer", "The sandbox is wide open today.")),
        line(3, "response_item", **said("user", "How heavy is the anvil, in pounds?")),
        line(
            4,
            "response_item",
            type="reasoning",
            id="reasoning-item-00000001",
            summary=[{"type": "summary_text", "text": "The scales will tell me."}],
            encrypted_content=SECRET,
        ),
        line(5, "response_item", **said("assistant", "I weigh it and look at it.")),
        line(
            6,
            "response_item",
            type="function_call",
            id="fc-item-000000000000001",
            name="shell",
            call_id="call-codex-000000000001",
            arguments=json.dumps(
                {"command": ["bash", "-lc", "weigh the anvil"], "workdir": "/the/smithy/of/the/north"}
            ),
        ),
        line(
            7,
            "response_item",
            type="function_call",
            name="view_image",
            call_id="call-codex-000000000002",
            arguments='{"path": "a picture of the anvil.png"}',
        ),
        line(
            8,
            "response_item",
            type="function_call_output",
            call_id="call-codex-000000000001",
            output=json.dumps(
                {"output": "a thousand pounds, roughly", "metadata": {"exit_code": 0, "duration_seconds": 0.5}}
            ),
        ),
        line(
            9,
            "response_item",
            type="function_call_output",
            call_id="call-codex-000000000002",
            output="Process exited with code 3\nOutput:\nno such picture of it",
        ),
        count(10, 60, 60),
        count(11, 60, 60),
        line(
            12,
            "response_item",
            type="custom_tool_call",
            name="apply_patch",
            call_id="call-codex-000000000003",
            input="*** Begin Patch\n*** End Patch",
            status="completed",
        ),
        line(
            13,
            "response_item",
            type="custom_tool_call_output",
            call_id="call-codex-000000000003",
            output="Done with the patching of it",
        ),
        line(14, "response_item", **said("assistant", "It weighs a thousand pounds.")),
        count(15, 80, 140),
        line(16, "event_msg", type="task_complete", turn_id="turn-of-the-smithy-00001"),
    ]


def pi_session() -> list[Obj]:
    """A session of three steps, one of them aborted, that left a line of one step behind."""

    def entry(number: int, parent: int | None, message: Obj) -> Obj:
        return {
            "type": "message",
            "id": f"entry-{number:016d}",
            "parentId": None if parent is None else f"entry-{parent:016d}",
            "timestamp": at(number),
            "message": message,
        }

    def reply(*content: Obj, stop: str = "stop", **more: Any) -> Obj:
        usage = {
            "input": 3,
            "output": 9,
            "cacheRead": 50,
            "cacheWrite": 7,
            "totalTokens": 69,
            "cost": {"input": 0.001, "total": 0.002},
        }
        return {
            "role": "assistant",
            "content": list(content),
            "provider": "the provider of the smithy",
            "model": "small-1",
            "usage": usage,
            "stopReason": stop,
            **more,
        }

    call = {
        "type": "toolCall",
        "id": "toolu-pi-00000000000001",
        "name": "bash",
        "arguments": {"command": "weigh the anvil"},
    }
    result = {
        "role": "toolResult",
        "toolCallId": call["id"],
        "toolName": "bash",
        "content": [{"type": "text", "text": "a thousand pounds, roughly"}],
        "isError": False,
        "details": {"diff": "what changed on the scales"},
    }
    return [
        {
            "type": "session",
            "version": 3,
            "id": "session-of-the-smithy-04",
            "timestamp": at(0),
            "cwd": "/the/smithy/of/the/north",
        },
        {
            "type": "model_change",
            "id": "entry-0000000000000000",
            "parentId": None,
            "timestamp": at(0),
            "provider": "lab",
            "modelId": "a model with a long name",
        },
        entry(
            1,
            0,
            {
                "role": "user",
                "content": [{"type": "text", "text": "How heavy is the anvil, in pounds?"}],
                "timestamp": 1772359200250,
            },
        ),
        entry(
            2,
            1,
            reply(
                {
                    "type": "thinking",
                    "thinking": "The scales will tell me.",
                    "thinkingSignature": "signature-of-the-thought",
                },
                call,
                stop="toolUse",
            ),
        ),
        entry(3, 2, result),
        entry(4, 3, reply({"type": "text", "text": "This line was left behind."})),
        entry(5, 3, reply(stop="aborted", errorMessage="The request was aborted here")),
        entry(
            6,
            5,
            {
                "role": "bashExecution",
                "command": "ls /the/whole/smithy",
                "output": "anvil  hammer  tongs  scales",
                "exitCode": 0,
            },
        ),
        entry(7, 6, {"role": "user", "content": "Are you sure about that, smith?"}),
        entry(8, 7, reply({"type": "text", "text": "Quite sure: a thousand pounds."})),
    ]


EXAMPLES: list[tuple[str, Any, int | None]] = [
    ("openhands-sdk-events", openhands_sdk(), 4),
    ("inspect-log", inspect_log(), None),
    ("inspect-log", inspect_pooled(), None),
    ("inspect-eval", inspect_archive(), None),
    ("otlp-genai", otlp_gen_ai(), None),
    ("otlp-genai", otlp_open_inference(), None),
    ("agent-lightning", lightning_events(), 2),
    ("agent-lightning", lightning_spans(), None),
    ("verifiers", verifiers_episode(), 3),
    ("verifiers", verifiers_row(), 2),
    ("claude-code-session", claude_session(), 5),
    ("claude-code-session", claude_stream(), 1),
    ("codex-session", codex_session(), 3),
    ("pi-session", pi_session(), 4),
]
NEVER_LOGGED: dict[str, set[str]] = {"verifiers": {TARGET}, "codex-session": {SECRET}}
