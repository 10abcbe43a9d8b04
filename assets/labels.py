"""What a person sees of an asset before it is opened: group, owner, kinds, tags, the columns of its table.

Every asset gets them here, from its key, so that none is forgotten; groups are numbered in the order in which data flows.
The graph shows only the last word of a key, which in a recipe's branch is always the recipe: the first is among the kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.columns import declared, schema
from assets.resources import Experiments

_GROUPS = {"log": "1_log", "critics": "2_critics", "base": "3_base", "reports": "4_reports", "keeping": "5_keeping"}
_STAGES = {
    "sources": ("log", "team:data"), "events": ("log", "team:data"), "trajectories": ("log", "team:data"),
    "steps": ("log", "team:data"), "rollouts": ("rollouts", "team:data"), "maintenance": ("keeping", "team:data"),
    "verdicts": ("critics", "team:critics"), "audits": ("critics", "team:critics"), "masks": ("curation", "team:critics"),
    "datasets": ("datasets", "team:training"), "models": ("training", "team:training"),
}  # fmt: skip
_REPORTED = ("evaluation", "team:evaluation")
_KINDS = {
    "models": {"pytorch", "huggingface"}, "audits": {"python"}, "overlaps": {"polars"}, "shifts": {"polars"},
    "likeness": {"polars"}, "trajectories": {"deltalake", "polars"}, "steps": {"deltalake", "polars"},
}  # fmt: skip


def labelled(assets: Sequence[dg.AssetsDefinition], experiments: Experiments) -> list[Any]:
    """The same assets with their labels."""

    def label(spec: dg.AssetSpec) -> dg.AssetSpec:
        kind, name = spec.key.path[0], spec.key.path[-1]
        stage, owner = _STAGES.get(kind, _REPORTED)
        recipe = experiments.recipes.get(name) if len(spec.key.path) == 2 else None
        tags = {"stage": stage}
        if recipe is not None:
            tags["recipe"] = name
            tags["method"] = recipe.dataset.method if recipe.dataset else "none"
        table = declared(spec.key)
        columns = {"dagster/column_schema": schema(table)} if table else {}
        group = spec.group_name or "default"
        return spec.replace_attributes(
            group_name=_GROUPS.get(group) or f"3_{group}",
            owners=[owner],
            kinds=_KINDS.get(kind, {"deltalake"}) | ({kind} if len(spec.key.path) > 1 else set()),
            tags={**{k: v for k, v in spec.tags.items() if not k.startswith("dagster/kind/")}, **tags},
            metadata={**spec.metadata, **columns},
        )

    return list(dg.map_asset_specs(label, assets))
