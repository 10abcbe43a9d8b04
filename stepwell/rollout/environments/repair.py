"""The repair environment: one task in one jail, its observations, its distance from the solution and its grade.

The agent's commands run in a jail that holds mod.py and the tools with the visible tests; hidden tests are never there.
A grade is given in a second, fresh jail that receives only the text of mod.py and the inputs: the answers wanted stay
on this side, so a module that overrides builtins, exits early or writes its own results has nothing to copy from.
"""

from __future__ import annotations

import difflib
import hashlib
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepwell.contamination.tasks import compared
from stepwell.errors import SandboxError
from stepwell.ids import sha256
from stepwell.rollout.environments import Brief, Grade, Label, Observation, TestResult
from stepwell.rollout.environments.truth import Truth, line_distance
from stepwell.rollout.repair import RepairTask
from stepwell.rollout.sandbox import Jail, Sandbox

TOOLS = ("view", "check", "sub", "submit")
ABSENT = "0" * 64  # the state when mod.py is absent or not a regular file
GRADER = "repair-tests@1"
SUITE = "repair"
BRIEF = Brief(
    job="Repair mod.py. The comment on a line says what it must do.",
    task="mod.py has bugs. Fix every line that differs from its comment, then submit.",
    commands="Tools: view, check, sub LINE 'OLD' 'NEW', submit.",
)


@cache
def _tool(name: str) -> str:
    """Return the text of a tool."""
    return Path(__file__).with_name("tools").joinpath(name).read_text("utf-8")


def state_of(data: bytes | None) -> str:
    """Return the state hash of a text of mod.py."""
    return ABSENT if data is None else hashlib.sha256(data).hexdigest()


class RepairEnvironment:
    """One task being worked on; a context manager that owns the agent's jail."""

    def __init__(self, task: RepairTask, sandbox: Sandbox, split: str = "train") -> None:
        self.task = task
        self.split = split
        self.sandbox = sandbox
        self._jail: Jail | None = None
        self._data: bytes | None = task.source.encode()
        self._truth = Truth(self.distance(), self.state)

    @property
    def brief(self) -> Brief:
        """Return what the agent is told; the same for every task."""
        return BRIEF

    @property
    def name(self) -> str:
        """Return the kind of environment and the mode of its jail, for the record."""
        return f"repair/{self.sandbox.mode}"

    @property
    def source(self) -> str:
        """Return mod.py as it is now ("" when absent)."""
        return (self._data or b"").decode("utf-8", "replace")

    @property
    def state(self) -> str:
        """Return the sha256 (hex) of mod.py as it is now."""
        return state_of(self._data)

    def __enter__(self) -> Self:
        cases = [(case.function, case.args, case.want) for case in self.task.visible]
        tools = {name: _tool(name) for name in TOOLS}
        tools["cases.txt"] = repr((self.task.difficulty.report, cases))
        self._jail = self.sandbox.open({"mod.py": self.task.source.encode()}, tools)
        self._data = self.task.source.encode()
        self._truth = Truth(self.distance(), self.state)
        return self

    def about(self) -> dict[str, Any]:
        """Return the payload of the task event, and under `extra` what tasks are compared by."""
        cases = [{"input": case.name, "output": case.want} for case in self.task.hidden]
        return {
            "task_id": self.task.task_id, "suite": SUITE, "split": self.split, "repo": self.task.family,
            "statement": BRIEF.task, "statement_hash": sha256(BRIEF.task), "tests_hash": self.task.tests_hash,
            "solution_hash": sha256(self.task.solution), "extra": compared(cases, [self.task.solution]),
        }  # fmt: skip

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._jail is not None:
            self._jail.close()

    def execute(self, command: str) -> Observation:
        """Run one command of the agent in its jail."""
        if self._jail is None:
            raise SandboxError("the environment is not open; use it in a with statement")
        result = self._jail.run(command)
        self._data = self._jail.read("mod.py")
        return Observation(
            result.output,
            result.exit_code,
            result.duration_s,
            result.timed_out,
            result.truncated_bytes,
        )

    def judge(self, command: str | None, exit_code: int | None, submitted: bool) -> Label:
        """Label the turn just taken, once a turn."""
        return self._truth.label(command, exit_code, submitted, self.distance(), self.state)

    def submission(self) -> str:
        """Return what changed in mod.py as a unified diff."""
        start, end = (text.splitlines(keepends=True) for text in (self.task.source, self.source))
        return "".join(difflib.unified_diff(start, end, "a/mod.py", "b/mod.py"))

    def distance(self) -> int:
        """Count the lines of mod.py that differ from the solution."""
        return line_distance(self.source, self.task.solution)

    def grade(self) -> Grade:
        """Run every test on the present mod.py, out of the agent's reach."""
        cases = [("visible", case) for case in self.task.visible] + [("hidden", case) for case in self.task.hidden]
        calls = repr([(case.function, case.args) for _, case in cases])
        gave: dict[str, str] = {}
        if self._data is not None:
            files = {"mod.py": self._data, "calls.txt": calls.encode()}
            with self.sandbox.open(files, {"grade": _tool("grade")}) as jail:
                output = jail.run("exec grade").output
            for line in output.splitlines():
                index, _, value = line.partition("\t")
                gave.setdefault(index, value)
        tests = tuple(
            TestResult(case.name, "visible" if group == "visible" else "hidden", gave.get(str(i)) == case.want)
            for i, (group, case) in enumerate(cases)
        )
        return Grade(all(test.passed for test in tests), tests, GRADER)
