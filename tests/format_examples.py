"""One small document of every format that is imported, made up here: what the contract test reads.

`EXAMPLES` has format name, data as `read` is given it, and its number of steps (null where another test says so).
`NEVER_LOGGED` names texts of an example that must not reach the log. The other `format_examples_*` modules beside this one
add theirs.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from trajectory_files import SAMPLES

from stepwell.importers.containers import Piece, open_blob
from stepwell.importers.files import Bytes
from stepwell.importers.registry import IMPORTERS

Obj = dict[str, Any]
PATCH = "diff --git a/anvil.py b/anvil.py\n+heavy = True  # what the agent submitted\n"
GOLD = "diff --git a/anvil.py b/anvil.py\n+heavy = 1  # what the maintainers wrote\n"
TESTS = '["tests/test_anvil.py::test_is_heavy_enough"]'


def call(name: str, call_id: str, **arguments: Any) -> Obj:
    """A tool call in chat shape."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


TOOLS = [{"type": "function", "function": {"name": "bash", "description": "Runs a command in the anvil's shell."}}]
CHAT: list[Obj] = [
    {"role": "system", "content": "You are a smith's apprentice who answers in commands."},
    {"role": "user", "content": [{"type": "text", "text": "The anvil is too light, make it heavy."}], "agent": "main"},
    {
        "role": "assistant",
        "content": "I look first.",
        "thought": "I look first, then I hammer.",
        "tool_calls": [call("bash", "c1", command="ls -la /forge")],
    },
    {
        "role": "tool",
        "content": "anvil.py hammer.py tongs.py",
        "tool_call_ids": ["c1"],
        "cache_control": {"type": "ephemeral"},
    },
    {
        "role": "assistant",
        "content": "By block.\n\n<function=bash>\n<parameter=command>make heavy</parameter>\n</function>",
    },
    {"role": "user", "content": "OBSERVATION: the anvil is heavy now"},
    {"role": "assistant", "content": "By fence.\n```\nsubmit\n```"},
    {"role": "user", "content": "Your submission was taken in."},
    {
        "role": "assistant",
        "content": "There is nothing else to do here.",
        "reasoning_content": "All is heavy, so I stop.",
    },
]


def chat_row() -> Obj:
    """A row as SWE-Gym has them, with what SWE-smith adds."""
    report = {"resolved": True, "empty_generation": False, "note_of_grader": "graded in a fresh container"}
    return {
        "instance_id": "acme__anvil-11",
        "run_id": "small-1_maxiter_30_t0_run_1",
        "resolved": True,
        "messages": CHAT,
        "tools": TOOLS,
        "test_result": {"git_patch": PATCH, "report": report, "test_output": "1 passed in 0.12 s, none failed"},
        "patch": GOLD,
        "FAIL_TO_PASS": TESTS,
        "model": "lab/small-1",
        "verified": True,
    }


def swe_smith_row() -> Obj:
    """A row as SWE-smith has them in Parquet: messages as text, a patch of another repository."""
    return {
        "messages": json.dumps(CHAT),
        "instance_id": "acme__anvil.0123abcd.pr_9",
        "resolved": False,
        "model": "lab/big-2",
        "traj_id": "acme__anvil.0123abcd.pr_9.abcdefgh",
        "patch": "diff --git a/other.py b/other.py\n+not ours\n",
    }


def nebius_openhands_row() -> Obj:
    """A row of SWE-rebench OpenHands trajectories."""
    turns = [
        {**m, "content": m["content"] if isinstance(m["content"], str) else m["content"][0]["text"]} for m in CHAT[:4]
    ]
    return {
        "trajectory_id": "trajectory-number-00000001",
        "instance_id": "acme__anvil-12",
        "repo": "acme/anvil",
        "trajectory": turns,
        "tools": TOOLS,
        "model_patch": PATCH,
        "exit_status": "submitted after one look",
        "resolved": 1,
        "gen_tests_correct": 0.5,
        "pred_passes_gen_tests": 1.0,
    }


