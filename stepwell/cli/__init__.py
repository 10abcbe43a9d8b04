"""The command line: `stepwell NOUN...`, one module a group of commands.

Belongs here: options, tables and progress on the terminal. Does not belong here: anything another caller could want
(that is a function elsewhere in `stepwell`). May import: everything `stepwell` may, and every stage.

Exit status: 0 only when it did what was asked, 2 for wrong usage, 1 for everything else. With `--json` standard output
carries one JSON document and every message goes to standard error.
"""

from __future__ import annotations

import sys
from functools import cache

import typer

from stepwell.cli.common import app, console
from stepwell.display import plain
from stepwell.errors import StepwellError, UsageError

__all__ = ["build_app", "main"]


@cache
def build_app() -> typer.Typer:
    """The program with all its commands."""
    from stepwell.cli import (
        annotate,
        asking,
        audit,
        comparing,
        contamination,
        critics,
        dagger,
        data,
        exporting,
        health,
        keeping,
        likeness,
        loop,
        maintaining,
        proxy,
        revise,
        serving,
        steer,
        tracing,
        viewing,
        watching,
    )

    for group in (
        data,
        exporting,
        critics,
        audit,
        annotate,
        loop,
        comparing,
        contamination,
        likeness,
        steer,
        dagger,
        revise,
        proxy,
        serving,
        watching,
        viewing,
        asking,
        tracing,
        health,
        maintaining,
        keeping,
    ):
        group.register(app)
    return app


def main() -> None:
    """Entry point of the `stepwell` program."""
    try:
        build_app()()
    except StepwellError as error:
        console.print(
            plain(f"{type(error).__name__}: {error}"), style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(2 if isinstance(error, UsageError) else 1)
