"""The command line: `stepwell NOUN...`, one module a group of commands.

Belongs here: options, tables and progress on the terminal. Does not belong here: anything another caller could want
(that is a function elsewhere in `stepwell`). May import: everything `stepwell` may, and every stage.

Exit status: 0 only when it did what was asked, 2 for wrong usage, 1 for everything else. With `--json` standard output
carries one JSON document and every message goes to standard error.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module

import typer

from stepwell.cli.common import console, program
from stepwell.display import plain
from stepwell.errors import StepwellError, UsageError

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
    except (StepwellError, OSError) as error:
        act = ". Give a path that exists and may be used." if isinstance(error, OSError) and error.filename else ""
        told = plain(f"{type(error).__name__}: {error}{act}")
        console.print(told, style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
