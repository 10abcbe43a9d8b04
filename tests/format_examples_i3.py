"""Small files of the record formats, made up here: rollouts, results, attempts and problems, by the name of their format."""

from __future__ import annotations

import base64
import json
from typing import Any

Obj = dict[str, Any]
GOLD_PATCH = "diff --git a/anvil.py b/anvil.py\n-weight = 1\n+weight = 1000  # the gold patch\n"
TEST_PATCH = "diff --git a/test_anvil.py b/test_anvil.py\n+    assert anvil.weight == 1000  # hidden\n"
HIDDEN_TEST = "def check(candidate):\n    assert candidate(17, 4) == 21  # hidden\n"
GOLD_CODE = "    return sum((first, second))  # the reference\n"
PROMPT = "def add(first, second):\n    '''Adds the first number and the second. add(1, 2) is 3.'''\n"
HIDDEN = (GOLD_PATCH, TEST_PATCH, HIDDEN_TEST, GOLD_CODE)
"""Texts that no event may hold."""


def item(kind: str, **fields: Any) -> Obj:
    """An item of the Responses API."""
    return {"type": kind, "status": "completed", **fields}


def message(text: str, **more: Any) -> Obj:
    """A message of the agent as an item."""
    return item("message", role="assistant", content=[{"type": "output_text", "text": text, "annotations": []}], **more)


def call(name: str, **arguments: Any) -> Obj:
    """A call of the tool `shell` as an item."""
    return item("function_call", id=name, call_id=name, name="shell", arguments=json.dumps(arguments))


def output(name: str, text: str) -> Obj:
    """What a call gave as an item."""
    return item("function_call_output", id=None, call_id=name, output=text)


def nemo_swe(rollout: int = 0, reward: float = 1.0, **more: Any) -> Obj:
    """A rollout of a software agent: three steps, two calls at once in the second; the request is repeated in the settings."""
    instance: Obj = {"repo": "acme/anvil", "base_commit": "0123abc", "patch": GOLD_PATCH, "test_patch": TEST_PATCH}
    instance |= {"FAIL_TO_PASS": '["test_anvil.py::test_weight_of_the_anvil"]', "created_at": "2024-05-01T00:00:00Z"}
    instance |= {
        "hints_text": "Somebody hinted at the scales in the cellar.",
        "problem_statement": "Anvils are too light.",
    }
    metadata = {"instance_id": "acme__anvil-7", "dataset_name": "acme/bench", "split": "test"}
    metadata |= {"problem_statement": "Anvils are too light.", "instance_dict": json.dumps(instance)}
    request = {"input": [], "metadata": metadata, "model": "lab/small-1", "temperature": 0.7, "tools": [], "user": None}
    thought = item(
        "reasoning", id="rs1", summary=[{"type": "summary_text", "text": "It must be the scales in the yard."}]
    )
    items = [
        thought, message("Let me look at the anvil first.", id="m1"), call("c1", command="cat anvil.py"),
        output("c1", "weight = 1  # as the smith left it"), call("c2", command="sed -i s/1/1000/ anvil.py"),
        call("c3", command="pytest -q"), output("c3", '{"output": "2 passed", "exit_code": 0}'), output("c2", ""),
        message("The anvil is heavy enough now."),
    ]  # fmt: skip
    usage = {"input_tokens": 1200, "output_tokens": 90, "input_tokens_details": {"cached_tokens": 0}}
    response = {
        "id": "r1",
        "object": "response",
        "model": "lab/small-1",
        "created_at": 1_760_000_000.0,
        "output": items,
    }
    settings = {"run_session_id": "run-1", "problem_info": metadata, "body": request, "container": "acme/anvil:7"}
    graded = {"reward": reward, "resolved": reward == 1, "model_patch": "diff --git a/anvil.py\n+weight = 999\n"}
    run = {"_ng_task_index": 3, "_ng_rollout_index": rollout, "agent_ref": {"name": "smith"}, "mask_sample": False}
    whole = {"responses_create_params": request, "response": {**response, "usage": usage}, "instance_config": settings}
    return {**whole, **graded, **run, "agent_run_time": 12.5, **more}


def nemo_single() -> Obj:
    """One reply of a model that trains, with token ids; a tool on offer, the test it failed quoted, tests packed in base64."""
    tool = {"type": "function", "name": "run", "parameters": {"type": "object", "properties": {}}}
    request = {
        "input": [{"role": "user", "content": "Print the sum of all given numbers."}],
        "tools": [tool],
        "model": None,
    }
    tokens = {"prompt_token_ids": [1, 2, 3], "generation_token_ids": [4, 5], "generation_log_probs": [-0.1, -0.2]}
    packed = base64.b64encode(json.dumps({"instance_id": "x", "test_patch": [TEST_PATCH]}).encode()).decode()
    said = {"output": "20", "inputs": "17 4 0 0 0 0 0 0 0 0 0 0", "expected": "21\n" * 9, "error_code": -2}
    response = {"model": "lab/small-1", "output": [message("```python\nprint(0)\n```", **tokens)], "usage": None}
    whole = {
        "responses_create_params": request,
        "response": response,
        "reward": 0.25,
        "metadata": said,
        "notes": packed,
    }
    return {**whole, "extracted_model_code": "print(0)", "result": [True, -2], "expected_answer": "twenty-one"}


