"""The command `watch`: a folder that is written to is in the lake."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stepwell.cli.common import DEFAULT_LAKE, LakeOption, console, dumped, open_lake, output
from stepwell.live.watching import Watch, Watched


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("watch")(watch_command)


def watch_command(
    path: Annotated[Path, typer.Argument(help="The folder to follow, with all folders below it.")],
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Corpus to import to; default: the folder's name.")
    ] = None,
    format: Annotated[str | None, typer.Option("--format", help="Take only files of this format.")] = None,
    every: Annotated[float, typer.Option("--every", min=0.05, help="Seconds between listings of the folder.")] = 1.0,
    settle: Annotated[
        float,
        typer.Option("--settle", min=0.05, help="Seconds without a change after which a file is read as a whole."),
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Read what is there, and end.")] = False,
    poll: Annotated[
        bool, typer.Option("--poll", help="Only list the folder: for file systems that do not notify.")
    ] = False,
    keep_secrets: Annotated[bool, typer.Option("--keep-secrets", help="Write secrets as they are.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output for everything that was read.")
    ] = False,
) -> None:
    """Import what is written to a folder while it is written, until Ctrl-C; sessions grow as their files do.

    Example: `stepwell watch ~/.claude/projects --corpus mine`
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("reading", total=None)

        def tell(told: dict[str, Any]) -> None:
            progress.update(shown, description=_line(watch.total))
            if told["event"] == "waiting":
                return
            if json:
                print(dumped(told).decode(), flush=True)
            for reason, n in told["rejected"].items():
                console.print(f"{n} rejected: {reason}", markup=False, highlight=False)

        watch = Watch(
            open_lake(lake), path, corpus=corpus, format=format, every=every, settle=settle, keep_secrets=keep_secrets,
            notified=not poll, tell=tell,
        )  # fmt: skip
        if once:
            total = watch.once()
        else:
            with _told_to_stop() as stop:
                total = watch.run(stop)
    if json:
        print(dumped({"event": "end", **asdict(total)}).decode(), flush=True)
    else:
        output.print(_line(total), markup=False, highlight=False)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; what they did before they do again afterwards."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(total: Watched) -> str:
    told = f"{total.files} files read, {total.events} events written, {total.rejected} rejected"
    return f"{told}, {total.waiting} files wait" if total.waiting else told
