"""Columns in the graph: the schema of every table as it is declared, and from which columns of which table each comes."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from schemas.column import Table
from schemas.events import ENVELOPE
from schemas.kinds import KINDS
from schemas.tables import DATASET, TABLES
from stepwell.views import VIEWS

EVENTS = dg.AssetKey("events")
_ENVELOPE = {column.name for column in ENVELOPE}
_FOLDED = {
    "trajectories": ("task", "start", "end", "outcome", "usage"),
    "steps": ("turn", "action", "observation", "usage"),
}
"""Columns of `events` whose fields a fold takes by their name, the earlier before the later."""
_COMPUTED = {
    "n_steps": ("step",), "n_events": ("event_id",), "submitted": ("end",), "step_cost_usd": ("usage",),
    "n_format_errors": ("action",), "n_failed_commands": ("observation",), "started_at": ("occurred_at",),
    "ended_at": ("occurred_at",), "action": ("action",), "observation": ("observation",), "state_before": ("action",),
    "state_after": ("observation",), "action_event": ("event_id",), "observation_event": ("event_id",),
}  # fmt: skip
"""Columns of folds that are computed, and what from."""
_SAID = ("instruction", "action", "observation", "label", "feedback", "notice", "verdict", "attempt")
_OF_ROWS = {
    "messages": _SAID, "event_ids": ("event_id",), "n_tokens": _SAID, "input_ids": _SAID, "judgment": ("verdict", "outcome"),
    "rejected": ("verdict", "attempt"), "rejected_ids": ("verdict", "attempt"), "rejected_labels": ("verdict", "attempt"),
    "rewards": ("reward",), "reward": ("reward",), "group_id": ("reward", "attempt"), "critique_id": ("event_id",),
    "format_ok": ("verdict",), "steps": ("step",), "n_left_out": _SAID, "labels": _SAID,
}  # fmt: skip
_OF_MASKS = ("labels", "weights", "n_trained_tokens", "n_masked_steps", "mask_event_ids")


def declared(key: dg.AssetKey) -> Table | None:
    """The declared table or view of an asset; None for what is no table of its own."""
    kind = key.path[0]
    if kind == "datasets":
        return DATASET
    return TABLES.get(kind) or VIEWS.get(kind)


def schema(table: Table) -> dg.TableSchema:
    """Every column with its type and sentence, as Dagster shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(c.name, str(c.type), c.doc, dg.TableColumnConstraints(nullable=c.nullable))
            for c in table.columns
            if table.name != "events" or c.name not in KINDS
        ]
        + [dg.TableColumn(k.name, "struct", k.doc) for k in KINDS.values() if table.name == "events"]
    )


def folded(name: str) -> dg.TableColumnLineage:
    """Columns of a fold -> columns of `events`: of the envelope, payloads with a field of that name, computed ones."""
    found = {column.name: list(_from_events(column.name, name)) for column in TABLES[name].columns}
    return dg.TableColumnLineage({name: _deps(EVENTS, columns) for name, columns in found.items()})


def rows(recipe: str, masked: bool = True) -> dg.TableColumnLineage:
    """Columns of a dataset -> columns of `events`, `trajectories` and, where it is `masked`, the masks of its recipe."""
    masks = dg.AssetKey(["masks", recipe])
    found: dict[str, list[dg.TableColumnDep]] = {}
    for column in DATASET.columns:
        name = column.name
        found[name] = _deps(EVENTS, _OF_ROWS.get(name, ()))
        if name in _OF_MASKS and masked:
            found[name] += _deps(masks, ["event_id" if name == "mask_event_ids" else "weight"])
        elif name != "split" and name in TABLES["trajectories"].schema.names:
            found[name] += _deps(dg.AssetKey("trajectories"), [name])
    return dg.TableColumnLineage({name: deps for name, deps in found.items() if deps})


def _from_events(column: str, fold: str) -> Iterable[str]:
    if column in _COMPUTED:
        return _COMPUTED[column]
    if column in _ENVELOPE and column != "usage":
        return (column,)
    from_usage = {c.name for c in VIEWS["calls"].columns}
    holds = {k: {c.name for c in KINDS[k].columns} if k in KINDS else from_usage for k in _FOLDED[fold]}
    return [kind for kind in _FOLDED[fold] if column in holds[kind]]


def _deps(asset: dg.AssetKey, columns: Iterable[str]) -> list[dg.TableColumnDep]:
    return [dg.TableColumnDep(asset, column) for column in columns]
