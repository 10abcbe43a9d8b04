"""The command `revise`: critique-revision loops on problems with tests, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from stepwell.batching import Crowd
from stepwell.bootstrap import Figure
from stepwell.chat import OpenAIBackend
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
from stepwell.cli.reviewing import ModelReviewer, critic_of
from stepwell.errors import RecipeError, StepwellError, UsageError
from stepwell.evaluation.revision import COLUMNS, ArmReport, report
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load
from stepwell.rollout.reviewers import Reviewer
from stepwell.rollout.revision import Done, plan, problems_of, revise
from stepwell.settings import Critic, Policy, Revision, RevisionArm


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("revise")(revise_command)


def revise_command(
    recipe: Annotated[str, typer.Argument(help="Recipe name, or a YAML file.")],
    show: Annotated[bool, typer.Option("--report", help="Only report what is in the lake.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Loops in flight.")] = 16,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, help="Most US dollars for model calls, critics included.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", min=1, help="Most solutions, all loops together.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Play the critique-revision loops a recipe asks for; what is finished already is not played again.

    Example: `stepwell revise ctrl`

    Example: `stepwell revise ctrl --report`
    """
    named, opened = load(recipe), open_lake(lake)
    settings = settings_of(named)
    if dry_run:
        emit(planned(settings))
        return
    if not show:
        if settings.generator.kind == "model" or any(
            a.critic == "model" and a.settings.kind == "model" for a in settings.arms
        ):
            limits = {"--parallel": parallel, "--max-cost": max_cost, "--max-steps": max_steps}
            given = [str(x) for name, v in limits.items() if v is not None for x in (name, v)]
            launch("jobs.revise", "--recipe", recipe, "--lake", opened.uri, *given)
        else:
            done = _play(opened, settings, parallel, max_cost, max_steps)
            say(done)
            if not done.report.complete:
                why = done.report.stopped or f"{done.report.n_failed} failed"
                raise StepwellError(f"not every loop is played: {why}. What is done is kept; run it again to go on.")
    found = report(EventLog(opened).read(corpora=[settings.corpus], columns=COLUMNS))
    if json:
        emit([{"arm": r.arm, "generator": r.generator, "trees": r.n_trees, "tasks": r.n_tasks, "cost_usd": dict(r.cost_usd),
               "figures": {name: f.__dict__ for name, f in r.figures.items()}} for r in found])  # fmt: skip
    else:
        show_report(found)


def settings_of(recipe: Recipe) -> Revision:
    """The loops of a recipe; raises UsageError when it has none."""
    if recipe.revision is None:
        raise UsageError(f"recipe {recipe.name!r} has no `revision`; add it, or name a recipe that has (ctrl).")
    return recipe.revision


def planned(settings: Revision) -> dict[str, object]:
    """What a run would do at most: trees, solutions, critiques."""
    problems, _, left_out = problems_of(settings)
    trees, rounds = plan(settings, problems), settings.rounds
    critics = {a.name: a.critiques if a.critic not in ("execution", "none") else 0 for a in settings.arms}
    revisions = {a.name: rounds * (a.critiques if a.answer == "each" else 1) for a in settings.arms}
    return {
        "corpus": settings.corpus, "problems": len(problems), "records_left_out": left_out, "loops": len(trees),
        "tests": sum(len(p.tests) for p in problems),
        "first_solutions": len(problems) * settings.samples,
        "most_revisions": sum(revisions[t.arm.name] for t in trees),
        "most_critiques": sum(rounds * critics[t.arm.name] for t in trees),
    }  # fmt: skip


def endpoint_reviewer(arm: RevisionArm, generator: Policy, crowd: Crowd) -> Reviewer:
    """A critic behind a server; the generator's own server and model where it judges itself."""
    if arm.critic == "self":
        arm = arm.model_copy(update={"settings": itself(arm, generator)})
    settings = arm.settings
    if settings.kind != "endpoint" or settings.model is None:
        raise RecipeError(
            f"arm {arm.name!r}: a critic of kind {settings.kind!r} with model {settings.model!r} is no server."
        )
    critic = critic_of(arm)
    server = OpenAIBackend(
        settings.model, settings.base_url, key_env=settings.key_env, concurrency=settings.concurrency
    )  # fmt: skip
    return ModelReviewer(critic, server)


def itself(arm: RevisionArm, generator: Policy) -> Critic:
    """The critic's settings of an arm with the generator as its model."""
    same = ("model", "base_url", "key_env", "concurrency", "prices", "kind", "backend")
    return arm.settings.model_copy(update={name: getattr(generator, name) for name in same})


def _play(
    lake: Lake, settings: Revision, parallel: int, max_cost: float | None, max_steps: int | None
) -> Done:  # fmt: skip
    with progress_bar() as progress:
        bar = progress.add_task("loops")
        done = revise(
            lake, settings, endpoint_reviewer, parallel=parallel, max_cost=max_cost, max_steps=max_steps,
            progress=lambda r: progress.update(
                bar, completed=r.n_known + r.n_done, total=r.n_wanted, description=r.line()
            ),
        )  # fmt: skip
    refresh(lake)
    return done


def line_of(done: Done) -> str:
    """What a run did, in one line for people."""
    r = done.report
    costs = "".join(f", {role} ${cost:.4f}" for role, cost in sorted(r.costs.items()) if cost)
    tests = f"{done.n_run} solutions tested, {done.n_known} known from the cache"
    left = f", {len(done.left_out)} records left out" if done.left_out else ""
    return f"{r.line()}{costs}; {tests}{left}"


def say(done: Done) -> None:
    """Tell what a run did, on standard error."""
    console.print(line_of(done), highlight=False, markup=False)
    for why in done.left_out[:20]:
        console.print(f"left out: {why}", highlight=False, markup=False)


ROUND = {"pass@1": "pass@1", "up": "up", "down": "down", "over_placebo": "vs placebo"}
MOVES = ("u", "d", "p*")
WHOLE = ("f1_correct", "f1_incorrect", "balanced_accuracy", "unparseable", "zero_variance_groups", "flaky", "leaks")


def show_report(found: Sequence[ArmReport]) -> None:
    """Two tables in percent, with 95% intervals over problems: rounds; then moves, critics and rewards."""
    n = ", ".join(f"{r.arm} {r.n_trees} on {r.n_tasks}" for r in found)
    rounds = Table(
        "arm",
        "#",
        *ROUND.values(),
        title="Rounds: percent of loops [95% over problems]",
        caption=f"loops on problems: {n}",
    )
    rest = Table("arm", "figure", "percent [95%]", "n", title="Moves by round, critics, rewards")
    for r in found:
        for number in range(r.n_rounds + 1):
            cells = [percent(r.figures.get(f"{name}@{number}")) for name in ROUND]
            rounds.add_row(r.arm, str(number), *cells)
        named = [*(f"{name}@{number}" for number in range(1, r.n_rounds + 1) for name in MOVES), *WHOLE]
        for name in named:
            if (figure := r.figures[name]).value is not None:
                rest.add_row(r.arm, name, percent(figure), str(figure.n))
        for role, cost in r.cost_usd.items():
            if cost:
                rest.add_row(r.arm, f"cost of the {role}", f"${cost:.4f}", str(r.n_trees))
    output.print(rounds)
    output.print(rest)


def percent(figure: Figure | None) -> str:
    """A share with its interval, in percent."""
    if figure is None or figure.value is None:
        return ""
    interval = "" if figure.low is None or figure.high is None else f" [{100 * figure.low:.0f},{100 * figure.high:.0f}]"
    return f"{100 * figure.value:.1f}{interval}"
