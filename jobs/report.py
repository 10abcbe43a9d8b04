"""Reporting from a job: to the terminal always, and to Dagster through Pipes when Dagster launched it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes
from rich.console import Console

from stepwell.errors import StepwellError, UsageError

_console = Console(stderr=True, soft_wrap=True)


class Reporter:
    """Log lines and the final metadata of a job."""

    def __init__(self, pipes: PipesContext | None) -> None:
        self._pipes = pipes

    def log(self, line: str) -> None:
        """One line of progress."""
        if self._pipes:
            self._pipes.log.info(line)
        else:
            _console.print(line, highlight=False, markup=False)

    def done(self, metadata: dict[str, Any], data_version: str) -> None:
        """What was made, once, at the end; values are numbers and strings, or {"raw_value", "type"} as Pipes takes them."""
        if self._pipes:
            self._pipes.report_asset_materialization(metadata=metadata, data_version=data_version)


@contextmanager
def reporter() -> Iterator[Reporter]:
    """A reporter for the run of a job."""
    if DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ:
        with open_dagster_pipes() as pipes:
            yield Reporter(pipes)
    else:
        yield Reporter(None)


def command(main: Callable[[], None]) -> None:
    """Run a job's main as a program: what a person can put right is a message and exit status 2, not a traceback."""
    try:
        main()
    except StepwellError as error:
        _console.print(f"error: {error}", highlight=False, markup=False)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


def quiet() -> None:
    """Keep the libraries' own progress bars off the terminal; the reporter's lines say where the job is."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
