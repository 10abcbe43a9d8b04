"""Rows of `comparisons`: written once for what was compared the same way, and looked through for what cannot be.

Belongs here: that table. Does not belong here: the figures in it (`compare`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.comparisons import COMPARISONS
from stepwell.bootstrap import Figure
from stepwell.errors import UsageError
from stepwell.evaluation.arms import Arm, arms, known
from stepwell.evaluation.compare import Comparison, of_arms
from stepwell.evaluation.metrics import DRAWS
from stepwell.ids import digest
from stepwell.lake import Lake


def record(lake: Lake, comparison: Comparison) -> int:
    """Write the rows of a comparison; those that came to the same before are there already. Returns how many are new."""
    now, by_name = datetime.now(UTC), {arm.name: arm for arm in comparison.arms}
    rows = []
    for p in comparison.pairs:
        a, b = by_name[p.a], by_name[p.b]
        low, high = (p.difference.low, p.difference.high)
        saved = p.figures.get("cost_ratio", Figure(None, None, None, 0))
        made = {
            "evaluation_a": a.evaluations[0], "evaluation_b": b.evaluations[0], "n_tasks": p.n_tasks, "rate_a": p.rate_a,
            "rate_b": p.rate_b, "difference": p.rate_b - p.rate_a, "low": -1.0 if low is None else low,
            "high": 1.0 if high is None else high, "only_a": p.only_a, "only_b": p.only_b, "p_value": p.p_value,
            "n_seeds": min((arm.n_seeds for arm in (a, b) if arm.n_seeds > 1 or not arm.fixed), default=1),
            "arm_a": p.a, "arm_b": p.b, "evaluations_a": list(a.evaluations), "evaluations_b": list(b.evaluations),
            "suite": p.suite, "task_set": comparison.task_set, "test": p.test, "n_family": p.n_family,
            "p_adjusted": p.p_adjusted, "q_value": p.q_value, "minimum_detectable": p.detectable,
            "claimable": p.claimable,
            "crossed_low": p.crossed and p.crossed.low, "crossed_high": p.crossed and p.crossed.high,
            "variance_a": a.components and a.components.__dict__, "variance_b": b.components and b.components.__dict__,
            "price_policy": comparison.price_policy, "cost_ratio": saved.value, "cost_ratio_low": saved.low,
            "cost_ratio_high": saved.high, "n_dirty": p.n_dirty, "sentence": p.sentence,
        }  # fmt: skip
        rows.append(made)
    if not rows:
        return 0
    family = digest(rows)
    whole = [{"comparison_id": digest(family, r), "family": family, **r, "recorded_at": now} for r in rows]
    return lake.add("comparisons", pa.Table.from_pylist(whole, COMPARISONS.schema))


def compare_all(lake: Lake, draws: int = DRAWS) -> tuple[list[Comparison], list[str]]:
    """Compare and record every pair of the lake's arms, those of one suite and task set together.

    Checkpoints that nothing here trained, such as a base, come first, then the order is that of their evaluation. Returns
    the comparisons, and a sentence on each arm that cannot be one, such as runs that were played differently.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Arm]] = {}
    left_out = []
    for found in known(lake):
        try:
            (arm,) = arms(lake, [found], on_common=True)
        except UsageError as error:
            left_out.append(f"{found.name} on {found.suite}: {error}")
        else:
            groups.setdefault((arm.suite, arm.tasks), []).append(arm)
    compared = []
    for group in groups.values():
        ordered = sorted(group, key=lambda arm: not arm.fixed)
        compared.append(of_arms(lake, ordered, every_pair=True, draws=draws, explain=False))
        record(lake, compared[-1])
    return compared, left_out


def inconsistent(lake: Lake) -> list[str]:
    """Comparisons that do not share one task set and one price policy with those they were corrected with, or lack rows."""
    evaluated = set(lake.read("evaluations", columns=["evaluation_id"]).column(0).to_pylist())
    families: dict[str, list[dict[str, Any]]] = {}
    problems = []
    for row in lake.read("comparisons").sort_by("recorded_at").to_pylist():
        gone = [e for e in (*(row["evaluations_a"] or ()), *(row["evaluations_b"] or ())) if e not in evaluated]
        problems += [f"comparison {row['comparison_id']} is of evaluation {e!r}, which has no rows" for e in gone]
        if row["family"] is not None:
            families.setdefault(row["family"], []).append(row)
    for family, rows in families.items():
        for what in ("task_set", "price_policy", "n_tasks"):
            values = sorted({str(row[what]) for row in rows})
            if len(values) > 1:
                problems.append(f"family {family} has several of {what}: {', '.join(values)}")
        if len(rows) != rows[0]["n_family"]:
            problems.append(f"family {family} was corrected for {rows[0]['n_family']} pairs and has {len(rows)}")
    return problems
