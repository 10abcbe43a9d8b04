"""Selection: which trajectories of a recipe's corpora are learnt from, stage by stage, and on which side of the split.

Belongs here: the order of the stages and the funnel they leave. Does not belong here: what each stage does (`choices`,
`conditions`, `duplicates`), which steps count (`masks`), tokens (`datasets`). A selection is a pure function of the events
at a version: it is the same in any process, whatever the order in which trajectories arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from schemas.kinds import UNFINISHED
from schemas.steps import STEPS
from schemas.trajectories import TRAJECTORIES
from stepwell.conditions import Condition
from stepwell.curation import choices
from stepwell.curation.choices import Gone
from stepwell.curation.duplicates import exact, near
from stepwell.curation.reading import Progress, Reading
from stepwell.data_settings import Curate, Source
from stepwell.errors import RecipeError, UnknownName
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe

COLUMNS = ("trajectory_id", "corpus", "task_id", "repo", "agent", "resolved", "n_steps", "dropped", "split")


@dataclass(frozen=True)
class Selection:
    """`rows` has one row a trajectory of the corpora (COLUMNS), sorted by id; `dropped` is null or `STAGE: reason`.

    `funnel` has one line for what was `in`, one a stage and reason, and one a side of the split (`out`); each with
    `trajectories` and `steps`, and what is left after it (`left_trajectories`, `left_steps`). `missing` are corpora asked
    for that no event is of.
    """

    events_version: int
    rows: pl.DataFrame
    funnel: list[dict[str, Any]]
    missing: tuple[str, ...] = ()

    @property
    def n_kept(self) -> int:
        """Trajectories that are chosen."""
        return int(self.rows["dropped"].null_count())


@dataclass(frozen=True)
class View:
    """What a stage sees: the rows still kept, all there are, where to read more, and what the recipe says."""

    kept: pl.DataFrame
    everything: pl.DataFrame
    reading: Reading
    source: Source
    curate: Curate
    where: Condition
    steps: tuple[Condition, ...]


def select(
    lake: Lake, recipe: Recipe, version: int | None = None, progress: Progress | None = None, *, keep: bool = True
) -> Selection:
    """Choose among the trajectories of a recipe's source, at a version of `events` (default: the current one).

    `progress` is told what is read and how many rows of it; without `keep` nothing is written, not even signatures. Raises
    RecipeError for a recipe without `source`, a condition that is none, or shares that cannot be had, UnknownName where there
    is none of the corpora.
    """
    if recipe.source is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `source`; add it to choose trajectories.")
    curate = recipe.curate or Curate()
    where = Condition(recipe.source.where, TRAJECTORIES, "source.where")
    steps = [Condition(s.where, STEPS, f"curate.steps.{i}.where") for i, s in enumerate(curate.steps)]
    at = EventLog(lake).version if version is None else version
    if at is None:
        raise RecipeError(f"the lake {lake.uri!r} has no events; import or roll out trajectories first.")
    reading = Reading(lake, recipe.source.corpora, at, progress, keep)
    everything = reading.trajectories().with_columns(pl.col("task_id", "repo").replace("", None))
    missing = _missing(lake, recipe.source.corpora, everything, at)
    view = View(everything, everything, reading, recipe.source, curate, where, tuple(steps))
    gone: Gone = {}
    for name, stage in STAGES.items():
        found = stage(view)
        gone |= {trajectory: f"{name}: {why}" for trajectory, why in found.items()}
        view = replace(view, kept=view.kept.filter(~pl.col("trajectory_id").is_in(list(found))))
    held_out = recipe.dataset.held_out if recipe.dataset else 0.0
    dropped = pl.Series("dropped", [gone.get(name) for name in everything["trajectory_id"]], pl.String)
    rows = everything.with_columns(dropped, choices.split_of(everything, curate.split, held_out)).select(COLUMNS)
    return Selection(at, rows, _funnel(rows), missing)


def _missing(lake: Lake, asked: Sequence[str], rows: pl.DataFrame, version: int) -> tuple[str, ...]:
    """Corpora that no event is of; one all of whose trajectories were taken down has events still."""
    silent = set(asked) - set(rows["corpus"])
    there = EventLog(lake).corpora(version) if silent else []
    missing = tuple(sorted(silent - set(there)))
    if missing and not len(rows):
        raise UnknownName("corpus", ", ".join(missing), there, "Correct `source.corpora`, or import or roll out first.")
    return missing


def _finished(view: View) -> Gone:
    """Rollouts that broke off say nothing about the policy; without a step there is nothing to learn."""
    broken = view.kept.filter(pl.col("exit_status").is_in(UNFINISHED))["trajectory_id"]
    empty = view.kept.filter(pl.col("n_steps") == 0)["trajectory_id"]
    return dict.fromkeys(broken, "it broke off") | dict.fromkeys(empty, "no recorded steps")


def _where(view: View) -> Gone:
    return dict.fromkeys(view.kept.filter(~view.where.holds(view.kept))["trajectory_id"], "not as source.where says")


def _steps(view: View) -> Gone:
    """All conditions in one pass over the steps; the reason is the first that rules a trajectory out."""
    if not view.steps:
        return {}
    names = [f"hit_{i}" for i in range(len(view.steps))]
    parts = []
    for rows in view.reading.steps(sorted({c for condition in view.steps for c in condition.columns})):
        hits = rows.select("trajectory_id", *(c.holds(rows).alias(n) for c, n in zip(view.steps, names, strict=True)))
        parts.append(hits.group_by("trajectory_id").agg(pl.col(names).sum(), pl.len().alias("n")))
    counts = pl.concat(parts).group_by("trajectory_id").agg(pl.col(*names, "n").sum())
    known = view.kept.select("trajectory_id").join(counts, on="trajectory_id")
    gone: Gone = {}
    for i, (settings, hit) in reversed(list(enumerate(zip(view.curate.steps, names, strict=True)))):
        least = {"any": pl.lit(1), "all": pl.col("n"), "share": pl.col("n") * settings.share - 1e-9}[settings.when]
        which = {"any": "a step", "all": "every step", "share": f"a share of {settings.share} of the steps"}[
            settings.when
        ]
        out = known.filter((pl.col(hit) > 0) & (pl.col(hit) >= least))["trajectory_id"]
        gone |= dict.fromkeys(out, f"{which} is as curate.steps.{i} says")
    return gone


def _exclude(view: View) -> Gone:
    exclude = view.source.exclude
    if exclude is None:
        return {}
    judged = view.reading.flagged(exclude)
    said = {name: judged.get(name, f"not judged by {exclude.critic}") for name in view.kept["trajectory_id"]}
    return {name: why for name, why in said.items() if why is not None}


def _length(view: View) -> Gone:
    return choices.by_length(view.kept, view.curate.length) if view.curate.length else {}


def _difficulty(view: View) -> Gone:
    band = view.curate.difficulty
    return choices.by_difficulty(view.kept, view.everything, band) if band else {}


def _exact(view: View) -> Gone:
    return exact(view.kept, view.reading, view.curate.dedup) if view.curate.dedup else {}


def _near(view: View) -> Gone:
    return near(view.kept, view.reading, view.curate.dedup) if view.curate.dedup else {}


def _cap(view: View) -> Gone:
    return choices.by_cap(view.kept, view.curate.cap, view.curate.seed) if view.curate.cap else {}


def _balance(view: View) -> Gone:
    curate = view.curate
    by = curate.mix.by if curate.mix else None
    return choices.by_balance(view.kept, curate.balance, by, curate.seed) if curate.balance else {}


def _mix(view: View) -> Gone:
    return choices.by_mix(view.kept, view.curate.mix, view.curate.seed) if view.curate.mix else {}


STAGES: dict[str, Callable[[View], Gone]] = {
    "finished": _finished,
    "where": _where,
    "steps": _steps,
    "exclude": _exclude,
    "length": _length,
    "difficulty": _difficulty,
    "exact": _exact,
    "near": _near,
    "cap": _cap,
    "balance": _balance,
    "mix": _mix,
}
"""In the order they run: first what tells bad trajectories by themselves, then what compares those that are left."""


def _funnel(rows: pl.DataFrame) -> list[dict[str, Any]]:
    counted = rows.group_by("dropped", "split").agg(pl.len(), pl.col("n_steps").sum().cast(pl.Int64))
    gone: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for dropped, split, n, n_steps in counted.iter_rows():
        name = dropped or f"out: {split}"
        gone[name], steps[name] = gone[name] + n, steps[name] + n_steps
    left = [gone.total(), steps.total()]
    lines = [_line("in", "", *left, *left)]
    order = [*STAGES, "out"]
    for name in sorted(gone, key=lambda name: (order.index(name.partition(": ")[0]), name)):
        stage, _, reason = name.partition(": ")
        if stage != "out":
            left = [left[0] - gone[name], left[1] - steps[name]]
        lines.append(_line(stage, reason, gone[name], steps[name], *left))
    return lines


def _line(stage: str, reason: str, n: int, n_steps: int, left: int, left_steps: int) -> dict[str, Any]:
    return {
        "stage": stage, "reason": reason, "trajectories": n, "steps": n_steps, "left_trajectories": left,
        "left_steps": left_steps,
    }  # fmt: skip