def nebius_swe_agent_row() -> Obj:
    """A row of nebius SWE-agent trajectories."""
    none = {"cutoff_date": None, "mask": False, "system_prompt": None, "text": None}
    turns = [
        {
            **none,
            "role": "system",
            "system_prompt": "SETTING: you are an autonomous smith.",
            "cutoff_date": "01.01.2023",
        },
        {**none, "role": "user", "text": "We are solving: the anvil is too light."},
        {**none, "role": "ai", "mask": True, "text": "Look at the file first.\n```\nopen anvil.py\n```"},
        {**none, "role": "user", "text": "[File: anvil.py (3 lines total)]"},
        {**none, "role": "ai", "mask": True, "text": "Both at once?\n```\nmake\n```\nNo:\n```\nsubmit\n```"},
    ]
    return {
        "instance_id": "acme__anvil-13",
        "model_name": "swe-agent-llama-70b",
        "target": False,
        "trajectory": turns,
        "exit_status": "submitted",
        "generated_patch": PATCH,
        "eval_logs": "applied the patch, ran 3 tests, 1 failed",
    }


def sharegpt_row() -> Obj:
    """A row of an ADP SFT set."""
    turns = [
        {"from": "human", "value": "The anvil is too light, make it heavy."},
        {
            "from": "gpt",
            "value": "I will.\n<function=execute_bash>\n<parameter=command>\nmake heavy\n</parameter>\n</function>",
        },
        {"from": "human", "value": "EXECUTION RESULT of [execute_bash]:\nheavy"},
        {
            "from": "function_call",
            "value": "<function=finish>\n<parameter=message>\nIt is heavy.\n</parameter>\n</function>",
        },
    ]
    system = "You are an agent that works with its hands."
    return {
        "id": "acme__anvil-14_attempt_number_2",
        "conversations": turns,
        "system": system,
        "tools": json.dumps(TOOLS),
    }


def completion_log() -> Obj:
    """One call of a model, the second of a conversation."""
    message = {
        "role": "assistant",
        "content": "Now I make it heavy.",
        "tool_calls": [call("terminal", "c2", command="make heavy")],
    }
    usage = {
        "prompt_tokens": 900,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 800, "text_tokens": None},
    }
    response = {
        "id": "chatcmpl-0123456789abcdef",
        "created": 1_760_000_000,
        "model": "lab/big-2",
        "object": "chat.completion",
    }
    response |= {"choices": [{"finish_reason": "tool_calls", "index": 0, "message": message}], "usage": usage}
    return {
        "messages": CHAT[:4],
        "tools": TOOLS,
        "kwargs": {"tools": TOOLS, "temperature": 0.0, "extra_body": {"tag": "run-of-tuesday-night"}},
        "context_window": 200_000,
        "response": response,
        "cost": 0.02,
        "timestamp": 1_760_000_001.5,
        "latency_sec": 2.5,
    }


def adp_std() -> Obj:
    """A record of ADP std with an action of each class."""
    items = [
        {
            "class_": "text_observation",
            "content": "The anvil is too light, make it heavy.",
            "name": None,
            "source": "user",
        },
        {
            "class_": "code_action",
            "language": "bash",
            "content": "ls -la /forge/anvils",
            "description": "I look around first.",
        },
        {"class_": "text_observation", "content": "anvil.py hammer.py tongs.py", "name": None, "source": "user"},
        {
            "class_": "api_action",
            "function": "open_file_in_editor",
            "kwargs": {"path": "/forge/anvil.py"},
            "description": "Open it.",
        },
        {
            "class_": "web_observation",
            "html": "<p>an anvil, seen on a page</p>",
            "axtree": None,
            "url": "http://forge.invalid/anvil",
        },
        {"class_": "message_action", "content": "<finish> The anvil is heavy. </finish>", "description": ""},
    ]
    details = {
        "model_name": "lab/small-1",
        "exit_status": "submitted",
        "resolved": "True",
        "feedback": "well hammered, thank you",
    }
    return {"id": "acme__anvil-15_run_0000001", "content": items, "details": details}


