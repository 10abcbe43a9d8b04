"""Commands that tell how things are: status, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output
from stepwell.display import plain, terminal
from stepwell.errors import StepwellError
from stepwell.health.status import status

_SHOWN = {"ok": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "problem": "[red]problem[/]"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("status")(status_command)
    app.command("doctor")(doctor_command)


def status_command(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """Show what the lake holds: tables with version, rows and size, what is behind `events`, corpora, rejects, models.

    Example: `stepwell status --json`
    """
    told = status(open_lake(lake))
    if json:
        emit(told)
        return
    output.print(_tables(told))
    if told["corpora"]:
        columns = ("corpus", "trajectories", "steps", "graded", "resolved")
        corpora = Table(*columns)
        for row in told["corpora"]:
            corpora.add_row(*(terminal(f"{row[c]:,}" if isinstance(row[c], int) else row[c]) for c in columns))
        output.print(corpora)
    lines = [f"models: {', '.join(told['models'])}"] if told["models"] else []
    if told["rejects"]:
        lines.append(f"rejects: {', '.join(f'{reason} {n:,}' for reason, n in told['rejects'].items())}")
    if told["unfinished_redactions"]:
        lines.append(f"redactions not finished: {', '.join(told['unfinished_redactions'])}; run them again")
    for line in lines:
        output.print(plain(line), markup=False, highlight=False, soft_wrap=True)


def _tables(told: dict[str, Any]) -> Table:
    table = Table("table", title=terminal(told["lake"]))
    for column in ("version", "rows", "files", "MB", "written", "seen", "behind"):
        table.add_column(column, justify="right")
    table.caption = "seen: the version of events a table was made from; behind: versions since then"
    for row in told["tables"]:
        when = row["written_at"] and f"{row['written_at']:%Y-%m-%d %H:%M}"
        mb = None if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f}"
        cells = (row["version"], f"{row['rows']:,}", row["files"], mb, when, row["seen"], row["behind"])
        table.add_row(terminal(row["table"]), *("-" if cell is None else str(cell) for cell in cells))
    return table


def doctor_command(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """Look for what is wrong with this machine and the lake, and say what to do next; exit status 1 when there is a problem.

    A note is about something that most do not need. Nothing is changed.
    Example: `stepwell doctor --lake s3://bucket/lake`
    """
    from stepwell.health.lakes import check_lake
    from stepwell.health.machine import check_machine

    found = [*check_machine(), *check_lake(open_lake(lake))]
    wrong = [f for f in found if f.level == "problem"]
    if json:
        emit({"ok": not wrong, "findings": [asdict(f) for f in found]})
    else:
        for one in found:
            output.print(f"{_SHOWN[one.level]} {one.area}: {terminal(one.what)}", highlight=False, soft_wrap=True)
            if one.act:
                output.print(f"        next: {terminal(one.act)}", highlight=False, soft_wrap=True)
    if wrong:
        raise StepwellError(
            f"{len(wrong)} problems: {', '.join(f.area for f in wrong)}. Each line above says what to do."
        )
