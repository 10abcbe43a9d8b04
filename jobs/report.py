"""Reporting from a job: to the terminal always, and to Dagster through Pipes when Dagster launched it.

With STEPWELL_JSON=1 in the environment (`stepwell train --json`) what was made is printed as one JSON document.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jobs.mailbox import writer
from stepwell.errors import StepwellError, UsageError

_console = Console(stderr=True, soft_wrap=True)

LINES = 10
"""Steps from one line of progress to the next where there is no terminal to move a bar on."""

Advance = Callable[[int, int, str], None]


class Reporter:
    """Log lines, progress and the final metadata of a job; `silent` in every process of a job but the first."""

    def __init__(self, pipes: PipesContext | None, *, silent: bool = False) -> None:
        self._pipes, self._silent = pipes, silent

    def log(self, line: str) -> None:
        """One line of progress."""
        if self._pipes:
            self._pipes.log.info(line)
        elif not self._silent:
            _console.print(line, highlight=False, markup=False)

    @contextmanager
    def progress(self) -> Iterator[Advance]:
        """What is called with (steps done, steps in all, what to say of this one): a bar on a terminal, else some lines."""
        if self._pipes or self._silent or not _console.is_terminal:
            yield self._lines
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total, said: bar.update(task, completed=done, total=total, description=said)

    def _lines(self, done: int, total: int, said: str) -> None:
        if done % LINES == 0 or done == total:
            self.log(f"step {done}/{total} {said}")

    def done(self, metadata: dict[str, Any], data_version: str) -> None:
        """What was made, once, at the end; values are numbers and strings, or {"raw_value", "type"} as Pipes takes them."""
        if self._pipes:
            self._pipes.report_asset_materialization(metadata=metadata, data_version=data_version)
        elif os.environ.get("STEPWELL_JSON") == "1" and not self._silent:
            told = {
                key: value for key, value in metadata.items() if not isinstance(value, dict) or "raw_value" not in value
            }
            print(orjson.dumps({"made": data_version, **told}, default=str, option=orjson.OPT_INDENT_2).decode())


@contextmanager
def reporter() -> Iterator[Reporter]:
    """A reporter for the run of a job; of several processes started together (accelerate), the first one's speaks."""
    if int(os.environ.get("RANK", 0)) > 0:
        yield Reporter(None, silent=True)
    elif DAGSTER_PIPES_CONTEXT_ENV_VAR in os.environ:
        with open_dagster_pipes(message_writer=writer()) as pipes:
            yield Reporter(pipes)
    else:
        yield Reporter(None)


def flat(told: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The metadata of several things as that of one: NAME/KEY, or plain keys when there is only one thing."""
    if len(told) == 1:
        return next(iter(told.values()))
    return {f"{name}/{key}": value for name, facts in told.items() for key, value in facts.items()}


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
