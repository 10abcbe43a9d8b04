"""Commands of the loop: rollout, build, verify, datasets, train, evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.common import (
    DEFAULT_LAKE,
    JsonOption,
    LakeOption,
    console,
    emit,
    launch,
    open_lake,
    output,
    progress_bar,
)
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import Built, build, seal_of
from stepwell.datasets.page import page as token_page
from stepwell.datasets.verify import verify
from stepwell.errors import StepwellError, UnknownName, UsageError
from stepwell.fold import refresh
from stepwell.recipe import load
from stepwell.rendering import Renderer

RecipeArgument = Annotated[str, typer.Argument(help="Recipe name, or a YAML file.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model name, id or directory.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, command in (
        ("rollout", rollout), ("build", build_command), ("verify", verify_command), ("datasets", datasets),
        ("train", train), ("evaluate", evaluate), ("compare", compare),
    ):  # fmt: skip
        app.command(name)(command)


def rollout(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Environments in flight.")] = 16,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Most US dollars for model calls.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Most steps, all rollouts together.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Collect the rollouts a recipe asks for, in the sandbox; what is finished already is not run again.

    Example: `stepwell rollout srft`
    """
    from stepwell.rollout.runs import collect_pool

    settings = load(recipe)
    if settings.collect is None:
        raise UsageError(f"recipe {settings.name!r} collects nothing; add `collect` to it.")
    wanted = sum(p.n_tasks * p.attempts for p in settings.collect.policies)
    if dry_run:
        emit({"corpus": settings.collect.corpus, "rollouts": wanted, "max_turns": settings.world.max_turns})
        return
    if any(p.kind == "model" for p in settings.collect.policies):
        limits = {"--parallel": parallel, "--max-cost": max_cost, "--max-steps": max_steps}
        given = [str(part) for name, value in limits.items() if value is not None for part in (name, value)]
        launch("jobs.rollout", "--recipe", recipe, "--lake", open_lake(lake).uri, *given)
        return
    with progress_bar() as progress:
        bar = progress.add_task("rollouts", total=wanted)
        report = collect_pool(
            open_lake(lake), settings.collect, settings.world, parallel=parallel, max_cost=max_cost, max_steps=max_steps,
            progress=lambda r: progress.update(bar, completed=r.n_known + r.n_done, description=r.line()),
        )  # fmt: skip
    refresh(open_lake(lake))
    if json:
        emit({"corpus": settings.collect.corpus, **report.__dict__})
    else:
        output.print(f"{report.line()} in {settings.collect.corpus}; next: stepwell judge", highlight=False)
    if not report.complete:
        raise StepwellError(f"not everything is rolled out: {report.stopped or 'some failed'}. Run it again to go on.")


def build_command(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    at: Annotated[int | None, typer.Option("--at", help="Version of `events`; default: the current one.")] = None,
    json: JsonOption = False,
) -> None:
    """Derive the masks and the training set of a recipe, and print its funnel.

    Example: `stepwell build srft`
    """
    settings, opened = load(recipe), open_lake(lake)
    rule = rule_of(settings.mask)
    if at is None:
        mask_new(opened, rule)
    with progress_bar() as progress:
        bar = progress.add_task("trajectories")
        built = build(
            opened, settings, Renderer.load(settings.base_model), str(rule), at,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )  # fmt: skip
    if json:
        emit(built.__dict__)
    else:
        output.print(funnel_table(built))
        output.print(
            f"{built.table} version {built.version}, hash {built.hash[:16]}, from events version {built.events_version}"
        )


def funnel_table(built: Built) -> Table:
    """What went in, what was left out and why, what came out."""
    table = Table(title=built.table)
    for column in ("", "trajectories", "steps", "tokens"):
        table.add_column(column, justify="right" if column else "left")
    for line in built.funnel:
        table.add_row(line["line"], *(str(line.get(c, 0)) for c in ("trajectories", "steps", "tokens")))
    return table


