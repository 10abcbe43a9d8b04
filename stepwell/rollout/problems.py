"""Problems with tests: what a solution has to do and how that is checked, read from the files problem sets come in.

Belongs here: a problem, its tests, and readers of the published shapes (JSONL or JSONL.gz, one record a line): HumanEval
and what is written like it, MBPP, APPS and TACO, CodeContests, LiveCodeBench (its public tests), NeMo Gym code tasks.
Does not belong here: problems made by the project (`drawn_problems`), running tests (`solutions`).

Where a test is an equation with a literal on its right, the literal is taken out, so that only the left side ever stands
beside a solution; a test that is a program is run as it is, and a hostile solution in the same process can fake it.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stepwell.contamination.tasks import compared
from stepwell.errors import UsageError
from stepwell.ids import sha256

Kind = Literal["expression", "stdin", "program"]
Group = Literal["visible", "hidden"]
Obj = Mapping[str, Any]
TIME_LIMIT_S = 10.0
"""Where a problem states none (CTRL)."""


@dataclass(frozen=True)
class Test:
    """One test: an `expression` that must equal a literal, `stdin` with the output wanted, or a `program` that must end well.

    `also` is a second result that is taken; `group` is visible (may be shown in hints) or hidden.
    """

    __test__ = False
    name: str
    group: Group
    kind: Kind
    given: str
    want: str | None = None
    also: str | None = None


@dataclass(frozen=True)
class Problem:
    """A problem; `setup` is code that stands before every solution, `n_all` the tests there were before any were left out."""

    task_id: str
    suite: str
    split: str
    statement: str
    tests: tuple[Test, ...]
    entry_point: str | None = None
    starter: str = ""
    setup: str = ""
    solution: str | None = None
    family: str | None = None
    time_limit_s: float = TIME_LIMIT_S
    n_all: int = 0

    @cached_property
    def tests_hash(self) -> str:
        """sha256 of the tests that are run."""
        content = [[t.name, t.group, t.kind, t.given, t.want, t.also] for t in self.tests]
        return sha256(json.dumps([self.setup, self.time_limit_s, content]))

    def about(self) -> dict[str, Any]:
        """Payload of the `task` event: hashes of tests and solution, never these themselves."""
        return {
            "task_id": self.task_id, "suite": self.suite, "split": self.split, "repo": self.family,
            "statement": self.statement, "statement_hash": sha256(self.statement), "tests_hash": self.tests_hash,
            "solution_hash": None if self.solution is None else sha256(self.solution), "time_limit_s": self.time_limit_s,
        }  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What else is recorded with the task; CTRL's own runs took the first 10 tests only, so what was left out is said."""
        counts = {"n_tests": len(self.tests), "n_tests_left_out": self.n_all - len(self.tests)}
        known = {"entry_point": self.entry_point, "n_visible": sum(t.group == "visible" for t in self.tests)}
        tests = [t.given if t.kind == "program" else {"input": t.given, "output": t.want} for t in self.tests]
        return counts | known | compared(tests, [self.solution])


def load(path: str | Path, split: str = "eval", max_tests: int | None = None) -> tuple[list[Problem], list[str]]:
    """Problems of a file, and why records in it are none; of each the first `max_tests` tests, visible ones first.

    Raises UsageError when the file cannot be read.
    """
    file = Path(path)
    problems: list[Problem] = []
    wrong: list[str] = []
    try:
        text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError) as error:
        raise UsageError(f"problems {str(path)!r} cannot be read: {error}. Name a .jsonl or .jsonl.gz file.") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = read(json.loads(line), split, f"{file.stem}/{number}")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            wrong.append(f"line {number}: {type(error).__name__}: {error}")
            continue
        tests = sorted(found.tests, key=lambda t: t.group != "visible")
        problems.append(replace(found, tests=tuple(tests[:max_tests]), n_all=len(tests)))
    return problems, wrong


