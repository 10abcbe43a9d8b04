"""Commands that bring data in: import, sniff, formats."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output, progress_bar
from stepwell.display import plain, terminal
from stepwell.errors import BadInput, UsageError
from stepwell.importers.base import CAPABILITIES, REASONS
from stepwell.importers.containers import sniff as tell
from stepwell.importers.formats_page import matrix
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import ImportReport, import_paths
from stepwell.importers.sniff import UNREAD
from stepwell.secrets.values import of_file

_ROWS = (
    ("files", "files"), ("imported", "  imported"), ("known", "  already known"), ("outcome", "  outcomes, predictions"),
    ("ignored", "  ignored"), ("rejected", "  rejected"), ("records", "records"), ("taken", "  taken in"),
    ("rejected_records", "  rejected"), ("trajectories", "trajectories"), ("resolved", "  resolved"),
    ("unresolved", "  not resolved"), ("steps", "steps"), ("events", "events written"), ("known_events", "events known"),
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import")(import_command)
    app.command("sniff")(sniff_command)
    app.command("formats")(formats_command)


def import_command(
    paths: Annotated[
        list[str], typer.Argument(help="Files and folders; a folder's reports are joined to its trajectories.")
    ],
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Corpus to import to; default: the folder's name.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="Take only files of this format; read a file given by name as it.")
    ] = None,
    secret_values: Annotated[
        str | None, typer.Option("--secret-values", help="File of values to take out, one a line; NAME=value in *.env.")
    ] = None,
    keep_secrets: Annotated[bool, typer.Option("--keep-secrets", help="Write secrets as they are.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Import trajectories with their outcomes; what is known already adds nothing, what cannot be taken is in `rejects`.

    Example: `stepwell import runs/2026-07 --corpus nightly`
    """
    from stepwell.fold import refresh

    if keep_secrets and secret_values:
        raise UsageError("both --keep-secrets and --secret-values; give one of them.")
    values = of_file(secret_values) if secret_values else []
    opened, begun = open_lake(lake), time.monotonic()
    with progress_bar() as bars:
        bar = bars.add_task("files", total=None)

        def moved(done: int, total: int, n_bytes: int) -> None:
            bars.update(bar, completed=done, total=total, description=f"files ({n_bytes / 1e6:.1f} MB)")

        report = import_paths(
            opened, list(paths), corpus, format, moved, keep_secrets=keep_secrets, secret_values=values
        )
    wall_s = time.monotonic() - begun
    refresh(opened)
    if json:
        fidelity = {name: f.row() for name, f in sorted(report.fidelity.items())}
        emit({"batch_id": report.batch_id, **report.counts(), "wall_s": round(wall_s, 3), "fidelity": fidelity})
        return
    output.print(_table(report, wall_s))
    if report.fidelity:
        output.print(_fidelity_table(report))


def _table(report: ImportReport, wall_s: float) -> Table:
    counts = report.counts()
    table = Table("", "n", title=f"{report.batch_id} in {wall_s:.1f} s", title_justify="left")
    table.columns[1].justify = "right"
    for key, label in _ROWS:
        table.add_row(label, f"{counts[key]:,}")
        if key == "rejected_records":
            for reason, n in sorted(report.reasons.items()):
                table.add_row(f"    {reason}: {REASONS[reason]}", f"{n:,}")
    for kind, n in sorted(report.redacted.items()):
        table.add_row(f"secrets redacted: {terminal(kind)}", f"{n:,}")
    return table


def _fidelity_table(report: ImportReport) -> Table:
    """Records and values by format: what the sources had, what is in columns, what is in `extra` and most of it is."""
    table = Table("format", "records", "taken", "rejected", "values", "in columns", "in extra", "most in extra")
    for column in table.columns[1:7]:
        column.justify = "right"
    for name, f in sorted(report.fidelity.items()):
        counts = (f.records, f.taken, f.rejected, f.source.total(), f.columns.total(), f.extra.total())
        table.add_row(
            name, *(f"{n:,}" for n in counts), terminal(", ".join(path for path, _ in f.extra.most_common(3)))
        )
    return table


def sniff_command(
    path: Annotated[str, typer.Argument(help="The file to look at.")],
    json: JsonOption = False,
) -> None:
    """Say which format a file is and what tells; its name does not count.

    Example: `stepwell sniff run.traj.json`
    """
    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no file"
        raise UsageError(f"{path!r} is {what}; give one file. `stepwell import` takes folders.")
    try:
        told = tell(path)
        row = {"format": told.format, "version": told.version, "why": told.why, "importer": told.format in IMPORTERS}
    except BadInput as error:
        row = {"format": error.reason, "version": "", "why": error.detail, "importer": False}
    if json:
        emit({"path": path, **row})
    else:
        read = "imported" if row["importer"] else "not imported"
        output.print(plain(f"{row['format']} {row['version']}".strip() + f" ({read}): {row['why']}"), markup=False)


def formats_command(json: JsonOption = False) -> None:
    """What each format that is imported brings: outcome, costs, times, prompts, tools, token ids. More in docs/formats.md.

    Example: `stepwell formats`
    """
    if json:
        readable = {
            n: {"versions": i.versions, "unit": i.unit, "capabilities": dict(i.capabilities)}
            for n, i in IMPORTERS.items()
        }
        emit({"formats": readable, "recognised_only": UNREAD})
        return
    table = Table("format", "unit", *CAPABILITIES)
    for row in matrix():
        table.add_row(*row)
    output.print(table)
    if UNREAD:
        output.print(f"recognised, not imported: {', '.join(UNREAD)}", markup=False)
