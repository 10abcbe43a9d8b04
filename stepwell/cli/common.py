"""What every command shares: the program, its consoles, and the `--lake` and `--json` options."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stepwell.display import plain
from stepwell.errors import StepwellError
from stepwell.lake import Lake

console = Console(stderr=True)
output = Console()

LakeOption = Annotated[str, typer.Option("--lake", help="Lake URI; default $STEPWELL_LAKE, else ./lake.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, messages on standard error.")
]
DEFAULT_LAKE = ""


def open_lake(uri: str) -> Lake:
    """The lake named by the option, the environment or the default folder."""
    return Lake(uri or os.environ.get("STEPWELL_LAKE") or "lake")


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    put(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def put(text: str) -> None:
    """Write text to standard output: as it is to a file or program, without what could steer it to a terminal."""
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)


def progress_bar() -> Progress:
    """A bar on standard error that goes when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def launch(module: str, *arguments: str, json: bool = False) -> None:
    """Run a job as a program of its own, with `json` to print what it made; raises StepwellError when it fails."""
    told = {**os.environ, "STEPWELL_JSON": "1"} if json else None
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False, env=told)
    if done.returncode:
        raise StepwellError(f"python -m {module} ended with status {done.returncode}; its messages are above.")


def program(
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run agents' commands even where the kernel allows no isolation.")
    ] = False,
) -> None:
    """Every step an agent ever took as an event; every training set derived from them by replay."""
    if unsafe:
        os.environ["STEPWELL_UNSAFE"] = "1"  # jobs launched from here inherit it
