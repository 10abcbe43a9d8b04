"""The command that gives data out: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.common import (
    DEFAULT_LAKE,
    JsonOption,
    LakeOption,
    emit,
    open_lake,
    output,
    progress_bar,
    require_version,
)
from stepwell.display import terminal
from stepwell.errors import UsageError
from stepwell.exporters.registry import EXPORTERS
from stepwell.exporters.run import Report, Request, export


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("export")(export_command)


def export_command(
    format: Annotated[str, typer.Argument(help=f"One of {', '.join(EXPORTERS)}; docs/export.md says what each holds.")],
    path: Annotated[
        Path | None, typer.Option("-o", "--out", help="File or folder to write; its suffix counts.")
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option("--corpus", help="Only these; default: all but those of evaluations.")
    ] = None,
    where: Annotated[
        str, typer.Option("--where", help="SQL condition on the columns of `trajectories`, or of the dataset's rows.")
    ] = "true",
    dataset: Annotated[str | None, typer.Option("--dataset", help="Sealed dataset, for formats made of one.")] = None,
    mask_rule: Annotated[
        str | None, typer.Option("--mask-rule", help="Rule whose masks are the train flags; default: every reply.")
    ] = None,
    at: Annotated[
        int | None, typer.Option("--at", help="Version of `events`, or of the dataset; default: now.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be written, and write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Take the place of what is there already.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Write trajectories or a sealed dataset in a format of the field, whole or not at all, with a manifest beside.

    Example: `stepwell export chat -o sft.parquet --where 'resolved'`
    """
    if path is None and not dry_run:
        raise UsageError("nowhere to write to; name a file or folder with -o, or count with --dry-run.")
    opened = open_lake(lake)
    require_version(opened, at, "events" if dataset is None else f"datasets/{dataset.removeprefix('datasets/')}")
    request = Request(format, tuple(corpus or ()), where, dataset, mask_rule, at)
    with progress_bar() as bar:
        task = bar.add_task("exporting")
        report = export(
            opened,
            request,
            None if dry_run else path,
            overwrite,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        emit({"path": None if dry_run else str(path), **report.manifest()})
    else:
        output.print(_table(report, "would be written" if dry_run else f"written to {path}"))


def _table(report: Report, written: str) -> Table:
    table = Table("", "n", title=f"{report.request.format} at version {report.version}", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("looked at", f"{report.looked_at:,}")
    table.add_row("passed by the filter", f"{report.chosen:,}")
    for reason, n in sorted(report.left_out.items()):
        table.add_row(f"  left out: {terminal(reason)}", f"{n:,}")
    table.add_row(f"  {terminal(written)}", f"{report.written:,}")
    if report.sha256:
        table.add_row("bytes", f"{report.n_bytes:,}")
    return table
