"""Figures of arms and of their pairs, all from one set of draws of tasks (METHODS.md 1.4, K1, K11).

Belongs here: what is summed over a task's attempts, and the statistics of those sums. Does not belong here: tests, claims
(`compare`), what went wrong in which way (`modes`). A task counts once, with the mean over its attempts and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, ratio
from stepwell.errors import UsageError
from stepwell.evaluation.arms import Arm
from stepwell.evaluation.attempts import Attempt
from stepwell.evaluation.intervals import wilson
from stepwell.evaluation.prices import PriceList
from stepwell.evaluation.seeds import Counts, pass_all, pass_at

DRAWS = 10_000
Value = Callable[[Attempt], float]

COUNTED: dict[str, Value] = {
    "resolved": lambda a: a.resolved,
    "submitted": lambda a: a.submitted,
    "resolved_submitted": lambda a: a.resolved and a.submitted,
    "steps": lambda a: a.n_steps,
    "stuck": lambda a: a.stuck,
    "tokens_in": lambda a: a.told.total("tokens_in"),
    "tokens_out": lambda a: a.told.total("tokens_out"),
    "cache_read": lambda a: a.told.total("cache_read"),
}
"""What is summed over attempts; tokens are the agent's."""
SHARES = ("resolved", "submitted", "stuck")
MEANS = ("steps", "tokens_in", "tokens_out", "cache_read")
UNNAMED = ("source", "not said")
"""Price policies that name no price list, so that two costs under one of them need not be comparable."""


@dataclass(frozen=True)
class Costs:
    """What each attempt cost, agent and critic apart, under one price policy; `refused` says why there is none."""

    policy: str | None
    refused: str | None
    model: Value
    critic: Value


def costs(arms: Sequence[Arm], prices: PriceList | None) -> Costs:
    """By the price list, recomputed from usage; without one as recorded, when all of it is under one price policy.

    Raises UsageError for calls whose tokens nobody counted, and UnknownName for a model that the list has no price for.
    """
    spent = [(key, s) for arm in arms for a in arm.attempts() for key, s in a.told.spent.items()]
    if prices is not None:
        blind = sorted({policy for (_, policy), s in spent if s.unmetered})
        if blind:
            raise UsageError(
                f"calls of {', '.join(blind)} have no token counts, so no list prices them; drop --prices."
            )
        for (_, policy), _ in spent:
            prices.of(policy)
        listed = prices

        def priced(role: str) -> Value:
            return lambda a: sum(
                listed.cost(policy, s.tokens_in, s.tokens_out, s.cache_read, s.cache_write)
                for (r, policy), s in a.told.spent.items()
                if r == role
            )

        return Costs(prices.policy, None, priced("agent"), priced("critic"))
    policies = sorted({p for _, s in spent for p in s.policies})
    refused = None
    if any(s.unpriced for _, s in spent) or not policies:
        refused = "not every call has a recorded cost; give --prices FILE"
    elif len(policies) > 1:
        refused = f"costs are recorded under different price policies ({', '.join(policies)}); give --prices FILE"
    elif policies[0] in UNNAMED:
        refused = "costs are recorded without saying by which price list; give --prices FILE"

    def recorded(role: str) -> Value:
        return lambda a: sum(s.cost_usd or 0.0 for (r, _), s in a.told.spent.items() if r == role)

    return Costs(None if refused else policies[0], refused, recorded("agent"), recorded("critic"))


def sums_of(arms: Sequence[Arm], values: dict[str, Value]) -> dict[str, Array]:
    """Name -> (tasks, arms): the mean over a task's attempts, seeds weighted alike."""
    sums = {name: np.zeros((len(arms[0].tasks), len(arms))) for name in values}
    for j, arm in enumerate(arms):
        for name, value in values.items():
            cells = [[np.mean([float(value(a)) for a in task]) for task in run] for run in arm.runs]
            sums[name][:, j] = np.mean(cells, axis=0)
    return sums


