"""Audits of the critics that recipes trust, and of the step rules, against the ground truth of their corpora."""

import re

import dagster as dg

from assets.plots import matrix, over_members, reliability
from assets.resources import Experiments, Settings
from stepwell.critics.audit import CLASSES, kind_of
from stepwell.critics.examine import Examined, examine
from stepwell.critics.rules import POLICY
from stepwell.errors import UsageError


def audit_asset(critic: str) -> dg.AssetsDefinition:
    """The audit of one critic; where there is nothing to compare with, that is what it says."""

    @dg.asset(key=["audits", re.sub(r"\W+", "_", critic)], deps=["verdicts"], group_name="critics")
    def audit(settings: Settings) -> dg.MaterializeResult[None]:
        """Agreement of a critic with the ground truth and with outcomes, each figure with its interval."""
        try:
            found = examine(settings.lake(), critic)
        except UsageError as nothing:
            return dg.MaterializeResult(metadata={"nothing to audit": str(nothing)})
        return dg.MaterializeResult(metadata=_shown(found))

    return audit


def _shown(found: Examined) -> dict[str, dg.MetadataValue]:
    result = found.audit
    shown: dict[str, dg.MetadataValue] = {
        "figures are": dg.MetadataValue.text(kind_of(result)),
        "dagster/row_count": dg.MetadataValue.int(result.n_steps),
        "tables": dg.MetadataValue.md("\n\n".join(sheet.markdown() for sheet in found.sheets())),
    }
    if result.n_trajectories:
        shown["confusion"] = matrix(result.confusion, CLASSES, f"{result.truth} (rows) by {result.critic}")
    for what, bins in (("labels", result.reliability), ("judgments", result.judgment_reliability)):
        if bins:
            points = [(b.confidence, b.right, b.n) for b in bins]
            shown[f"reliability of {what}"] = reliability(points, f"reliability of {what}")
    for what, curve in found.curves.items():
        line = [(p.n, p.accuracy.value or 0, p.accuracy.low or 0, p.accuracy.high or 0) for p in curve]
        shown[f"votes on {what}"] = over_members(line, f"majorities of samples: {what}")
    return shown


def audits(experiments: Experiments) -> list[dg.AssetsDefinition]:
    """One audit a critic that a recipe's masks trust, and one of the step rules."""
    trusted = {r.mask.critic for r in experiments.recipes.values() if r.mask.rule != "human"}
    return [audit_asset(critic) for critic in sorted({POLICY, *trusted})]
