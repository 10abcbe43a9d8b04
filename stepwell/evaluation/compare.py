"""Comparing arms on the same tasks: figures, paired tests with correction (METHODS.md K1-K3, K11).

Belongs here: a comparison from end to end. Does not belong here: which evaluations are an arm (`arms`), how it is shown
(`report`) and kept (`recorded`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl

from stepwell.affected import rows_at, table_of
from stepwell.bootstrap import Figure, figures, ratio
from stepwell.errors import UsageError
from stepwell.evaluation.arms import Arm, arms, resolve
from stepwell.evaluation.attempts import Spent
from stepwell.evaluation.claims import Pair
from stepwell.evaluation.intervals import benjamini_hochberg, holm, mcnemar, minimum_detectable, sign_flip
from stepwell.evaluation.metrics import DRAWS, Costs, costs, measure
from stepwell.evaluation.modes import by_contamination, by_task, modes
from stepwell.evaluation.prices import PriceList
from stepwell.evaluation.seeds import ROUNDING, Components, components, crossed, over_seeds
from stepwell.ids import digest
from stepwell.lake import Lake

_POWER = 1.96 + 0.84
"""Standard errors of a difference that shows with 80% power at 5%, two-sided."""


@dataclass(frozen=True)
class ArmReport:
    """One arm: `figures` by name (metrics.measure), `seeds` the mean over seeds, `components` of variance, who spent what."""

    name: str
    suite: str
    evaluations: tuple[str, ...]
    models: tuple[str, ...]
    n_tasks: int
    n_seeds: int
    n_attempts: int
    left_out: int
    fixed: bool
    settings: dict[str, list[str]]
    figures: dict[str, Figure]
    seeds: Figure
    components: Components | None
    spent: dict[str, Spent]
    recorded_usd: float | None
    masked_share: float | None


@dataclass(frozen=True)
class Comparison:
    """Arms on one task set under one price policy; `fallback` are extra rows, never in place of the plain ones."""

    suite: str
    n_tasks: int
    task_set: str
    price_policy: str | None
    no_costs: str | None
    arms: list[ArmReport]
    pairs: list[Pair]
    fallback: list[tuple[str, Figure]]
    notes: list[str]


def compare(
    lake: Lake, names: Sequence[str], *, baseline: str | None = None, every_pair: bool = False, suite: str | None = None,
    on_common: bool = False, prices: PriceList | None = None, fallback: bool = False, draws: int = DRAWS,
) -> Comparison:  # fmt: skip
    """Compare arms by name (see `arms`), each with the first or the `baseline`, or `every_pair`.

    Raises UsageError for every reason not to: fewer than two arms, tasks that differ (unless `on_common`), no price for a
    model of the list, runs of an arm that were not played the same way.
    """
    if baseline is not None and baseline not in names:
        if any(n.partition("=")[0] == baseline for n in names):
            baseline = next(n for n in names if n.partition("=")[0] == baseline)
        else:
            names = [baseline, *names]
    if baseline is not None:
        names = [baseline, *(n for n in names if n != baseline)]
    if len(names) < 2:
        raise UsageError(f"{len(names)} arm named ({', '.join(names)}); a comparison needs two: stepwell compare A B")
    return of_arms(lake, arms(lake, resolve(lake, names, suite), on_common), every_pair, prices, fallback, draws)


def of_arms(
    lake: Lake, read: Sequence[Arm], every_pair: bool = False, prices: PriceList | None = None, fallback: bool = False,
    draws: int = DRAWS, explain: bool = True,
) -> Comparison:  # fmt: skip
    """Compare arms that have the same tasks; without `explain` no failure modes and no groups of tasks."""
    cost = costs(read, prices)
    indexes = list(combinations(range(len(read)), 2)) if every_pair else [(0, j) for j in range(1, len(read))]
    per_arm, per_pair = measure(read, indexes, cost, draws)
    pairs = [_pair(read[a], read[b], f) for (a, b), f in zip(indexes, per_pair, strict=True)]
    p_values = [p.p_value for p in pairs]
    explained = []
    for (a, b), p, p_holm, q in zip(indexes, pairs, holm(p_values), benjamini_hochberg(p_values), strict=True):
        found, notes = modes(read, a, b, draws) if explain else ([], [])
        split, n_dirty, said = by_contamination(lake, read, a, b, draws)
        explained.append(
            replace(
                p, p_adjusted=p_holm, q_value=q, n_family=len(pairs), modes=found, notes=notes, contamination=split,
                n_dirty=n_dirty, said=said, groups=by_task(read, a, b, draws) if explain else [],
            )
        )  # fmt: skip
    masked = [_masked_share(lake, arm) for arm in read]
    reports = [_report(arm, f, share) for arm, f, (share, _) in zip(read, per_arm, masked, strict=True)]
    tasks = read[0].tasks
    return Comparison(
        suite=read[0].suite, n_tasks=len(tasks), task_set=digest(list(tasks)), price_policy=cost.policy,
        no_costs=cost.refused, arms=reports, pairs=explained, fallback=_fallback(read, draws) if fallback else [],
        notes=[*_notes(read, cost), *(note for _, erased in masked for note in erased)],
    )  # fmt: skip


def _pair(a: Arm, b: Arm, found: dict[str, Figure]) -> Pair:
    outcomes = (a.outcomes(), b.outcomes())
    by_task = outcomes[1].mean(axis=1) - outcomes[0].mean(axis=1)
    by_task[np.abs(by_task) < ROUNDING] = 0.0
    n, only_a, only_b = len(by_task), int((by_task < 0).sum()), int((by_task > 0).sum())
    claimable = all(arm.n_seeds > 1 or arm.fixed for arm in (a, b)) and max(a.n_seeds, b.n_seeds) > 1
    both = crossed(*outcomes) if claimable else None
    once = a.once and b.once
    if both is not None:
        test = "t over tasks and seeds" if both.error else "exact sign test over tasks"
        p_value, least = both.p_value, _POWER * both.error
    elif once:
        test, p_value = "exact McNemar", mcnemar(only_a, only_b)
        shown = minimum_detectable((only_a + only_b) / n, n)
        least = -1.0 if shown is None else shown
    else:
        test, p_value = "sign-flip test over tasks", sign_flip(by_task)
        least = _POWER * float(by_task.std(ddof=1)) / n**0.5 if n > 1 else -1.0
    return Pair(
        a=a.name, b=b.name, suite=a.suite, n_tasks=n, seeds_a=a.n_seeds, seeds_b=b.n_seeds,
        fixed_a=a.fixed, fixed_b=b.fixed, claimable=both is not None,
        rate_a=float(outcomes[0].mean()), rate_b=float(outcomes[1].mean()), difference=found["difference"], crossed=both,
        only_a=only_a, only_b=only_b, test=test, p_value=p_value, detectable=least if 0 < least <= 1 else None,
        figures=found,
    )  # fmt: skip


def _report(arm: Arm, found: dict[str, Figure], masked_share: float | None) -> ArmReport:
    spent: dict[str, Spent] = {}
    for a in arm.attempts():
        for (role, policy), s in a.told.spent.items():
            whole = spent.setdefault(f"{role}: {policy}", Spent())
            whole.join(s)
    known_usd = [s.cost_usd for s in spent.values() if s.cost_usd is not None]
    outcomes = arm.outcomes()
    return ArmReport(
        name=arm.name, suite=arm.suite, evaluations=arm.evaluations, models=tuple(m["model_id"] for m in arm.models),
        n_tasks=len(arm.tasks), n_seeds=arm.n_seeds, n_attempts=arm.n_attempts, left_out=arm.left_out, fixed=arm.fixed,
        settings=arm.settings(), figures=found, seeds=over_seeds(outcomes), components=components(outcomes), spent=spent,
        recorded_usd=sum(known_usd) if known_usd else None, masked_share=masked_share,
    )  # fmt: skip


def _fallback(read: Sequence[Arm], draws: int) -> list[tuple[str, Figure]]:
    """Resolve rates where what was not submitted is replaced by the base's run, or for the base by its other runs."""
    base, rows = read[0], []
    rates = base.outcomes().mean(axis=1)
    for j, arm in enumerate(read):
        value = np.zeros(len(arm.tasks))
        for t in range(len(arm.tasks)):
            tried = [run[t] for run in arm.runs]
            whole = [a for task in tried for a in task]
            if j == 0 and len(whole) < 2:
                break
            others = (sum(a.resolved for a in whole), len(whole) - 1)
            seeds = [
                np.mean(
                    [
                        a.resolved if a.submitted else rates[t] if j else (others[0] - a.resolved) / others[1]
                        for a in task
                    ]
                )
                for task in tried
            ]
            value[t] = np.mean(seeds)
        else:
            sums = {"value": value, "n": np.ones(len(value))}
            found = figures(sums, {"rate": lambda s: ratio(s["value"], s["n"])}, draws)["rate"]
            rows.append((f"{arm.name} + {base.name if j else 'another run of its own'} where not submitted", found))
    return rows