def measure(
    arms: Sequence[Arm], pairs: Sequence[tuple[int, int]], cost: Costs, draws: int = DRAWS, seed: int = 0
) -> tuple[list[dict[str, Figure]], list[dict[str, Figure]]]:
    """Figures of every arm, and of every pair (a, b) the difference b - a and the ratios b / a of costs."""
    counted = {**COUNTED, "model_usd": cost.model, "critic_usd": cost.critic}
    sums = sums_of(arms, counted)
    sums["usd"] = sums["model_usd"] + sums["critic_usd"]
    for name, curve in _passes(arms).items():
        sums[name] = curve
    statistics: dict[str, Statistic] = {}
    for j, arm in enumerate(arms):
        for name in (*SHARES, *MEANS):
            statistics[f"{j}/{name}"] = _mean(name, j)
        statistics[f"{j}/resolved_on_submitted"] = _ratio("resolved_submitted", "submitted", j)
        for k in _ks(arm):
            statistics[f"{j}/pass@{k}"], statistics[f"{j}/pass^{k}"] = _mean(f"pass@{k}", j), _mean(f"pass^{k}", j)
        if cost.refused is None:
            for name, summed in (("model_usd", "model_usd"), ("critic_usd", "critic_usd"), ("usd_per_task", "usd")):
                statistics[f"{j}/{name}"] = _mean(summed, j)
            statistics[f"{j}/usd_per_resolved"] = _ratio("usd", "resolved", j)
            statistics[f"{j}/critic_share"] = _ratio("critic_usd", "usd", j)
    for i, (a, b) in enumerate(pairs):
        statistics[f"pair{i}/difference"] = difference("resolved", a, b)
        for name in ("submitted", "stuck", "steps"):
            statistics[f"pair{i}/{name}"] = difference(name, a, b)
        if cost.refused is None:
            statistics[f"pair{i}/cost_ratio"] = _over(lambda s, j: s["usd"][:, j], a, b)
            statistics[f"pair{i}/cost_per_resolved_ratio"] = _over(
                lambda s, j: ratio(s["usd"][:, j], s["resolved"][:, j])[0], a, b
            )
    found = figures(sums, statistics, draws, seed)

    def of(prefix: str) -> dict[str, Figure]:
        return {k.removeprefix(f"{prefix}/"): f for k, f in found.items() if k.startswith(f"{prefix}/")}

    per_arm = [_wilson(of(str(j)), arm) for j, arm in enumerate(arms)]
    return per_arm, [of(f"pair{i}") for i in range(len(pairs))]


def difference(name: str, a: int, b: int) -> Statistic:
    """Mean over the tasks drawn of column b less column a of (tasks, arms) sums."""
    return lambda s: ((s[name][:, b] - s[name][:, a]) / s["weights"].sum(axis=1), s["weights"].sum(axis=1))


def _mean(name: str, j: int) -> Statistic:
    return lambda s: ratio(s[name][:, j], s["weights"].sum(axis=1))


def _ratio(part: str, whole: str, j: int) -> Statistic:
    def statistic(s: Sums) -> tuple[Array, Array]:
        return ratio(s[part][:, j], s[whole][:, j])[0], s["weights"].sum(axis=1)

    return statistic


def _over(value: Callable[[Sums, int], Array], a: int, b: int) -> Statistic:
    def statistic(s: Sums) -> tuple[Array, Array]:
        return ratio(value(s, b), value(s, a))[0], s["weights"].sum(axis=1)

    return statistic


def _ks(arm: Arm) -> list[int]:
    """1, 2, 4, ... and the most attempts every task has; none with one attempt."""
    most = min(len(task) for run in arm.runs for task in run)
    return sorted({k for k in (*(2**i for i in range(most.bit_length())), most) if k <= most}) if most > 1 else []


def _passes(arms: Sequence[Arm]) -> dict[str, Array]:
    """pass@k and pass^k of every task, (tasks, arms), mean over seeds: attempts of one seed are what is drawn from."""
    sums: dict[str, Array] = {}
    for j, arm in enumerate(arms):
        for k in _ks(arm):
            for name, chance in (("pass@", pass_at), ("pass^", pass_all)):
                cells = [
                    [float(chance(_count(task), len(task), k)[0]) for task in run] for run in arm.runs
                ]  # fmt: skip
                sums.setdefault(f"{name}{k}", np.zeros((len(arm.tasks), len(arms))))[:, j] = np.mean(cells, axis=0)
    return sums


def _count(task: Sequence[Attempt]) -> Counts:
    return np.array([sum(a.resolved for a in task)], np.int64)


def _wilson(found: dict[str, Figure], arm: Arm) -> dict[str, Figure]:
    """Shares of one attempt a task are binomial, so Wilson's interval takes the place of the bootstrap's."""
    if not arm.once:
        return found
    n = len(arm.tasks)
    for name in SHARES:
        found[name] = Figure(found[name].value, *wilson(round((found[name].value or 0.0) * n), n), n)
    return found
