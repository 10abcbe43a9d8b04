"""Commands that follow lineage: `trace` backwards, `impact` forwards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from stepwell.cli.common import (
    DEFAULT_LAKE,
    JsonOption,
    LakeOption,
    bring_up,
    console,
    emit,
    open_lake,
    output,
    writing,
)
from stepwell.cli.locating import locator
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.lineage import Tree, impact, render_trace, trace
from stepwell.lineage.impact import KINDS
from stepwell.lineage.openlineage import openlineage
from stepwell.lineage.picture import picture

OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Draw it into this SVG file as well.")]
OpenLineageOption = Annotated[
    Path | None, typer.Option("--openlineage", help="Write the runs in it as OpenLineage events, one a line.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("trace")(trace_command)
    app.command("impact")(impact_command)


def trace_command(
    name: Annotated[str, typer.Argument(help="Model, dataset (NAME or NAME@VERSION), row, event or trajectory.")],
    svg: OutputOption = None,
    runs: OpenLineageOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Show what a thing was made from: recipe, dataset, rows, steps, events, files and their bytes, rollouts.

    Example: `stepwell trace srft -o srft.svg`
    """
    opened = open_lake(lake)
    _tell(opened, trace(opened, name, locator(opened)), svg, runs, "made_from", json)


def impact_command(
    name: Annotated[str, typer.Argument(help=f"Name of a {', '.join(KINDS)}.")],
    kind: Annotated[str | None, typer.Option("--kind", help="What NAME is, where it is several things.")] = None,
    svg: OutputOption = None,
    runs: OpenLineageOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Show what a thing has touched: rows, datasets, models, evaluations, comparisons, rollouts of touched models, and so on.

    Example: `stepwell impact runs/one.traj.json --kind source`
    """
    opened = open_lake(lake)
    bring_up(opened)
    _tell(opened, impact(opened, name, kind), svg, runs, "touched", json)


def _tell(lake: Lake, tree: Tree, svg: Path | None, runs: Path | None, below: str, json: bool) -> None:
    if svg is not None:
        if svg.suffix != ".svg":
            raise UsageError(f"{svg} is no name of a picture; allowed: *.svg. Rename it.")
        with writing(svg):
            svg.write_text(picture(tree), encoding="utf-8")
        console.print(f"drawn in {svg}", highlight=False, markup=False)
    if runs is not None:
        events = openlineage(lake, tree)
        with writing(runs):
            runs.write_bytes(b"".join(orjson.dumps(e, option=orjson.OPT_APPEND_NEWLINE) for e in events))
        console.print(f"{len(events)} runs in {runs}", highlight=False, markup=False)
    if json:
        emit(tree.as_dict(below))
    else:
        output.print(render_trace(tree))
