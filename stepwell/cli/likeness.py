"""How alike two sets of trajectories are: in what was done, and in the states that were reached."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, open_lake, output
from stepwell.likeness import Described, chosen, likeness, seen, shift

Where = Annotated[str, typer.Argument(help="SQL condition on the columns of `trajectories`.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("likeness")(compared)


def compared(
    a: Where,
    b: Where,
    critic: Annotated[
        str | None, typer.Option("--critic", help="Whose error categories count; default: those of every critic.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Say how far two sets of trajectories are apart: of two agents, or of what is trained on and what is evaluated.

    Every measure stands beside what it would be if trajectories were dealt to the sides at random.

    Example: `stepwell likeness "corpus = 'rollouts/dagger-3'" "corpus = 'evaluations/repair-eval'"`
    """
    opened = open_lake(lake)
    sides = [seen(opened, chosen(opened, where), critic) for where in (a, b)]
    found, states = likeness(*sides), shift(*sides)
    if json:
        emit({"a": a, "b": b, "likeness": found.plain(), "states": states.plain()})
        return
    output.print(f"a: {_side(found.a)}\nb: {_side(found.b)}\ntasks of both: {found.shared_tasks}", highlight=False)
    table = Table(title="how far apart (each beside the 95th percentile of chance)")
    for column in ("measure", "value", "chance", "p", "n of a", "n of b"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    named = dict(found.distances)
    named |= {f"states, discrepancy: {k}": d for k, d in states.discrepancy.items()}
    named |= {f"states, told apart: {k}": d for k, d in states.told_apart.items()}
    for name, d in named.items():
        shown = ["-" if x is None else f"{x:.3f}" for x in (d.value, d.chance, d.p)]
        table.add_row(name, *shown, str(d.n_a), str(d.n_b))
    output.print(table)
    output.print(
        f"share of the states of b that lie near one of a: {states.covered} of {states.covered.n}", highlight=False
    )


def _side(side: Described) -> str:
    made = "; ".join(", ".join(names) for names in (side.agents, side.models, side.scaffolds) if names)
    return f"{side.n_trajectories} trajectories, {side.n_steps} steps, {side.n_tasks} tasks ({made})"
