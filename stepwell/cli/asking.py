"""Commands that ask: `sql`, once or as a shell, and `questions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stepwell import query
from stepwell.cli.answers import Format, format_of, show
from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, bring_up, console, emit, open_lake, output
from stepwell.cli.shell import Shell
from stepwell.errors import UsageError
from stepwell.fold import FOLDS
from stepwell.lake import Lake


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("sql")(sql_command)
    app.command("questions")(questions_command)


def sql_command(
    statement: Annotated[str | None, typer.Argument(help="One SELECT over tables and views; none: a shell.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="Ask a question by name instead.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="Version of `events` to read everything as of, or TABLE=VERSION; may be repeated."),
    ] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="Default: told from the name of FILE, else table.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="File to write the answer to.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0.001, help="Most seconds for one query.")] = None,
    memory: Annotated[
        str, typer.Option("--memory", help="Most memory for a query; nothing is spilled to disk.")
    ] = "4GB",
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Ask the lake in SQL, ask one of its questions by name, or open a shell; columns are in docs/schema.md.

    Example: `stepwell sql --question resolve_rate --format markdown`
    """
    if statement is not None and question is not None:
        raise UsageError("give either one SELECT or --question NAME; `stepwell questions` lists the names.")
    if to is not None and statement is None and question is None:
        raise UsageError(
            f"--output {to} without a statement; in the shell `.output {to}` writes the next answer to it."
        )
    shape = Format.json if json else format_of(format, to)
    opened, limits = open_lake(lake), query.Limits(timeout, memory)
    pinned = _versions(opened, at or [])
    if not pinned:
        bring_up(opened)
    connection = query.connect(opened, pinned, limits)
    if statement is None and question is None:
        Shell(connection, limits, shape).run()
        return
    text = query.question(question) if question is not None else statement or ""
    show(query.run(connection, text, limits=limits), shape, to)


def questions_command(
    name: Annotated[str | None, typer.Argument(help="A question to explain; none: list them all.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """List the questions that come with Stepwell, or explain one: what it asks, its SQL and the columns of its answer.

    Example: `stepwell questions recover_after_mistake`
    """
    if name is not None:
        text = query.question(name)
        columns = query.columns(query.connect(open_lake(lake)), text)
        if json:
            told = [{"name": c, "type": t} for c, t in columns]
            emit({"name": name, "question": query.questions()[name], "sql": text, "columns": told})
            return
        output.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)
        output.print(f"\nColumns: {', '.join(f'{c} {t}' for c, t in columns)}", markup=False, highlight=False)
        return
    found = query.questions()
    if json:
        emit([{"name": name, "question": text} for name, text in found.items()])
        return
    table = Table("name", "question")
    for known, text in found.items():
        table.add_row(known, text)
    output.print(table)


def _versions(lake: Lake, pins: list[str]) -> dict[str, int]:
    versions: dict[str, int] = {}
    for pin in pins:
        name, _, number = pin.rpartition("=")
        if not number.isdecimal():
            raise UsageError(f"--at {pin!r} is neither a version nor TABLE=VERSION; write for example --at 12.")
        if name:
            versions[name] = int(number)
            continue
        versions |= query.as_of(lake, int(number))
        for fold in FOLDS:
            at = query.folded_from(lake, fold, versions[fold]) if fold in versions else None
            if at != int(number):
                told = "was not folded yet: it is empty" if at is None else f"is as of events version {at}"
                console.print(f"{fold} {told}", highlight=False)
    return versions
