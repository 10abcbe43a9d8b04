"""Environments: where an agent's commands run and what it left is graded. One file a kind; a new one is a new file.

Belongs here: what an environment is, and each kind of it. Does not belong here: how replies become commands
(`scaffolds`), who replies (`policies`), the loop (`episode`).

May import: the standard library, `schemas`, the modules directly under `stepwell`, and the modules of
`rollout` but the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

Label = Literal["good", "unnecessary", "mistake", "recover"]


@dataclass(frozen=True)
class Observation:
    """What a command printed, with the state hash before and after it (None where an environment has none).

    `exit_code` is None when the command was killed; `truncated_bytes` were cut off by the sandbox and are nowhere.
    """

    raw: str
    exit_code: int | None
    duration_s: float
    timed_out: bool = False
    truncated_bytes: int = 0


@dataclass(frozen=True)
class TestResult:
    """One test of the grade; `group` as in the `outcome` event."""

    __test__ = False
    name: str
    group: str
    passed: bool


@dataclass(frozen=True)
class Grade:
    """All tests of a task on what stands there now; resolved when every one passed, None when that cannot be said."""

    resolved: bool | None
    tests: tuple[TestResult, ...]
    grader: str


@dataclass(frozen=True)
class Brief:
    """What an agent is told: its job, the task, and what it can call beside the shell's own commands."""

    job: str
    task: str
    commands: str = ""


class Environment(Protocol):
    """One task being worked on; a context manager that owns what the commands run in."""

    @property
    def name(self) -> str:
        """Kind of environment and what isolates it, for the record."""

    @property
    def task(self) -> Any:
        """The task; scripted policies know what is in it."""

    @property
    def brief(self) -> Brief:
        """What the agent is told."""

    @property
    def state(self) -> str | None:
        """Hash of what the commands can change; None where there is none but the conversation itself."""

    @property
    def source(self) -> str:
        """Text that is worked on, for policies that read it; "" where there is no single one."""

    def about(self) -> dict[str, Any]:
        """Payload of the `task` event, and under `extra` what has no column."""

    def execute(self, command: str) -> Observation:
        """Run one command of the agent."""

    def judge(self, command: str | None, exit_code: int | None, submitted: bool) -> Label | None:
        """Ground truth on the turn just taken, where the environment knows it; `command` is None on a format error."""

    def submission(self) -> str:
        """What the agent leaves: a patch or an answer."""

    def grade(self) -> Grade | None:
        """Grade what stands there now; None where grading happens elsewhere."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