def r2e_gym() -> Obj:
    """A rollout of R2E-Gym with two steps."""
    steps = [
        {
            "step_idx": 0,
            "thought": "I look around in the forge.",
            "action": "<function=execute_bash>\n<parameter=cmd>ls /forge</parameter>\n</function>",
            "observation": "anvil.py hammer.py tongs.py",
            "done": False,
            "info": {"note": "nothing to report here"},
            "token_usage_prompt": 900,
            "token_usage_completion": 20,
            "token_usage_total": 920,
            "llm_exec_time": 1.5,
            "env_exec_time": 0.25,
        },
        {
            "step_idx": 1,
            "thought": "I am done with the anvil.",
            "action": "",
            "observation": None,
            "done": True,
            "info": {},
            "token_usage_prompt": 950,
            "token_usage_completion": 9,
            "llm_exec_time": 0.5,
            "env_exec_time": 0.0,
        },
    ]
    return {
        "trajectory_steps": steps,
        "exp_name": "a-run-of-tuesday-night",
        "docker_image": "acme/anvil:0123456789abcdef",
        "reward": 1.0,
        "problem_statement": "The anvil is too light for its size.",
        "exit_reason": "agent",
        "output_patch": PATCH,
        "agent_args": {"llm_name": "lab/big-2", "system_prompt": "You are a smith in an R2E forge."},
        "ds": {"patch": GOLD, "expected_output_json": '{"test_is_heavy_enough": "PASSED"}'},
        "test_output": "1 passed in 0.12 s, none failed",
    }


def atif() -> Obj:
    """An ATIF document with copied context, results in another order, a compaction and an embedded subagent."""
    calls = [
        {"tool_call_id": "c1", "function_name": "bash", "arguments": {"command": "ls -la /forge/anvils"}},
        {
            "tool_call_id": "c2",
            "function_name": "ask",
            "arguments": {"topic": "the weight of anvils"},
            "extra": {"mode": "a_deliberate_one"},
        },
    ]
    results = [
        {
            "source_call_id": "c2",
            "content": "Delegated to the researcher.",
            "subagent_trajectory_ref": [{"trajectory_id": "child"}],
        },
        {
            "source_call_id": "c1",
            "content": [
                {"type": "text", "text": "anvil.py hammer.py tongs.py"},
                {"type": "image", "source": {"path": "images/anvil-from-above.png"}},
            ],
        },
    ]
    metrics = {
        "prompt_tokens": 900,
        "completion_tokens": 20,
        "cached_tokens": 800,
        "cost_usd": 0.02,
        "completion_token_ids": [7, 8],
    }
    steps: list[Obj] = [
        {"step_id": 1, "source": "system", "message": "You are a smith's apprentice in the forge."},
        {
            "step_id": 2,
            "source": "user",
            "message": "The anvil is too light, make it heavy.",
            "timestamp": "2026-04-20T10:00:00Z",
        },
        {"step_id": 3, "source": "agent", "message": "Copied from the run before this one.", "is_copied_context": True},
        {
            "step_id": 4,
            "source": "agent",
            "message": "Two at once.",
            "reasoning_content": "Both are cheap, so both.",
            "tool_calls": calls,
            "observation": {"results": results},
            "metrics": metrics,
            "timestamp": "2026-04-20T10:00:01.250Z",
            "model_name": "lab/big-2",
        },
        {
            "step_id": 5,
            "source": "system",
            "message": "Context was compacted here.",
            "observation": {"results": [{"content": "Short of it: the anvil is light."}]},
        },
        {
            "step_id": 6,
            "source": "agent",
            "message": "It is heavy now, I think.",
            "extra": {"remark": "said with some pride"},
        },
    ]
    child = {
        "schema_version": "ATIF-v1.7",
        "trajectory_id": "child",
        "agent": {"name": "researcher", "version": "1.0.0"},
    }
    child["steps"] = [
        {"step_id": 1, "source": "user", "message": "How heavy are anvils as a rule?"},
        {"step_id": 2, "source": "agent", "message": "As heavy as they have to be."},
    ]
    agent = {
        "name": "orchestrator",
        "version": "1.0.0",
        "model_name": "lab/big-2",
        "tool_definitions": TOOLS,
        "extra": {"parser": "json_with_repairs"},
    }
    return {
        "schema_version": "ATIF-v1.7",
        "session_id": "session-of-tuesday-night",
        "trajectory_id": "parent",
        "agent": agent,
        "steps": steps,
        "final_metrics": {
            "total_prompt_tokens": 900,
            "total_completion_tokens": 20,
            "total_cost_usd": 0.02,
            "total_steps": 6,
        },
        "subagent_trajectories": [child],
        "notes": "made up for the contract test",
    }


