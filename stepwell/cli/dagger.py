"""Commands of DAgger: dagger (the loop, its state, its figures) and label (a teacher's labels afterwards)."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, launch, open_lake, output
from stepwell.cli.loop import RecipeArgument
from stepwell.dagger import Loop
from stepwell.errors import RecipeError, UsageError
from stepwell.recipe import Recipe, load


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("dagger")(dagger)
    app.command("label")(label)


def dagger(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="Up to this one; default: all.")] = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Environments in flight.")] = 16,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Most US dollars for model calls.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which stages are done, and do nothing.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Figures of the iterations so far; nothing is run.")] = False,
    dagster: Annotated[
        bool, typer.Option("--dagster", help="As partitions of Dagster assets, a run an iteration.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Iterate: collect with the policy so far, label by the teacher, train on the labels; what is done is left alone.

    Example: `stepwell dagger dagger --iterations 3`
    """
    settings, opened = load(recipe), open_lake(lake)
    loop = Loop(settings, opened)
    last = iterations or loop.settings.iterations
    if report:
        told = loop.report(last)
        emit(told) if json else _show(loop, last, told)
    elif dry_run:
        stages = loop.state(last)
        emit({"recipe": settings.name, "rollouts_an_iteration": loop.settings.n_tasks * loop.settings.attempts,
              "beta": [_beta(settings, i) for i in range(1, last + 1)], "stages": stages})  # fmt: skip
    elif dagster:
        if recipe != settings.name or max_cost is not None:
            raise UsageError("with --dagster the recipe is one of jobs/recipes by name, and --max-cost has no effect.")
        launch("assets.dagger", "--recipe", recipe, "--lake", opened.uri, "--iterations", str(last))
        if json:
            emit(loop.report(last))
    else:
        limits = [] if max_cost is None else ["--max-cost", str(max_cost)]
        where = ["--recipe", recipe, "--lake", opened.uri, "--parallel", str(parallel)]
        launch("jobs.dagger", *where, "--iterations", str(last), *limits)
        if json:
            emit(loop.report(last))


def label(
    recipe: RecipeArgument,
    corpus: Annotated[str, typer.Argument(help="The corpus whose visited states are labelled.")],
    lake: LakeOption = DEFAULT_LAKE,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Calls in flight.")] = 16,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Most US dollars for model calls.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what is missing and what it can cost.")] = False,
    json: JsonOption = False,
) -> None:
    """Have the teacher of a recipe label every state of a stored corpus that has no label of it yet.

    Example: `stepwell label dagger rollouts/pool --dry-run`
    """
    if load(recipe).dagger is None:
        raise RecipeError(f"recipe {recipe!r} has no `dagger`, so no teacher; add it.")
    options = ["--parallel", str(parallel), *(["--dry-run"] if dry_run else [])]
    options += [] if max_cost is None else ["--max-cost", str(max_cost)]
    where = ["--recipe", recipe, "--lake", open_lake(lake).uri, "--stage", "label", "--corpus", corpus]
    launch("jobs.dagger", *where, *options, json=json)


def _beta(recipe: Recipe, iteration: int) -> float | None:
    from stepwell.rollout.mixing import Schedule

    assert recipe.dagger is not None
    return Schedule(**recipe.dagger.schedule.model_dump()).beta(iteration)


def _show(loop: Loop, last: int, told: list[dict[str, Any]]) -> None:
    table = Table(title=f"{loop.whole.name}: iterations")
    for column in ("", *(str(t["iteration"]) for t in told)):
        table.add_column(column, justify="right" if column else "left")
    drifts = [loop.drift(t["iteration"]) for t in told]
    lines: dict[str, list[Any]] = {
        "rollouts": [d.n_trajectories for d in drifts],
        "declared beta": ["switch" if d.beta is None else d.beta for d in drifts],
        "teacher's turns": [d.taught for d in drifts],
        "z": ["-" if d.z is None else f"{d.z:+.2f}" for d in drifts],
        "labelled turns": [d.labelled for d in drifts],
        "label is not the action": [d.differ for d in drifts],
        "label is not the student's": [d.student_differ for d in drifts],
        "teacher's errors after student": [d.errors_after["agent"] for d in drifts],
        "teacher's errors after teacher": [d.errors_after["teacher"] for d in drifts],
        "student's share of turns": ["-" if d.student_share is None else f"{d.student_share:.2f}" for d in drifts],
        "runs of student turns": [" ".join(f"{k}:{n}" for k, n in sorted(d.runs.items())) or "-" for d in drifts],
        "resolved in collection": [d.resolved for d in drifts],
        "training rows": [t["rows"] for t in told],
    }
    for name, values in lines.items():
        table.add_row(name, *(str(v) for v in values))
    output.print(table)
    for name, rate in loop.rates(last).items():
        output.print(f"{name}: {rate.line()}", highlight=False, soft_wrap=True)
