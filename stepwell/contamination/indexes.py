"""Sets of hashes that overlap: inverted indexes over the tasks of the suites, and what is common in a suite left out.

A key that many tasks of one suite have (a template, a licence, the brief of all embedded tasks) tells none of them from the
others: it is dropped from that suite by its document frequency, and for nearness of whole texts from every suite.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from stepwell.contamination.text import Hashes, bands, jaccard, signature

COMMON_TASKS = 3
COMMON_SHARE = 0.05
"""A key is common in a suite when at least COMMON_TASKS of its tasks have it, and this share of them."""
Named = tuple[str, str]
"""Suite and task: what is recorded of one task in several forms is one."""


def sizes(names: Iterable[Named]) -> Counter[str]:
    """How many tasks each suite has."""
    return Counter(suite for suite, _ in set(names))


def common(keys: Sequence[Iterable[object]], names: Sequence[Named]) -> set[tuple[str, object]]:
    """(suite, key) of the keys that are common in their suite; `keys` and `names` go together."""
    n_tasks, pairs = sizes(names), {(name, k) for name, of in zip(names, keys, strict=True) for k in of}
    counted = Counter((suite, k) for (suite, _), k in pairs)
    return {sk for sk, n in counted.items() if n >= max(COMMON_TASKS, COMMON_SHARE * n_tasks[sk[0]])}


class Containment:
    """Which share of a suite task's hashes a text has; tasks with fewer than `least` telling hashes are left out."""

    def __init__(self, sets: Sequence[Hashes], names: Sequence[Named], least: int) -> None:
        kept = telling(sets, names)
        self.sizes = np.array([len(s) if len(s) >= least else 0 for s in kept], np.int64)
        filled = [np.empty(0, np.uint64), *(s if n else s[:0] for s, n in zip(kept, self.sizes, strict=True))]
        keys = np.concatenate(filled)
        order = np.argsort(keys, kind="stable")
        self.keys = keys[order]
        self.tasks = np.repeat(np.arange(len(kept)), self.sizes)[order]

    def find(self, hashes: Hashes, share: float) -> list[tuple[int, float]]:
        """(task, share of its hashes) of every task of which at least `share` is among these distinct hashes."""
        first = np.searchsorted(self.keys, hashes)
        n = np.searchsorted(self.keys, hashes, "right") - first
        if not n.any():
            return []
        ends = np.cumsum(n)
        places = np.repeat(first - (ends - n), n) + np.arange(ends[-1])
        met = np.bincount(self.tasks[places], minlength=len(self.sizes))
        shares = met / np.maximum(self.sizes, 1)
        return [(int(i), float(shares[i])) for i in np.flatnonzero((shares >= share) & (met > 0))]


class Near:
    """Texts of a Jaccard of at least `least`: MinHash bands pick the candidates, the sets themselves decide."""

    def __init__(self, sets: Sequence[Hashes], names: Sequence[Named], shortest: int) -> None:
        everywhere = sorted({int(k) for of in _common(sets, names).values() for k in of})
        self.dropped = np.array(everywhere, np.uint64)
        self.shortest = shortest
        self.sets = [self._telling(s) for s in sets]
        self.buckets: dict[bytes, list[int]] = defaultdict(list)
        for i, one in enumerate(self.sets):
            for key in bands(signature(one)) if len(one) >= shortest else ():
                self.buckets[key].append(i)

    def find(self, hashes: Hashes, least: float) -> list[tuple[int, float]]:
        """(task, Jaccard) of every task that is this near to a text with these distinct hashes."""
        one = self._telling(hashes)
        if len(one) < self.shortest or not self.buckets:
            return []
        candidates = {i for key in bands(signature(one)) for i in self.buckets.get(key, ())}
        measured = ((i, jaccard(self.sets[i], one)) for i in sorted(candidates))
        return [(i, j) for i, j in measured if j >= least]

    def _telling(self, hashes: Hashes) -> Hashes:
        return np.setdiff1d(hashes, self.dropped, assume_unique=True)


def telling(sets: Sequence[Hashes], names: Sequence[Named]) -> list[Hashes]:
    """The sets without the hashes that are common in their suite."""
    dropped = _common(sets, names)
    return [np.setdiff1d(s, dropped[suite], assume_unique=True) for s, (suite, _) in zip(sets, names, strict=True)]


def _common(sets: Sequence[Hashes], names: Sequence[Named]) -> dict[str, Hashes]:
    """Hashes that are common, by suite, as `common` has it."""
    forms: dict[str, dict[str, list[Hashes]]] = defaultdict(lambda: defaultdict(list))
    for (suite, task), one in zip(names, sets, strict=True):
        forms[suite][task].append(one)
    found = {}
    for suite, of in forms.items():
        inside = [one[0] if len(one) == 1 else np.unique(np.concatenate(one)) for one in of.values()]
        keys, n = np.unique(np.concatenate([np.empty(0, np.uint64), *inside]), return_counts=True)
        found[suite] = keys[n >= max(COMMON_TASKS, COMMON_SHARE * len(inside))]
    return found
