"""Small trajectory files of every format that is imported, made up here: what the importer tests read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Obj = dict[str, Any]
CREATED = 1_760_000_000


def reply(text: str, created: int = CREATED, cost: float | None = 0.01) -> Obj:
    """An assistant message of mini-swe-agent 1."""
    usage: Obj = {
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 64, "audio": 0},
    }
    usage |= {"completion_tokens_details": {"reasoning_tokens": 11}} | ({} if cost is None else {"cost": cost})
    message = {"role": "assistant", "content": text, "reasoning": "It must be the loop.", "refusal": None}
    response: Obj = {
        "id": f"gen-{created}",
        "model": "lab/small-1",
        "created": created,
        "usage": usage,
        "provider": "lab",
    }
    response["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {"role": "assistant", "content": text, "extra": {"response": response}}


def user(text: str) -> Obj:
    """A user message."""
    return {"role": "user", "content": text}


def mini_1(instance: str | None = "acme__anvil-7", task: str = "The anvil is too light.") -> Obj:
    """Five steps of mini-swe-agent 1: a command, a format error, a time-out, elided output, the submission."""
    patch = "diff --git a/anvil.py b/anvil.py\n+heavy = True\n"
    elided = (
        "<returncode>1</returncode>\n<warning>\nlong\n</warning><output_head>\nx\n</output_head>\n<elided_chars>\n"
        "4321 characters elided\n</elided_chars>\n<output_tail>\ny\n</output_tail>"
    )
    messages = [
        {"role": "system", "content": "Your response must contain exactly ONE bash code block."},
        user(f"Please solve: {task}\nEnd with a patch."),
        reply("THOUGHT: look\n\n```bash\nls -la\n```"),
        user("<returncode>0</returncode>\n<output>\nanvil.py\n</output>"),
        reply("```bash\nls\n```\nor\n```bash\npwd\n```", CREATED + 5, None),
        user("Please always provide EXACTLY ONE action, found 2 actions."),
        reply("```bash\nsleep 99\n```", CREATED + 9),
        user("The last command <command>sleep 99</command> timed out and has been killed."),
        reply("```bash\nmake test\n```", CREATED + 80),
        user(elided),
        reply("```bash\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff\n```", CREATED + 90),
        user(patch),
    ]
    agent = {
        "instance_template": "Please solve: {{task}}\nEnd with a patch.\n",
        "timeout_template": "The last command <command>{{action['action']}}</command> timed out and has been killed.",
        "step_limit": 250,
        "cost_limit": 3.0,
    }
    config = {"agent": agent, "model": {"model_name": "lab/small-1"}, "environment": {"image": "acme/anvil:7"}}
    stats = {"instance_cost": 0.04, "api_calls": 5}
    info = {"exit_status": "Submitted", "submission": patch, "model_stats": stats, "mini_version": "1.15.0"}
    whole: Obj = {"info": {**info, "config": config}, "messages": messages, "trajectory_format": "mini-swe-agent-1"}
    return whole if instance is None else {**whole, "instance_id": instance}


def mini_bare() -> list[Obj]:
    """A bare list of messages in mini-swe-agent's manner: two steps, no outcome."""
    return [
        {"role": "system", "content": "Your response must contain exactly ONE bash code block."},
        user("Say hello. To finish: `echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT`."),
        {"role": "assistant", "content": "```mswea_bash_command\necho hello\n```"},
        user("<returncode>0</returncode>\n<output>\nhello\n</output>"),
        {"role": "assistant", "content": "```mswea_bash_command\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```"},
        user(""),
    ]