def openhands_output() -> Obj:
    """A record of OpenHands' evaluation: two actions of one response, an old flat event, an error, a graded result."""
    message = {
        "role": "assistant",
        "content": "I look at both of them.",
        "tool_calls": [
            call("execute_bash", "t1", command="ls -la /forge"),
            call("str_replace_editor", "t2", command="view", path="/forge/anvil.py"),
        ],
    }
    response = {
        "id": "gen-0123456789abcdef-0001",
        "created": 1_760_000_000,
        "model": "lab/small-1",
        "choices": [{"finish_reason": "tool_calls", "index": 0, "message": message}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 20},
    }

    def told(call_id: str, name: str) -> Obj:
        return {
            "function_name": name,
            "tool_call_id": call_id,
            "model_response": response,
            "total_calls_in_response": 2,
        }

    def event(number: int, **more: Any) -> Obj:
        return {"id": number, "timestamp": f"2025-04-30T16:32:{10 + number}.707474", "source": "agent", **more}

    history: list[Any] = [
        event(
            0,
            action="system",
            message="You are an agent with an anvil.",
            args={"content": "You are an agent with an anvil.", "tools": TOOLS},
        ),
        event(
            1,
            source="user",
            action="message",
            message="The anvil is too light, make it heavy.",
            args={"content": "The anvil is too light, make it heavy."},
        ),
        event(
            2,
            source="user",
            action="recall",
            message="Retrieving the workspace context",
            args={"query": "what is this forge all about"},
        ),
        event(
            4,
            source="environment",
            observation="recall",
            cause=2,
            content="Added workspace context",
            extras={
                "date": "2025-04-30",
                "microagent_knowledge": [{"name": "github", "content": "A token is at hand for it."}],
            },
        ),
        event(
            5,
            action="run",
            message="Running command: ls -la /forge",
            args={"command": "ls -la /forge", "thought": "I look at both of them.", "hidden": False},
            tool_call_metadata=told("t1", "execute_bash"),
            llm_metrics={"accumulated_cost": 0.5},
        ),
        event(
            6,
            action="read",
            message="Reading file: /forge/anvil.py",
            args={"path": "/forge/anvil.py", "thought": ""},
            tool_call_metadata=told("t2", "str_replace_editor"),
        ),
        event(
            7,
            observation="run",
            cause=5,
            content="anvil.py hammer.py tongs.py",
            message="Command `ls -la /forge` executed with exit code 2.",
            extras={"command": "ls -la /forge", "metadata": {"exit_code": 2}},
            tool_call_metadata=told("t1", "execute_bash"),
            success=False,
        ),
        event(
            9,
            observation="read",
            cause=6,
            content="heavy = False  # for now, at least",
            message="I read the file.",
            extras={"path": "/forge/anvil.py"},
            tool_call_metadata=told("t2", "str_replace_editor"),
        ),
        {"action": "run", "thought": "An old and flat event.", "command": "make heavy --now"},
        {"observation": "run", "content": "the anvil is heavy now, it says", "extras": {"exit_code": 0}},
        event(
            12,
            action="finish",
            message="All done with the anvil.",
            args={"final_thought": "I am done with the anvil.", "outputs": {}},
        ),
        event(
            13, observation="error", content="There was an unexpected error", message="There was an unexpected error"
        ),
    ]
    usage = {
        "model": "lab/small-1",
        "prompt_tokens": 900,
        "completion_tokens": 20,
        "cache_read_tokens": 7,
        "cache_write_tokens": 0,
        "response_id": response["id"],
    }
    metrics = {
        "accumulated_cost": 0.5,
        "accumulated_token_usage": {"prompt_tokens": 900, "completion_tokens": 20},
        "costs": [{"cost": 0.5}],
        "token_usages": [usage],
        "response_latencies": [{"latency": 1.25, "response_id": response["id"]}],
    }
    return {
        "instance_id": "acme__anvil-16",
        "instruction": "The anvil is too light, make it heavy.",
        "history": history,
        "metrics": metrics,
        "instance": {
            "repo": "acme/anvil",
            "instance_id": "acme__anvil-16",
            "problem_statement": "Too light for its size.",
            "base_commit": "0123456789abcdef01234567",
            "patch": GOLD,
            "FAIL_TO_PASS": TESTS,
        },
        "metadata": {
            "agent_class": "CodeActAgent",
            "llm_config": {"model": "openai/small-1", "temperature": 0.0},
            "max_iterations": 50,
            "git_commit": "b5338c69d6661dad658ead0d",
        },
        "error": "RuntimeError: Agent reached maximum iteration.",
        "test_result": {"git_patch": PATCH, "report": {"resolved": True, "applied": True}},
    }


