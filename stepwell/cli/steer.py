"""The command `steer`: an agent with a critic at the wheel, in arms that tell what the critic's words are worth."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stepwell.cli.common import DEFAULT_LAKE, JsonOption, LakeOption, emit, launch, open_lake, output, progress_bar
from stepwell.errors import StepwellError, UsageError
from stepwell.evaluation.steering import ArmReport, steering_report
from stepwell.fold import refresh
from stepwell.recipe import load
from stepwell.rollout.collect import Report


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("steer")(steer)


def steer(
    recipe: Annotated[str, typer.Argument(help="Recipe name, or a YAML file, with a section `steer`.")],
    lake: LakeOption = DEFAULT_LAKE,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Environments in flight.")] = 16,
    max_cost: Annotated[float | None, typer.Option("--max-cost", help="Most US dollars for model calls.")] = None,
    report_only: Annotated[bool, typer.Option("--report", help="Show what was run before; run nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Roll an agent out on the same tasks in every arm of a recipe, and compare each arm with the unsteered one.

    Example: `stepwell steer steer`
    """
    from stepwell.critics.live import supervisor_of
    from stepwell.rollout.runs import collect_steered

    settings, opened = load(recipe), open_lake(lake)
    asked = settings.steer
    if asked is None:
        raise UsageError(f"recipe {settings.name!r} steers nothing; add `steer` to it.")
    wanted = asked.n_tasks * asked.attempts
    if dry_run:
        emit({"corpus": asked.corpus, "arms": asked.arms, "rollouts_per_arm": wanted, "max_turns": settings.world.max_turns,
              "agent": asked.agent.model_dump(exclude_defaults=True), "critic": asked.critic.model_dump(exclude_defaults=True),
              "reviews_per_rollout_at_most": (settings.world.max_turns - 1) // asked.k})  # fmt: skip
        return
    if not report_only and "model" in (asked.agent.kind, asked.critic.kind):
        limit = [] if max_cost is None else ["--max-cost", str(max_cost)]
        launch("jobs.steer", "--recipe", recipe, "--lake", opened.uri, "--parallel", str(parallel), *limit)
    elif not report_only:
        with progress_bar() as progress:
            bar = progress.add_task("rollouts", total=wanted)

            def tell(arm: str, r: Report) -> None:
                progress.update(bar, completed=r.n_known + r.n_done, description=f"{arm}: {r.line()}")

            done = collect_steered(
                opened, asked, settings.world, lambda: supervisor_of(asked.critic, asked.k), parallel=parallel,
                max_cost=max_cost, progress=tell,
            )  # fmt: skip
        refresh(opened)
        unfinished = {arm: r.stopped or f"{r.n_failed} failed" for arm, r in done.items() if not r.complete}
        if unfinished or len(done) < len(asked.arms):
            raise StepwellError(f"not every arm is finished: {unfinished}. Run it again to go on.")
    found = steering_report(opened, asked.corpus)
    if json:
        emit([arm.document() for arm in found])
    else:
        for table in _tables(asked.corpus, found):
            output.print(table)
        output.print("Differences are to the arm `off` on the same tasks, with 95% bootstrap intervals; single runs.")


def _tables(corpus: str, arms: list[ArmReport]) -> list[Table]:
    effect = Table("arm", "n", "resolved (95%)", "difference (95%)", "p", "detectable", title=f"{corpus}: effect")
    conduct = Table("arm", "steps (95%)", "stuck", "complied", "replay", title="conduct")
    spent = Table("arm", "critiques", "unparseable", "shown", "agent $", "critic $", title="critic and cost")
    for a in arms:
        shown = a.modes.get("delivered", 0) + a.modes.get("placebo", 0)
        effect.add_row(
            a.arm, str(a.n), str(a.resolved), "" if a.difference is None else str(a.difference),
            "" if a.p_value is None else f"{a.p_value:.3f}", "" if a.detectable is None else f"{a.detectable:.3f}",
        )  # fmt: skip
        replay = "" if a.replay_same is None else f"{100 * a.replay_same:.1f}%"
        conduct.add_row(a.arm, str(a.steps), str(a.stuck), str(a.compliance), replay)
        counts = (a.critiques, a.unparseable, shown)
        spent.add_row(a.arm, *map(str, counts), f"{a.agent_usd:.4f}", f"{a.critic_usd:.4f}")
    return [effect, conduct, spent]
