"""How well scores tell right from wrong: AUC, accuracy, pairs, and the best of k (METHODS.md 5 and 2.3).

Belongs here: figures over scored attempts, and reading these from the log. Does not belong here: scoring (`jobs`), what a
verdict is compared with step by step (`critics.audit`). Every figure has a 95% interval from a bootstrap over tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import pyarrow as pa

from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, ratio
from stepwell.log import live
from stepwell.pairs import graded

COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "caused_by", "policy", "recorded_at", "start", "attempt", "outcome",
    "verdict", "retraction",
)  # fmt: skip
"""Columns of `events` that `scored` reads."""


@dataclass(frozen=True)
class Scored:
    """An attempt at a task: how sure the critic is that it is right, in [0, 1], whether it is, its id (`stepwell.pairs`)."""

    task: str
    score: float
    right: bool
    attempt: str = ""


def scored(events: pa.Table, critic: str) -> tuple[list[Scored], int]:
    """Events of whole trajectories in canonical order (COLUMNS) -> what a critic's judgments score, and how many it did not.

    A trajectory or a solution is one attempt. Its score is the mean over the candidates of the critic of the confidence, or
    without one of the judgment, or without either of what its severity leaves of 1; a candidate that cannot be read counts one
    half. Beside a severity without a judgment a confidence is in that severity, and does not count. A critic that judges steps
    alone scores a trajectory by the share of steps that it finds no mistake in. Ungraded ones are left out.
    """
    whole: dict[str, list[float]] = defaultdict(list)
    steps: dict[str, list[float]] = defaultdict(list)
    for row in live(events).select(list(COLUMNS)).to_pylist():
        said = row["verdict"]
        if row["kind"] != "verdict" or row["policy"] != critic:
            continue
        if said["scope"] in ("trajectory", "attempt"):
            about = row["trajectory_id"] if said["scope"] == "trajectory" else row["caused_by"]
            whole[about or ""].append(_score(said))
        elif said["scope"] in ("step", "window"):
            wrong = said["label"] == "mistake" if said["label"] else None
            steps[row["trajectory_id"]].append(_score(said) if wrong is None else float(not wrong))
    votes, known = whole or steps, graded(events)
    ids = sorted(votes.keys() & known.keys())
    n_said = sum(map(len, votes.values()))
    return [Scored(known[i].task, float(np.mean(votes[i])), known[i].right, i) for i in ids], n_said


def _score(said: Mapping[str, object]) -> float:
    judgment, confidence, severity = said["judgment"], said["confidence"], said["severity"]
    if judgment is None and isinstance(severity, int):
        return 1 - severity / 2
    if isinstance(confidence, float):
        return confidence
    return 0.5 if judgment is None else float(bool(judgment))


def ranked(attempts: Sequence[Scored], ks: Sequence[int] = (1, 2, 4, 8), draws: int = 2000) -> dict[str, Figure]:
    """Figures by name; `best@k`, `random@k` (a mean attempt) and `any@k` are over tasks with at least k attempts.

    `auc`: a right attempt scores above a wrong one, ties half, whatever their tasks; `pairs`: the same within a task.
    `accuracy`: right exactly where the score is above one half; `majority` is that of always saying what is more common.
    """
    by_task: dict[str, list[Scored]] = defaultdict(list)
    for a in attempts:
        by_task[a.task].append(a)
    tasks = [by_task[t] for t in sorted(by_task)]
    bins = {s: i for i, s in enumerate(sorted({a.score for a in attempts}))}
    counts = np.zeros((len(tasks), 2, max(len(bins), 1)))
    sums: dict[str, Array] = {
        "n": np.zeros(len(tasks)),
        "hit": np.zeros(len(tasks)),
        "pairs": np.zeros((len(tasks), 2)),
    }
    used = [k for k in ks if any(len(t) >= k for t in tasks)]
    for k in used:
        sums[f"k{k}"] = np.zeros((len(tasks), 4))
    for i, task in enumerate(tasks):
        for a in task:
            counts[i, int(a.right), bins[a.score]] += 1
            sums["hit"][i] += (a.score > 0.5) == a.right
        sums["n"][i] = len(task)
        good, bad = [a.score for a in task if a.right], [a.score for a in task if not a.right]
        sums["pairs"][i] = (sum((g > b) + (g == b) / 2 for g in good for b in bad), len(good) * len(bad))
        for k in used:
            if len(task) >= k:
                share = len(good) / len(task)
                sums[f"k{k}"][i] = (1, best(task, k), share, 1 - comb(len(bad), k) / comb(len(task), k))
    statistics: dict[str, Statistic] = {
        "auc": _auc,
        "pairs": lambda s: ratio(s["pairs"][:, 0], s["pairs"][:, 1]),
        "accuracy": lambda s: ratio(s["hit"], s["n"]),
        "right": lambda s: ratio(s["counts"][:, 1].sum(axis=1), s["n"]),
        "majority": lambda s: ratio(s["counts"].sum(axis=2).max(axis=1), s["n"]),
    }
    for k in used:
        for column, name in enumerate(("best", "random", "any"), 1):
            statistics[f"{name}@{k}"] = _at(k, column)
    return figures({**sums, "counts": counts}, statistics, draws) if attempts else {}


def best(task: Sequence[Scored], k: int) -> float:
    """The chance that of k attempts at a task, drawn without replacement, the best scored is right; ties are drawn from."""
    total, below, value = comb(len(task), k), 0, 0.0
    for right in _levels(task):
        upto = below + len(right)
        value += (comb(upto, k) - comb(below, k)) / total * sum(right) / len(right)
        below = upto
    return value


def _levels(task: Sequence[Scored]) -> Iterator[list[bool]]:
    """Whether the attempts of each score are right, from the lowest score up."""
    levels: dict[float, list[bool]] = defaultdict(list)
    for a in task:
        levels[a.score].append(a.right)
    yield from (levels[score] for score in sorted(levels))


def _auc(s: Sums) -> tuple[Array, Array]:
    bad, good = s["counts"][:, 0], s["counts"][:, 1]
    below = np.cumsum(bad, axis=1) - bad
    won = (good * (below + bad / 2)).sum(axis=1)
    n_good, n_bad = good.sum(axis=1), bad.sum(axis=1)
    return ratio(won, n_good * n_bad)[0], n_good + n_bad


def _at(k: int, column: int) -> Statistic:
    return lambda s: ratio(s[f"k{k}"][:, column], s[f"k{k}"][:, 0])