EXAMPLES: list[tuple[str, Any, int | None]] = [
    *(
        (("mini-swe-agent" if name.startswith("mini") else "swe-agent"), document, n)
        for name, (_, document, n) in SAMPLES.items()
    ),
    ("chat", chat_row(), 4),
    ("chat", swe_smith_row(), 4),
    ("chat", CHAT, 4),
    ("nebius-openhands", nebius_openhands_row(), 1),
    ("nebius-openhands", {**nebius_openhands_row(), "trajectory": []}, 0),
    ("nebius-swe-agent", nebius_swe_agent_row(), 2),
    ("sharegpt", sharegpt_row(), 2),
    ("openhands-llm-completion-log", completion_log(), 1),
    ("adp-std", adp_std(), 3),
    ("r2e-gym", r2e_gym(), 2),
    ("atif", atif(), 4),
    ("openhands-output", openhands_output(), 4),
]
NEVER_LOGGED: dict[str, set[str]] = {
    "chat": {GOLD, TESTS},
    "openhands-output": {GOLD, TESTS},
    "r2e-gym": {GOLD, '{"test_is_heavy_enough": "PASSED"}', "test_is_heavy_enough"},
}


def _pieces(name: str, content: bytes) -> list[tuple[str, Any, int | None]]:
    """The units in a file of a format; how many steps they have is for the tests of that format to say."""
    pieces = [p.data for p in open_blob(Bytes(content)).pieces() if isinstance(p, Piece)]
    return [(name, pieces, None)] if IMPORTERS[name].unit == "records" else [(name, piece, None) for piece in pieces]


for _path in sorted(Path(__file__).parent.glob("format_examples_*.py")):
    _more = importlib.import_module(_path.stem)
    if isinstance(_more.EXAMPLES, dict):
        EXAMPLES += [
            e for name, files in _more.EXAMPLES.items() for content, _ in files for e in _pieces(name, content)
        ]
        NEVER_LOGGED |= {name: set(getattr(_more, "HIDDEN", ())) for name in _more.EXAMPLES}
    else:
        EXAMPLES += _more.EXAMPLES
        NEVER_LOGGED |= getattr(_more, "NEVER_LOGGED", {})
