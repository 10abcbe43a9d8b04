"""Comparisons of every recipe with the base and with each other, on the same tasks."""

import dagster as dg

from assets.branch import bases
from assets.plots import drawn
from assets.resources import Experiments, Settings
from stepwell.datasets.methods import CRITICS
from stepwell.evaluation.recorded import compare_all, inconsistent
from stepwell.evaluation.report import plots


def comparisons_asset(experiments: Experiments) -> dg.AssetsDefinition:
    """The table a reader wants: one line an arm, and every pair compared."""
    policies = [n for n, r in experiments.recipes.items() if r.dataset is None or r.dataset.method not in CRITICS]
    upstream = [*bases(experiments.recipes), *(dg.AssetKey(["evaluations", name]) for name in policies)]
    check = dg.AssetCheckSpec(
        "one_measure", asset="comparisons",
        description="Comparisons corrected together share one task set and one price policy, and their evaluations are there.",
    )  # fmt: skip

    @dg.asset(deps=upstream, group_name="reports", kinds={"deltalake"}, check_specs=[check])
    def comparisons(settings: Settings) -> dg.MaterializeResult:  # type: ignore[type-arg]  # dagster reads it with a check
        """Every pair of evaluated arms: difference in resolve rate with its interval, a paired test and its correction."""
        lake = settings.lake()
        compared, left_out = compare_all(lake)
        metadata: dict[str, dg.MetadataValue] = {}
        for one in compared:
            shown = plots(one) if one.pairs else plots(one)[1:]
            named = f"{one.suite}, {one.n_tasks} tasks ({one.task_set[:6]})"
            metadata |= {f"{named}: {title}": drawn(svg, title) for title, svg in shown}
        said = [f"- {p.sentence}" for one in compared for p in one.pairs]
        problems = inconsistent(lake)
        found: dict[str, int | str] = {"problems": len(problems), "first": "\n".join(problems[:20])}
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(said),
                "what can be said": dg.MetadataValue.md("\n".join(said)),
                "left out": dg.MetadataValue.md("\n".join(f"- {why}" for why in left_out) or "nothing"),
                **metadata,
            },
            check_results=[dg.AssetCheckResult(passed=not problems, check_name="one_measure", metadata=found)],
        )

    return comparisons
