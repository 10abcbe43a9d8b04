"""Reports on likeness: of agents (METHODS.md K8), of training and evaluation (K9), of trained states and reached ones (K14)."""

from itertools import combinations

import dagster as dg
import polars as pl

from assets.plots import bars, by_iteration, shades
from assets.resources import Experiments, Settings, group_of
from schemas.kinds import HELD_OUT
from stepwell.contamination.overlap import BINS, overlap
from stepwell.dagger import Loop
from stepwell.datasets.methods import CRITICS
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.likeness import likeness, seen, shift
from stepwell.recipe import Recipe
from stepwell.sheets import Sheet

_LEAST, _MOST = 10, 8
"""Trajectories an agent must have to be compared, and how many agents are: those with the most."""


@dg.asset(key="likeness", deps=["trajectories", "verdicts"], group_name="reports")
def agents(settings: Settings) -> dg.MaterializeResult[None]:
    """How far the agents in the log are apart: what they did, how they ended, and whether a classifier tells them apart."""
    lake = settings.lake()
    sides = {name: seen(lake, ids) for name, ids in _agents(lake).items()}
    rows, apart = [], {}
    for a, b in combinations(sides, 2):
        found = likeness(sides[a], sides[b])
        apart[a, b] = found.distances["actions, runs of 2"].value or 0.0
        rows.append([a, b, str(found.shared_tasks), *(str(d) for d in found.distances.values())])
        columns = ["a", "b", "tasks of both", *found.distances]
    if not rows:
        told = f"fewer than two agents with {_LEAST} trajectories each"
        return dg.MaterializeResult(metadata={"nothing to compare": told})
    names = list(sides)
    cells = [[apart.get((a, b), apart.get((b, a), 0.0)) for b in names] for a in names]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "agents": {name: len(side) for name, side in sides.items()},
            "distances": dg.MetadataValue.md(Sheet("how far agents are apart", tuple(columns), rows).markdown()),
            "actions": shades(cells, names, "Jensen-Shannon divergence of pairs of actions"),
        }
    )


def overlap_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """How near what is evaluated comes to what a recipe trains on."""
    upstream = [dg.AssetKey(["datasets", recipe.name]), dg.AssetKey(["evaluations", recipe.name])]

    @dg.asset(key=["overlaps", recipe.name], deps=upstream, group_name=group_of(recipe))
    def near(settings: Settings) -> dg.MaterializeResult[None]:
        """Tasks and repositories of both sides, and how near the commands of evaluated trajectories come to trained ones."""
        found = overlap(settings.lake(), recipe.dataset_table, f"{HELD_OUT}{recipe.evaluation.suite}")
        shares = {f"{i / BINS:.1f} to {(i + 1) / BINS:.1f}": float(n) for i, n in enumerate(found.nearest)}
        return dg.MaterializeResult(
            metadata={
                "trajectories trained on": found.n_train,
                "trajectories evaluated": found.n_evaluated,
                "Jaccard of tasks": found.tasks,
                "Jaccard of repositories": found.repos,
                "nearest": bars(shares, "evaluated trajectories by similarity to the nearest trained one"),
            }
        )

    return near


def shift_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """States of training beside those the trained policy reaches alone, by iteration."""
    assert recipe.dagger is not None
    parts = dg.StaticPartitionsDefinition([str(i) for i in range(1, recipe.dagger.iterations + 1)])
    upstream = [dg.AssetKey([kind, recipe.name]) for kind in ("rollouts", "evaluations")]

    @dg.asset(key=["shifts", recipe.name], deps=upstream, partitions_def=parts, group_name=group_of(recipe))
    def states(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult[None]:
        """How far trained states are from reached ones, by the student's share before, and how many reached ones they cover."""
        lake, points = settings.lake(), []
        for i in range(1, int(context.partition_key) + 1):
            loop = Loop(recipe, lake)
            model = (loop.model(i) or {}).get("model_id")
            trained = [t for j in loop.used(i) for t in loop.trajectories(j)]
            reached = _evaluated(lake, recipe, str(model))
            if not trained or not reached:
                raise UsageError(
                    f"iteration {i} of {recipe.name!r} is not collected and evaluated; materialise it first."
                )
            found = shift(seen(lake, trained), seen(lake, reached))
            share = found.covered
            if share.value is not None:
                points.append((i, share.value, share.low or 0.0, share.high or 1.0))
        return dg.MaterializeResult(
            metadata={
                "states trained on": found.n_trained,
                "states evaluated": found.n_evaluated,
                "covered": str(found.covered),
                "discrepancy": {name: str(d) for name, d in found.discrepancy.items()},
                "told apart": {name: str(d) for name, d in found.told_apart.items()},
                "coverage": by_iteration({"near a trained state": points}, f"{recipe.name}: states reached alone"),
            }
        )

    return states


def reports(plain: Experiments, iterated: list[Recipe]) -> list[dg.AssetsDefinition]:
    """Every report on likeness."""
    policies = [r for r in plain.recipes.values() if r.dataset is None or r.dataset.method not in CRITICS]
    return [agents, *map(overlap_asset, policies), *map(shift_asset, iterated)]


def _agents(lake: Lake) -> dict[str, list[str]]:
    """The agents with the most trajectories, by name of harness and model: ids of what they did."""
    frame = pl.DataFrame(lake.read("trajectories", columns=["trajectory_id", "agent", "model"]))
    name = pl.concat_str(pl.col("agent").fill_null("?"), pl.lit(" "), pl.col("model").fill_null("?")).alias("name")
    found = frame.group_by(name).agg(pl.col("trajectory_id").sort(), n=pl.len()).filter(pl.col("n") >= _LEAST)
    kept = found.sort(["n", "name"], descending=[True, False]).head(_MOST)
    return {str(r["name"]): r["trajectory_id"] for r in kept.to_dicts()}


def _evaluated(lake: Lake, recipe: Recipe, model_id: str) -> list[str]:
    rows = pl.DataFrame(lake.read("evaluations", columns=["trajectory_id", "model_id", "suite"]))
    mine = (pl.col("model_id") == model_id) & (pl.col("suite") == recipe.evaluation.suite)
    return rows.filter(mine)["trajectory_id"].sort().to_list()
