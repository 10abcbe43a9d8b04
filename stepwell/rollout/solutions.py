"""Running solutions: the tests of a problem on a text of code, in the sandbox, a few at a time, each distinct one once.

Belongs here: one jail a solution, results test by test, and which of them were known. Does not belong here: what a result
is worth (`rewards`) or tells a critic (`hints`).
"""

from __future__ import annotations

import ast
import asyncio
import json
import math
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from stepwell.errors import SandboxError
from stepwell.ids import digest, sha256, storable
from stepwell.rollout.problems import Problem, Test
from stepwell.rollout.rewards import Results
from stepwell.rollout.sandbox import Limits, Sandbox
from stepwell.syntax import ast_hash

GRADER = "solution-tests@1"
MOST_SECONDS = 120.0
"""Wall time of all tests of one solution together; what was not reached by then has timed out."""
Status = Literal["passed", "wrong", "raised", "timeout"]


@dataclass(frozen=True)
class Result:
    """One test on one solution; `line` is that of the solution where it raised, `gave` what it gave instead."""

    name: str
    group: str
    status: Status
    error: str | None = None
    line: int | None = None
    gave: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the test passed."""
        return self.status == "passed"


@dataclass(frozen=True)
class Ran:
    """Every test of a problem on one solution; `known` when it was taken from the cache."""

    results: tuple[Result, ...]
    known: bool = False

    @property
    def resolved(self) -> bool:
        """Whether every test passed."""
        return all(r.passed for r in self.results)

    @property
    def score(self) -> float:
        """Share of tests that passed."""
        return sum(r.passed for r in self.results) / len(self.results)

    def payload(self, subject: str, rule: str, rerun: int = 0) -> dict[str, Any]:
        """Payload of the `outcome` event."""
        tests = [{"name": r.name, "group": r.group, "passed": r.passed} for r in self.results]
        return {
            "subject": subject, "grader": GRADER, "rule": rule, "resolved": self.resolved, "score": self.score,
            "tests": tests, "rerun": rerun,
        }  # fmt: skip


@cache
def _tool() -> str:
    return Path(__file__).with_name("environments").joinpath("tools", "tests").read_text("utf-8")


def run(sandbox: Sandbox, problem: Problem, code: str) -> Ran:
    """Run every test on a solution in one fresh jail; raises SandboxError when that could not be done."""
    limit = problem.time_limit_s
    cpu = max(sandbox.limits.cpu_s, math.ceil(limit) + 1)
    wall = min(MOST_SECONDS, limit * len(problem.tests) + 5)
    asked = {
        "setup": problem.setup,
        "limit": limit,
        "tests": [{"kind": t.kind, "given": t.given} for t in problem.tests],
    }
    files = {"solution.py": storable(code).encode(), "tests.json": json.dumps(asked).encode()}
    output_bytes = max(sandbox.limits.output_bytes, 32_768 * len(problem.tests))
    limits: Limits = replace(sandbox.limits, cpu_s=cpu, output_bytes=min(output_bytes, 8 << 20))
    with Sandbox(sandbox.mode, limits).open(files, {"tests": _tool()}) as jail:
        done = jail.run("exec tests", wall)
    lines = done.output.splitlines()
    if not lines and not done.timed_out:
        raise SandboxError(
            f"the tests of {problem.task_id} printed nothing (exit code {done.exit_code}); run them again."
        )
    said = [_read(line) for line in lines[: len(problem.tests)]]
    said += [{"status": "timeout"}] * (len(problem.tests) - len(said))
    return Ran(tuple(_result(test, answer) for test, answer in zip(problem.tests, said, strict=True)))


def _read(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    return said if isinstance(said, dict) else {"status": "raised", "error": "the result cannot be read"}


def _result(test: Test, said: Mapping[str, Any]) -> Result:
    status, gave = said.get("status"), said.get("gave")
    if status == "ended":
        good = test.kind == "program" or _same(test, str(gave), said.get("hash"))
        return Result(test.name, test.group, "passed" if good else "wrong", gave=None if gave is None else str(gave))
    error, line = said.get("error"), said.get("line")
    return Result(
        test.name, test.group, "timeout" if status == "timeout" else "raised", None if error is None else str(error),
        line if isinstance(line, int) else None,
    )  # fmt: skip


def _same(test: Test, gave: str, hashed: Any) -> bool:
    """Whether what was given is what was wanted: as text, or as equal literals."""
    for want in (test.want, test.also):
        if want is None:
            continue
        if test.kind == "stdin":
            wanted = "\n".join(" ".join(line.split()) for line in want.strip().splitlines())
            if sha256(wanted) == hashed:
                return True
            continue
        if sha256(want) == hashed:
            return True
        try:
            if ast.literal_eval(gave) == ast.literal_eval(want):
                return True
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return False


class Tester:
    """Tests solutions, `parallel` jails at once; a solution equal but for names is tested once (see `rewards`).

    What failed for want of a sandbox is never kept. An exception names lines and names of the very text it was raised in,
    so results with one are only taken for that text.
    """

    __test__ = False

    def __init__(self, sandbox: Sandbox, executor: Executor, parallel: int, results: Results | None = None) -> None:
        self.sandbox, self.executor, self.results = sandbox, executor, results
        self.n_run = self.n_known = 0
        self._slots = asyncio.Semaphore(parallel)

    async def test(self, problem: Problem, code: str, *, again: bool = False) -> Ran:
        """The tests of a problem on a solution; `again` runs them whatever is known. Raises SandboxError."""
        key, text = digest(GRADER, ast_hash(code), problem.tests_hash), sha256(code)
        kept = None if again or self.results is None else self.results.get(key)
        if kept is not None:
            ran = Ran(tuple(Result(**r) for r in kept["results"]), known=True)
            if kept["code_hash"] == text or not any(r.status == "raised" for r in ran.results):
                self.n_known += 1
                return ran
        async with self._slots:
            loop = asyncio.get_running_loop()
            ran = await loop.run_in_executor(self.executor, run, self.sandbox, problem, code)
        self.n_run += 1
        if self.results is not None and not again:
            self.results.put(key, {"code_hash": text, "results": [asdict(r) for r in ran.results]})
        return ran
