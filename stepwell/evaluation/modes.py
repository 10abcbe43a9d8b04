"""Where two arms differ: how attempts end, loops, what critics found in the steps, kinds of tasks, dirty and clean ones.

Belongs here: differences by failure mode and by group of tasks. Does not belong here: what contamination is
(`stepwell.contamination`). None of it is corrected for how many lines there are: it explains a difference, it claims none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from schemas.kinds import HELD_OUT
from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, of_groups, ratio
from stepwell.contamination.effect import compared_tasks, dirty_tasks
from stepwell.errors import LakeError
from stepwell.evaluation.arms import Arm
from stepwell.evaluation.metrics import Value, difference, sums_of
from stepwell.lake import Lake
from stepwell.models import ancestors

MOST = 12
"""Findings of one critic that are shown, the most frequent ones."""
DIFFICULTY = ("hard: others resolve below 1/3", "medium", "easy: others resolve above 2/3")


@dataclass(frozen=True)
class Mode:
    """Share of attempts that show a mode, in both arms, and the difference b - a over tasks."""

    mode: str
    a: float
    b: float
    difference: Figure


@dataclass(frozen=True)
class Group:
    """Resolve rates of both arms on a group of `n` tasks, and the difference b - a on them (None without tasks)."""

    group: str
    n: int
    a: float | None
    b: float | None
    difference: Figure


def modes(arms: Sequence[Arm], a: int, b: int, draws: int) -> tuple[list[Mode], list[str]]:
    """Exit status, loops, and what each critic that judged all attempts of both arms found; and notes on those left out."""
    pair = [arms[a], arms[b]]
    values: dict[str, Value] = {"stuck in a loop": lambda x: x.stuck}
    attempts = [x for arm in pair for x in arm.attempts()]
    for status in sorted({x.exit_status for x in attempts}):
        values[f"ends: {status}"] = _ends(status)
    notes = []
    for critic in sorted({c for x in attempts for c in x.told.said}):
        judged = [sum(critic in x.told.said for x in arm.attempts()) for arm in pair]
        if judged != [arm.n_attempts for arm in pair]:
            told = " and ".join(f"{j} of {arm.n_attempts} of {arm.name}" for j, arm in zip(judged, pair, strict=True))
            notes.append(f"{critic} judged {told}, so its findings are not compared; stepwell judge fills the gap.")
            continue
        often = Counter(found for x in attempts for found in x.told.said[critic])
        for found, _ in sorted(often.items(), key=lambda kv: (-kv[1], kv[0]))[:MOST]:
            values[f"{critic}: {found}"] = _found(critic, found)
    sums = sums_of(pair, values)
    differences = figures(sums, {name: difference(name, 0, 1) for name in values}, draws)
    rows = [Mode(n, float(sums[n][:, 0].mean()), float(sums[n][:, 1].mean()), differences[n]) for n in values]
    return rows, notes


def _ends(status: str) -> Value:
    return lambda x: x.exit_status == status


def _found(critic: str, found: str) -> Value:
    return lambda x: found in x.told.said[critic]


def by_task(arms: Sequence[Arm], a: int, b: int, draws: int) -> list[Group]:
    """Tasks by repository, and by how many attempts of the other arms resolve them: nothing that these two arms decide.

    Repositories (task families) are shown where there are 2 to MOST of them, difficulty where there is a third arm.
    """
    repos = [run[0].told.repo for run in arms[a].runs[0]]
    names = sorted({r for r in repos if r})
    found: list[Group] = []
    if 1 < len(names) <= MOST:
        member = np.array([[r == name for name in names] for r in repos], np.float64)
        found += _groups(arms[a], arms[b], names, member, draws)
    others = [arm.outcomes().mean(axis=1) for i, arm in enumerate(arms) if i not in (a, b)]
    if others:
        share = np.mean(others, axis=0)
        member = np.stack([share < 1 / 3, (share >= 1 / 3) & (share <= 2 / 3), share > 2 / 3], axis=1)
        found += _groups(arms[a], arms[b], DIFFICULTY, member.astype(np.float64), draws)
    return found


def by_contamination(
    lake: Lake, arms: Sequence[Arm], a: int, b: int, draws: int
) -> tuple[list[Group], int | None, str]:
    """Tasks that training data of either arm, or of a model it began from, repeats, and clean ones, with dirty - clean of the
    differences (K13).

    Returns them with the number of dirty tasks, None where an arm's dataset was never compared with the suite, and what is
    to be said of it.
    """
    pair, dirty = (arms[a], arms[b]), set[str]()
    suite = f"{HELD_OUT}{pair[0].suite}"
    learnt = [(arm.name, m) for arm in pair for own in arm.models for m in (own, *ancestors(lake, own["base_model"]))]
    hashes = {m["dataset_hash"]: (name, m["dataset"]) for name, m in learnt if m["dataset_hash"]}
    for dataset_hash, (name, dataset) in sorted(hashes.items()):
        try:
            dirty |= dirty_tasks(lake, dataset_hash, suite)
            compared = compared_tasks(lake, dataset_hash, suite)
        except LakeError:
            return [], None, (
                f"the data {name} was trained on were never compared with {suite}, so nobody knows which tasks are clean; "
                f"run: stepwell contamination {dataset.removeprefix('datasets/')}"
            )  # fmt: skip
        lost = [] if compared is None else [t for t in pair[0].tasks if t not in compared]
        if lost:
            return [], None, (
                f"{len(lost)} of {len(pair[0].tasks)} tasks were never compared with the data {name} was trained on, so nobody "
                f"knows which are clean; run: stepwell contamination {dataset.removeprefix('datasets/')}"
            )  # fmt: skip
    if not hashes:
        return [], None, "neither arm has training data in this lake, so nothing is known about contamination"
    of = _of(pair[0].tasks, dirty)
    n = int(of[:, 0].sum())
    said = f"training data repeat {n} of {len(of)} tasks" if n else f"no task of {len(of)} is repeated in training data"
    return (_groups(*pair, ("dirty", "clean"), of, draws, contrast=True) if n else []), n, said


def _of(tasks: Sequence[str], dirty: Collection[str]) -> Array:
    is_dirty = np.array([t in dirty for t in tasks], np.float64)
    return np.stack([is_dirty, 1 - is_dirty], axis=1)


def _groups(
    a: Arm, b: Arm, names: Sequence[str], member: Array, draws: int, contrast: bool = False
) -> list[Group]:  # fmt: skip
    """Differences within groups; `member` is (tasks, groups). With `contrast` also the first's less the second's."""
    rates = [arm.outcomes().mean(axis=1)[:, None] * member for arm in (a, b)]
    sums = {"a": rates[0], "b": rates[1], "n": member}

    def within(g: int) -> Statistic:
        return lambda s: ratio(s["b"][:, g] - s["a"][:, g], s["n"][:, g])

    def apart(s: Sums) -> tuple[Array, Array]:
        return within(0)(s)[0] - within(1)(s)[0], s["n"].sum(axis=1)

    wanted: dict[str, Statistic] = {name: within(g) for g, name in enumerate(names)}
    if contrast:
        wanted[f"{names[0]} - {names[1]}"] = apart
    found = figures(sums, wanted, draws)
    whole = {k: v.sum(axis=0) for k, v in sums.items()}
    rows = []
    for g, (name, figure) in enumerate(found.items()):
        n = int(whole["n"][g]) if g < len(names) else len(member)
        means = [float(whole[k][g] / n) if g < len(names) and n else None for k in ("a", "b")]
        fewest = n if g < len(names) else whole["n"][:2].min()
        rows.append(Group(name, n, means[0], means[1], of_groups(figure, fewest)))
    return rows
