"""Asset checks, generated: from the declared schemas, and from the invariants of the log and the datasets."""

from collections.abc import Callable, Iterable

import dagster as dg

from assets.resources import Experiments, Settings
from schemas.tables import TABLES
from stepwell import invariants
from stepwell.contamination.gate import gate
from stepwell.contamination.planned import planned
from stepwell.critics.rerendering import Reproduced
from stepwell.datasets.verify import verify
from stepwell.errors import SchemaError
from stepwell.evaluation.rows import misgraded
from stepwell.lake import Lake
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.stored import require_schema

_FROM_SCHEMA = ("events", "trajectories", "steps", "sources")


def _result(problems: Iterable[str]) -> dg.AssetCheckResult:
    found = list(problems)
    metadata: dict[str, int | str] = {"problems": len(found), "first": "\n".join(found[:20])}
    if isinstance(problems, Reproduced):
        metadata |= {"looked_at": problems.n, "of": problems.of}
    return dg.AssetCheckResult(passed=not found, metadata=metadata)


def _schema_check(name: str) -> dg.AssetChecksDefinition:
    told = "every declared column" if name == "events" else "exactly the declared columns, types and nulls"

    @dg.asset_check(asset=name, name="fits_schema", description=f"{name} has {told}, and no key twice.")
    def check(settings: Settings) -> dg.AssetCheckResult:
        lake = settings.lake()
        handle = lake.table(name)
        if handle is None:
            return _result([])
        spec = TABLES[name]
        stored = lake.dataset(handle).schema
        problems = [f"missing {n!r}" for n in spec.schema.names if n not in stored.names]
        if not problems and name != "events":  # too large to be read whole
            try:
                require_schema(spec, lake.read(name))
            except SchemaError as error:
                problems.append(str(error))
        return _result(problems or invariants.unique_key(lake, name))

    return check


def _invariant_check(asset: str, name: str, rule: Callable[[Lake], Iterable[str]]) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=name, description=rule.__doc__)
    def check(settings: Settings) -> dg.AssetCheckResult:
        return _result(rule(settings.lake()))

    return check


def _dataset_check(recipe: str, base_model: str) -> dg.AssetChecksDefinition:
    key = dg.AssetKey(["datasets", recipe])

    @dg.asset_check(
        asset=key, name="trains_what_was_chosen", blocking=True,
        description="Trained spans decode to the chosen steps and nothing else; every row trains; no evaluation task, no leak.",
    )  # fmt: skip
    def check(settings: Settings) -> dg.AssetCheckResult:
        lake = settings.lake()
        rows = lake.read(f"datasets/{recipe}")
        problems = verify(rows, Renderer.load(base_model), lake).problems
        found = [*invariants.dataset_rows(lake, rows), *invariants.no_flagged_trajectory(lake, rows)]
        return _result([*problems, *found])

    return check


def _contamination_check(recipe: Recipe) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(["datasets", recipe.name]), name="repeats_no_evaluation", blocking=True,
        description="No row is, or nearly repeats, a task of an evaluation suite, unless the recipe waives it with a reason.",
    )  # fmt: skip
    def check(settings: Settings) -> dg.AssetCheckResult:
        report = gate(settings.lake(), recipe.dataset_table, recipe.contamination, planned(recipe))
        result = _result(report.problems())
        found = {"suites": dg.JsonMetadataValue(report.suites), "flags": dg.JsonMetadataValue(report.table())}
        return result._replace(metadata={**result.metadata, **found})

    return check


def checks(experiments: Experiments) -> list[dg.AssetChecksDefinition]:
    """All checks of the graph."""
    found = [_schema_check(name) for name in _FROM_SCHEMA]
    found += [_invariant_check("events", name, rule) for name, rule in invariants.EVENTS.items()]
    found += [_invariant_check("comparisons", "graded_as_in_the_log", misgraded)]
    found += [_dataset_check(r.name, r.base_model) for r in experiments.recipes.values()]
    found += [_contamination_check(r) for r in experiments.recipes.values()]
    return found