def mini_11(instance: str = "acme__anvil-8") -> Obj:
    """Five steps of mini-swe-agent 1.1: two tool calls, a format error, a person's command, an interruption, the exit."""

    def call(name: str, command: str) -> Obj:
        return {
            "id": name,
            "type": "function",
            "function": {"name": "bash", "arguments": json.dumps({"command": command})},
        }

    def tool(name: str, output: str, code: int, **extra: Any) -> Obj:
        told = {"raw_output": output, "returncode": code, "timestamp": CREATED + 1.5, "exception_info": None, **extra}
        return {"role": "tool", "tool_call_id": name, "content": f"<output>{output[:9]}</output>", "extra": told}

    def said(text: str | None, actions: list[Obj], calls: list[Obj], cost: float = 0.5) -> Obj:
        message = {"role": "assistant", "content": text, "tool_calls": calls, "reasoning_content": "Two at once."}
        response = {
            "id": "r1",
            "model": "lab/big-2",
            "choices": [{"finish_reason": "tool_calls", "message": dict(message)}],
        }
        response["usage"] = {"prompt_tokens": 10, "completion_tokens": 2}
        extra = {"actions": actions, "cost": cost, "timestamp": CREATED + 1, "response": response}
        return {**message, "extra": extra}

    refused = {
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": "I am done."}}],
        "id": "r2",
    }
    error = {"interrupt_type": "FormatError", "cost": 0.25, "response": refused}
    messages = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": [{"type": "text", "text": "Fix the anvil."}]},
        said(
            None,
            [{"command": "ls", "tool_call_id": "c1"}, {"command": "sleep 9", "tool_call_id": "c2"}],
            [call("c1", "ls"), call("c2", "sleep 9")],
        ),
        tool("c1", "anvil.py and more", 0),
        tool("c2", "", -1, exception_info="timed out", exception_type="TimeoutExpired"),
        {"role": "user", "content": "No tool calls found in the response.", "extra": error},
        {"role": "user", "content": "User command: pwd", "extra": {"actions": [{"command": "pwd"}]}},
        {"role": "user", "content": "<returncode>0</returncode>", "extra": {"raw_output": "/w", "returncode": 0}},
        said("Next.", [{"command": "cat anvil.py", "tool_call_id": "c3"}], [call("c3", "cat anvil.py")]),
        {"role": "user", "content": "Interrupted by user: stop", "extra": {"interrupt_type": "UserInterruption"}},
        said("Submit.", [{"command": "submit", "tool_call_id": "c4"}], [call("c4", "submit")]),
        {"role": "exit", "content": "+heavy", "extra": {"exit_status": "Submitted", "submission": "+heavy"}},
    ]
    info = {"exit_status": "Submitted", "submission": "+heavy", "model_stats": {"instance_cost": 1.75, "api_calls": 4}}
    info |= {"mini_version": "2.4.6", "config": {"agent": {"step_limit": 0}, "model": {"model_name": "lab/big-2"}}}
    return {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1", "instance_id": instance}


def mini_responses() -> Obj:
    """One step of mini-swe-agent 1.1 over the Responses API, whose items have no role, then a format error and a limit."""
    call = {"type": "function_call", "call_id": "f1", "name": "bash", "arguments": '{"command": "ls"}'}
    thought = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Look around."}]}
    response = {
        "object": "response",
        "id": "resp-1",
        "model": "lab/r1",
        "status": "completed",
        "output": [thought, call],
    }
    response["usage"] = {"input_tokens": 8, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}
    told = {"actions": [{"command": "ls", "tool_call_id": "f1"}], "cost": 0.1, "timestamp": CREATED}
    answer = {"type": "function_call_output", "call_id": "f1", "output": "<output>a</output>"}
    lost = {"object": "response", "id": "resp-2", "status": "completed", "output": [{**thought, "id": "m2"}]}
    error = {"interrupt_type": "FormatError", "cost": 0.2, "response": lost}
    messages = [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "Fix the anvil."},
        {**response, "extra": told},
        {**answer, "extra": {"raw_output": "a", "returncode": 0, "timestamp": CREATED + 1}},
        {"type": "message", "role": "user", "content": "No tool calls found.", "extra": error},
        {"role": "exit", "content": "LimitsExceeded", "extra": {"exit_status": "LimitsExceeded", "submission": ""}},
    ]
    info = {"exit_status": "LimitsExceeded", "submission": "", "config": {"model": {"model_name": "lab/r1"}}}
    return {"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}


def swe_0() -> Obj:
    """Two steps of SWE-agent 0.x after a demonstration; state as a string, a cost that adds up over the batch."""
    state = '{"open_file": "n/a", "working_dir": "/anvil"}'
    history: list[Obj] = [
        {"role": "system", "content": "SETTING: You are a programmer.", "agent": "primary"},
        {"role": "user", "content": "Here is a demonstration.", "agent": "demo", "is_demo": True},
        {"role": "assistant", "content": "demo reply", "thought": "demo", "action": "ls demo", "is_demo": True},
        {"role": "user", "content": "We're solving: the anvil is light.", "agent": "primary"},
        {"role": "assistant", "content": "Look.\n```\nls\n```", "thought": "Look.", "action": "ls", "agent": "primary"},
        {"role": "user", "content": "anvil.py\n(Open file: n/a)", "agent": "primary"},
        {
            "role": "assistant",
            "content": "Done.\n```\nsubmit\n```",
            "thought": "Done.",
            "action": "submit",
            "agent": "x",
        },
    ]
    steps = [
        {
            "action": "ls",
            "observation": "anvil.py",
            "response": "Look.\n```\nls\n```",
            "state": state,
            "thought": "Look.",
        },
        {
            "action": "submit",
            "observation": "",
            "response": "Done.\n```\nsubmit\n```",
            "state": state,
            "thought": "Done.",
        },
    ]
    stats = {"total_cost": 139.4, "instance_cost": 0.48, "tokens_sent": 900, "tokens_received": 20, "api_calls": 2}
    info = {"exit_status": "submitted (exit_cost)", "submission": "+heavy", "model_stats": stats}
    return {"environment": "swe_main", "trajectory": steps, "history": history, "info": info}


def swe_1(instance: str = "acme__anvil.0123abcd.pr_9", field: str = "messages") -> Obj:
    """Three steps of SWE-agent 1.x with tool calls and prompts, the last without an action; one reply edited by hand."""

    def told(action: str, text: str, n: int) -> Obj:
        function = {"name": "bash", "arguments": json.dumps({"command": action})}
        calls = [{"index": 1, "id": f"t{n}", "type": "function", "function": function}]
        return {
            "role": "assistant", "content": text, "thought": text, "action": action, "agent": "main", "tool_calls": calls,
            "message_type": "action",
        }  # fmt: skip

    def shown(text: str, n: int) -> Obj:
        parts = [{"type": "text", "text": text}]
        return {
            "role": "tool",
            "content": parts,
            "agent": "main",
            "message_type": "observation",
            "tool_call_ids": [f"t{n}"],
        }

    first: list[Obj] = [
        {"role": "system", "content": "You are helpful.", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": [{"type": "text", "text": "Fix the anvil."}], "agent": "main"},
    ]
    turns = [
        (told("ls", "Look.", 1), shown("OBSERVATION: anvil.py", 1)),
        (told("make", "Build.", 2), shown("OBSERVATION: ok", 2)),
    ]
    history = [*first, *(m for turn in turns for m in turn)]
    history[4] = {**history[4], "content": "Build it."}
    elided = {**shown("Old environment output: (1 lines omitted)", 1)}
    before = [first, [*first, *turns[0]], [*first, turns[0][0], elided, *turns[1]]]
    after = [
        [*before[0], *turns[0]],
        [*before[1][:3], elided, *turns[1]],
        [*before[2], {"role": "assistant", "content": ""}],
    ]
    prompts = after if field == "messages" else before
    steps: list[Obj] = []
    for k, (text, action, observation) in enumerate(
        [("Look.", "ls", "anvil.py"), ("Build.", "make", "ok"), ("", "", "exit due to context")]
    ):
        step = {
            "action": action,
            "observation": observation,
            "response": text,
            "thought": text,
            "execution_time": 0.25 + k,
        }
        steps.append({**step, "state": {"working_dir": "/testbed"}, field: prompts[k], "extra_info": {}})
    stats = {"instance_cost": 0.3, "tokens_sent": 1600, "tokens_received": 90, "api_calls": 3}
    info = {"swe_agent_version": "1.0.1", "exit_status": "submitted", "submission": "+heavy", "model_stats": stats}
    problem = {"type": "text", "text": "The anvil is light.", "id": instance}
    replay = {"env": {"deployment": {"image": "acme/anvil:9"}}, "agent": {"model": {"name": "lab/big-2"}}}
    replay["problem_statement"] = problem
    whole = {
        "trajectory": steps,
        "history": history,
        "info": {**info, "edited_files30": "anvil.py"},
        "environment": instance,
    }
    return {**whole, "replay_config": json.dumps(replay) if field == "messages" else replay}


SAMPLES: dict[str, tuple[str, Any, int]] = {
    "mini-1": ("acme__anvil-7.traj.json", mini_1(), 5),
    "mini-bare": ("local.traj.json", mini_bare(), 2),
    "mini-1.1": ("acme__anvil-8.traj.json", mini_11(), 5),
    "mini-responses": ("r.traj.json", mini_responses(), 2),
    "swe-0": ("acme__anvil-1.traj", swe_0(), 2),
    "swe-1": ("acme__anvil.0123abcd.pr_9.traj", swe_1(), 3),
    "swe-1.1": ("acme__anvil.0123abcd.pr_9.traj", swe_1(field="query"), 3),
}
"""Sample name -> file name, document, steps."""


def instance_report(resolved: bool) -> Obj:
    """A report of the SWE-bench harness for one instance."""
    status = {"FAIL_TO_PASS": {"success": ["t::a"] if resolved else [], "failure": [] if resolved else ["t::a"]}}
    status["PASS_TO_PASS"] = {"success": ["t::b"], "failure": []}
    return {"patch_is_None": False, "patch_exists": True, "resolved": resolved, "tests_status": status}


def write(path: Path, document: Any) -> Path:
    """Write a document as JSON; bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document, indent=1).encode())
    return path


def write_run(root: Path, n: int = 6) -> Path:
    """A folder as a batch leaves it: `n` trajectories, reports for most, a results file, a log, a broken file."""
    for i in range(n):
        name = f"acme__anvil-{i}"
        write(root / "trajs" / f"{name}.traj.json", mini_1(name, f"Task {i}."))
        if i % 3:
            write(root / "logs" / name / "report.json", instance_report(i % 2 == 0))
    write(root / "preds.json", {"acme__anvil-0": {"instance_id": "acme__anvil-0", "model_patch": "+x"}})
    write(root / "run.log", b"started\n")
    write(root / "trajs" / "broken.traj.json", b'{"messages": [')
    return root
