"""The repair environment: one task in one jail, its observations, its distance from the solution and its grade.

The agent's commands run in a jail that holds mod.py and the tools with the visible tests; hidden tests are never there.
A grade is given in a second, fresh jail that receives only the text of mod.py and the inputs: the answers wanted stay
on this side, so a module that overrides builtins, exits early or writes its own results has nothing to copy from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from stepwell.errors import SandboxError
from stepwell.rollout.repair import RepairTask
from stepwell.rollout.sandbox import Jail, Sandbox
from stepwell.rollout.scaffold import Rendered, render

TOOLS = ("view", "check", "sub", "submit")
ABSENT = "0" * 64  # the state when mod.py is absent or not a regular file
LONGEST = 200  # lines of mod.py beyond which distance is not measured line by line

SYSTEM = """Repair mod.py. The comment on a line says what it must do.
Reply with a THOUGHT and one bash block.
Tools: view, check, sub LINE 'OLD' 'NEW', submit."""
USER = "mod.py has bugs. Fix every line that differs from its comment, then submit."


@dataclass(frozen=True)
class Observation:
    """What a command printed, and the sha256 (hex) of mod.py before and after it; seconds for the duration."""

    raw: str
    exit_code: int | None
    duration_s: float
    timed_out: bool
    truncated_bytes: int
    state_before: str
    state_after: str


@dataclass(frozen=True)
class TestResult:
    """One test of the grade."""

    __test__ = False
    name: str
    group: Literal["visible", "hidden"]
    passed: bool


@dataclass(frozen=True)
class Grade:
    """All tests of a task on one state of mod.py; resolved when every one passed."""

    resolved: bool
    tests: tuple[TestResult, ...]


@cache
def _tool(name: str) -> str:
    """Return the text of a tool."""
    return Path(__file__).with_name("tools").joinpath(name).read_text("utf-8")


def state_of(data: bytes | None) -> str:
    """Return the state hash of a text of mod.py."""
    return ABSENT if data is None else hashlib.sha256(data).hexdigest()


def line_distance(text: str, solution: str) -> int:
    """Count the lines to change, add or remove to turn a text into the solution; trailing space does not count."""
    have, want = ([line.rstrip() for line in part.rstrip().split("\n")] for part in (text, solution))
    if len(have) > LONGEST:
        return len(have)
    row = list(range(len(want) + 1))
    for i, mine in enumerate(have, 1):
        before, row = row, [i]
        for j, theirs in enumerate(want, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (mine != theirs)))
    return row[-1]


class RepairEnvironment:
    """One task being worked on; a context manager that owns the agent's jail."""

    def __init__(self, task: RepairTask, sandbox: Sandbox) -> None:
        self.task = task
        self.sandbox = sandbox
        self._jail: Jail | None = None
        self._data: bytes | None = task.source.encode()

    @property
    def instruction(self) -> tuple[str, str]:
        """Return the system text (the protocol) and the user text (the task)."""
        return SYSTEM, USER

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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._jail is not None:
            self._jail.close()

    def execute(self, command: str) -> Observation:
        """Run one command of the agent in its jail."""
        if self._jail is None:
            raise SandboxError("the environment is not open; use it in a with statement")
        before = self.state
        result = self._jail.run(command)
        self._data = self._jail.read("mod.py")
        return Observation(
            result.output,
            result.exit_code,
            result.duration_s,
            result.timed_out,
            result.truncated_bytes,
            before,
            self.state,
        )

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
        return Grade(all(test.passed for test in tests), tests)


def render_observation(observation: Observation) -> Rendered:
    """Show an observation to the agent."""
    return render(observation.raw, observation.exit_code, timed_out=observation.timed_out)
