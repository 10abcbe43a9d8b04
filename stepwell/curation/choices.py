"""Stages that choose among rows of `trajectories` by what these say: length, difficulty, cap, balance, mix; and the split.

Belongs here: pure functions from the rows still kept to the ids that go, each with why. Does not belong here: what reads
texts or events (`duplicates`, `select`). All of them are the same for every order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from stepwell.curation.draws import shuffled
from stepwell.data_settings import Balance, Cap, Difficulty, Length, Mix, Split
from stepwell.errors import RecipeError
from stepwell.ids import fraction

TASK = pl.coalesce("task_id", pl.concat_str(pl.lit("\n"), "trajectory_id"))
"""The task, or where the source names none the trajectory by itself."""
GOOD_FIRST = (~pl.col("resolved").fill_null(False), pl.col("n_steps"), pl.col("trajectory_id"))
"""Order in which one of several is kept: resolved ones, then the shortest, then the smallest id."""
Gone = dict[str, str]
"""Trajectory -> why it is left out."""


def by_length(kept: pl.DataFrame, length: Length) -> Gone:
    """Trajectories shorter or longer than allowed, in steps."""
    short = kept.filter(pl.col("n_steps") < length.least)
    gone = _all(short, f"fewer than {length.least} steps")
    if length.most is not None:
        gone |= _all(kept.filter(pl.col("n_steps") > length.most), f"more than {length.most} steps")
    return gone


def by_difficulty(kept: pl.DataFrame, everything: pl.DataFrame, band: Difficulty) -> Gone:
    """Trajectories of tasks too easy, too hard or too seldom graded, by all the graded attempts in `everything`."""
    graded = everything.filter(pl.col("resolved").is_not_null(), pl.col("task_id").is_not_null())
    tasks = graded.group_by("task_id").agg(pl.len().alias("n"), pl.col("resolved").mean().alias("rate"))
    known = kept.join(tasks, on="task_id", how="left").with_columns(pl.col("n").fill_null(0))
    low, high = pl.col("rate") > band.low, pl.col("rate") < band.high
    solvable = low | (pl.col("rate") == band.low) if band.inclusive in ("low", "both") else low
    hard_enough = high | (pl.col("rate") == band.high) if band.inclusive in ("high", "both") else high
    few = pl.col("n") < band.attempts
    gone = _all(known.filter(few), f"task has fewer than {band.attempts} graded attempts")
    gone |= _all(known.filter(~few & ~solvable), "task is too hard")
    return gone | _all(known.filter(~few & solvable & ~hard_enough), "task is too easy")


def by_cap(kept: pl.DataFrame, cap: Cap, seed: int) -> Gone:
    """What is over the most trajectories a task may have."""
    drawn = kept.with_columns(shuffled(kept["trajectory_id"], "cap", seed))
    order = {
        "resolved": GOOD_FIRST,
        "shortest": (pl.col("n_steps"), pl.col("trajectory_id")),
        "random": (pl.col("draw"), pl.col("trajectory_id")),
    }[cap.prefer]
    over = drawn.sort(order).filter(pl.int_range(pl.len()).over(TASK) >= cap.per_task)
    return _all(over, f"task has {cap.per_task} others")


def by_balance(kept: pl.DataFrame, balance: Balance, by: str | None, seed: int) -> Gone:
    """What is drawn from the larger side, so that the share of resolved ones holds; within each `by` where it is given."""
    gone: Gone = {}
    for group in [kept] if by is None else kept.partition_by(by):
        good, bad = group.filter(pl.col("resolved")), group.filter(~pl.col("resolved"))
        n_good = min(len(good), round(len(bad) * balance.resolved / (1 - balance.resolved)))
        n_bad = min(len(bad), round(len(good) * (1 - balance.resolved) / balance.resolved))
        gone |= _all(_beyond(good, n_good, "balance", seed), "more resolved than the balance allows")
        gone |= _all(_beyond(bad, n_bad, "balance", seed), "more unresolved than the balance allows")
    return gone


def by_mix(kept: pl.DataFrame, mix: Mix, seed: int) -> Gone:
    """What is drawn from the groups that have more than their share.

    The resolved and the others of a group are drawn from alike, so a balance holds within one trajectory a group.
    Raises RecipeError for a weight of a group that has no trajectory left.
    """
    sizes = dict(kept.group_by(mix.by).len().iter_rows())
    shares = {name: w for name, w in mix.weights.items() if w > 0}
    if min(mix.weights.values()) < 0 or not shares:
        raise RecipeError(
            f"`curate.mix.weights` are {mix.weights}; they must be 0 or more, and one of them more than 0."
        )
    absent = sorted(shares.keys() - sizes.keys())
    if absent and sizes:
        raise RecipeError(
            f"`curate.mix` gives a share to {mix.by} {', '.join(map(repr, absent))}, of which no trajectory is left; left are: "
            f"{', '.join(sorted(map(repr, sizes)))}. Give it weight 0, or leave less out before."
        )
    unnamed = pl.col(mix.by).is_null() | ~pl.col(mix.by).is_in(list(shares))
    gone = _all(kept.filter(unnamed), f"its {mix.by} has no weight")
    unit = min((sizes[name] / w for name, w in shares.items() if name in sizes), default=0.0)
    for name in sorted(shares.keys() & sizes.keys()):
        group = kept.filter(pl.col(mix.by) == name)
        n = min(len(group), int(unit * shares[name] + 1e-6))
        gone |= _all(_evenly_beyond(group, n, "mix", seed), f"more of its {mix.by} than its share")
    return gone


def split_of(rows: pl.DataFrame, split: Split, held_out: float) -> pl.Series:
    """`held_out` or `train` for each row; all of a task (or of a repository) have the same, in every recipe.

    `held_out` is the share of tasks (or repositories) that are drawn, beside those that `split` names. Where some attempts at
    a task tell another repository or none, the least name is that of them all.
    """
    own = pl.coalesce("task_id", "trajectory_id")
    group = pl.coalesce(pl.col("repo").min().over(TASK), own) if split.by == "repo" else own
    told = pl.col("repo").is_in(split.held_out).any().over(TASK) if split.by == "repo" else pl.lit(False)
    known = rows.select(group=group, named=group.is_in(split.held_out) | told)
    drawn = {g: fraction("split", g) < held_out for g in known["group"].unique()}
    sides = ["held_out" if named or drawn[g] else "train" for g, named in known.iter_rows()]
    return pl.Series("split", sides, pl.String)


def _all(rows: pl.DataFrame, why: str) -> Gone:
    return dict.fromkeys(rows["trajectory_id"], why)


def _beyond(rows: pl.DataFrame, n: int, *parts: object) -> pl.DataFrame:
    """All but `n` of these rows drawn at random."""
    return rows.with_columns(shuffled(rows["trajectory_id"], *parts)).sort("draw", "trajectory_id").slice(n)


def _evenly_beyond(rows: pl.DataFrame, n: int, *parts: object) -> pl.DataFrame:
    """All but `n` of these rows drawn at random, resolved ones and others in the shares they have, within one."""
    order: Sequence[str] = ("resolved", "draw", "trajectory_id")
    drawn = rows.with_columns(shuffled(rows["trajectory_id"], *parts)).sort(order, nulls_last=True)
    taken = {(2 * i + 1) * len(rows) // (2 * n) for i in range(n)}
    return drawn.filter(~pl.Series([i in taken for i in range(len(rows))], dtype=pl.Boolean))
