"""Members: how good a majority is with one vote, two, and more (Maj@k where the classes are judgments).

Belongs here: voting on arrays, and quality over the number of members. Does not belong here: verdict events of a majority
(`stepwell.critics.ensemble`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from schemas.kinds import LABELS
from stepwell.bootstrap import Array, Figure, Statistic, Sums, figures, mean_known, ratio
from stepwell.critics.audit.agreement import confusion, f1
from stepwell.critics.audit.ratings import Codes


@dataclass(frozen=True)
class Point:
    """Quality of majorities of `n` members, averaged over `n_subsets` choices of them; undecided counts as wrong.

    Undecided is a tie, or that none of the votes can be read.
    """

    n: int
    n_subsets: int
    accuracy: Figure
    macro_f1: Figure
    undecided: Figure


def plurality(votes: Codes, n_classes: int) -> Codes:
    """Votes (units, members) in [0, n_classes), -1 for none -> the class most chose, -1 for a tie or no vote at all."""
    counts = np.stack([(votes == k).sum(axis=1) for k in range(n_classes)], axis=1)
    top = counts.max(axis=1)
    alone = ((counts == top[:, None]).sum(axis=1) == 1) & (top > 0)
    return np.where(alone, counts.argmax(axis=1), -1)


def curve(
    votes: Codes,
    truth: Codes,
    groups: Codes,
    n_classes: int = len(LABELS),
    most: int = 20,
    draws: int = 1000,
    seed: int = 0,
) -> list[Point]:
    """Quality of the majority of 1, 2, ... members against truth (units,); Maj@k where the classes are judgments.

    Every size averages over all choices of members, or over `most` drawn ones where there are more. Intervals are over
    `groups` (units,), 0-based, for the members there are.
    """
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    points = []
    for n in range(1, votes.shape[1] + 1):
        chosen = _subsets(votes.shape[1], n, most, rng)
        said = [plurality(votes[:, list(c)], n_classes) for c in chosen]
        tables = [confusion(truth, np.where(s < 0, n_classes, s), groups, n_groups, n_classes + 1) for s in said]
        sums = {"subsets": np.stack(tables, axis=1)}
        found = figures(sums, _quality(n_classes), draws, seed)
        points.append(Point(n, len(chosen), **found))
    return points


def _quality(n_classes: int) -> dict[str, Statistic]:
    def macro(s: Sums) -> tuple[Array, Array]:
        m = s["subsets"][..., :n_classes, :]
        by_class = np.stack([f1(m, i)[0] for i in range(n_classes)], axis=-1)
        return mean_known(mean_known(by_class)), m[:, 0].sum((-1, -2))

    def accuracy(s: Sums) -> tuple[Array, Array]:
        m = s["subsets"]
        n = m.sum((-1, -2))
        return mean_known(ratio(np.trace(m, axis1=-2, axis2=-1), n)[0]), n[:, 0]

    def undecided(s: Sums) -> tuple[Array, Array]:
        m = s["subsets"]
        n = m.sum((-1, -2))
        return mean_known(ratio(m[..., n_classes].sum(-1), n)[0]), n[:, 0]

    return {"accuracy": accuracy, "macro_f1": macro, "undecided": undecided}


def _subsets(members: int, n: int, most: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    if comb(members, n) <= most:
        return list(combinations(range(members), n))
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < most:
        drawn[tuple(sorted(rng.choice(members, n, replace=False).tolist()))] = None
    return list(drawn)
