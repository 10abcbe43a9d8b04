"""The factory: a recipe becomes a branch of the graph, masks -> dataset -> model -> evaluation."""

import json
from pathlib import Path

import dagster as dg

from assets.plots import bars, curve
from assets.resources import Experiments, Settings, job_command
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer


def branch(recipe: Recipe, file: Path) -> list[dg.AssetsDefinition]:
    """The assets of one recipe; adding a YAML file adds them, with no code."""
    masks_key = dg.AssetKey(["masks", recipe.name])
    group = f"recipe_{recipe.name}"

    @dg.asset(key=masks_key, deps=["verdicts"], group_name=group)
    def masks(settings: Settings) -> dg.MaterializeResult[None]:
        """Loss weights of every step, decided by the recipe's rule on verdicts and outcomes."""
        return dg.MaterializeResult(metadata=mask_new(settings.lake(), rule_of(recipe.mask)).counts())

    @dg.asset(
        key=["datasets", recipe.name], deps=[masks, "trajectories", "steps"], group_name=group, kinds={"deltalake"},
        code_version=recipe.hash[:12],
    )  # fmt: skip
    def dataset(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
        """Training rows: chosen, rendered to tokens and labels, sealed with a content hash."""
        built = build(settings.lake(), recipe, Renderer.load(recipe.base_model), str(rule_of(recipe.mask)))
        context.log.info(f"{built.table}@{built.version} {built.hash[:12]}: {built.n_rows} rows")
        funnel = {line["line"]: line.get("trajectories", 0) for line in built.funnel if line.get("trajectories")}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": built.n_rows, "hash": built.hash, "version": built.version,
                "events_version": built.events_version, "tokens": built.n_tokens, "trained_tokens": built.n_trained_tokens,
                "masked_share_of_steps": built.masked_share, "funnel": bars(funnel, "trajectories, from the log to the rows"),
            },
            data_version=dg.DataVersion(built.hash),
        )  # fmt: skip

    @dg.asset(key=["models", recipe.name], deps=[dataset], group_name=group, kinds={"pytorch", "huggingface"})
    def model(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """A checkpoint trained with TRL on the dataset, one per seed."""
        for seed in recipe.seeds:
            command = job_command(
                "jobs.train_policy", "--recipe", str(file), "--lake", settings.uri, "--seed", str(seed)
            )
            result = pipes.run(command=command, context=context).get_materialize_result()
        metadata = dict(result.metadata or {})
        losses = json.loads(str(getattr(metadata["metrics"], "value", metadata["metrics"])))["curve"]
        metadata["loss"] = curve(losses, f"training loss of {recipe.name}")
        return result._replace(metadata=metadata)

    @dg.asset(key=["evaluations", recipe.name], deps=[model], group_name=group)
    def evaluation(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """The trained policy rolled out on held-out tasks: resolve rate with its interval."""
        command = job_command("jobs.evaluate", "--recipe", str(file), "--lake", settings.uri)
        return pipes.run(command=command, context=context).get_materialize_result()

    return [masks, dataset, model, evaluation]


def base_evaluation(recipe: Recipe, file: Path) -> dg.AssetsDefinition:
    """The base model the recipes start from, evaluated on the same tasks."""

    @dg.asset(key=["evaluations", "base"], group_name="base")
    def base(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """The base policy rolled out on the held-out tasks."""
        command = job_command(
            "jobs.evaluate", "--recipe", str(file), "--lake", settings.uri, "--model", recipe.base_model
        )
        return pipes.run(command=command, context=context).get_materialize_result()

    return base


def branches(experiments: Experiments) -> list[dg.AssetsDefinition]:
    """Every recipe's branch, and the evaluation of the base they share."""
    found = [a for r in experiments.recipes.values() for a in branch(r, experiments.folder / f"{r.name}.yaml")]
    if experiments.recipes:
        first = next(iter(experiments.recipes.values()))
        found.append(base_evaluation(first, experiments.folder / f"{first.name}.yaml"))
    return found
