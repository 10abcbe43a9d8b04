"""The command line: `stepwell NOUN...`, one module a group of commands.

Belongs here: options, tables and progress on the terminal. Does not belong here: anything another caller could want
(that is a function elsewhere in `stepwell`). May import: everything `stepwell` may, and every stage.

Exit status: 0 only when it did what was asked, 2 for wrong usage, 1 for everything else. With `--json` standard output
carries one JSON document and every message goes to standard error.
"""

from __future__ import annotations

import errno
import os
import sys
from functools import cache
from importlib import import_module
from typing import NoReturn

# Before numpy is loaded, whose threads would wait in a loop for work nobody here has: .1 s of every command.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from stepwell.cli.common import console, program
from stepwell.display import plain
from stepwell.errors import StepwellError, UsageError
from stepwell.ids import storable

__all__ = ["build_app", "main"]
COMMANDS: dict[str, tuple[str, ...]] = {
    "data": ("import", "sniff", "formats"),
    "exporting": ("export",),
    "critics": ("judge",),
    "audit": ("audit", "vote"),
    "annotate": ("annotate",),
    "loop": ("rollout", "build", "verify", "datasets", "train", "evaluate"),
    "comparing": ("compare", "grim"),
    "contamination": ("contamination",),
    "likeness": ("likeness",),
    "steer": ("steer",),
    "dagger": ("dagger", "label"),
    "revise": ("revise",),
    "proxy": ("proxy",),
    "serving": ("serve",),
    "watching": ("watch",),
    "viewing": ("view",),
    "asking": ("sql", "questions"),
    "tracing": ("trace", "impact"),
    "health": ("status", "doctor"),
    "maintaining": ("maintain",),
    "keeping": ("redact", "takedown"),
}
"""Module -> its commands, in the order the help shows them."""


@cache
def build_app(command: str | None = None) -> typer.Typer:
    """The program with all its commands, or those of the module that has the one named: to load all takes seconds."""
    app = typer.Typer(
        callback=program,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for module in [name for name, commands in COMMANDS.items() if command in commands] or COMMANDS:
        import_module(f"stepwell.cli.{module}").register(app)
    return app


def _command() -> str | None:
    """The command that is asked for, or that a shell completes."""
    completed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    words = completed.split() if "_STEPWELL_COMPLETE" in os.environ else sys.argv
    return next((word for word in words[1:] if not word.startswith("-")), None)


def main() -> None:
    """Entry point of the `stepwell` program."""
    try:
        build_app(_command())()
    except _expected() as error:
        _end(f"{type(error).__name__}: {_said(error)}", 2 if isinstance(error, UsageError) else 1)
    except (TypeError, UnicodeEncodeError):  # the first is what DuckDB and deltalake raise for text that is no Unicode
        odd = [storable(word) for word in sys.argv[1:] if storable(word) != word]
        if not odd:
            raise
        _end(f"UsageError: {', '.join(odd)}: names and SQL are UTF-8, which this is not. Give another.", 2)


def _end(told: str, status: int) -> NoReturn:
    console.print(plain(told), style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(status)


def _expected() -> tuple[type[Exception], ...]:
    """What is told without a traceback: also what libraries raise about a broken lake, of those that are loaded."""
    named = (("deltalake.exceptions", "DeltaError"), ("pyarrow", "ArrowException"), ("duckdb", "Error"))
    broken = (getattr(sys.modules[module], name) for module, name in named if module in sys.modules)
    return (StepwellError, OSError, *broken)


def _said(error: Exception) -> str:
    """The message of an error and what to do; of an error of a library only the first line, which a trace may follow."""
    if isinstance(error, StepwellError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error}. Give a path that exists and may be used."
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        return str(error)
    first = next(iter(str(error).splitlines()), "").rstrip(".")
    return f"{first}. `stepwell doctor` with the same --lake says what is wrong with the lake, and what to do."
