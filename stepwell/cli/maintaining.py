"""Commands that keep the lake: maintain."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, bring_up, console, emit, open_lake, output
from stepwell.maintenance import Maintained
from stepwell.maintenance import maintain as keep


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("maintain")(maintain)


def maintain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is due; write nothing.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Fold what is new, compact small files, write checkpoints, remove files of folds that no version of the last week needs.

    Every version of every other table can still be read. Imports may go on meanwhile.
    Example: `stepwell maintain --dry-run`
    """
    opened = open_lake(lake)
    with console.status("maintaining"):
        if not dry_run:
            bring_up(opened)
        done = keep(opened, dry_run)
    if json:
        emit({"dry_run": dry_run, "tables": [one.row() for one in done]})
        return
    output.print(_table(done, dry_run))


def _table(done: list[Maintained], dry_run: bool) -> Table:
    table = Table(
        "table", "version", "files", "MB", "after", "compacted", "checkpoint", "vacuumed", title_justify="left"
    )
    table.title = "due" if dry_run else "done"
    for one in done:
        after = "" if one.n_files_after is None else f"{one.n_files_after:,}"
        parts = f"{len(one.due)} partitions" if one.due else ""
        mb = f"{one.n_bytes / 1e6:,.1f}"
        mark = "yes" if one.checkpoint else ""
        table.add_row(one.table, str(one.version), f"{one.n_files:,}", mb, after, parts, mark, str(one.vacuumed or ""))
    return table