def read(record: Any, split: str, name: str) -> Problem:
    """One record -> a problem; raises ValueError that says what is missing."""
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__}, must be an object")
    for wanted, reader in _SHAPES:
        if all(key in record for key in wanted):
            found = reader(record, split, name)
            if not found.tests:
                raise ValueError("no tests")
            return found
    shapes = " or ".join("+".join(wanted) for wanted, _ in _SHAPES)
    raise ValueError(f"keys {sorted(record)[:8]} are of no known problem set; known: {shapes}")


def _human_eval(r: Obj, split: str, name: str) -> Problem:
    if str(r.get("language") or "py") != "py":
        raise ValueError(f"language {r['language']!r}; only Python is run here")
    entry, starter = str(r["entry_point"]), str(r["prompt"])
    given = _asserts([str(t) for t in r.get("given_tests") or ()], "visible")
    solution = r.get("canonical_solution")
    return Problem(
        str(r.get("task_id") or r.get("name") or name), "HumanEval", split, starter,
        (*given, *_check(str(r["test"]), entry)), entry, starter, solution=solution and f"{starter}{solution}",
    )  # fmt: skip


def _check(text: str, entry: str) -> list[Test]:
    """The asserts of `def check(candidate)`, one test each where they are equations; else all of it as one program."""
    function = next((n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
    found: list[Test] = []
    for statement in function.body if function else ():
        one = _equation(ast.unparse(statement).replace("candidate(", f"{entry}("), "hidden")
        if one is None:
            found = []
            break
        found.append(one)
    called = "" if f"check({entry})" in text else f"\n\ncheck({entry})"
    return found or [Test("check", "hidden", "program", text + called)]


def _asserts(texts: Sequence[str], group: Group) -> list[Test]:
    return [_equation(text, group) or Test(text[:200], group, "program", text) for text in texts]


def _equation(text: str, group: Group) -> Test | None:
    """`assert EXPRESSION == LITERAL` as a test whose answer stays apart; None for anything else."""
    try:
        (node,) = ast.parse(text.strip()).body
    except (SyntaxError, ValueError):
        return None
    compared = node.test if isinstance(node, ast.Assert) else None
    if not (isinstance(compared, ast.Compare) and len(compared.ops) == 1 and isinstance(compared.ops[0], ast.Eq)):
        return None
    try:
        want = repr(ast.literal_eval(compared.comparators[0]))
    except ValueError:
        return None
    given = ast.unparse(compared.left)
    return Test(given, group, "expression", given, want)


def _mbpp(r: Obj, split: str, name: str) -> Problem:
    tests = [*_asserts(r["test_list"], "visible"), *_asserts(r.get("challenge_test_list") or (), "hidden")]
    setup = "\n".join(r.get("test_imports") or ()) or str(r.get("test_setup_code") or "")
    tree = next((n for t in r["test_list"] for n in ast.walk(ast.parse(t)) if isinstance(n, ast.Call)), None)
    entry = tree.func.id if tree is not None and isinstance(tree.func, ast.Name) else None
    said = str(r.get("text") or r.get("prompt"))
    statement = f"{said}\n\nThe function is called {entry}." if entry else said
    return Problem(
        f"mbpp/{r.get('task_id', name)}", "MBPP", split, statement, tuple(tests), entry, setup=setup, solution=r.get("code")
    )  # fmt: skip


def _apps(r: Obj, split: str, name: str) -> Problem:
    given = r["input_output"]
    given = json.loads(given) if isinstance(given, str) else given
    starter, entry = str(r.get("starter_code") or ""), given.get("fn_name")
    called = f"Solution().{entry}" if "class Solution" in starter else entry
    tests = _pairs(given["inputs"], given["outputs"], "hidden", called)
    return Problem(
        str(r.get("problem_id") or r.get("id") or name), str(r.get("dataset") or "APPS"), split, str(r["question"]),
        tuple(tests), entry, starter, time_limit_s=_seconds(r.get("time_limit")),
    )  # fmt: skip


def _pairs(inputs: Any, outputs: Any, group: Group, called: str | None) -> list[Test]:
    """Inputs beside outputs; with a function called on lists of arguments, an output may stand in a list of its own."""
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs")
    found = []
    for number, (given, want) in enumerate(zip(inputs, outputs, strict=True)):
        name = f"{group} {number}"
        if called is None:
            found.append(Test(name, group, "stdin", _lines(given), _lines(want)))
        else:
            also = repr(want[0]) if isinstance(want, list) and len(want) == 1 else None
            found.append(Test(name, group, "expression", f"{called}(*{given!r})", repr(want), also))
    return found


def _lines(text: Any) -> str:
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _code_contests(r: Obj, split: str, name: str) -> Problem:
    tests: list[Test] = []
    for key in ("public_tests", "private_tests", "generated_tests"):
        of = r.get(key) or {}
        group: Group = "visible" if key == "public_tests" else "hidden"
        pairs = _pairs(of.get("input") or (), of.get("output") or (), group, None)
        tests += [replace(t, name=f"{key} {number}") for number, t in enumerate(pairs)]
    limit = _seconds(r.get("time_limit"))
    return Problem(
        str(r.get("name") or name), "CodeContests", split, str(r["description"]), tuple(tests), time_limit_s=limit
    )  # fmt: skip


def _live_code_bench(r: Obj, split: str, name: str) -> Problem:
    cases = r["public_test_cases"]
    cases = json.loads(cases) if isinstance(cases, str) else cases
    meta = r.get("metadata") or "{}"
    entry = (json.loads(meta) if isinstance(meta, str) else meta).get("func_name")
    tests = []
    for number, case in enumerate(cases):
        given, want = str(case["input"]), str(case["output"])
        if entry and case.get("testtype") == "functional":
            arguments = [json.loads(line) for line in given.splitlines() if line.strip()]
            called = f"Solution().{entry}(*{arguments!r})"
            tests.append(Test(f"visible {number}", "visible", "expression", called, repr(json.loads(want))))
        else:
            tests.append(Test(f"visible {number}", "visible", "stdin", given, want))
    return Problem(
        str(r.get("question_id") or name), "LiveCodeBench", split, str(r["question_content"]), tuple(tests), entry,
        str(r.get("starter_code") or ""),
    )  # fmt: skip


def _nemo_gym(r: Obj, split: str, name: str) -> Problem:
    tests = (r["verifier_metadata"].get("unit_tests")) or {}
    asked = r["responses_create_params"]["input"]
    texts = [asked] if isinstance(asked, str) else [m["content"] for m in asked if m.get("role", "user") == "user"]
    pairs = _pairs(tests.get("inputs") or (), tests.get("outputs") or (), "hidden", tests.get("fn_name"))
    suite = str(r.get("dataset") or "NeMo Gym")
    return Problem(str(r.get("hash_id") or name), suite, split, "\n\n".join(map(str, texts)), tuple(pairs))


def _seconds(limit: Any) -> float:
    """A limit in seconds, as a number, as text ("2 seconds") or as CodeContests writes it."""
    if isinstance(limit, dict):
        return float(limit.get("seconds") or 0) + float(limit.get("nanos") or 0) / 1e9 or TIME_LIMIT_S
    if isinstance(limit, str):
        limit = limit.split()[0] if limit.split() else None
    return float(limit) if limit is not None else TIME_LIMIT_S


_SHAPES = (
    (("prompt", "entry_point", "test"), _human_eval),
    (("test_list",), _mbpp),
    (("question", "input_output"), _apps),
    (("description", "public_tests"), _code_contests),
    (("question_content", "public_test_cases"), _live_code_bench),
    (("responses_create_params", "verifier_metadata"), _nemo_gym),
)


def unique(problems: Sequence[Problem]) -> Iterator[Problem]:
    """Problems whose statement or name stood in none before (exact text, as CTRL's own filter)."""
    seen: set[str] = set()
    for p in problems:
        if p.statement not in seen and p.task_id not in seen:
            seen |= {p.statement, p.task_id}
            yield p
