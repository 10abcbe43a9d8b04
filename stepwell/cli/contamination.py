"""Commands of contamination: whether a dataset repeats what is evaluated, how alike both sides are, what it did to a result."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from schemas.kinds import HELD_OUT
from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, named, open_lake, output
from stepwell.contamination.effect import Effect, compared_tasks, dirty_tasks, effect
from stepwell.contamination.gate import Report, gate
from stepwell.contamination.overlap import Overlap, overlap
from stepwell.contamination.planned import planned
from stepwell.display import terminal
from stepwell.errors import StepwellError, UnknownName, UsageError
from stepwell.lake import Lake
from stepwell.recipe import RECIPES, Contamination, load


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("contamination")(contamination)


def contamination(
    dataset: Annotated[str, typer.Argument(help="Dataset (recipe) name, or the YAML file of its recipe.")],
    against: Annotated[
        list[str] | None, typer.Option("--against", help="Also compare with this corpus or file of tasks.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe whose `contamination` counts; default: the dataset's own.")
    ] = None,
    alike: Annotated[
        bool, typer.Option("--overlap", help="Also how alike commands, tasks and repositories of both sides are.")
    ] = False,
    evaluation: Annotated[
        str | None, typer.Option("--evaluation", help="Also its resolve rate on repeated and on clean tasks.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="With --evaluation: the gain over this other evaluation.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Compare every row of a dataset with every evaluation suite, and keep what is flagged; status 1 when some is.

    Suites are the corpora under `evaluations/`, what the recipe of that name is to be evaluated on, its
    `contamination.against`, and `--against`.

    Example: `stepwell contamination srft --against swe-bench-verified.parquet`
    """
    opened, name, file = open_lake(lake), *named(dataset)
    recipe = recipe or file
    if f"datasets/{name}" not in (there := opened.dataset_names()):
        raise UnknownName("dataset", f"datasets/{name}", there, f"Build it: stepwell build {dataset}")
    known = load(recipe or name) if recipe or (RECIPES / f"{name}.yaml").is_file() else None
    settings = known.contamination if known else Contamination()
    settings = settings.model_copy(update={"against": (*settings.against, *(against or ()))})
    report = gate(opened, f"datasets/{name}", settings, planned(known) if known else ())
    likeness = {s: overlap(opened, report.dataset, s) for s in report.suites if alike and s.startswith(HELD_OUT)}
    split = None if evaluation is None else _split(opened, report, evaluation, base)
    if json:
        emit(report.as_dict() | ({"overlap": likeness} if alike else {}) | ({"effect": split} if split else {}))
    else:
        output.print(_table(report))
        for suite, found in likeness.items():
            output.print(_histogram(suite, found))
        if split is not None:
            what = "resolve rate" if base is None else f"gain over {base}"
            line = f"repeated {split.dirty} of {split.dirty.n}, clean {split.clean} of {split.clean.n}"
            output.print(f"{what}: {line}, difference {split.difference}", markup=False, highlight=False)
    if report.open:
        raise StepwellError(f"{report.dataset} repeats what is evaluated. " + "\n".join(report.problems()))


def _split(lake: Lake, report: Report, evaluation: str, base: str | None) -> Effect:
    """The effect by the tasks repeated of the suite the evaluation was on, under the name the gate has for it."""
    rows = lake.read("evaluations", columns=["evaluation_id", "suite"]).to_pylist()
    suite = next((r["suite"] for r in rows if r["evaluation_id"] == evaluation), None)
    if suite is None:
        raise UsageError(
            f"no evaluation {evaluation!r}; `stepwell sql 'SELECT DISTINCT evaluation_id FROM evaluations'` lists them."
        )
    recorded = f"{HELD_OUT}{suite}"
    listed = suite if suite in report.suites and recorded not in report.suites else recorded
    dirty = dirty_tasks(lake, report.dataset_hash, listed, gate=report.gate)
    return effect(
        lake, evaluation, dirty, base, compared=compared_tasks(lake, report.dataset_hash, listed, report.gate)
    )


def _table(report: Report) -> Table:
    compared = (
        ", ".join(f"{terminal(s)} ({n} tasks)" for s, n in report.suites.items()) or "nothing: no suite is registered"
    )
    table = Table(title=f"{report.dataset} version {report.version}: {report.n_rows} rows against {compared}")
    for column in ("suite", "detector", "rows", "tasks", "highest", "waived", "examples: row = task"):
        table.add_column(column, justify="right" if column in ("rows", "tasks", "highest") else "left")
    for line in report.table():
        numbers = (str(line["rows"]), str(line["tasks"]), f"{line['highest']:.2f}")
        said = (line["waived"] or "no", "\n".join(line["examples"]))
        table.add_row(terminal(line["suite"]), line["detector"], *numbers, *map(terminal, said))
    return table


def _histogram(suite: str, found: Overlap) -> Table:
    title = f"{terminal(suite)}: Jaccard of tasks {found.tasks:.3f}, of repositories {found.repos:.3f}"
    table = Table(title=f"{title}; nearest of {found.n_train} training trajectories")
    table.add_column("Jaccard of commands")
    table.add_column("evaluated trajectories", justify="right")
    for i, n in enumerate(found.nearest):
        table.add_row(f"{i / 10:.1f} to {(i + 1) / 10:.1f}", str(n))
    return table