def nemo_lost() -> Obj:
    """A rollout whose steps are lost: a result and a patch are all there is."""
    whole: Obj = {"responses_create_params": {"input": "Fix the anvil."}, "response": {"output": [], "model": ""}}
    return {
        **whole,
        "reward": 0.0,
        "resolved": False,
        "model_patch": "diff --git a/x b/x\n",
        "instance_id": "acme__anvil-9",
    }


def intercode() -> Obj:
    """A record in the ReAct manner, one without thoughts, whose last observation is rows, and one with a plan."""

    def record(number: int, history: Obj, **summary: Any) -> Obj:
        about = {"environment": "ic_bash", "dataset": "./data/one/anvils.json", "task_id": number}
        best = max(history["rewards"], default=0)
        told = {"max_reward": best, "turns_taken": len(history["actions"]), "turns_max": 10, **summary}
        return {
            **about,
            "query": f"Count the anvils in shed number {number}.",
            "turn_history": history,
            "summary": told,
        }

    react: Obj = {"thoughts": ["I should list the shed first.", "That is all of them, I will submit."]}
    react |= {"actions": ["execute[ls /shed | wc -l]", "submit"], "observations": ["12 anvils of all sizes\n", ""]}
    react |= {"rewards": [0, 1.0], "valid_action": [True, True]}
    plain = {"actions": ["SELECT count(*) FROM anvils", "", "Are there any more?"], "valid_action": [True, None, False]}
    plain |= {
        "observations": ["[(12,)]", "No code was found in the reply.", [["anvil", 12]]],
        "rewards": [0.3, 0, 0.67],
    }
    info = {
        "eval_obs": "the reference solution printed 13 anvils",
        "agent_obs": "the agent's command printed 12 anvils",
    }
    plan = {
        "actions": ["ls"],
        "observations": ["anvil"],
        "rewards": [0.5],
        "steps": ["Look into the shed.", "Count them."],
    }
    second = {**record(1, plain, max_reward_idx=2), "info": info, "hardness": "medium"}
    return {"0": record(0, react), "1": second, "2": record(2, plan)}


def tau_bench(trial: int = 0, reward: float = 0.0) -> Obj:
    """A trial of four steps with a tool call and a simulated user."""
    arguments = {"user_id": "wile_e_42", "item": "anvil"}
    calls = [{"id": "0", "function": {"name": "order", "arguments": arguments}}]
    talk: list[Obj] = [
        {"role": "system", "content": "Sell anvils, but never more than one to a coyote."},
        {"role": "user", "content": "I would like to buy an anvil."},
        {"role": "assistant", "content": "Who are you, if I may ask?", "tool_calls": None},
        {"role": "user", "content": "Wile E. is my name, of the desert."},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "0", "name": "order", "content": '{"error": "no anvil is left in the store"}'},
        {"role": "assistant", "content": "There is none left, I am sorry to say."},
        {"role": "user", "content": "###STOP###"},
    ]
    expected = [{"name": "order", "kwargs": {"item": "the rocket skates with the golden wheels"}}]
    task = {"user_id": "wile_e_42", "instruction": "You want an anvil, or else rocket skates.", "actions": expected}
    scored = {"reward": reward, "info": {"r_actions": reward}, "actions": expected}
    info = {"task": {**task, "outputs": []}, "source": "user", "user_cost": 0.25, "reward_info": scored}
    return {"task_id": 4, "reward": reward, "info": info, "traj": talk, "trial": trial}


def debugger(passing: bool = True, solved: bool = False) -> Obj:
    """A problem in LLMDebugger's manner: two rounds, the first fails a visible test."""
    tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]
    codes = ["import math\n" + PROMPT + "    return first", "import math\n" + PROMPT + "    return first + second"]
    failed = ["assert add(1, 2) == 3 # Real Execution Output: 1"]
    row: Obj = {
        "task_id": "Sums/1",
        "prompt": PROMPT,
        "entry_point": "add",
        "test": HIDDEN_TEST,
        "canonical_solution": GOLD_CODE,
    }
    row |= {
        "seed": PROMPT + "    return first",
        "given_tests": tests,
        "generated_test": tests,
        "implementations": codes,
    }
    row |= {"test_feedback": [failed, [] if passing else failed], "solution": codes[-1], "is_passing": passing}
    return {**row, "is_solved": solved, "reflections": [], "debug_iter": 1, "token_nums": 4711}


