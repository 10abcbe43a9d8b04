"""The log and its folds: sources, rollouts, events, trajectories, steps, verdicts."""

from collections import Counter
from typing import Any

import dagster as dg

from assets.columns import folded
from assets.plots import bars
from assets.resources import Experiments, Settings
from assets.shown import of_verdicts
from stepwell.critics.run import CRITICS, judge_new
from stepwell.errors import RecipeError, StepwellError
from stepwell.fold import Folded, refresh_table
from stepwell.ids import digest
from stepwell.importers.run import import_paths
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, World


@dg.asset(group_name="log", kinds={"deltalake"})
def sources(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
    """Files imported: every trajectory they hold is in the log once, what could not be taken is in `rejects`."""
    paths, missing = settings.paths(), settings.missing()
    for path in missing:
        context.log.warning(f"nothing at {path}, which STEPWELL_IMPORT names; what is there is imported.")
    there = [path for path in paths if path not in missing]
    report = import_paths(settings.lake(), there or paths, progress=None) if paths else None
    version = settings.lake().version("sources")
    counts = report.counts() if report else {"files": 0}
    return dg.MaterializeResult(metadata=dict(counts), data_version=dg.DataVersion(f"sources@{version}"))


def rollouts_asset(name: str, collecting: Collect, world: World) -> dg.AssetsDefinition:
    """The rollouts a recipe asks for, collected by scripted policies in the sandboxed environment."""

    @dg.asset(name=name, key_prefix="rollouts", group_name="log", kinds={"deltalake"})
    def rollouts(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
        """Trajectories of scripted policies in the sandboxed environment, as recipes ask for them; each is collected once."""
        tell = now_and_then(lambda report: context.log.info(report.line()))
        report = collect_pool(settings.lake(), collecting, world, progress=tell)
        if not report.complete:
            done, why = report.n_known + report.n_done, report.stopped or f"{report.n_failed} failed"
            raise StepwellError(
                f"{done} of {report.n_wanted} rollouts of {collecting.corpus} are finished, and in the log: {why}. "
                "Materialise again to go on; `stepwell sql 'FROM ends'` says how each ended."
            )
        ids = sorted(report.trajectories)
        return dg.MaterializeResult(
            metadata={"dagster/row_count": len(ids), "corpus": collecting.corpus},
            data_version=dg.DataVersion(f"{collecting.corpus}:{digest(ids)[:12]}"),
        )

    return rollouts


def events_asset(upstream: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """`events` as it stands after imports and rollouts."""

    @dg.asset(deps=upstream, group_name="log", kinds={"deltalake"})
    def events(settings: Settings) -> dg.MaterializeResult[None]:
        """The system of record: one row an event, one version one state of the world."""
        log = EventLog(settings.lake())
        kinds = Counter(log.lake.read("events", log.version, ["kind"]).column(0).to_pylist())
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(kinds.values()),
                "version": log.version or 0,
                "kinds": bars(dict(kinds.most_common()), "events by kind"),
            },
            data_version=dg.DataVersion(f"events@{log.version}"),
        )

    return events


def _folded(result: Folded, settings: Settings) -> dg.MaterializeResult[None]:
    rows = len(settings.lake().read(result.table, columns=["trajectory_id"]))
    metadata: dict[str, Any] = {
        "dagster/row_count": rows,
        "folded": result.n_trajectories,
        "events_version": result.events_version or 0,
        "dagster/column_lineage": folded(result.table),
    }
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(f"events@{result.events_version}"))


@dg.asset(deps=["events"], group_name="log", kinds={"deltalake", "polars"})
def trajectories(settings: Settings) -> dg.MaterializeResult[None]:
    """One row a trajectory, folded from what is new in `events`."""
    return _folded(refresh_table(settings.lake(), "trajectories"), settings)


@dg.asset(deps=["events"], group_name="log", kinds={"deltalake", "polars"})
def steps(settings: Settings) -> dg.MaterializeResult[None]:
    """One row a step, folded from what is new in `events`."""
    return _folded(refresh_table(settings.lake(), "steps"), settings)


@dg.asset(deps=["events"], group_name="critics")
def verdicts(settings: Settings) -> dg.MaterializeResult[None]:
    """Verdicts of the deterministic critics (steps, leaks) on every trajectory that is new or changed."""
    reports = [judge_new(settings.lake(), critic) for critic in CRITICS]
    counts: dict[str, Any] = {r.critic: r.counts() for r in reports}
    return dg.MaterializeResult(metadata=counts | of_verdicts(settings.lake()))


def log_assets(experiments: Experiments) -> list[dg.AssetsDefinition]:
    """The assets every recipe stands on."""
    wanted: dict[str, tuple[Recipe, Collect]] = {}
    for recipe in experiments.recipes.values():
        if (mine := recipe.collect) is not None:
            first, its = wanted.setdefault(mine.corpus.rpartition("/")[2], (recipe, mine))
            if (its, first.world) != (mine, recipe.world):
                raise RecipeError(
                    f"recipes {first.name!r} and {recipe.name!r} collect {its.corpus!r} and {mine.corpus!r} with other "
                    "settings of `collect` or `world`; allowed: one way a name. Give one another corpus, or `collect: null`."
                )
    collected = [rollouts_asset(name, its, recipe.world) for name, (recipe, its) in wanted.items()]
    return [
        sources,
        *collected,
        events_asset([sources.key, *(a.key for a in collected)]),
        trajectories,
        steps,
        verdicts,
    ]
