"""Comparing evaluated policies on the same tasks: paired difference, its interval, exact McNemar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.comparisons import COMPARISONS
from stepwell.errors import UsageError
from stepwell.evaluation.intervals import mcnemar
from stepwell.evaluation.rows import Evaluated, summarise
from stepwell.ids import digest
from stepwell.lake import Lake

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Arm:
    """One line of the closing table."""

    name: str
    model_id: str
    rate: float
    low: float
    high: float
    n: int
    mean_steps: float
    masked_share: float | None
    evaluation_id: str


def compare(lake: Lake, evaluation_a: str, evaluation_b: str) -> dict[str, Any]:
    """One row of `comparisons`; raises UsageError when the two share no task.

    The interval is a percentile bootstrap over tasks (10,000 resamples, fixed seed) of the difference in resolve rate.
    """
    frame = pl.DataFrame(lake.read("evaluations", columns=["evaluation_id", "task_id", "resolved", "seed"]))
    rate = pl.col("resolved").cast(pl.Float64).mean()
    a = frame.filter(pl.col("evaluation_id") == evaluation_a).group_by("task_id").agg(rate.alias("a"))
    b = frame.filter(pl.col("evaluation_id") == evaluation_b).group_by("task_id").agg(rate.alias("b"))
    both = a.join(b, on="task_id").sort("task_id")
    if not len(both):
        raise UsageError(f"{evaluation_a!r} and {evaluation_b!r} share no task; compare evaluations of one suite.")
    deltas = (both["b"] - both["a"]).to_numpy()
    draws = np.random.default_rng(0).integers(0, len(deltas), (_RESAMPLES, len(deltas)))
    low, high = np.percentile(deltas[draws].mean(axis=1), [2.5, 97.5])
    only_a = int(((both["a"] == 1) & (both["b"] == 0)).sum())
    only_b = int(((both["b"] == 1) & (both["a"] == 0)).sum())
    return {
        "comparison_id": digest(evaluation_a, evaluation_b, "bootstrap-10000", len(both)),
        "evaluation_a": evaluation_a,
        "evaluation_b": evaluation_b,
        "n_tasks": len(both),
        "rate_a": float(both["a"].to_numpy().mean()),
        "rate_b": float(both["b"].to_numpy().mean()),
        "difference": float(deltas.mean()),
        "low": float(low),
        "high": float(high),
        "only_a": only_a,
        "only_b": only_b,
        "p_value": mcnemar(only_a, only_b),
        "n_seeds": 1,
        "recorded_at": datetime.now(UTC),
    }


def latest(lake: Lake) -> list[Evaluated]:
    """The newest evaluation of every model name and suite, in the order they were recorded."""
    frame = pl.DataFrame(lake.read("evaluations", columns=["evaluation_id", "model_id", "suite", "recorded_at"]))
    if not len(frame):
        return []
    name = pl.col("model_id").str.replace(r"-[0-9a-f]{12}$", "")
    newest = (
        frame.with_columns(name.alias("name")).sort("recorded_at").group_by("name", "suite", maintain_order=True).last()
    )
    return [summarise(lake, e) for e in newest.sort("recorded_at")["evaluation_id"]]


def compare_all(lake: Lake) -> int:
    """Compare every pair of the newest evaluations; returns the number of pairs."""
    pairs = list(combinations([e.evaluation_id for e in latest(lake)], 2))
    rows = [compare(lake, a, b) for a, b in pairs]
    if rows:
        lake.add("comparisons", pa.Table.from_pylist(rows, COMPARISONS.schema))
    return len(rows)


def table_of(lake: Lake) -> list[Arm]:
    """One line per evaluated model: rate with interval, steps, and the share of steps masked in what it was trained on."""
    models = {r["model_id"]: r for r in lake.read("models").to_pylist()}
    arms = []
    for e in latest(lake):
        model = models.get(e.model_id)
        share = _masked_share(lake, model) if model and model["dataset"] else None
        name = model["name"] if model else e.model_id.rpartition("-")[0]
        arms.append(Arm(name, e.model_id, e.rate, e.low, e.high, e.n, e.mean_steps, share, e.evaluation_id))
    return arms


def _masked_share(lake: Lake, model: dict[str, Any]) -> float:
    rows = pl.DataFrame(lake.read(model["dataset"], model["dataset_version"], ["n_masked_steps", "steps"]))
    n = int(rows["steps"].list.len().sum())
    return int(rows["n_masked_steps"].sum()) / n if n else 0.0
