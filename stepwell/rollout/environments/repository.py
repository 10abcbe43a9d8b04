"""Repositories in containers: SWE-bench-style tasks, worked on in any environment of mini-swe-agent.

docker (or podman), singularity and bubblewrap isolate; `local` runs commands on this very machine, with everything it holds,
and is refused unless asked for as unsafe. Grading happens elsewhere, by the suite's own harness on the patch submitted; the
tests and the reference patch of a task enter nothing but hashes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import pyarrow.parquet as pq

from stepwell.contamination.tasks import compared, filled
from stepwell.errors import BadInput, SandboxError, UnknownName, UsageError
from stepwell.ids import canonical, sha256
from stepwell.rollout.environments import Brief, Grade, Label, Observation
from stepwell.rollout.scaffolds import SUBMITTED

KINDS = ("docker", "singularity", "bubblewrap", "local")
_HAND_IN = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
JOB = "You work in the shell of a machine that holds a git repository. Change its files so that the issue is solved."
COMMANDS = (
    "Every command starts in the working directory in a fresh shell. To hand in, write your change to a patch and print it in "
    f"one command: git diff > patch.txt && echo {_HAND_IN} && cat patch.txt"
)


@dataclass(frozen=True)
class RepositoryTask:
    """One issue of one repository; `image` is the container image it is worked on in, None to be told by the suite."""

    task_id: str
    statement: str
    image: str | None
    about: Mapping[str, Any]


def tasks_from(path: str | Path, suite: str, split: str) -> Iterator[RepositoryTask]:
    """Tasks of a JSON-lines or Parquet file in the columns of SWE-bench; raises BadInput naming the row that is none.

    Needs `instance_id` and `problem_statement`; the image is `image_name` or `docker_image`, else named after the id as
    SWE-bench's own images are.
    """
    for number, row in enumerate(_rows(Path(path)), 1):
        name, statement = row.get("instance_id"), row.get("problem_statement")
        if not isinstance(name, str) or not isinstance(statement, str):
            raise BadInput(
                "malformed", f"row {number} of {str(path)!r} has no text in `instance_id` and `problem_statement`."
            )
        tests = [row.get(k) for k in ("test_patch", "FAIL_TO_PASS", "PASS_TO_PASS")]
        created = row.get("created_at")
        about = {
            "task_id": name, "suite": suite, "split": split, "repo": row.get("repo"),
            "base_commit": row.get("base_commit"), "statement": statement, "statement_hash": sha256(statement),
            "tests_hash": sha256(canonical(tests)) if any(map(filled, tests)) else None,
            "solution_hash": sha256(row["patch"]) if isinstance(row.get("patch"), str) and row["patch"] else None,
            "created_at": None if created is None else str(created),
            "extra": compared(tests, [row.get("patch")]),
        }  # fmt: skip
        image = row.get("image_name") or row.get("docker_image")
        image = image or f"docker.io/swebench/sweb.eval.x86_64.{name.replace('__', '_1776_')}:latest".lower()
        yield RepositoryTask(name, statement, image, {k: v for k, v in about.items() if v is not None})


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r}; name a JSON-lines or Parquet file of tasks.")
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise BadInput("not_json", f"line {number} of {str(path)!r}: {error}.") from error
                if not isinstance(row, dict):
                    raise BadInput("malformed", f"line {number} of {str(path)!r} is no object.")
                yield row


class RepositoryEnvironment:
    """One task in one of mini-swe-agent's environments, configured as its own YAML does (`environment_class`, ...).

    `state_command` is run after every command; the hash of what it prints is the state (such as `git diff HEAD`). Without
    one the conversation stands for the state. Raises UsageError for a kind that is not known, not installed or not safe.
    """

    def __init__(
        self, task: RepositoryTask, config: Mapping[str, Any], *, unsafe: bool = False, state_command: str | None = None
    ) -> None:
        self.task, self.state_command = task, state_command
        self.config = dict(config)
        self.kind = str(self.config.setdefault("environment_class", "docker"))
        if self.kind not in KINDS:
            raise UnknownName("environment class", self.kind, KINDS, "Name one in `environment` of the recipe.")
        if self.kind == "local" and not unsafe:
            raise UsageError(
                "the environment `local` runs an agent's commands on this machine, unconfined; choose another, or say "
                "`unsafe: true` in the recipe where the machine itself is a throw-away."
            )
        if self.kind in ("docker", "singularity") and task.image:
            prefix = "docker://" if self.kind == "singularity" else ""
            self.config.setdefault("image", prefix + task.image)
        self._env: Any = None
        self._state: str | None = None
        self._patch = ""

    @property
    def name(self) -> str:
        """The kind and the image."""
        return f"{self.kind}/{self.config.get('image', '')}".rstrip("/")

    @property
    def brief(self) -> Brief:
        """The issue, and how to hand in."""
        return Brief(JOB, self.task.statement, COMMANDS)

    @property
    def state(self) -> str | None:
        """Hash of what the state command printed last."""
        return self._state

    @property
    def source(self) -> str:
        """Nothing: there is no single text."""
        return ""

    def about(self) -> dict[str, Any]:
        """Payload of the task event."""
        return dict(self.task.about)

    def __enter__(self) -> Self:
        os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
        try:
            from minisweagent.environments import get_environment
        except ImportError as error:
            raise UsageError(f"{error}; install mini-swe-agent for environments of its kinds.") from error
        try:
            self._env = get_environment(self.config)
        except Exception as error:
            raise SandboxError(f"the environment {self.name} did not start: {type(error).__name__}: {error}") from error
        self._look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._env is not None and hasattr(self._env, "cleanup"):
            self._env.cleanup()
        self._env = None

    def execute(self, command: str) -> Observation:
        """Run one command; handing in keeps the patch and shows as a submission."""
        from minisweagent.exceptions import Submitted

        started = time.monotonic()
        try:
            result = self._env.execute({"command": command})
        except Submitted as handed_in:
            self._patch = str(handed_in.messages[0]["extra"]["submission"])
            return Observation(f"{self._patch}\n{SUBMITTED}\n", 0, time.monotonic() - started)
        taken = time.monotonic() - started
        timed_out = (result.get("extra") or {}).get("exception_type") == "TimeoutExpired"
        said = result["output"] if timed_out else result["output"] + (result.get("exception_info") or "")
        self._look()
        return Observation(said, None if timed_out else result["returncode"], taken, timed_out)

    def _look(self) -> None:
        if self.state_command is not None:
            seen = self._env.execute({"command": self.state_command})["output"]
            self._state = hashlib.sha256(seen.encode("utf-8", "surrogatepass")).hexdigest()

    def judge(self, command: str | None, exit_code: int | None, submitted: bool) -> Label | None:
        """Nobody knows."""
        return None

    def submission(self) -> str:
        """The patch handed in, "" when there was none."""
        return self._patch

    def grade(self) -> Grade | None:
        """Nothing: the suite's own harness grades the patch."""
        return None
