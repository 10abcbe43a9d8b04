"""How well a judge tells the right one of two attempts, and how far the order in which it sees them decides.

Belongs here: answers about pairs, read from the log, and figures over them. Does not belong here: asking (`critics.pairing`),
which pairs there are (`stepwell.pairs`). Every figure has a 95% interval from a bootstrap over tasks.

A judge answers a pair in both orders, several times each. Where it answers K times, the figures at k are those of the
majority of k answers, over every choice of k of the K, independently in both orders.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, ratio
from stepwell.evaluation.ranking import Scored
from stepwell.log import live
from stepwell.pairs import Pair

COLUMNS = ("event_id", "trajectory_id", "kind", "policy", "usage", "extra", "verdict", "retraction")
"""Columns of `events` that `answered` reads."""
_SPENT = ("tokens_in", "tokens_out", "cost_usd")


@dataclass(frozen=True)
class Answers:
    """What a judge said of a pair: answers for the right attempt, for the wrong one and for neither, by order.

    The first order shows the right attempt first, the second one the wrong attempt.
    """

    pair: Pair
    counts: tuple[tuple[int, int, int], tuple[int, int, int]]


@dataclass(frozen=True)
class Said:
    """The answers about all pairs that have `samples` of them in both orders, and what was spent on the replies behind them.

    `n_missing` pairs have fewer; `unreadable` and `ties` count replies; `spent` has what is known of tokens and cost.
    """

    answers: tuple[Answers, ...]
    n_missing: int
    n_replies: int
    unreadable: int
    ties: int
    spent: Mapping[str, float]


def answered(events: pa.Table, critic: str, pairs: Sequence[Pair], samples: int) -> Said:
    """Verdict events (COLUMNS) of the first attempts' trajectories -> what a critic answered about these pairs."""
    rows = live(events)
    mine = pc.and_(pc.equal(rows.column("kind"), "verdict"), pc.equal(rows.column("policy"), critic))
    by_order: dict[tuple[str, str], dict[int, dict[str, object]]] = defaultdict(dict)
    usage: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows.filter(pc.fill_null(mine, False)).select(["usage", "extra", "verdict"]).to_pylist():
        said = row["verdict"]
        if said["scope"] == "pair" and said["candidate"] < samples:
            extra = orjson.loads(row["extra"])
            order = extra["first"], extra["second"]
            by_order[order][said["candidate"]] = said
            usage[order].append(row["usage"])
    found, replies, spent = list[Answers](), Counter[str](), dict[str, float]()
    for pair in pairs:
        orders = (pair.right.id, pair.wrong.id), (pair.wrong.id, pair.right.id)
        if any(len(by_order[o]) < samples for o in orders):
            continue
        counts = []
        for order, right_first in zip(orders, (True, False), strict=True):
            said_of = by_order[order].values()
            votes = Counter(None if s["judgment"] is None else s["judgment"] == right_first for s in said_of)
            counts.append((votes[True], votes[False], votes[None]))
            lost = sum(s["parse_status"] == "unparseable" for s in said_of)
            replies.update({"all": len(said_of), "unreadable": lost, "ties": votes[None] - lost})
            for used, name in product(usage[order], _SPENT):
                if used[name] is not None:
                    spent[name] = spent.get(name, 0) + used[name]
        found.append(Answers(pair, (counts[0], counts[1])))
    missing = len(pairs) - len(found)
    return Said(tuple(found), missing, replies["all"], replies["unreadable"], replies["ties"], spent)


def preferred(pairs: Sequence[Pair], scores: Sequence[Scored]) -> tuple[Answers, ...]:
    """What scores say of the pairs of which both attempts have one: the higher is better, the same in both orders."""
    by_id = {s.attempt: s.score for s in scores}
    found = []
    for pair in pairs:
        if pair.right.id in by_id and pair.wrong.id in by_id:
            right, wrong = by_id[pair.right.id], by_id[pair.wrong.id]
            one = (int(right > wrong), int(right < wrong), int(right == wrong))
            found.append(Answers(pair, (one, one)))
    return tuple(found)


def compared(answers: Sequence[Answers], samples: int = 1, draws: int = 2000) -> dict[str, Figure]:
    """Figures by NAME@k for k from 1 to `samples`.

    `accuracy`: the majority is for the right attempt, over pairs and orders; `decided_accuracy`: the same where there is a
    majority; `undecided`: there is none. `right_first` and `right_second`: the accuracy in each order. `first`: the majority
    is for what was shown first, where there is one; one half is no bias. `consistent`: both orders have a majority and for the
    same attempt; `consistent_accuracy`: it is the right one.
    """
    tasks = sorted({a.pair.right.task for a in answers})
    place = {task: i for i, task in enumerate(tasks)}
    sums: dict[str, Array] = {"n": np.zeros(len(tasks))}
    statistics: dict[str, Statistic] = {}
    for a in answers:
        sums["n"][place[a.pair.right.task]] += 1
    for k in range(1, samples + 1):
        sums[f"{k}"] = np.zeros((len(tasks), len(_COLUMNS)))
        for a in answers:
            (right, wrong, none), (right_2, wrong_2, none_2) = (majority(counts, k) for counts in a.counts)
            sums[f"{k}"][place[a.pair.right.task]] += (
                right, wrong, right_2, wrong_2, right * right_2, wrong * wrong_2, none + none_2
            )  # fmt: skip
        statistics |= {f"{name}@{k}": _of(k, *columns) for name, columns in _FIGURES.items()}
    return figures(sums, statistics, draws) if answers else {}


_COLUMNS = ("right", "wrong", "right_2", "wrong_2", "both_right", "both_wrong", "none")
"""What is summed over pairs: chances in the first order, in the second, in both, and of no majority in one."""
_DECIDED, _AGREED = "right wrong right_2 wrong_2", "both_right both_wrong"
_FIGURES: dict[str, tuple[str, str | int]] = {
    "accuracy": ("right right_2", 2), "decided_accuracy": ("right right_2", _DECIDED), "undecided": ("none", 2),
    "right_first": ("right", 1), "right_second": ("right_2", 1), "first": ("right wrong_2", _DECIDED),
    "consistent": (_AGREED, 1), "consistent_accuracy": ("both_right", _AGREED),
}  # fmt: skip
"""Figures as sums of columns over sums of columns, or over so many times the pairs."""


def _of(k: int, part: str, whole: str | int) -> Statistic:
    def total(s: Sums, names: str) -> Array:
        columns: Array = s[f"{k}"][:, [_COLUMNS.index(name) for name in names.split()]]
        return np.asarray(columns.sum(axis=1))

    return lambda s: ratio(total(s, part), s["n"] * whole if isinstance(whole, int) else total(s, whole))


def majority(counts: Sequence[int], k: int) -> tuple[float, float, float]:
    """The chances that of k answers, drawn from these (for, against, neither) without replacement, most are for, against or
    undecided between both.
    """
    yes, no, neither = counts
    total, won, lost = comb(yes + no + neither, k), 0, 0
    for a, b in product(range(min(yes, k) + 1), range(min(no, k) + 1)):
        if a != b and a + b <= k:
            ways = comb(yes, a) * comb(no, b) * comb(neither, k - a - b)
            won, lost = (won + ways, lost) if a > b else (won, lost + ways)
    return won / total, lost / total, (total - won - lost) / total
