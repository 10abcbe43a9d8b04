"""What every command shares: the program, its consoles, and the `--lake` and `--json` options."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stepwell.display import plain
from stepwell.errors import LakeError, StepwellError, UsageError
from stepwell.health.access import writable
from stepwell.ids import storable, storable_whole
from stepwell.lake import Lake

console = Console(stderr=True)
output = Console()

LakeOption = Annotated[str, typer.Option("--lake", help="Lake URI; default $STEPWELL_LAKE, else ./lake.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, messages on standard error.")
]
DEFAULT_LAKE = ""


def open_lake(uri: str) -> Lake:
    """The lake named by the option, the environment or the default folder; raises LakeError where a file is."""
    lake = Lake(uri or os.environ.get("STEPWELL_LAKE") or "lake")
    if lake.local and Path(lake.uri).is_file():
        raise LakeError(f"{lake.uri!r} is a file; a lake is a folder or the address of an object store. Name another.")
    return lake


def require_version(lake: Lake, at: int | None, name: str = "events") -> None:
    """Raise UsageError for a version that a table never had; None is the current one, of an absent table any is taken."""
    last = None if at is None else lake.version(name)
    if at is not None and last is not None and not 0 <= at <= last:
        raise UsageError(f"--at {at}: {name!r} has no version {at}; allowed: 0 to {last}. Give one of these.")


def named(dataset: str) -> tuple[str, str | None]:
    """The name of a dataset, and where it is named by the YAML file of its recipe that file."""
    file = Path(dataset)
    return (file.stem, dataset) if file.suffix in (".yaml", ".yml") else (dataset.removeprefix("datasets/"), None)


def bring_up(lake: Lake) -> None:
    """Bring the folds up to `events`, where there are any; where this user cannot write, say how far behind they are."""
    from stepwell.fold import FOLDS, refresh, seen

    version = lake.version("events")
    if version is None:
        return
    if writable(lake):
        refresh(lake)
        return
    for name in FOLDS:
        if (at := seen(lake, name)) != version:
            told = "is not folded yet" if at is None else f"is read as of events version {at}, there are {version}"
            console.print(
                f"{name} {told}: this user cannot write the lake", highlight=False, markup=False, soft_wrap=True
            )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around the writing of a file that was asked for; raises UsageError where it cannot be written."""
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"{path} cannot be written ({why}); name a file in a folder that is there.") from error


def dumped(document: Any, option: int = 0) -> bytes:
    """One JSON document; text that is no Unicode, such as the names of some files, as `storable` writes it."""
    option |= orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(document, default=str, option=option)
    except TypeError:
        return orjson.dumps(storable_whole(document), default=lambda value: storable(str(value)), option=option)


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    put(dumped(document, orjson.OPT_INDENT_2).decode() + "\n")


def put(text: str) -> None:
    """Write text to standard output: as it is to a file or program, without what could steer it to a terminal."""
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)


def progress_bar() -> Progress:
    """A bar on standard error that goes when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def launch(module: str, *arguments: str, json: bool = False) -> None:
    """Run a job as a program of its own, with `json` to print what it made.

    Raises StepwellError when it fails, UsageError where it says that what was asked cannot be done.
    """
    told = {**os.environ, "STEPWELL_JSON": "1"} if json else None
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False, env=told)
    if done.returncode:
        failed = UsageError if done.returncode == 2 else StepwellError
        raise failed(f"python -m {module} ended with status {done.returncode}; its messages are above.")


def program(
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run agents' commands even where the kernel allows no isolation.")
    ] = False,
) -> None:
    """Every step an agent ever took as an event; every training set derived from them by replay."""
    if unsafe:
        os.environ["STEPWELL_UNSAFE"] = "1"  # jobs launched from here inherit it
