"""Machines: where jobs run. A YAML file says how to launch a command there; the lake is what both sides reach.

Belongs here: choosing a machine for a job, its command line, and what comes back (Pipes messages, in the lake). Does not
belong here: what a job does, or how an object store is reached, which each machine's own environment says.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster import PipesEnvContextInjector, open_pipes_session
from dagster._core.errors import DagsterExecutionInterruptedError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stepwell.errors import RecipeError, UnknownName, UsageError
from stepwell.folders import message
from stepwell.lake import Lake

MACHINES = Path("jobs/machines")
COMMAND = "{command}"


class Machine(BaseModel):
    """How a job is run on another machine.

    `launch` is a command line here, in which `{command}` stands for the job's command line there, for a shell to read, and
    `{id}` for a name of this launch. `python` is the interpreter there; `environment` is set for the job. `jobs` are the
    modules that run there (none named: all). A lake that is a folder is refused unless that folder is there too, under the
    same name (`same_folders`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    launch: tuple[str, ...] = Field(min_length=1)
    python: str = "python"
    environment: dict[str, str] = Field(default_factory=dict)
    jobs: tuple[str, ...] = ()
    same_folders: bool = False

    @field_validator("launch")
    @classmethod
    def _runs_something(cls, launch: tuple[str, ...]) -> tuple[str, ...]:
        if not any(COMMAND in part for part in launch):
            raise ValueError("no part of it holds {command}, where the job's command line goes")
        return launch

    def takes(self, module: str) -> bool:
        """Whether a job is run here."""
        return not self.jobs or module in self.jobs

    def command(self, job: Sequence[str], environment: Mapping[str, str], name: str) -> list[str]:
        """The command line that launches a job (`python -m MODULE ...` of this machine) there."""
        given = [f"{key}={value}" for key, value in {**self.environment, **environment}.items()]
        there = shlex.join(["env", *given, self.python, *job[1:]])
        return [part.replace("{id}", name).replace(COMMAND, there) for part in self.launch]


def load(name: str, folder: Path = MACHINES) -> Machine:
    """Read a machine by name or file; raises UnknownName, or RecipeError listing every problem."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise UnknownName("machine", name, known, f"Name a YAML file or add {file}; see docs/remote.md.")
    try:
        return Machine.model_validate(yaml.safe_load(file.read_text()))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"machine {str(file)!r}: {problems}. See docs/remote.md for what is allowed.") from error


class Letters(dg.PipesBlobStoreMessageReader):
    """What a job on another machine says, read from the lake while it runs, and deleted afterwards."""

    def __init__(self, lake: Lake, under: str) -> None:
        super().__init__(interval=2)
        self.lake, self.under = lake, under

    @contextmanager
    def get_params(self) -> Iterator[dict[str, Any]]:
        """Where the job is to write."""
        yield {"lake": self.lake.uri, "under": self.under}

    def messages_are_readable(self, params: Mapping[str, Any]) -> bool:
        """They are whenever they are there."""
        return True

    def download_messages_chunk(self, index: int, params: Mapping[str, Any]) -> str | None:
        """The next part, None while it is not there."""
        part = self.lake.store.get(message(self.under, index))
        return None if part is None else part.decode()

    def no_messages_debug_text(self) -> str:
        """What to look at when a job said nothing."""
        return f"Looked for messages below {self.under} in {self.lake.uri}: can the other machine write there?"

    def clear(self) -> None:
        """Delete what was read."""
        for path in self.lake.store.paths(self.under):
            self.lake.store.delete(path)


class Machines(dg.PipesSubprocessClient):
    """Runs jobs as processes here, or on the first machine named in $STEPWELL_MACHINES (comma between) that takes them."""

    def chosen(self, command: Sequence[str]) -> tuple[str, Machine] | None:
        """The machine a job command goes to, with its name; None for this one."""
        named = [name.strip() for name in os.environ.get("STEPWELL_MACHINES", "").split(",") if name.strip()]
        machines = {name: load(name) for name in named}
        return next(((n, m) for n, m in machines.items() if m.takes(_module(command))), None)

    def run(  # type: ignore[override]
        self, *, context: dg.AssetExecutionContext, command: Sequence[str], **rest: Any
    ) -> dg.PipesClientCompletedInvocation:
        """Run a job to its end and return what it reported; raises when it failed, whichever side is to blame."""
        found = self.chosen(command)
        if found is None:
            return super().run(context=context, command=command, **rest)
        name, machine = found
        lake = Lake(_option(command, "--lake"))
        if lake.local and not machine.same_folders:
            raise UsageError(
                f"the lake {lake.uri} is a folder of this machine, which {name!r} does not see: use a lake on an object store, "
                f"or say `same_folders: true` in {name} where the folder is shared."
            )
        job = [lake.uri if before == "--lake" else part for before, part in zip(["", *command], command, strict=False)]
        launch = f"stepwell-{uuid.uuid4().hex[:12]}"
        letters = Letters(lake, f"pipes/{launch}")
        try:
            with open_pipes_session(
                context=context, context_injector=PipesEnvContextInjector(), message_reader=letters
            ) as session:
                context.log.info(f"{_module(command)} on {name}")
                _wait(machine.command(job, session.get_bootstrap_env_vars(), launch), name)
        finally:
            letters.clear()
        return dg.PipesClientCompletedInvocation(session)


def _wait(launch: Sequence[str], name: str) -> None:
    process = subprocess.Popen(launch, stdin=subprocess.DEVNULL)
    try:
        status = process.wait()
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if status:
        raise dg.Failure(
            f"the job on {name} ended with status {status}; what it wrote to standard error is above. Materialise again to go "
            "on where it stopped."
        )


def _module(command: Sequence[str]) -> str:
    return _option(command, "-m")


def _option(command: Sequence[str], name: str) -> str:
    return next(value for option, value in pairwise(command) if option == name)
