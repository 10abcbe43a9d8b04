"""What critique-revision loops come to, from the log alone (CTRL, METHODS.md 2.3; K17 to K19).

Belongs here: Pass@1 by round and what it is made of, how well critics tell right from wrong, rewards, flakes, leaks. Does not
belong here: playing loops (`rollout`), tables on a terminal (`cli`).

A figure has a 95% interval from a bootstrap over tasks. A tree that has ended keeps its last solutions in the rounds that
follow; a tree that got no solution at all counts as wrong. Trees whose end says nothing about the policy are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from schemas.kinds import UNFINISHED
from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, ratio
from stepwell.gradings import by_subject, runs
from stepwell.log import live

COLUMNS = (
    "event_id", "trajectory_id", "step", "kind", "caused_by", "policy", "recorded_at", "usage", "extra", "start", "attempt",
    "outcome", "verdict", "reward", "end", "retraction",
)  # fmt: skip
"""Columns of `events` that `report` reads."""
JUDGED = ("correct", "incorrect", "unparseable")
DRAWS = 2000
PLACEBO = "placebo"
"""Name of the arm that others are compared with (METHODS.md K19)."""


@dataclass
class Tree:
    """One tree: solutions by round as (attempt id, parent, resolved), counts of what else is measured."""

    task: str
    rounds: dict[int, list[tuple[str, str | None, bool]]] = field(default_factory=dict)
    judged: list[tuple[bool, str]] = field(default_factory=list)  # (whether it is right, what was said)
    groups: dict[str, list[float]] = field(default_factory=dict)
    reruns: list[bool] = field(default_factory=list)  # whether a rerun disagreed
    leaks: list[frozenset[str]] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmReport:
    """Figures of one arm by name; those of a round are named `NAME@ROUND`."""

    arm: str
    generator: str
    n_trees: int
    n_tasks: int
    n_rounds: int
    figures: Mapping[str, Figure]
    cost_usd: Mapping[str, float]

    def rows(self) -> list[dict[str, Any]]:
        """One row a figure."""
        return [{"arm": self.arm, "figure": name, **f.__dict__} for name, f in self.figures.items()]


def report(events: pa.Table, draws: int = DRAWS, seed: int = 0) -> list[ArmReport]:
    """Events of whole trees in canonical order (COLUMNS) -> a report for every arm and generator, sorted.

    Raises AssertionError when Pass@1 of a round is not Pass@1 + up - down to the last bit of rounding.
    """
    arms: dict[tuple[str, str], list[Tree]] = defaultdict(list)
    for key, tree in _trees(events):
        arms[key].append(tree)
    found = []
    for (arm, generator), trees in sorted(arms.items()):
        placebo = arms.get((PLACEBO, generator), []) if arm != PLACEBO else []
        found.append(_arm(arm, generator, trees, placebo, draws, seed))
    return found


def _trees(events: pa.Table) -> list[tuple[tuple[str, str], Tree]]:
    streams: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in live(events).select(list(COLUMNS)).to_pylist():
        streams[row["trajectory_id"]].append(row)
    found = []
    for rows in streams.values():
        start = next((r["start"] for r in rows if r["kind"] == "start"), None)
        end = next((r["end"]["exit_status"] for r in rows if r["kind"] == "end"), None)
        if start is None or end is None or end in UNFINISHED:
            continue
        found.append(((start["arm"] or "", start["model"] or ""), _tree(start["task_id"] or "", rows)))
    return found


def _tree(task: str, rows: Sequence[dict[str, Any]]) -> Tree:
    tree = Tree(task)
    passed = {about: [g["resolved"] for g in runs(gradings)] for (_, about), gradings in by_subject(rows).items()}
    names = {row["event_id"]: row["attempt"]["attempt_id"] for row in rows if row["kind"] == "attempt"}
    said_of = {row["event_id"]: orjson.loads(row["extra"] or "{}") for row in rows if row["kind"] == "verdict"}
    # A loop notes with every review what it gives away; verdicts without that note were made afterwards.
    played = any("leaks" in about for about in said_of.values())
    for row in rows:
        used = (row["usage"] or {}).get("cost_usd")
        if row["kind"] == "attempt":
            a = row["attempt"]
            first, *again = passed.get(a["attempt_id"], [None])
            tree.rounds.setdefault(a["round"], []).append((a["attempt_id"], a["parent_attempt"], bool(first)))
            tree.reruns += [other != first for other in again if None not in (first, other)]
            tree.cost["generator"] = tree.cost.get("generator", 0.0) + (used or 0.0)
        elif row["kind"] == "verdict" and ("leaks" in said_of[row["event_id"]] or not played):
            tree.cost["critic"] = tree.cost.get("critic", 0.0) + (used or 0.0)
            said = row["verdict"]["judgment"]
            unread = said is None or row["verdict"]["parse_status"] == "unparseable"
            right = passed.get(names.get(row["caused_by"], ""), [None])[0]
            if right is not None:
                tree.judged.append((right, JUDGED[2] if unread else JUDGED[0] if said else JUDGED[1]))
                tree.leaks.append(frozenset(said_of[row["event_id"]].get("leaks", ())))
        elif row["kind"] == "reward":
            tree.groups.setdefault(row["reward"]["group_id"], []).append(row["reward"]["reward"])
    return tree


def _states(tree: Tree, n_rounds: int) -> list[list[tuple[str, str | None, bool]]]:
    """The solutions of a tree in every round; where a round has none, those of the round before."""
    now: list[tuple[str, str | None, bool]] = []
    states = []
    for number in range(n_rounds + 1):
        now = tree.rounds.get(number) or now
        states.append(now)
    return states


def _sums(trees: Sequence[Tree], tasks: Mapping[str, int], n_rounds: int) -> dict[str, Array]:
    """What adds up over tasks: name -> (tasks, ...)."""
    n = len(tasks)
    sums = {
        "trees": np.zeros(n), "right": np.zeros((n, n_rounds + 1)), "up": np.zeros((n, n_rounds + 1)),
        "down": np.zeros((n, n_rounds + 1)), "moves": np.zeros((n, n_rounds + 1, 2, 2)), "judged": np.zeros((n, 2, 3)),
        "groups": np.zeros((n, 2)), "reruns": np.zeros((n, 2)), "leaks": np.zeros((n, 2)),
    }  # fmt: skip
    for tree in trees:
        i = tasks[tree.task]
        states = _states(tree, n_rounds)
        first = states[0][0][2] if states[0] else False
        sums["trees"][i] += 1
        for number, now in enumerate(states):
            right = float(np.mean([passed for _, _, passed in now])) if now else 0.0
            sums["right"][i, number] += right
            sums["up"][i, number] += right if not first else 0.0
            sums["down"][i, number] += 1 - right if first else 0.0
            before = {name: passed for name, _, passed in states[number - 1]} if number else {}
            for name, parent, passed in now if number else ():
                was = before.get(name, before.get(parent or "", False))
                sums["moves"][i, number, int(was), int(passed)] += 1 / len(now)
        for right_one, said in tree.judged:
            sums["judged"][i, int(right_one), JUDGED.index(said)] += 1
        compared = [rewards for rewards in tree.groups.values() if len(rewards) > 1]
        sums["groups"][i] += (sum(len(set(rewards)) == 1 for rewards in compared), len(compared))
        sums["reruns"][i] += (sum(tree.reruns), len(tree.reruns))
        sums["leaks"][i] += (sum(bool(found) for found in tree.leaks), len(tree.leaks))
    return sums


def _arm(
    arm: str, generator: str, trees: Sequence[Tree], placebo: Sequence[Tree], draws: int, seed: int
) -> ArmReport:  # fmt: skip
    n_rounds = max((number for tree in trees for number in tree.rounds), default=0)
    tasks = {t: i for i, t in enumerate(sorted({tree.task for tree in (*trees, *placebo)}))}
    sums = _sums(trees, tasks, n_rounds)
    statistics: dict[str, Statistic] = {}
    for number in range(n_rounds + 1):
        statistics[f"pass@1@{number}"] = _mean("right", number)
        if number:
            statistics[f"up@{number}"] = _mean("up", number)
            statistics[f"down@{number}"] = _mean("down", number)
            statistics[f"gain@{number}"] = _over(("right", "trees", number), ("right", "trees", 0))
            statistics[f"u@{number}"] = _move(number, 0, 1)
            statistics[f"d@{number}"] = _move(number, 1, 0)
            statistics[f"p*@{number}"] = _stationary(number)
        if number and placebo:
            statistics[f"over_placebo@{number}"] = _over(
                ("right", "trees", number), ("sham_right", "sham_trees", number)
            )
    if placebo:
        sham = _sums(placebo, tasks, n_rounds)
        sums |= {"sham_right": sham["right"], "sham_trees": sham["trees"]}
    statistics |= {
        "f1_correct": _f1(1), "f1_incorrect": _f1(0), "balanced_accuracy": _balanced,
        "unparseable": lambda s: ratio(s["judged"][:, :, 2].sum(axis=1), s["judged"].sum(axis=(1, 2))),
        "zero_variance_groups": _share("groups"), "flaky": _share("reruns"), "leaks": _share("leaks"),
    }  # fmt: skip
    found = figures(sums, statistics, draws, seed)
    _identity(found, n_rounds, arm)
    cost = {role: sum(tree.cost.get(role, 0.0) for tree in trees) for role in ("generator", "critic")}
    return ArmReport(arm, generator, len(trees), int((sums["trees"] > 0).sum()), n_rounds, found, cost)


def _identity(found: Mapping[str, Figure], n_rounds: int, arm: str) -> None:
    """Pass@1 of a round is that of the first solutions, plus what was mended, less what was broken."""
    first = found["pass@1@0"].value
    for number in range(1, n_rounds + 1):
        parts = [found[f"{name}@{number}"].value for name in ("pass@1", "up", "down")]
        if first is not None and None not in parts:
            now, up, down = (float(p or 0.0) for p in parts)
            assert abs(now - (first + up - down)) < 1e-9, (
                f"arm {arm!r}, round {number}: {now} is not {first}+{up}-{down}"
            )


def _mean(name: str, number: int) -> Statistic:
    return lambda s: ratio(s[name][:, number], s["trees"])


def _over(a: tuple[str, str, int], b: tuple[str, str, int]) -> Statistic:
    """The difference of two means of a round: (sums, counts, round) each."""

    def statistic(s: Sums) -> tuple[Array, Array]:
        means = [ratio(s[right][:, number], s[count])[0] for right, count, number in (a, b)]
        return means[0] - means[1], s[a[1]]

    return statistic


def _move(number: int, was: int, now: int) -> Statistic:
    return lambda s: ratio(s["moves"][:, number, was, now], s["moves"][:, number, was].sum(axis=1))


def _stationary(number: int) -> Statistic:
    """u / (u + d): where Pass@1 settles if rounds go on as this one."""

    def statistic(s: Sums) -> tuple[Array, Array]:
        u, d = _move(number, 0, 1)(s)[0], _move(number, 1, 0)(s)[0]
        return ratio(u, u + d)[0], s["trees"]

    return statistic


def _f1(positive: int) -> Statistic:
    """F1 of judging solutions that are right (1) or wrong (0); what cannot be read is a miss."""

    def statistic(s: Sums) -> tuple[Array, Array]:
        said = 1 - positive  # `correct` is column 0
        hit = s["judged"][:, positive, said]
        value, _ = ratio(2 * hit, s["judged"][:, positive].sum(axis=1) + s["judged"][:, :, said].sum(axis=1))
        return value, s["judged"].sum(axis=(1, 2))

    return statistic


def _balanced(s: Sums) -> tuple[Array, Array]:
    """Mean of the share of right solutions judged correct and of wrong ones judged incorrect."""
    right = ratio(s["judged"][:, 1, 0], s["judged"][:, 1].sum(axis=1))[0]
    wrong = ratio(s["judged"][:, 0, 1], s["judged"][:, 0].sum(axis=1))[0]
    return (right + wrong) / 2, s["judged"].sum(axis=(1, 2))


def _share(name: str) -> Callable[[Sums], tuple[Array, Array]]:
    return lambda s: ratio(s[name][:, 0], s[name][:, 1])
