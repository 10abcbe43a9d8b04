"""Evaluation rows from recorded trajectories, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.evaluations import EVALUATIONS
from schemas.kinds import HELD_OUT
from stepwell.bootstrap import figures, ratio
from stepwell.contamination.effect import compared_tasks, flagged_tasks
from stepwell.errors import LakeError
from stepwell.evaluation.attempts import Told, of_events
from stepwell.evaluation.intervals import wilson
from stepwell.fold import fold_trajectories
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import ancestors
from stepwell.recipe import Recipe


@dataclass(frozen=True)
class Evaluated:
    """One evaluated policy: n attempts, how many resolved, the rate in [0, 1] with its 95% interval, and mean steps.

    The interval is Wilson's; with several attempts a task it is the bootstrap's over tasks, as they are not independent.
    """

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


_WHERE = {"sampling_seeds", "tensor_parallel", "data_parallel", "base_url", "key_env"}
"""Settings of an evaluation that say where it is computed, and how often."""
_LATER = ("top_p", "tasks")
"""Settings that came later: at their defaults the identity is that of before."""


def evaluation_id(recipe: Recipe, model_id: str, sampling_seed: int = 0) -> str:
    """Identity of the evaluation of a model as a recipe has it: the same suite, settings and world give the same one."""
    e = recipe.evaluation
    plain = {name for name in _LATER if getattr(e, name) == type(e).model_fields[name].default}
    settings = [e.model_dump(mode="json", exclude=_WHERE | plain), recipe.world.model_dump(mode="json")]
    settings += [{"sampling_seed": sampling_seed}] if sampling_seed else []
    return f"{model_id}@{e.suite}-{digest(model_id, settings)[:12]}"


def record_rows(
    lake: Lake, trajectory_ids: Sequence[str], *, evaluation_id: str, suite: str, recipe: str, model_id: str, seed: int,
    backend: str, sampling_seed: int = 0,
) -> int:  # fmt: skip
    """Write one row per graded attempt from the trajectories in the log; returns how many were new.

    Rows that are there keep what they say, but for `resolved` of those graded differently since.
    """
    rows: list[dict[str, Any]] = []
    repeated = repeats(lake, model_id, suite)
    for events in EventLog(lake).batches(trajectory_ids):
        attempts, told = _attempts(events), of_events(events)
        for t in fold_trajectories(events).to_pylist():
            if t["resolved"] is None:
                continue  # what nobody graded is in the log, and has a row once it is
            used = told.get(t["trajectory_id"], Told())
            rows.append(
                {
                    "evaluation_id": evaluation_id,
                    "suite": suite,
                    "recipe": recipe,
                    "model_id": model_id,
                    "task_id": t["task_id"],
                    "attempt": attempts[t["trajectory_id"]],
                    "trajectory_id": t["trajectory_id"],
                    "resolved": t["resolved"],
                    "submitted": t["exit_status"] == "submitted",
                    "exit_status": t["exit_status"],
                    "n_steps": t["n_steps"],
                    "tokens_in": t["tokens_in"] or 0,
                    "tokens_out": t["tokens_out"] or 0,
                    "seed": seed,
                    "backend": backend,
                    "recorded_at": datetime.now(UTC),
                    "cache_read": used.total("cache_read"),
                    "cache_write": used.total("cache_write"),
                    "cost_usd": t["cost_usd"],
                    "longest_repeat": used.longest_repeat,
                    "sampling_seed": sampling_seed,
                    "contamination": repeated(t["task_id"]),
                }
            )
    _regrade(lake, {r["trajectory_id"]: r["resolved"] for r in rows})
    return lake.add("evaluations", pa.Table.from_pylist(rows, EVALUATIONS.schema))


def _regrade(lake: Lake, resolved: Mapping[str, bool]) -> None:
    """Put the present grading of these trajectories into the rows that have another one, of any evaluation, in one commit."""
    version = lake.version("evaluations")
    of = pc.field("trajectory_id").isin(pa.array(list(resolved), pa.string()))
    rows = lake.read("evaluations", version, filters=of).to_pylist()
    gone = sorted({r["trajectory_id"] for r in rows if r["resolved"] != resolved[r["trajectory_id"]]})
    if gone:
        now = [r | {"resolved": resolved[r["trajectory_id"]]} for r in rows if r["trajectory_id"] in gone]
        told = {"stepwell.regraded": str(len(gone))}
        lake.replace("evaluations", pa.Table.from_pylist(now, EVALUATIONS.schema), told, gone, version)


def misgraded(lake: Lake) -> list[str]:
    """Every row of `evaluations` is resolved as its trajectory is; a trajectory that is not folded yet is no problem."""
    columns = ["evaluation_id", "task_id", "attempt", "trajectory_id", "resolved"]
    rows = pl.DataFrame(lake.read("evaluations", columns=columns))
    graded = pl.DataFrame(lake.read("trajectories", columns=["trajectory_id", "resolved"]))
    wrong = rows.join(graded, on="trajectory_id", suffix="_now").filter(pl.col("resolved") != pl.col("resolved_now"))
    return [
        f"{r['evaluation_id']}, task {r['task_id']}, attempt {r['attempt']}: resolved {r['resolved']}, its trajectory "
        f"{r['resolved_now']}; evaluate it again with the report, and refresh the folds"
        for r in wrong.sort(columns[:3]).to_dicts()
    ]


def repeats(lake: Lake, model_id: str, suite: str) -> Callable[[str], str]:
    """What the last gates of the data that a model and those it began from were trained on say of a task: clean, the
    detectors that flag it, or unknown where one of them was never compared."""
    hashes = [m["dataset_hash"] for m in ancestors(lake, model_id)]
    flags: dict[str, set[str]] = {}
    compared: list[set[str] | None] = []
    try:
        for dataset_hash in filter(None, hashes):
            for task, detectors in flagged_tasks(lake, dataset_hash, f"{HELD_OUT}{suite}").items():
                flags.setdefault(task, set()).update(detectors)
            compared.append(compared_tasks(lake, dataset_hash, f"{HELD_OUT}{suite}"))
    except LakeError:
        hashes = []

    def said(task: str) -> str:
        if not any(hashes):
            return "unknown"
        known = all(among is None or task in among for among in compared)
        return ",".join(sorted(flags.get(task, ()))) or ("clean" if known else "unknown")

    return said


def _attempts(events: pa.Table) -> dict[str, int]:
    starts = events.filter(pc.equal(events.column("kind"), "start"))
    pairs = zip(starts.column("trajectory_id").to_pylist(), starts.column("start").to_pylist(), strict=True)
    return {trajectory: start["attempt"] or 0 for trajectory, start in pairs}


def summarise(lake: Lake, evaluation_id: str) -> Evaluated:
    """What the rows of one evaluation add up to; raises LakeError when there are none."""
    frame = pl.DataFrame(lake.read("evaluations", filters=pc.field("evaluation_id") == evaluation_id))
    if not len(frame):
        raise LakeError(
            f"no rows of evaluation {evaluation_id!r} in {lake.uri}; run: python -m jobs.evaluate --recipe NAME"
        )
    n, resolved = len(frame), int(frame["resolved"].sum())
    low, high = wilson(resolved, n)
    if n > frame["task_id"].n_unique() > 1:
        tasks = frame.group_by("task_id", maintain_order=True).agg(pl.col("resolved").sum().cast(pl.Float64), pl.len())
        sums = {"resolved": tasks["resolved"].to_numpy(), "n": tasks["len"].cast(pl.Float64).to_numpy()}
        found = figures(sums, {"rate": lambda s: ratio(s["resolved"], s["n"])})["rate"]
        low, high = found.low or 0.0, 1.0 if found.high is None else found.high
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
