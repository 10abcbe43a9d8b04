"""DAgger in the graph: a recipe with a `dagger` section becomes four assets whose partitions are its iterations.

Iteration i of rollouts/NAME is collected by the model of iteration i - 1, so partitions are made in order; one whose
predecessor is missing fails and says what to do. All of them in order:

    python -m assets.dagger --recipe dagger
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.columns import rows
from assets.plots import bars, by_iteration
from assets.resources import Experiments, Settings, group_of, job_command
from assets.shown import of_models
from stepwell import invariants
from stepwell.contamination.gate import gate
from stepwell.contamination.planned import planned
from stepwell.dagger import Loop
from stepwell.datasets.verify import verify
from stepwell.drift import Share
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.registry import local
from stepwell.rendering import Renderer
from stepwell.seals import seal_of

KINDS = ("rollouts", "datasets", "models", "evaluations")
MIXED: tuple[tuple[str, Callable[..., Iterable[str]]], ...] = (
    ("draws_follow_beta", invariants.draws_follow_beta),
    ("turns_say_who_acts", invariants.turns_say_who_acts),
    ("labels_cover_turns", invariants.labels_cover_turns),
    ("labels_fit_states", invariants.labels_fit_states),
)


def apart(experiments: Experiments) -> tuple[Experiments, list[Recipe]]:
    """The recipes that are branches (dataset, model, evaluation), and those that are iterated; others are rollouts alone."""
    plain = {name: r for name, r in experiments.recipes.items() if r.dagger is None and r.dataset is not None}
    return Experiments(experiments.folder, plain), [r for r in experiments.recipes.values() if r.dagger is not None]


def iterations(recipe: Recipe, file: Path) -> list[dg.AssetsDefinition]:
    """The assets of one recipe, partitioned by iteration."""
    assert recipe.dagger is not None
    parts = dg.StaticPartitionsDefinition([str(i) for i in range(1, recipe.dagger.iterations + 1)])
    group = group_of(recipe)

    def run(context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient, stage: str) -> None:
        """Do a stage of this partition, unless it is done from the same inputs."""
        i = int(context.partition_key)
        if not Loop(recipe, settings.lake()).done(i, stage):
            where = ["--recipe", str(file), "--lake", settings.uri, "--iteration", str(i), "--stage", stage]
            pipes.run(command=job_command("jobs.dagger", *where), context=context).get_materialize_result()

    def made(
        context: dg.AssetExecutionContext, settings: Settings, stage: str, **metadata: Any
    ) -> dg.MaterializeResult[None]:
        version = Loop(recipe, settings.lake()).version(int(context.partition_key), stage)
        return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))

    @dg.asset(key=["rollouts", recipe.name], kinds={"deltalake"}, partitions_def=parts, group_name=group)
    def rollouts(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """Tasks played by student and teacher in turn, every state labelled by the teacher."""
        run(context, settings, pipes, "collect")
        run(context, settings, pipes, "label")
        return made(context, settings, "collect", **_drifted(Loop(recipe, settings.lake()), int(context.partition_key)))

    @dg.asset(
        key=["datasets", recipe.name], deps=[rollouts], kinds={"deltalake"}, partitions_def=parts, group_name=group
    )
    def datasets(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
        """Training rows from the iterations so far, sealed with a content hash."""
        built = Loop(recipe, settings.lake()).build(int(context.partition_key))
        counts: dict[str, Any] = {"dagster/row_count": built.n_rows, "trained_tokens": built.n_trained_tokens}
        counts["table"] = built.table
        funnel = {line["line"]: line.get("trajectories", 0) for line in built.funnel if line.get("trajectories")}
        plot = bars(funnel, "trajectories, from the log to the rows")
        counts["dagster/column_lineage"] = rows(recipe.name, masked=False)
        return made(
            context, settings, "build", **counts, hash=built.hash, events_version=built.events_version, funnel=plot
        )

    @dg.asset(
        key=["models", recipe.name],
        deps=[datasets],
        kinds={"pytorch"},
        partitions_def=parts,
        group_name=group,
    )
    def models(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """A checkpoint trained on the labels; the student of the next iteration."""
        run(context, settings, pipes, "train")
        row = Loop(recipe, settings.lake()).model(int(context.partition_key)) or {}
        shown = ("model_id", "path", "base_model", "n_rows", "n_trained_tokens", "wall_s", "metrics")
        trained = made(context, settings, "train", **{k: row[k] for k in shown})
        return of_models(trained, settings.lake(), recipe.name, [row["name"]])

    @dg.asset(key=["evaluations", recipe.name], deps=[models], partitions_def=parts, group_name=group)
    def evaluations(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """The model rolled out on held-out tasks: resolve rate with its interval, by iteration so far."""
        run(context, settings, pipes, "evaluate")
        rates = Loop(recipe, settings.lake()).rates(int(context.partition_key))
        points = [(0 if n == "base" else int(n.rpartition("-")[2]), r.rate, r.low, r.high) for n, r in rates.items()]
        plot = by_iteration({"resolved": points}, f"{recipe.name}: resolved on held-out tasks (0: base)")
        last = list(rates.values())[-1].metadata() if rates else {}
        return made(context, settings, "evaluate", **last, rates=plot)

    return [rollouts, datasets, models, evaluations]


def _drifted(loop: Loop, i: int) -> dict[str, Any]:
    """Figures of an iteration and of those before it."""
    so_far = {j: loop.drift(j) for j in range(1, i + 1)}
    now = so_far[i]
    shares: dict[str, Share] = {
        "teacher's turns": now.taught, "labelled": now.labelled, "label is not the action": now.differ,
        "label is not the student's action": now.student_differ, "submitted": now.submitted, "resolved": now.resolved,
        **{f"teacher's errors after {who}": share for who, share in now.errors_after.items()},
    }  # fmt: skip
    lines = {
        name: [(j, s.value, *s.interval) for j, d in so_far.items() if (s := getattr(d, field)).value is not None]
        for name, field in (("all turns", "differ"), ("student's turns", "student_differ"))
    }
    known = {"beta": now.beta, "z": now.z, "student_share": now.student_share}
    return {
        "dagster/row_count": now.n_trajectories, "corpus": loop.corpus(i), "student": loop.student(i)[1],
        **{k: v for k, v in known.items() if v is not None}, **{k: str(v) for k, v in shares.items()},
        "runs of student turns": {str(k): n for k, n in sorted(now.runs.items())},
        "disagreement": by_iteration(lines, f"{loop.whole.name}: label is not what was executed"),
    }  # fmt: skip


def iteration_checks(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """Checks of what the iterations of a recipe collected and derived, over all that are there."""
    assert recipe.dagger is not None
    names = [f"{recipe.name}-{i}" for i in range(1, recipe.dagger.iterations + 1)]
    corpora = [f"rollouts/{name}" for name in names]
    found = [_check("rollouts", recipe, name, partial(rule, corpora=corpora), rule.__doc__) for name, rule in MIXED]

    def trained(lake: Lake) -> Iterable[str]:
        """Trained spans decode to the labels chosen, after the prompts of their turns, and are what their events say."""
        for name in names:
            table = f"datasets/{name}"
            sealed = seal_of(lake, table)
            if sealed is not None:
                rows = lake.read(table)
                problems = verify(rows, Renderer.load(local(lake, sealed[1]["base_model"])), lake).problems
                yield from (f"{table}: {p}" for p in (*problems, *invariants.dataset_rows(lake, rows)))

    def repeats(lake: Lake) -> Iterable[str]:
        """No row is, or nearly repeats, a task of an evaluation suite, unless the recipe waives it with a reason."""
        for name in names:
            table = f"datasets/{name}"
            if seal_of(lake, table) is not None:
                yield from (
                    f"{table}: {p}" for p in gate(lake, table, recipe.contamination, planned(recipe)).problems()
                )

    found.append(_check("datasets", recipe, "trains_what_was_chosen", trained, trained.__doc__, blocking=True))
    return [*found, _check("datasets", recipe, "repeats_no_evaluation", repeats, repeats.__doc__, blocking=True)]


def _check(
    kind: str, recipe: Recipe, name: str, rule: Callable[[Lake], Iterable[str]], doc: str | None, blocking: bool = False
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=dg.AssetKey([kind, recipe.name]), name=name, description=doc, blocking=blocking)
    def check(settings: Settings) -> dg.AssetCheckResult:
        problems = list(rule(settings.lake()))
        return dg.AssetCheckResult(
            passed=not problems, metadata={"problems": len(problems), "first": "\n".join(problems[:20])}
        )

    return check


def main() -> None:
    """Materialise every iteration in order, each a run of its own."""
    from assets.materialize import materialize

    parser = argparse.ArgumentParser(prog="python -m assets.dagger", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="name of a recipe in jobs/recipes with a `dagger` section")
    parser.add_argument("--lake", help="lake URI; default: $STEPWELL_LAKE, else ./lake")
    parser.add_argument("--iterations", type=int, help="up to this one; default: as the recipe says")
    options = parser.parse_args()
    if options.lake:
        os.environ["STEPWELL_LAKE"] = options.lake  # what Settings reads, here and in the jobs it launches
    recipe = load(options.recipe)
    select = " or ".join(f'key:"{kind}/{recipe.name}"' for kind in KINDS)
    last = options.iterations or (recipe.dagger.iterations if recipe.dagger else 0)
    for i in range(1, last + 1):
        if not materialize(select, str(i)):
            sys.exit(1)


if __name__ == "__main__":
    main()