def verify_command(
    dataset: Annotated[str, typer.Argument(help="Dataset (recipe) name.")],
    model: ModelOption = None,
    page: Annotated[
        Path | None, typer.Option("--page", help="Write sample rows as HTML, every token coloured.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Prove that the tokens a dataset trains on are the steps that were chosen.

    Example: `stepwell verify srft`
    """
    opened = open_lake(lake)
    name = f"datasets/{dataset.removeprefix('datasets/')}"
    sealed = seal_of(opened, name)
    if sealed is None:
        raise UsageError(f"no dataset {name!r} in {opened.uri}; build it: stepwell build {dataset}")
    base = model or sealed[1].get("base_model") or load(dataset).base_model
    rows, renderer = opened.read(name), Renderer.load(base)
    result = verify(rows, renderer, opened)
    if page is not None:
        page.write_text(token_page(rows, renderer, name, sealed[1], result.problems), encoding="utf-8")
    if json:
        emit(result.__dict__)
    else:
        output.print(f"{name}: {result.n_rows} rows, {result.n_spans} trained spans, {len(result.problems)} problems")
        for problem in result.problems[:20]:
            console.print(problem, markup=False)
    if not result.ok:
        raise StepwellError(
            f"{name} does not train what was chosen: {len(result.problems)} problems. Do not train on it."
        )


def datasets(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """List the sealed datasets of the lake.

    Example: `stepwell datasets`
    """
    opened = open_lake(lake)
    found: list[dict[str, Any]] = []
    for name in opened.dataset_names():
        version, seal = seal_of(opened, name) or (0, {})
        found.append({"dataset": name, "version": version, "rows": len(opened.read(name, columns=["row_id"])), **seal})
    if json:
        emit(found)
        return
    table = Table("dataset", "version", "rows", "hash", "events version")
    for f in found:
        table.add_row(
            f["dataset"], str(f["version"]), str(f["rows"]), f.get("dataset_hash", "")[:16], f.get("events_version")
        )
    output.print(table)


def train(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    seed: Annotated[int, typer.Option("--seed", help="Training seed.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and train nothing.")] = False,
) -> None:
    """Train the model of a recipe: launches `python -m jobs.train_policy`.

    Example: `stepwell train srft`
    """
    settings = load(recipe)
    if dry_run:
        sealed = seal_of(open_lake(lake), settings.dataset_table)
        emit({"recipe": settings.name, "base_model": settings.base_model, "dataset": settings.dataset_table,
              "version": sealed and sealed[0], "train": settings.train.model_dump()})  # fmt: skip
        return
    launch("jobs.train_policy", "--recipe", recipe, "--lake", open_lake(lake).uri, "--seed", str(seed))


def evaluate(recipe: RecipeArgument, model: ModelOption = None, lake: LakeOption = DEFAULT_LAKE) -> None:
    """Evaluate a model on held-out tasks: launches `python -m jobs.evaluate`.

    Example: `stepwell evaluate srft`
    """
    launch("jobs.evaluate", "--recipe", recipe, "--lake", open_lake(lake).uri, *(["--model", model] if model else []))


def compare(
    a: Annotated[str | None, typer.Argument(help="Model name, id or evaluation id; default: every pair.")] = None,
    b: Annotated[str | None, typer.Argument(help="The other one.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Compare evaluated models on the same tasks, with interval and exact test.

    Example: `stepwell compare rft srft`
    """
    from stepwell.evaluation import compare as comparing

    opened = open_lake(lake)
    arms = {
        k: arm.evaluation_id for arm in comparing.table_of(opened) for k in (arm.name, arm.model_id, arm.evaluation_id)
    }
    if a is None or b is None:
        comparing.compare_all(opened)
        rows = opened.read("comparisons").sort_by("recorded_at").to_pylist()
    else:
        for name in (a, b):
            if name not in arms:
                raise UnknownName("evaluated model", name, arms, "Evaluate it: stepwell evaluate RECIPE")
        rows = [comparing.compare(opened, arms[a], arms[b])]
    if json:
        emit(rows)
        return
    table = Table("a", "b", "tasks", "rate a", "rate b", "difference (95%)", "McNemar p", "seeds")
    for r in rows:
        delta = f"{100 * r['difference']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]"
        seeds = "single run" if r["n_seeds"] == 1 else str(r["n_seeds"])
        table.add_row(
            r["evaluation_a"].partition("@")[0], r["evaluation_b"].partition("@")[0], str(r["n_tasks"]),
            f"{100 * r['rate_a']:.1f}%", f"{100 * r['rate_b']:.1f}%", delta, f"{r['p_value']:.3f}", seeds,
        )  # fmt: skip
    output.print(table)