def reflexion(reflections: int = 2, solved: bool = True) -> Obj:
    """A problem in Reflexion's manner: reflections, and of the solutions the last alone."""
    said = [f"The solution of round {i} forgets the second number." for i in range(reflections)]
    row: Obj = {"name": "Sums_1_add", "language": "py", "prompt": PROMPT, "test": HIDDEN_TEST, "entry_point": "add"}
    return {**row, "is_solved": solved, "reflections": said, "solution": PROMPT + "    return first + second"}


def graded(n: int = 2) -> Obj:
    """A problem with `n` samples, the first of them right."""
    codes = ["print(sum(map(int, input().split())))", *(f"print({i})" for i in range(1, n))]
    wrong = {"output": "1", "inputs": "17 4 11 23 99 1 2 3", "expected": "twenty-one is the answer", "error_code": -2}
    said = ['{"execution time": 0.02}', *(json.dumps(wrong) for _ in range(1, n))]
    row = {"question_title": "A. Sums", "question_content": "Print the sum of two numbers.", "question_id": "17_A"}
    row |= {"platform": "anvilforces", "contest_id": "17", "contest_date": "2023-08-21T00:00:00", "difficulty": "easy"}
    samples = {
        "output_list": [f"Here it is:\n```python\n{c}\n```" for c in codes],
        "code_list": codes,
        "metadata": said,
    }
    return {**row, "starter_code": "", **samples, "graded_list": [i == 0 for i in range(n)], "pass@1": 1 / n}


def problems() -> list[Obj]:
    """A problem in each of the shapes that are read."""
    row: Obj = {"prompt": PROMPT, "entry_point": "add", "test": HIDDEN_TEST, "canonical_solution": GOLD_CODE}
    asked = [
        {"role": "system", "content": "Think step by step before you answer."},
        {"role": "user", "content": "Add them up."},
    ]
    tests = {"unit_tests": {"inputs": ["17 4 11 23 99 1 2 3 4 5"], "outputs": ["twenty-one in all, and no more"]}}
    limit = {"seconds": 2, "nanos": 500_000_000}
    contest: Obj = {
        "private_tests": {"input": [HIDDEN_TEST]},
        "solutions": {"solution": [GOLD_CODE]},
        "time_limit": limit,
    }
    instance: Obj = {"instance_id": "acme__anvil-7", "problem_statement": "Anvils are too light.", "repo": "acme/anvil"}
    visible: Obj = {"public_test_cases": "[1, 2]", "private_test_cases": HIDDEN_TEST, "platform": "anvilforces"}
    return [
        {"task_id": "Sums/1", **row, "given_tests": ["assert add(1, 2) == 3"]},
        {"name": "Sums_1_add", "language": "py", "doctests": "transform", "stop_tokens": ["\ndef"], **row},
        {
            "task_id": 11,
            "text": "Write a function that adds.",
            "code": GOLD_CODE,
            "test_list": [HIDDEN_TEST, "assert 1"],
        },
        {
            "problem_id": 5,
            "question": "Read two numbers.",
            "input_output": HIDDEN_TEST,
            "solutions": [GOLD_CODE],
            "url": "u",
        },
        {"name": "17_A", "description": "Print the sum.", "public_tests": {"input": ["1 2"]}, **contest},
        {"question_id": "abc", "question_content": "Print it.", "contest_date": "2024-01-01", **visible},
        {"responses_create_params": {"input": asked}, "verifier_metadata": tests, "hash_id": "c692", "dataset": "taco"},
        {**instance, "base_commit": "0123abc", "patch": GOLD_PATCH, "test_patch": TEST_PATCH, "FAIL_TO_PASS": '["a"]'},
    ]


def _lines(*records: Obj) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


EXAMPLES: dict[str, list[tuple[bytes, str]]] = {
    "nemo-gym-rollouts": [
        (_lines(nemo_swe(0), nemo_swe(1, 0.0, mask_sample=True), nemo_single(), nemo_lost()), ".jsonl"),
    ],
    "intercode": [(json.dumps(intercode()).encode(), ".json")],
    "tau-bench": [
        (json.dumps(tau_bench()).encode(), ".json"),
        (json.dumps([tau_bench(1, 1.0), tau_bench(2)]).encode(), ".json"),
    ],
    "critique-revision": [(_lines(debugger(), reflexion(), reflexion(0, False)), ".jsonl")],
    "code-generations-graded": [(json.dumps([graded(), graded(1)]).encode(), ".json")],
    "problems-with-tests": [(_lines(*problems()), ".jsonl")],
}
"""Format -> files of it: content and suffix."""
