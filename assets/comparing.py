"""Comparisons of every recipe with the base and with each other, on the same tasks."""

import dagster as dg

from assets.plots import rates
from assets.resources import Experiments, Settings
from stepwell.evaluation.compare import compare_all, table_of


def comparisons_asset(experiments: Experiments) -> dg.AssetsDefinition:
    """The table a reader wants: one line an arm, and every pair compared."""
    upstream = [dg.AssetKey(["evaluations", name]) for name in ("base", *experiments.recipes)]

    @dg.asset(deps=upstream, group_name="reports", kinds={"deltalake"})
    def comparisons(settings: Settings) -> dg.MaterializeResult[None]:
        """Every pair of evaluated policies: difference in resolve rate with its interval and an exact paired test."""
        n = compare_all(settings.lake())
        arms = table_of(settings.lake())
        plot = rates([(a.name, a.rate, a.low, a.high) for a in arms], "resolve rate on held-out tasks")
        return dg.MaterializeResult(metadata={"dagster/row_count": n, "rates": plot})

    return comparisons
