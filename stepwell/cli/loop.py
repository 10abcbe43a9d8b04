"""Commands of the loop: rollout, build, verify, datasets, train, evaluate."""

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
    named,
    open_lake,
    output,
    progress_bar,
    require_version,
    writing,
)
from stepwell.critics.asked import asker_of
from stepwell.curation.masks import mask_new, rule_of
from stepwell.curation.select import Selection, select
from stepwell.datasets.build import Built, build
from stepwell.datasets.page import page as token_page
from stepwell.datasets.sealing import manifest
from stepwell.datasets.verify import verify
from stepwell.errors import StepwellError, UsageError
from stepwell.fold import refresh
from stepwell.launching import ROLLOUTS, evaluation_of, job_of
from stepwell.log import EventLog
from stepwell.models import find, registered
from stepwell.recipe import load
from stepwell.registry import local
from stepwell.rendering import Renderer
from stepwell.seals import seal_of

RecipeArgument = Annotated[str, typer.Argument(help="Recipe name, or a YAML file.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model name, id or directory.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, command in (
        ("rollout", rollout), ("build", build_command), ("verify", verify_command), ("datasets", datasets),
        ("train", train), ("evaluate", evaluate),
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
        launch("jobs.rollout", "--recipe", recipe, "--lake", open_lake(lake).uri, *given, json=json)
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the funnel of the selection, and write nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Choose trajectories, derive the masks and the training set of a recipe, and print its funnel.

    Example: `stepwell build srft`
    """
    settings, opened = load(recipe), open_lake(lake)
    require_version(opened, at)
    rule = rule_of(settings.mask)
    if at is None and not dry_run:
        mask_new(opened, rule)
        refresh(opened)
    with progress_bar() as progress:
        bar = progress.add_task("reading", total=None)
        selection = select(
            opened, settings, at, lambda what, n: progress.update(bar, description=what, completed=n), keep=not dry_run
        )  # fmt: skip
        if not dry_run:
            progress.update(bar, description="trajectories", completed=0)
            built = build(
                opened, settings, Renderer.load(settings.base_model), str(rule), selection.events_version,
                lambda done, total: progress.update(bar, completed=done, total=total), selection.rows, asker_of(settings),
            )  # fmt: skip
    if selection.missing:
        there = f"there are: {', '.join(EventLog(opened).corpora(selection.events_version))}"
        console.print(f"no event is of corpus {', '.join(selection.missing)}; {there}", markup=False, soft_wrap=True)
    if dry_run:
        told = {"recipe": settings.name, "events_version": selection.events_version, "selection": selection.funnel}
        emit(told) if json else output.print(selection_table(settings.name, selection))
    elif json:
        emit({**built.__dict__, "selection": selection.funnel})
    else:
        output.print(selection_table(settings.name, selection))
        output.print(funnel_table(built))
        output.print(
            f"{built.table} version {built.version}, hash {built.hash[:16]}, from events version {built.events_version}"
        )


def selection_table(name: str, selection: Selection) -> Table:
    """What each stage of curation left out, and what was left after it."""
    table = Table(title=f"selection of {name} at events version {selection.events_version}")
    for column in ("stage", "reason"):
        table.add_column(column)
    for column in ("trajectories", "steps", "left", "steps left"):
        table.add_column(column, justify="right")
    for line in selection.funnel:
        table.add_row(*(str(value) for value in line.values()))
    return table


def funnel_table(built: Built) -> Table:
    """What went in, what was left out and why, what came out."""
    table = Table(title=built.table)
    for column in ("", "trajectories", "steps", "tokens"):
        table.add_column(column, justify="right" if column else "left")
    for line in built.funnel:
        table.add_row(line["line"], *(str(line.get(c, 0)) for c in ("trajectories", "steps", "tokens")))
    return table


def verify_command(
    dataset: Annotated[str, typer.Argument(help="Dataset (recipe) name, or the YAML file of its recipe.")],
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
    opened, name = open_lake(lake), f"datasets/{named(dataset)[0]}"
    sealed = seal_of(opened, name)
    if sealed is None:
        raise UsageError(f"no dataset {name!r} in {opened.uri}; build it: stepwell build {dataset}")
    base = model or sealed[1].get("base_model") or load(dataset).base_model
    if not Path(base).is_dir() and (known := find(base, registered(opened))):
        base = known["path"]
    rows, renderer = opened.read(name), Renderer.load(local(opened, base))
    result = verify(rows, renderer, opened)
    if page is not None:
        with writing(page):
            page.write_text(token_page(rows, renderer, name, sealed[1], result.problems), encoding="utf-8")
    if json:
        emit(result.__dict__)
    else:
        output.print(f"{name}: {result.n_rows} rows, {result.n_spans} trained spans, {len(result.problems)} problems")
        for problem in result.problems[:20]:
            console.print(problem, markup=False)
    if not result.n_rows:
        raise StepwellError(f"{name} has no rows, so there is nothing to train on; build it: stepwell build {dataset}.")
    if not result.ok:
        raise StepwellError(
            f"{name} does not train what was chosen: {len(result.problems)} problems. Do not train on it."
        )


def datasets(lake: LakeOption = DEFAULT_LAKE, json: JsonOption = False) -> None:
    """List the sealed datasets of the lake: what they were made from and hold (--json: the whole seal, with its funnel).

    Example: `stepwell datasets`
    """
    opened = open_lake(lake)
    found: list[dict[str, Any]] = []
    for name in opened.dataset_names():
        version, seal = seal_of(opened, name) or (opened.version(name), {})
        found.append({"dataset": name, "version": version, **manifest(seal)})
    if json:
        emit(found)
        return
    table = Table("dataset", "version", "rows", "trained tokens", "hash", "events version", "recipe", "code version")
    for f in found:
        counts = f.get("counts", {})
        told = (f["version"], counts.get("rows"), counts.get("trained_tokens"), f.get("dataset_hash", "")[:16])
        table.add_row(
            f["dataset"], *map(str, told), *(str(f.get(k, "")) for k in ("events_version", "recipe", "code_version"))
        )
    output.print(table)


def train(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Only this seed; default: every seed of the recipe.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and train nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Train the model of a recipe: launches `python -m jobs.train_policy`, or the job for pairs or rewards.

    Example: `stepwell train srft`
    """
    settings = load(recipe)
    if dry_run:
        sealed = seal_of(open_lake(lake), settings.dataset_table)
        emit({"recipe": settings.name, "base_model": settings.base_model, "dataset": settings.dataset_table,
              "version": sealed and sealed[0], "seeds": settings.seeds if seed is None else [seed],
              "train": settings.train.model_dump()})  # fmt: skip
        return
    only = [] if seed is None else ["--seed", str(seed)]
    launch(job_of(settings), "--recipe", recipe, "--lake", open_lake(lake).uri, *only, json=json)


def evaluate(
    recipe: RecipeArgument,
    model: ModelOption = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Write what was handed in to this file, as the SWE-bench harness reads it."),
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option("--report", help="Read a report of that harness; one a predictions file, in their order."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
) -> None:
    """Evaluate a model on held-out tasks: launches `python -m jobs.evaluate`, or the job for critics or judges.

    Example: `stepwell evaluate srft`

    Example: `stepwell evaluate bench --predictions all.jsonl`
    """
    job = evaluation_of(load(recipe))
    given = ["--model", model] if model else []
    given += ["--predictions", str(predictions)] if predictions else []
    given += [part for file in report or () for part in ("--report", str(file))]
    if (predictions or report) and job != ROLLOUTS:
        raise UsageError(
            f"--predictions and --report are for rollouts; recipe {recipe!r} is evaluated by {job}. Leave them out."
        )
    launch(job, "--recipe", recipe, "--lake", open_lake(lake).uri, *given, json=json)
