"""What the materialisation of an asset shows besides its counts: links to what it hangs together with, tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.plots import bars, drawn
from stepwell.evaluation.arms import known
from stepwell.evaluation.charts import Bar, forest
from stepwell.evaluation.rows import summarise
from stepwell.lake import Lake
from stepwell.lineage import trace
from stepwell.lineage.picture import picture
from stepwell.query import connect, question, run
from stepwell.recipe import Recipe


def of_models(
    result: dg.MaterializeResult[None], lake: Lake, branch: str, names: Sequence[str]
) -> dg.MaterializeResult[None]:
    """Links of the models of a branch to its dataset and evaluation, their cards and traces, added to what the job reported."""
    rows = {
        row["name"]: row
        for row in lake.read("models", columns=["name", "path", "recorded_at"]).sort_by("recorded_at").to_pylist()
    }
    found: dict[str, Any] = {
        "made from": dg.MetadataValue.asset(dg.AssetKey(["datasets", branch])),
        "evaluated in": dg.MetadataValue.asset(dg.AssetKey(["evaluations", branch])),
    }
    for name in (name for name in names if name in rows):
        found[f"card of {name}"] = dg.MetadataValue.path(f"{rows[name]['path']}/README.md")
        found[f"trace of {name}"] = drawn(picture(trace(lake, name)), f"what {name} was made from")
    return result._replace(metadata={**(result.metadata or {}), **found})


def of_evaluation(result: dg.MaterializeResult[None], lake: Lake, recipe: Recipe) -> dg.MaterializeResult[None]:
    """Resolve rates of the suite's newest evaluations with their intervals, and how this recipe's attempts ended."""
    suite = recipe.evaluation.suite
    arms = [arm for arm in known(lake) if arm.suite == suite]
    rates = [{"recipe": arm.name, **summarise(lake, e).metadata()} for arm in arms for e in arm.evaluations]
    own = [e for arm in arms if arm.name == recipe.name for e in arm.evaluations]
    found: dict[str, Any] = {"model": dg.MetadataValue.asset(dg.AssetKey(["models", recipe.name]))}
    if rates:
        lines = [Bar(r["model_id"], *(100 * r[k] for k in ("rate", "low", "high"))) for r in rates]
        title = f"% resolved of {suite}, with 95% intervals"
        ends = {r["how"]: r["attempts"] for r in asked(lake, "FROM ends(?)", [own])}
        found |= {"rates": table(rates), "rates with 95% intervals": drawn(forest(lines, title, zero=False), title)}
        found["ends"] = bars(ends, "how attempts ended")
    return result._replace(metadata={**(result.metadata or {}), **found})


def of_verdicts(lake: Lake) -> dict[str, Any]:
    """What the critics found: steps by category, and the whole answer as a table."""
    found = [r for r in asked(lake, question("verdict_categories")) if r["steps"]]
    by_category: dict[str, int] = {}
    for row in found:
        by_category[row["category"]] = by_category.get(row["category"], 0) + row["steps"]
    shown = dict(sorted(by_category.items(), key=lambda item: -item[1])[:20])
    return {"categories": table(found[:200]), "failures": bars(shown, "steps by category")} if found else {}


def of_masks(lake: Lake, rule: str) -> dict[str, Any]:
    """Why steps are out of the loss under a rule."""
    found = {row["reason"]: row["steps"] for row in asked(lake, "FROM masked_reasons(?)", [rule])}
    return {"masked": bars(found, "steps out of the loss, by reason")} if found else {}


def asked(lake: Lake, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The rows of an answer."""
    connection = connect(lake)
    try:
        return list(run(connection, sql, parameters).to_pylist())
    finally:
        connection.close()


def table(rows: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows as a table of strings and numbers."""
    kinds = {bool: "bool", int: "int", float: "float"}
    first = {name: next((r[name] for r in rows if r[name] is not None), "") for name in rows[0]}
    columns = [dg.TableColumn(name, kinds.get(type(value), "string")) for name, value in first.items()]
    shown = [{k: v if v is None or type(v) in kinds else str(v) for k, v in row.items()} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in shown], dg.TableSchema(columns))