def _notes(read: Sequence[Arm], cost: Costs) -> list[str]:
    notes = [] if cost.refused is None else [f"no costs: {cost.refused}."]
    for arm in read:
        if arm.n_dropped:
            notes.append(
                f"{arm.name}: {arm.n_dropped} tasks of its own left out, as not all were attempted in every run."
            )
        if arm.left_out:
            notes.append(
                f"{arm.name}: {arm.left_out} attempts left out, as they ended for reasons that are not the policy's."
            )
    single = [f"{arm.name} (a fixed checkpoint)" if arm.fixed else arm.name for arm in read if arm.n_seeds == 1]
    notes += [f"single runs: {', '.join(single)}."] if single else []
    played = {arm.name: arm.settings() for arm in read}
    for name in sorted({k for s in played.values() for k in s}):
        values = {arm: ", ".join(s.get(name, ["not said"])) for arm, s in played.items()}
        if len(set(values.values())) > 1:
            notes.append(f"{name} differs: " + "; ".join(f"{arm} {v}" for arm, v in values.items()) + ".")
    return notes


def _masked_share(lake: Lake, arm: Arm) -> tuple[float | None, list[str]]:
    """Share of steps masked in what an arm was trained on, and notes why not; None where nothing here was, or it is erased."""
    datasets = sorted({(name, m["dataset_version"]) for m in arm.models if (name := table_of(m))})
    read = {(d, v): rows_at(lake, d, v, ["n_masked_steps", "steps"]) for d, v in datasets}
    erased = [f"{d} at version {v}" for (d, v), rows in read.items() if rows is None]
    if erased:
        return None, [f"{arm.name}: no share of masked steps, as a redaction erased rows of {', '.join(erased)}."]
    tables = [pl.DataFrame(rows) for rows in read.values() if rows is not None]
    n = sum(int(t["steps"].list.len().sum()) for t in tables)
    return (sum(int(t["n_masked_steps"].sum()) for t in tables) / n if n else None), []
