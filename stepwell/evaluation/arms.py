"""Arms: which evaluations are one arm of a comparison, and what may not be compared (METHODS.md K2, K3).

Belongs here: names to evaluations, and every refusal that rests on tasks, settings and seeds. Does not belong here: figures.
An arm is a recipe's models (the newest of each training seed, all trained on one dataset), a model, or evaluations. A model
evaluated under several sampling seeds has as many runs when nothing in the lake trained it, such as a base; what was trained
has a run a training seed, and sampling seeds are further attempts of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stepwell.bootstrap import Array
from stepwell.errors import UnknownName, UsageError
from stepwell.evaluation.attempts import Attempt, attempts_of
from stepwell.ids import canonical
from stepwell.lake import Lake

_COLUMNS = ("evaluation_id", "model_id", "suite", "recorded_at", "recipe", "seed", "sampling_seed")
_NAMED = 10
_HASH = r"-[0-9a-f]{12}$"


@dataclass(frozen=True)
class Found:
    """An arm by name, before its attempts are read: evaluation ids, one a seed of training and sampling, and rows of `models`
    where there are."""

    name: str
    suite: str
    evaluations: tuple[str, ...]
    models: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Arm:
    """An arm with its attempts on `tasks` (sorted): `runs[s][t]` are those of seed s at task t, at least one each."""

    name: str
    suite: str
    evaluations: tuple[str, ...]
    models: tuple[Mapping[str, Any], ...]
    tasks: tuple[str, ...]
    runs: tuple[tuple[tuple[Attempt, ...], ...], ...]
    left_out: int
    n_dropped: int

    @property
    def n_seeds(self) -> int:
        """Runs of the arm; one is a single run."""
        return len(self.runs)

    @property
    def n_attempts(self) -> int:
        """Attempts, all seeds together."""
        return sum(1 for _ in self.attempts())

    @property
    def once(self) -> bool:
        """Whether every task was attempted once and there is one seed, so that outcomes are yes or no."""
        return self.n_attempts == len(self.tasks)

    @property
    def fixed(self) -> bool:
        """Whether it is one checkpoint that nothing in the lake trained, such as a base: it has no seed of training."""
        return not any(m["dataset"] for m in self.models)

    def attempts(self) -> list[Attempt]:
        """Every attempt."""
        return [a for run in self.runs for task in run for a in task]

    def outcomes(self) -> Array:
        """Share of attempts resolved, (tasks, seeds)."""
        return np.array([[np.mean([a.resolved for a in task]) for task in run] for run in self.runs]).T

    def settings(self) -> dict[str, list[str]]:
        """How its attempts were played: every value a setting has, as JSON."""
        seen: dict[str, set[str]] = {}
        for a in self.attempts():
            for name, value in a.told.setting.items():
                if value is not None:
                    seen.setdefault(name, set()).add(canonical([value])[1:-1].decode())
        return {name: sorted(values) for name, values in sorted(seen.items())}


def known(lake: Lake) -> list[Found]:
    """Every arm of the lake: the newest evaluation of each model, suite and sampling seed, those of a recipe's seeds together.

    Arms are in the order they were recorded. Of a recipe only models of the newest dataset and base count.
    """
    models = {r["model_id"]: r for r in lake.read("models").to_pylist()}
    arms: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _newest(lake):
        model = models.get(row["model_id"])
        name = model["recipe"] if model else _stem(row["model_id"])
        arms.setdefault((name, row["suite"]), []).append({**row, "model": model})
    found = []
    for (name, suite), rows in arms.items():
        last = rows[-1]["model"]
        of = [r for r in rows if last is None or (r["model"] and _same(r["model"], last))]
        newest = {_seed(r): r["model_id"] for r in of}  # a seed trained again is one run, not two
        by_seed = {(_seed(r), r["sampling_seed"]): r for r in of if r["model_id"] == newest[_seed(r)]}
        kept = [by_seed[s] for s in sorted(by_seed)]
        trained = tuple({r["model_id"]: r["model"] for r in kept if r["model"]}.values())
        found.append(Found(name, suite, tuple(r["evaluation_id"] for r in kept), trained))
    return found


def resolve(lake: Lake, names: Sequence[str], suite: str | None = None) -> list[Found]:
    """The arms that names stand for, all of one suite; `NAME=ID,ID` puts evaluations together under a name.

    Raises UnknownName for a name that is none, and UsageError when there is no suite, or more than one, that all have.
    """
    frame = pl.DataFrame(lake.read("evaluations", columns=_COLUMNS))
    every, models = known(lake), {r["model_id"]: r for r in lake.read("models").to_pylist()}
    rows = {r["evaluation_id"]: r for r in frame.sort("recorded_at").to_dicts()}
    newest = _newest(lake)
    options = [_named(name, every, rows, models, newest) for name in names]
    shared = set.intersection(*({f.suite for f in o} for o in options))
    wanted = {suite} if suite else shared
    if len(wanted) != 1 or not wanted <= shared:
        have = "; ".join(f"{n}: {', '.join(sorted({f.suite for f in o}))}" for n, o in zip(names, options, strict=True))
        raise UsageError(
            f"suite {suite or 'not named'}: the arms need one they all have ({have}). Name it with --suite, or evaluate."
        )
    chosen = wanted.pop()
    found = [next(f for f in o if f.suite == chosen) for o in options]
    twice = sorted({f.name for f in found if [g.name for g in found].count(f.name) > 1})
    same = len({f.evaluations for f in found}) < len(found)
    if twice or same:
        raise UsageError(f"an arm is named twice ({', '.join(twice or names)}); every arm must be another.")
    return found


def _named(
    name: str, every: Sequence[Found], rows: Mapping[str, Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]],
    last: Sequence[Mapping[str, Any]],
) -> list[Found]:  # fmt: skip
    label, _, ids = (name, "", "") if name in rows else name.partition("=")
    if ids or name in rows:
        given = ids.split(",") if ids else [name]
        for one in given:
            if one not in rows:
                raise UnknownName("evaluation", one, rows, "Evaluate a model: stepwell evaluate RECIPE")
        suites = sorted({rows[i]["suite"] for i in given})
        if len(suites) > 1:
            raise UsageError(f"{name!r} is of suites {', '.join(suites)}; the evaluations of an arm must share one.")
        of = tuple(models[m] for m in (rows[i]["model_id"] for i in given) if m in models)
        return [Found(label if ids else name, suites[0], tuple(dict.fromkeys(given)), of)]
    recipe = [f for f in every if f.name == name]
    if recipe:
        return recipe
    newest: dict[str, Found] = {}
    for row in last:
        model, suite = models.get(row["model_id"]), row["suite"]
        if name == row["model_id"] or (model and name == model["name"]):
            own = newest.get(suite)
            # Of models of one name the newest counts; its sampling seeds go together.
            same = own is not None and own.evaluations[0].partition("@")[0] == row["model_id"]
            runs = (*own.evaluations, row["evaluation_id"]) if own is not None and same else (row["evaluation_id"],)
            newest[suite] = Found(name, suite, runs, (model,) if model else ())
    if not newest:
        allowed = {f.name for f in every} | {r["model_id"] for r in rows.values()}
        raise UnknownName("recipe, model or evaluation", name, allowed, "Evaluate it: stepwell evaluate RECIPE")
    return list(newest.values())


def arms(lake: Lake, found: Sequence[Found], on_common: bool = False) -> list[Arm]:
    """Read the attempts of arms; all must have the same tasks, unless only those in common are asked for.

    Raises UsageError naming the tasks that not all attempted, when none is left, and for an arm whose runs were not played
    the same way.
    """
    read = [attempts_of(lake, f.evaluations) for f in found]
    tasks = {
        (f.name, e): {a.task_id for a in attempts if a.evaluation_id == e}
        for f, (attempts, _) in zip(found, read, strict=True)
        for e in f.evaluations
    }
    common, union = set.intersection(*tasks.values()), set.union(*tasks.values())
    if common != union and not on_common:
        missing = "; ".join(
            f"{arm} ({e}) lacks {_some(union - own)}" for (arm, e), own in tasks.items() if union - own
        )  # fmt: skip
        raise UsageError(
            f"the arms were not evaluated on the same tasks ({len(common)} of {len(union)} in common): {missing}. Evaluate "
            "them on one suite, or compare them on the tasks in common with --on-common."
        )
    if not common:
        raise UsageError(f"{', '.join(f.name for f in found)} share no task; compare evaluations of one suite.")
    kept = tuple(sorted(common))
    made = []
    for f, (attempts, left_out) in zip(found, read, strict=True):
        cells: dict[tuple[str, str], list[Attempt]] = {}
        for a in attempts:
            cells.setdefault((a.evaluation_id, a.task_id), []).append(a)
        own = set.union(*(tasks[f.name, e] for e in f.evaluations))
        runs = tuple(tuple(tuple(a for e in run for a in cells[e, t]) for t in kept) for run in _runs(f))
        made.append(Arm(f.name, f.suite, f.evaluations, f.models, kept, runs, left_out, len(own - common)))
    for arm in made:
        mixed = {k: v for k, v in arm.settings().items() if len(v) > 1}
        if mixed:
            told = "; ".join(f"{k}: {', '.join(v)}" for k, v in mixed.items())
            raise UsageError(f"the runs of arm {arm.name!r} were not played the same way ({told}); make them two arms.")
    return made


def _newest(lake: Lake) -> list[dict[str, Any]]:
    """The newest evaluation of each model, suite and sampling seed that was asked for as the newest of that model was."""
    frame = pl.DataFrame(lake.read("evaluations", columns=_COLUMNS)).with_columns(pl.col("sampling_seed").fill_null(0))
    key = ["suite", "model_id", "sampling_seed"]
    newest = frame.sort("recorded_at").group_by(key, maintain_order=True).last().sort("recorded_at", "sampling_seed")
    asked = [pl.col(name) == pl.col(name).last().over("suite", "model_id") for name in ("recipe", "seed")]
    return newest.filter(*asked).to_dicts()


def _runs(found: Found) -> list[list[str]]:
    """Evaluations that are one run: of what was trained those of one checkpoint, otherwise each is one."""
    if not any(m["dataset"] for m in found.models):
        return [[e] for e in found.evaluations]
    runs: dict[str, list[str]] = {}
    for evaluation in found.evaluations:
        runs.setdefault(evaluation.partition("@")[0], []).append(evaluation)
    return list(runs.values())


def _some(tasks: set[str]) -> str:
    more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
    return ", ".join(sorted(tasks)[:_NAMED]) + more


def _seed(row: Mapping[str, Any]) -> int:
    """Seed of the training that made what was evaluated."""
    return int((row["model"] or {}).get("seed") or 0)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return bool(a["dataset_hash"] == b["dataset_hash"] and a["base_model"] == b["base_model"])


def _stem(model_id: str) -> str:
    return re.sub(_HASH, "", model_id)
