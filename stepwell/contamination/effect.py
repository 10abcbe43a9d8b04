"""What contamination did to a result: resolve rates on flagged and on clean tasks of an evaluation, and their difference."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow.compute as pc

from stepwell.bootstrap import Array, Figure, Sums, figures, of_groups, ratio
from stepwell.contamination.gate import LOOKED_AT
from stepwell.errors import LakeError, UsageError
from stepwell.lake import Lake


@dataclass(frozen=True)
class Effect:
    """Resolve rate (or gain over another evaluation) on the tasks flagged, on the clean ones, and dirty - clean.

    Each with its 95% interval by drawing tasks anew, and none where one task alone is dirty or clean; n is the number of
    tasks (of both for the difference).
    """

    dirty: Figure
    clean: Figure
    difference: Figure


def dirty_tasks(
    lake: Lake,
    dataset_hash: str,
    suite: str,
    detectors: Collection[str] = (),
    least: float = 0.0,
    waived: bool = True,
    gate: str | None = None,
) -> set[str]:
    """Tasks of a suite that some row of a dataset repeats, by the gate that looked at it last for the first time unless one is
    named; by all detectors unless named.

    Scores below `least` and, without `waived`, flags that the recipe lets pass do not count. Raises LakeError when the
    dataset was never compared with the suite.
    """
    found = flagged_tasks(lake, dataset_hash, suite, least, waived, gate)
    return {task for task, by in found.items() if not detectors or by & set(detectors)}


def flagged_tasks(
    lake: Lake, dataset_hash: str, suite: str, least: float = 0.0, waived: bool = True, gate: str | None = None
) -> dict[str, set[str]]:
    """Tasks of a suite that some row of a dataset repeats, each with the detectors that say so; see `dirty_tasks`."""
    flags = _of_gate(lake, dataset_hash, suite, gate)
    kept = flags.filter(
        (pl.col("detector") != LOOKED_AT) & (pl.col("score") >= least)
        & (pl.lit(waived) | pl.col("waived").is_null()) & (pl.col("task_id") != "")
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    for task, detector in kept.select("task_id", "detector").iter_rows():
        found.setdefault(task, set()).add(detector)
    return found


def compared_tasks(lake: Lake, dataset_hash: str, suite: str, gate: str | None = None) -> set[str] | None:
    """Tasks of a suite that this gate compared with the dataset, as others are not clean but unknown; None where it did not
    keep which."""
    rows = _of_gate(lake, dataset_hash, suite, gate)
    tasks = rows.filter((pl.col("detector") == LOOKED_AT) & (pl.col("task_id") != ""))["task_id"]
    return set(tasks) or None


def _of_gate(lake: Lake, dataset_hash: str, suite: str, gate: str | None) -> pl.DataFrame:
    """Rows of the gate that looked at a suite last for the first time, or of the one that is named."""
    where = (pc.field("dataset_hash") == dataset_hash) & (pc.field("suite") == suite)
    flags = pl.DataFrame(lake.read("contamination", filters=where))
    gates = flags.filter(pl.col("detector") == LOOKED_AT).sort("recorded_at", "gate")
    gates = gates if gate is None else gates.filter(pl.col("gate") == gate)
    if not len(gates):
        raise LakeError(
            f"dataset {dataset_hash[:16]!r} was never compared with suite {suite!r} in {lake.uri}; run "
            "`stepwell contamination DATASET` now: an unflagged task would not be a clean one."
        )
    return flags.filter(pl.col("gate") == gates["gate"][-1])


def effect(
    lake: Lake,
    evaluation_id: str,
    dirty: Collection[str],
    base: str | None = None,
    draws: int = 2000,
    seed: int = 0,
    compared: Collection[str] | None = None,
) -> Effect:
    """Split an evaluation's tasks by `dirty`; with `base` it is the gain over that evaluation on the tasks both have (K9).

    A task of several attempts counts once, with the share of them resolved; only those of `compared` count, where given.
    Raises UsageError when there is no such task.
    """
    rates = _rates(lake, evaluation_id)
    rates = {task: rate for task, rate in rates.items() if compared is None or task in compared}
    if base is not None:
        other = _rates(lake, base)
        rates = {task: rate - other[task] for task, rate in rates.items() if task in other}
    if not rates:
        raise UsageError(f"evaluation {evaluation_id!r} has no task{' in common with ' + repr(base) if base else ''}.")
    tasks = sorted(rates)
    value = np.array([rates[t] for t in tasks])
    is_dirty = np.array([t in set(dirty) for t in tasks], np.float64)
    sums = {"dirty": value * is_dirty, "n_dirty": is_dirty, "clean": value * (1 - is_dirty), "n_clean": 1 - is_dirty}

    def difference(s: Sums) -> tuple[Array, Array]:
        apart = ratio(s["dirty"], s["n_dirty"])[0] - ratio(s["clean"], s["n_clean"])[0]
        return apart, s["n_dirty"] + s["n_clean"]

    found = figures(
        sums,
        {
            "dirty": lambda s: ratio(s["dirty"], s["n_dirty"]),
            "clean": lambda s: ratio(s["clean"], s["n_clean"]),
            "difference": difference,
        },
        draws,
        seed,
    )
    n_dirty, n_clean = is_dirty.sum(), (1 - is_dirty).sum()
    fewest = {"dirty": n_dirty, "clean": n_clean, "difference": min(n_dirty, n_clean)}
    return Effect(**{name: of_groups(figure, fewest[name]) for name, figure in found.items()})


def _rates(lake: Lake, evaluation_id: str) -> dict[str, float]:
    where = pc.field("evaluation_id") == evaluation_id
    frame = pl.DataFrame(lake.read("evaluations", columns=["task_id", "resolved"], filters=where))
    means = frame.group_by("task_id").agg(pl.col("resolved").cast(pl.Float64).mean())
    return dict(means.iter_rows())
