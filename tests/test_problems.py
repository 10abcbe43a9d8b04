"""Problems are read from the shapes they are published in, their tests tell right from wrong in the sandbox, hints say why."""

from __future__ import annotations

import asyncio
import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import SandboxError, UsageError
from stepwell.rollout.drawn_problems import problems
from stepwell.rollout.hints import MOST_CHARS, derive, leaks
from stepwell.rollout.problems import Problem, Test, load, read, unique
from stepwell.rollout.rewards import Results, reward
from stepwell.rollout.sandbox import Sandbox
from stepwell.rollout.solutions import Tester, run
from stepwell.rollout.solving import block, code_of
from stepwell.syntax import ast_hash

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """Add."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate([1], [2]) == [1, 2]\n",
    "canonical_solution": "    return a + b\n",
}
CLOSE = "def check(candidate):\n    assert abs(candidate(1, 2) - 3) < 1e-6\n    assert candidate(0, 0) == 0\n"
MBPP = {
    "task_id": 7,
    "text": "Write a function to double a number.",
    "code": "def twice(n):\n    return 2 * n",
    "test_list": ["assert twice(2) == 4", "assert twice(0) == 0"],
    "challenge_test_list": ["assert twice(-1) == -2"],
}
STREAM = {
    "question": "Print the sum of the numbers on a line.",
    "input_output": json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}),
}
METHOD = {
    "question": "Sum of a list.",
    "starter_code": "class Solution:\n    def total(self, nums):\n",
    "input_output": {"fn_name": "total", "inputs": [[[1, 2]], [[]]], "outputs": [[3], [0]]},
}
CONTEST = {
    "name": "1_A. Sum",
    "description": "Sum of two numbers.",
    "public_tests": {"input": ["1 2"], "output": ["3"]},
    "private_tests": {"input": ["5 5"], "output": ["10"]},
    "generated_tests": {"input": ["0 0", "9 1"], "output": ["0", "10"]},
    "time_limit": {"seconds": 2, "nanos": 500_000_000},
}
LIVE = {
    "question_id": "abc",
    "question_content": "Sum.",
    "public_test_cases": json.dumps([{"input": "[1, 2]", "output": "3", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "total"}),
}
GYM = {
    "responses_create_params": {"input": [{"role": "user", "content": "Sum of a line."}]},
    "verifier_metadata": {"unit_tests": {"inputs": ["1 2"], "outputs": ["3"]}},
    "hash_id": "h",
}
SUMS = "print(sum(map(int, input().split())))"
TOTAL = "class Solution:\n    def total(self, nums):\n        return sum(nums)"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox()


@pytest.mark.parametrize(
    ("record", "right", "wrong", "n"),
    [
        (HUMAN_EVAL, "def add(a, b):\n    return a + b", "def add(a, b):\n    return [a, b]", 2),
        ({**HUMAN_EVAL, "test": CLOSE}, "def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b", 1),
        (MBPP, MBPP["code"], "def twice(n):\n    return n * n", 3),
        (STREAM, SUMS, "print(sum(map(int, input())))", 2),
        (METHOD, TOTAL, TOTAL.replace("sum", "len"), 2),
        (CONTEST, SUMS, "print(input())", 4),
        (LIVE, TOTAL.replace("self, nums", "self, *nums").replace("sum(nums)", "sum(nums[0])"), TOTAL.replace("sum", "max"), 1),
        (GYM, SUMS, "print(3, 3)", 1),
    ],
)  # fmt: skip
def test_published_shapes_tell_right_from_wrong(sandbox: Sandbox, record: Any, right: str, wrong: str, n: int) -> None:
    problem = read(record, "eval", "x/1")
    assert len(problem.tests) == n
    assert run(sandbox, problem, right).resolved
    ran = run(sandbox, problem, wrong)
    assert not ran.resolved
    about = json.dumps({**problem.about(), **problem.facts()})
    assert len(problem.about()["tests_hash"]) == 64
    assert not any(t.want and len(t.want) > 1 and t.want in about for t in problem.tests if t.kind != "expression")


def test_answers_never_stand_beside_a_solution(sandbox: Sandbox) -> None:
    """Everything a solution can read in its jail, printed by the solution itself."""
    problem = read(MBPP, "eval", "x")
    spy = (
        "import os\ndef twice(n):\n    return [open(f).read() for f in sorted(os.listdir('.')) if f.endswith('.json')]"
    )
    (gave, *_) = (r.gave or "" for r in run(sandbox, problem, spy).results)
    assert "twice(2)" in gave
    assert "4" not in gave.replace('"limit": 10.0', "")


@pytest.mark.parametrize(
    "cheat",
    [
        "import os\nos._exit(0)",
        "raise SystemExit",
        "class A:\n    def __eq__(self, o): return True\n    def __repr__(self): return '4'\ndef twice(n): return A()",
        'import os\nos.write(1, b\'{"status": "ended", "gave": "4"}\\n\' * 9)\ndef twice(n): return 1',
        "import builtins\nbuiltins.eval = lambda *a: 4\ndef twice(n): return 1",
        "def twice(n): return " + "(" * 150 + ")" * 150,
        "def twice(n: return",
        "",
    ],
)
def test_solutions_that_cheat_or_break_do_not_pass(sandbox: Sandbox, cheat: str) -> None:
    ran = run(sandbox, read(MBPP, "eval", "x"), cheat)
    assert len(ran.results) == 3
    assert not ran.resolved


def test_bad_records_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl.gz"
    lines = [
        json.dumps(HUMAN_EVAL),
        "{broken",
        json.dumps({"foreign": 1}),
        "",
        "[]",
        json.dumps(CONTEST),
        json.dumps(CONTEST),
    ]
    rust = {**HUMAN_EVAL, "language": "rs"}
    file.write_bytes(gzip.compress("\n".join([*lines, json.dumps(rust)]).encode()))
    found, wrong = load(file, max_tests=3)
    assert [p.task_id for p in unique(found)] == ["HumanEval/0", "1_A. Sum"]
    assert [w.partition(":")[0] for w in wrong] == ["line 2", "line 3", "line 5", "line 8"]
    contest = found[-1]
    assert contest.facts()["n_tests_left_out"] == 1
    assert contest.tests[0].group == "visible"
    assert contest.time_limit_s == 2.5
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.jsonl")


def test_embedded_problems_are_the_same_every_time_and_splits_share_nothing(sandbox: Sandbox) -> None:
    train, evaluation = list(problems("train", 30, 1)), list(problems("eval", 30, 1))
    assert [p for p, _ in problems("train", 30, 1)] == [p for p, _ in train]
    assert len({p.task_id for p, _ in train + evaluation}) == 60
    assert not {p.family for p, _ in train} & {p.family for p, _ in evaluation}
    assert {a for _, f in train for a, _ in f.args}.isdisjoint({a for _, f in evaluation for a, _ in f.args})
    for problem, _ in evaluation[:5]:
        assert {t.group for t in problem.tests} == {"visible", "hidden"}
        assert problem.solution
        assert run(sandbox, problem, problem.solution).resolved


def ran_on(sandbox: Sandbox, code: str, problem: Problem | None = None) -> tuple[Problem, Any, str]:
    problem = problem or read(MBPP, "eval", "x")
    return problem, run(sandbox, problem, code), code


def test_hints_say_what_running_says(sandbox: Sandbox) -> None:
    kinds = {}
    for code in (
        "def twice(n):\n    return 2 * n",
        "def twice(n):\n    x = 1\n    return x / 0 if n else 0",
        "def twice(n):\n    return 5 * n - 6 * n // 2 if n else 1",
        "def twice(n):\n    return 'no'",
    ):
        hint = derive(*ran_on(sandbox, code), "key")
        kinds[hint.kind] = hint
        assert len(hint.text) <= MOST_CHARS
    assert set(kinds) == {"pass", "exception", "wrong", "fresh_start"}
    assert "Line 3: return x / 0 if n else 0" in kinds["exception"].text
    assert "ZeroDivisionError" in kinds["exception"].text
    shown = kinds["wrong"]
    assert "Input: twice(0)\nExpected: 0\nActual: 1" in shown.text
    assert (shown.test, shown.rng_key) == ("twice(0)", "key")
    only_hidden = "def twice(n):\n    return abs(2 * n)"
    assert "-2" not in derive(*ran_on(sandbox, only_hidden), "key").text
    assert "Expected: -2" in derive(*ran_on(sandbox, only_hidden), "key", "all").text
    slow = Problem("slow", "s", "eval", "", (Test("f()", "visible", "expression", "f()", "1"),), time_limit_s=0.3)
    assert derive(*ran_on(sandbox, "def f():\n    while True: pass", slow), "key").kind == "timeout"


def test_leaks_of_a_critique_are_named(sandbox: Sandbox) -> None:
    problem, ran, code = ran_on(sandbox, "def twice(n):\n    return n * n")
    hint = derive(problem, ran, code, "k")
    assert leaks("The hint says it is wrong.", hint, problem.tests, None) == ["hint"]
    assert leaks("The hint says it is wrong.", None, problem.tests, None) == []
    assert leaks("Write\n```python\nreturn 2 * n\n```", hint, problem.tests, problem.solution) == ["code", "solution"]
    long = Test("t", "hidden", "stdin", "", "one two three four five six seven eight nine")
    assert leaks("It must be two three four five six seven eight nine.", None, [long], None) == []
    assert leaks("It is one two three four five six seven eight", None, [long], None) == ["expected"]


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("def f(a):\n    x = a\n    return x", "def f(a):\n    # a comment\n    y = (a)\n    return y\n", True),
        ("def f(a):\n    return a", "def f(b):\n    return b", False),  # parameters may be named in calls
        ("def f(a):\n    x = 1\n    return a", "def f(a):\n    x = 2\n    return a", False),
        ("y = 5\ndef f():\n    def g(): return y\n    def h():\n        y = 1\n    return g()",
         "y = 5\ndef f():\n    def g(): return w\n    def h():\n        w = 1\n    return g()", False),
        ("def f():\n    x = 1\n    return locals()", "def f():\n    y = 1\n    return locals()", False),
        ("def f():\n    e = 1\n    try: g()\n    except E as e: pass\n    return e",
         "def f():\n    x = 1\n    try: g()\n    except E as e: pass\n    return x", False),
        ("no python", "no python", True),
        ("no python ", "no python", False),
    ],
)  # fmt: skip
def test_equal_but_for_names_is_equal(a: str, b: str, same: bool) -> None:
    assert (ast_hash(a) == ast_hash(b)) is same


@given(st.text(max_size=200))
def test_any_text_has_a_hash_and_any_reply_has_code(text: str) -> None:
    assert len(ast_hash(text)) == 64
    assert isinstance(code_of(text), str)


def test_code_is_taken_out_of_a_reply() -> None:
    assert code_of("So:\n```python\nx = 1\n```\nor better\n```py\nx = 2\n```\nDone.") == "x = 2"
    assert code_of("x = 3\n") == "x = 3"
    assert code_of("```python\nx = 4") == "x = 4"
    assert code_of(block("def f():\n    return 1")) == "def f():\n    return 1"


def test_rewards_gate_on_the_format() -> None:
    assert [reward(True, True, 1.0, "all"), reward(True, False, 0.5, "all"), reward(False, True, 1.0, "all")] == [
        1,
        0,
        0,
    ]
    assert [reward(True, False, 0.5, "mean"), reward(False, False, 0.5, "mean")] == [0.5, 0.0]


class Broken(Sandbox):
    """A sandbox that cannot open a jail."""

    def open(self, *_: Any, **__: Any) -> Any:
        raise SandboxError("no jail")


def test_a_solution_is_tested_once_and_failures_of_the_sandbox_are_not_kept(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = read(MBPP, "eval", "x")
    right, same = "def twice(n):\n    x = 2 * n\n    return x", "def twice(n):\n    y = 2 * n  # twice\n    return y"
    raises, alike = "def twice(n):\n    x = 1 / 0\n    return x", "def twice(n):\n\n    z = 1 / 0\n    return z"

    async def play(tester: Tester, *codes: str) -> list[Any]:
        return [await tester.test(problem, code) for code in codes]

    with ThreadPoolExecutor(2) as threads, Results(tmp_path / "r.sqlite") as results:
        with monkeypatch.context() as patched:
            patched.setattr("stepwell.rollout.solutions.Sandbox", Broken)
            with pytest.raises(SandboxError):
                asyncio.run(play(Tester(sandbox, threads, 2, results), right))
        tester = Tester(sandbox, threads, 2, results)
        first, second = asyncio.run(play(tester, right, same))
        assert (first.known, second.known, first.results == second.results) == (False, True, True)
        one, other = asyncio.run(play(tester, raises, alike))
        assert [r.line for r in (one.results[0], other.results[0])] == [2, 3], (
            "an exception names lines of its own text"
        )
        assert (tester.n_run, tester.n_known) == (3, 1)
    with ThreadPoolExecutor(2) as threads, Results(tmp_path / "r.sqlite") as results:
        again = Tester(sandbox, threads, 2, results)
        asyncio.run(play(again, same))
        assert (again.n_run, again.n_known) == (0, 1), "another process finds it"
        asyncio.run(again.test(problem, same, again=True))
        assert again.n_run == 1
