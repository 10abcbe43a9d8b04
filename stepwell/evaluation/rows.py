"""Evaluation rows from recorded trajectories, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.evaluations import EVALUATIONS
from stepwell.errors import LakeError
from stepwell.evaluation.intervals import wilson
from stepwell.fold import fold_trajectories
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe


@dataclass(frozen=True)
class Evaluated:
    """One evaluated policy: n attempts, how many resolved, the rate in [0, 1] with its 95% Wilson interval, and mean steps."""

    evaluation_id: str
    model_id: str
    n: int
    resolved: int
    rate: float
    low: float
    high: float
    mean_steps: float
    submitted: int
    tokens_out: int
    seed: int

    def line(self) -> str:
        """The result in one line, with its n, interval and seed."""
        interval = f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"
        share = f"{self.resolved}/{self.n} = {100 * self.rate:.1f}% {interval}"
        return f"{self.model_id}: {share} resolved, seed {self.seed}, single run"

    def metadata(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def evaluation_id(recipe: Recipe, model_id: str) -> str:
    """Identity of the evaluation of a model as a recipe has it: the same suite, settings and world give the same one."""
    e = recipe.evaluation
    settings = [e.model_dump(mode="json"), recipe.world.model_dump(mode="json")]
    return f"{model_id}@{e.suite}-{digest(model_id, settings)[:12]}"


def record_rows(
    lake: Lake, trajectory_ids: Sequence[str], *, evaluation_id: str, suite: str, recipe: str, model_id: str, seed: int,
    backend: str,
) -> int:  # fmt: skip
    """Write one row per attempt from the trajectories in the log; returns how many were new."""
    rows: list[dict[str, Any]] = []
    for events in EventLog(lake).batches(trajectory_ids):
        attempts = _attempts(events)
        for t in fold_trajectories(events).to_pylist():
            rows.append(
                {
                    "evaluation_id": evaluation_id,
                    "suite": suite,
                    "recipe": recipe,
                    "model_id": model_id,
                    "task_id": t["task_id"],
                    "attempt": attempts[t["trajectory_id"]],
                    "trajectory_id": t["trajectory_id"],
                    "resolved": bool(t["resolved"]),
                    "submitted": t["exit_status"] == "submitted",
                    "exit_status": t["exit_status"],
                    "n_steps": t["n_steps"],
                    "tokens_in": t["tokens_in"] or 0,
                    "tokens_out": t["tokens_out"] or 0,
                    "seed": seed,
                    "backend": backend,
                    "recorded_at": datetime.now(UTC),
                }
            )
    return lake.add("evaluations", pa.Table.from_pylist(rows, EVALUATIONS.schema))


def _attempts(events: pa.Table) -> dict[str, int]:
    starts = events.filter(pc.equal(events.column("kind"), "start"))
    pairs = zip(starts.column("trajectory_id").to_pylist(), starts.column("start").to_pylist(), strict=True)
    return {trajectory: start["attempt"] or 0 for trajectory, start in pairs}


def summarise(lake: Lake, evaluation_id: str) -> Evaluated:
    """What the rows of one evaluation add up to; raises LakeError when there are none."""
    frame = pl.DataFrame(lake.read("evaluations")).filter(pl.col("evaluation_id") == evaluation_id)
    if not len(frame):
        raise LakeError(
            f"no rows of evaluation {evaluation_id!r} in {lake.uri}; run: python -m jobs.evaluate --recipe NAME"
        )
    n, resolved = len(frame), int(frame["resolved"].sum())
    low, high = wilson(resolved, n)
    steps = frame["n_steps"].mean()
    return Evaluated(
        evaluation_id=evaluation_id,
        model_id=str(frame["model_id"][0]),
        n=n,
        resolved=resolved,
        rate=resolved / n,
        low=low,
        high=high,
        mean_steps=float(steps if isinstance(steps, int | float) else 0.0),
        submitted=int(frame["submitted"].sum()),
        tokens_out=int(frame["tokens_out"].sum()),
        seed=int(frame["seed"][0]),
    )
