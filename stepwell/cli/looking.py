"""Commands that look: sql, questions, trace, status."""

from __future__ import annotations

import csv
import sys
from enum import StrEnum
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.markup import escape
from rich.table import Table

from schemas.tables import TABLES
from stepwell import query
from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, console, emit, open_lake, output
from stepwell.errors import UsageError
from stepwell.fold import seen
from stepwell.lake import Lake
from stepwell.lineage import render_trace, trace

_SHOWN = 200
FOLDS = ("trajectories", "steps")


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, command in (
        ("sql", sql_command), ("questions", questions_command), ("trace", trace_command), ("status", status_command),
    ):  # fmt: skip
        app.command(name)(command)


def sql_command(
    statement: Annotated[str | None, typer.Argument(help="One SELECT over the tables and views of the lake.")] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="Ask a question by name instead.")] = None,
    at: Annotated[list[str] | None, typer.Option("--at", help="TABLE=VERSION to read; may be repeated.")] = None,
    format: Annotated[Format, typer.Option("--format", help="table, json or csv.")] = Format.table,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Ask the lake in SQL, or ask one of its questions by name; columns are in docs/schema.md.

    Example: `stepwell sql --question resolve_rate`
    """
    if (statement is None) == (question is None):
        raise UsageError("give either one SELECT or --question NAME; `stepwell questions` lists the names.")
    text = query.question(question) if question is not None else statement or ""
    answer = query.run(query.connect(open_lake(lake), _versions(at or [])), text)
    if json or format is Format.json:
        emit(answer.to_pylist())
    elif format is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.column_names)
        writer.writerows(zip(*(c.to_pylist() for c in answer.columns), strict=True))
    else:
        output.print(_table(answer))
        if len(answer) > _SHOWN:
            console.print(f"{_SHOWN} of {len(answer)} rows shown; --format csv gives all.", highlight=False)


def questions_command(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """List the questions that come with Stepwell; they can be asked of any lake.

    Example: `stepwell questions`
    """
    found = query.questions()
    if json:
        emit([{"name": name, "question": text} for name, text in found.items()])
        return
    table = Table("name", "question")
    for name, text in found.items():
        table.add_row(name, text)
    output.print(table)


def trace_command(
    model: Annotated[str, typer.Argument(help="Model name, id or directory.")],
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Show what a model was made from: recipe, dataset, trajectories, files and rollouts.

    Example: `stepwell trace srft`
    """
    tree = trace(open_lake(lake), model)
    if json:
        emit(tree.as_dict())
    else:
        output.print(render_trace(tree))


def status_command(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """Show the tables of the lake: version, rows, and how far the folds are behind `events`.

    Example: `stepwell status --json`
    """
    opened = open_lake(lake)
    tables = status(opened)
    if json:
        emit({"lake": opened.uri, "tables": tables})
        return
    table = Table("table", "version", "rows", "folded from events version", "versions behind", title=escape(opened.uri))
    for row in tables:
        table.add_row(*("-" if row[c] is None else str(row[c]) for c in ("table", "version", "rows", "seen", "behind")))
    output.print(table)


def status(lake: Lake) -> list[dict[str, Any]]:
    """One entry a table: name, version, rows; for folds also the `events` version seen and how many are missing."""
    events = lake.version("events")
    found = []
    for name in [*TABLES, *lake.dataset_names()]:
        handle = lake.table(name)
        entry: dict[str, Any] = {"table": name, "version": None, "rows": 0, "seen": None, "behind": None}
        if handle is not None:
            entry |= {"version": handle.version(), "rows": lake.dataset(handle).count_rows()}
        if name in FOLDS and events is not None:
            entry["seen"] = seen(lake, name)
            entry["behind"] = events - (entry["seen"] if entry["seen"] is not None else -1)
        found.append(entry)
    return found


def _versions(pins: list[str]) -> dict[str, int]:
    versions = {}
    for pin in pins:
        name, _, number = pin.partition("=")
        if not number.isdigit():
            raise UsageError(f"--at {pin!r} is not TABLE=VERSION; write for example --at events=12.")
        versions[name] = int(number)
    return versions


def _table(answer: pa.Table) -> Table:
    table = Table(*(escape(name) for name in answer.column_names))
    for row in answer.slice(0, _SHOWN).to_pylist():
        table.add_row(*(escape("" if v is None else str(v)) for v in row.values()))
    return table
