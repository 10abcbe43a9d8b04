"""The factory: a recipe becomes a branch of the graph, masks -> dataset -> model -> evaluation."""

from collections.abc import Collection, Mapping
from pathlib import Path

import dagster as dg

from assets.columns import rows
from assets.plots import bars
from assets.resources import BASE, Experiments, Settings, group_of, job_command
from assets.shown import of_evaluation, of_masks, of_models
from stepwell.critics.asked import asker_of
from stepwell.curation.masks import mask_new, masks_hash, rule_of
from stepwell.curation.select import Selection, select
from stepwell.datasets.build import build
from stepwell.datasets.incremental import code_hash
from stepwell.evaluation.rows import evaluation_id
from stepwell.launching import ROLLOUTS, evaluation_of, job_of
from stepwell.models import model_names
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer


def branch(recipe: Recipe, file: Path, others: Collection[str] = ()) -> list[dg.AssetsDefinition]:
    """The assets of one recipe; adding a YAML file adds them, with no code. What its dataset holds chooses the jobs.

    `others` are the recipes whose models it may begin with.
    """
    masks_key = dg.AssetKey(["masks", recipe.name])
    group = group_of(recipe)

    @dg.asset(key=masks_key, deps=["verdicts"], group_name=group, code_version=str(rule_of(recipe.mask)))
    def masks(settings: Settings) -> dg.MaterializeResult[None]:
        """Loss weights of every step, decided by the recipe's rule on verdicts and outcomes."""
        lake, rule = settings.lake(), rule_of(recipe.mask)
        counts = mask_new(lake, rule).counts()
        version = masks_hash(lake, rule, recipe.source.corpora if recipe.source else ())
        shown = {**counts, **of_masks(lake, str(rule))}
        return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(version))

    @dg.asset(
        key=["datasets", recipe.name], deps=[masks, "events", "trajectories", "steps"], group_name=group, kinds={"deltalake"},
        code_version=f"{recipe.data_hash[:12]}-{code_hash()[:12]}",
    )  # fmt: skip
    def dataset(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
        """Training rows: chosen, rendered to tokens and labels, sealed with a content hash."""
        lake, rule = settings.lake(), str(rule_of(recipe.mask))
        selection = select(lake, recipe)
        if selection.missing:
            context.log.warning(f"no event is of corpus {', '.join(selection.missing)}")
        renderer, at = Renderer.load(recipe.base_model), selection.events_version
        built = build(lake, recipe, renderer, rule, at, chosen=selection.rows, asker=asker_of(recipe))
        context.log.info(f"{built.table}@{built.version} {built.hash[:12]}: {built.n_rows} rows")
        funnel = {line["line"]: line.get("trajectories", 0) for line in built.funnel if line.get("trajectories")}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": built.n_rows, "hash": built.hash, "version": built.version,
                "events_version": built.events_version, "tokens": built.n_tokens, "trained_tokens": built.n_trained_tokens,
                "masked_share_of_steps": built.masked_share, "funnel": bars(funnel, "trajectories, from the log to the rows"),
                "dagster/column_lineage": rows(recipe.name), **selected(selection),
            },
            data_version=dg.DataVersion(built.hash),
        )  # fmt: skip

    begun = recipe.train.initial
    initial = [dg.AssetKey(["models", begun])] if begun is not None and begun in others else []

    @dg.asset(
        key=["models", recipe.name], deps=[dataset, *initial], group_name=group, kinds={"pytorch", "huggingface"},
        code_version=recipe.hash[:12],
    )  # fmt: skip
    def model(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """A checkpoint trained with TRL on the dataset for every seed, with its curves; those that are trained already stay."""
        command = job_command(job_of(recipe), "--recipe", str(file), "--lake", settings.uri)
        trained = pipes.run(command=command, context=context).get_materialize_result()
        return of_models(trained, settings.lake(), recipe.name, model_names(recipe))

    @dg.asset(key=["evaluations", recipe.name], deps=[model], group_name=group)
    def evaluation(
        context: dg.AssetExecutionContext, settings: Settings, pipes: dg.PipesSubprocessClient
    ) -> dg.MaterializeResult[None]:
        """The model on held-out tasks: a policy rolled out, a critic's critiques answered, a judge against the tests."""
        command = job_command(evaluation_of(recipe), "--recipe", str(file), "--lake", settings.uri)
        result = pipes.run(command=command, context=context).get_materialize_result()
        return of_evaluation(result, settings.lake(), recipe) if evaluation_of(recipe) == ROLLOUTS else result

    return [masks, dataset, model, evaluation]


def selected(selection: Selection) -> dict[str, dg.MetadataValue]:
    """The funnel of a selection as a table, and as a plot of what is left after each stage."""
    left = {line["stage"]: line["left_trajectories"] for line in selection.funnel if line["stage"] != "out"}
    columns = [dg.TableColumn(name, "string" if name in ("stage", "reason") else "int") for name in selection.funnel[0]]
    table = dg.MetadataValue.table([dg.TableRecord(line) for line in selection.funnel], dg.TableSchema(columns))
    return {"selection": table, "left": bars(left, "trajectories left after each stage of the selection")}


def bases(recipes: Mapping[str, Recipe]) -> dict[dg.AssetKey, list[Recipe]]:
    """The evaluations of bases, each with the recipes it is the measure of: those of one base, suite, settings and world.

    That of most recipes is `evaluations/base`, any other `evaluations/RECIPE/base` with the first of its recipes.
    """
    alike: dict[str, list[Recipe]] = {}
    for recipe in recipes.values():
        if evaluation_of(recipe) == ROLLOUTS:
            alike.setdefault(evaluation_id(recipe, recipe.base_model), []).append(recipe)
    most = sorted(alike.values(), key=len, reverse=True)
    return {dg.AssetKey(["evaluations", *([found[0].name] if n else []), BASE]): found for n, found in enumerate(most)}


def base_evaluation(key: dg.AssetKey, recipe: Recipe, file: Path) -> dg.AssetsDefinition:
    """The base model that recipes start from, evaluated on the same tasks."""

    @dg.asset(key=key, group_name="base")
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
    """Every recipe's branch, and the evaluations of the bases they share."""
    recipes, folder = experiments.recipes, experiments.folder
    found = [a for r in recipes.values() for a in branch(r, folder / f"{r.name}.yaml", recipes)]
    return found + [base_evaluation(key, of[0], folder / f"{of[0].name}.yaml") for key, of in bases(recipes).items()]
