"""How alike what is trained on and what is evaluated on are, beyond single tasks (METHODS.md K9).

Belongs here: task and repository Jaccard, and for every evaluated trajectory how near the nearest training trajectory's
commands come. Does not belong here: whether a row may be trained on (`gate`): acting alike is no fault by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from stepwell.contamination.text import PERMUTATIONS, Hashes, command_shingles, signature
from stepwell.lake import Lake
from stepwell.log import EventLog, live

BINS = 10
_AT_ONCE = 500


@dataclass(frozen=True)
class Overlap:
    """Jaccard of the tasks and of the repositories of both sides, and `nearest`: how many evaluated trajectories have their
    nearest training trajectory at an estimated Jaccard of commands in [0, .1), [.1, .2) ... [.9, 1].

    `near` are (evaluated trajectory, its task, training trajectory, similarity), nearest first.
    """

    n_train: int
    n_evaluated: int
    tasks: float
    repos: float
    nearest: tuple[int, ...]
    near: tuple[tuple[str, str, str, float], ...]

    def tasks_above(self, similarity: float) -> set[str]:
        """Tasks of which some evaluated trajectory is nearer to training than this: what `effect` may take as dirty."""
        return {task for _, task, _, s in self.near if s > similarity}


def overlap(lake: Lake, dataset: str, corpus: str, version: int | None = None) -> Overlap:
    """Compare a dataset's trajectories with those of an evaluation corpus, at their current versions unless told."""
    train = sorted(set(lake.read(dataset, version, ["trajectory_id"]).column(0).to_pylist()))
    there = (pc.field("corpus") == corpus) & (pc.field("kind") != "retraction")  # all that is left of one taken down
    held_out = sorted(set(lake.read("events", columns=["trajectory_id"], filters=there).column(0).to_pylist()))
    a, b = _Side.of(lake, train), _Side.of(lake, held_out)
    best, which = _nearest(b.signatures, a.signatures)
    pairs = [(name, b.tasks[name], a.names[which[i]], float(best[i])) for i, name in enumerate(b.names) if len(a.names)]
    bins = np.histogram(best, BINS, (0.0, 1.0))[0]
    near = tuple(sorted(pairs, key=lambda p: (-p[3], p[0])))
    tasks, repos = _shared(a.tasks.values(), b.tasks.values()), _shared(a.repos, b.repos)
    return Overlap(len(train), len(held_out), tasks, repos, tuple(int(n) for n in bins), near)


@dataclass(frozen=True)
class _Side:
    """Trajectories that ran at least one shingle of commands, their signatures (n, PERMUTATIONS), tasks and repositories."""

    names: list[str]
    signatures: Hashes
    tasks: dict[str, str]
    repos: set[str]

    @classmethod
    def of(cls, lake: Lake, ids: Sequence[str]) -> _Side:
        """Read these trajectories, some at a time."""
        tasks, repos, names, signatures = dict.fromkeys(ids, ""), set(), [], []
        for name, task, repo, commands in _read(lake, ids):
            tasks[name] = task
            repos |= {repo} if repo else set()
            hashes = command_shingles("\n".join(commands))
            if len(hashes):
                names.append(name)
                signatures.append(signature(hashes))
        return cls(names, np.array(signatures, np.uint64).reshape(len(names), PERMUTATIONS), tasks, repos)


def _read(lake: Lake, ids: Sequence[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    """(trajectory, task, repository, its commands)."""
    log, columns = EventLog(lake), ["event_id", "trajectory_id", "kind", "task", "action", "retraction"]
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        facts = dict.fromkeys(some, ("", ""))
        commands: dict[str, list[str]] = {name: [] for name in some}
        rows = live(log.read(trajectory_ids=some, kinds=["task", "action", "retraction"], columns=columns))
        for row in rows.to_pylist():
            if row["task"]:
                facts[row["trajectory_id"]] = row["task"]["task_id"] or "", row["task"]["repo"] or ""
            elif row["action"] and row["action"]["command"]:
                commands[row["trajectory_id"]].append(row["action"]["command"])
        yield from ((name, *facts[name], commands[name]) for name in some)


def _nearest(one: Hashes, other: Hashes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Highest share of equal places of each signature with any of the other side, and with which."""
    best, which = np.zeros(len(one)), np.zeros(len(one), np.int64)
    if len(other):
        for i, row in enumerate(one):
            shares = (other == row).mean(axis=1)
            which[i] = int(shares.argmax())
            best[i] = shares[which[i]]
    return best, which


def _shared(one: Collection[str], other: Collection[str]) -> float:
    """Jaccard of two sets of names; 0 when both are empty."""
    a, b = set(one) - {""}, set(other) - {""}
    return len(a & b) / max(len(a | b), 1)
