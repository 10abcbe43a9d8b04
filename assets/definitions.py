"""The code location: `build_defs` assembles it, so that tests can assemble another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.audits import audits
from assets.branch import branches
from assets.checks import checks
from assets.comparing import comparisons_asset
from assets.dagger import apart, iteration_checks, iterations
from assets.labels import labelled
from assets.likeness import reports
from assets.log_assets import log_assets
from assets.machines import Machines
from assets.maintenance import maintenance, nightly
from assets.resources import Experiments, Settings
from assets.watching import new_sources


def build_defs(
    experiments: Experiments,
    resources: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """The whole graph for these recipes; `resources` replaces defaults by name, `loggers` the console."""
    plain, iterated = apart(experiments)
    assets = [
        *log_assets(plain),
        maintenance,
        *audits(plain),
        *branches(plain),
        comparisons_asset(plain),
        *reports(plain, iterated),
        *(asset for r in iterated for asset in iterations(r, experiments.folder / f"{r.name}.yaml")),
    ]
    return dg.Definitions(
        assets=labelled(assets, experiments),
        asset_checks=[*checks(plain), *(check for r in iterated for check in iteration_checks(r))],
        schedules=[nightly],
        sensors=[new_sources],
        resources={"settings": Settings(), "pipes": Machines(), **(resources or {})},
        executor=dg.in_process_executor,
        loggers=loggers,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev` opens: every recipe in jobs/recipes."""
    return build_defs(Experiments.load())
