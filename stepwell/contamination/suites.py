"""The evaluation suites there are, and matching one training task or one text of code against all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from stepwell.contamination.indexes import COMMON_TASKS, Containment, Named, Near, common, sizes
from stepwell.contamination.keys import KEYS
from stepwell.contamination.tasks import Task, days, trees
from stepwell.contamination.text import Hashes, normalised, shingles
from stepwell.errors import UsageError
from stepwell.ids import digest, sha256
from stepwell.recipe import Contamination
from stepwell.syntax import blocks

VERSION = "contamination@3"
"""Part of the gate's identity: raised when a detector changes what it flags."""
GRAM, SHINGLE = 13, 5
MIN_GRAMS, MIN_SHINGLES, MIN_CASES = 3, 10, 2
TEXTUAL = ("exact", "normalised", "ngram", "minhash")
"""Detectors of statements. Where a suite is too small to show what is common, tasks of one set may share theirs."""
DETECTORS: dict[str, str] = {
    "identity": "same task id in the same set",
    "source": "same address or contest problem",
    "exact": "same statement",
    "normalised": "same statement but for case, space, punctuation, LaTeX",
    "ngram": "share of the statement's 13-grams",
    "minhash": "Jaccard of 5-word shingles of the statements",
    "tests": "same hidden tests",
    "cases": "share of the test cases' input/output pairs",
    "solution": "same reference solution, also as written by the agent",
    "syntax": "same syntax tree of the solution, also as written by the agent",
    "copied": "share of the reference solution's 13-grams in what the agent wrote",
    "repository": "same repository, and same base commit or created within the window",
    "files": "same repository, and gold patches of the same files",
    "cut": "the training task is from on or after the date of the cut",
}
"""Every detector and what its score is the measure of."""


@dataclass(frozen=True)
class Hit:
    """A training task or text that a detector takes for a task of a suite; `task` is None where all of it is meant."""

    suite: str
    task: Task | None
    detector: str
    score: float


class Suites:
    """Indexes over the tasks of every suite, built once; a training task or text then costs its own length only."""

    def __init__(self, tasks: Iterable[Task], settings: Contamination) -> None:
        self.settings = settings
        self.tasks = _distinct(tasks)
        names = [(t.suite, t.task_id or f"\n{i}") for i, t in enumerate(self.tasks)]
        self.sizes = dict(sorted(sizes(names).items()))
        self.before = days(settings.before)
        if settings.before and self.before is None:
            raise UsageError(f"contamination.before is {settings.before!r}; it must be a date such as 2024-06-01.")
        self.keys = {name: self._by_key(name, names) for name in KEYS}
        said = [normalised(t.statement) for t in self.tasks]
        self.grams = Containment([shingles(text, GRAM) for text in said], names, MIN_GRAMS)
        self.near = Near([shingles(text, SHINGLE) for text in said], names, MIN_SHINGLES)
        self.cases = Containment([_numbers(t.cases) for t in self.tasks], names, MIN_CASES)
        code = [_union(shingles(normalised(c), GRAM) for c in t.code) for t in self.tasks]
        self.code = Containment(code, names, MIN_GRAMS)
        self.repos: dict[str, list[int]] = defaultdict(list)
        for i, task in enumerate(self.tasks):
            if task.repo:
                self.repos[task.repo].append(i)
        files = [[tuple(sorted(t.files))] if t.files else [] for t in self.tasks]
        dropped = common(files, names)
        self.patched = {i for i, of in enumerate(files) if of and (names[i][0], of[0]) not in dropped}
        self.hash = digest(VERSION, settings.model_dump(mode="json"), sorted(digest(*_facts(t)) for t in self.tasks))

    def of_task(self, task: Task) -> list[Hit]:
        """What the detectors say of a training task."""
        return [hit for hit in self._of_task(task) if hit.detector not in self.settings.off]

    def of_code(self, texts: Sequence[str]) -> list[Hit]:
        """What the detectors say of what an agent wrote: replies with blocks of code, patches, solutions."""
        hashes, codes, nodes = self.keys["solution"], self.keys["syntax"], self.code
        pieces = [p for text in texts for p in (text, *blocks(text))]
        found: dict[tuple[str, int], float] = {}
        if hashes:
            for piece in pieces:
                body = piece.strip()
                same = {i for form in (piece, body, f"{body}\n") for i in hashes.get(sha256(form), ())}
                found |= {("solution", i): 1.0 for i in same}
        if codes:
            found |= {("syntax", i): 1.0 for tree in trees(pieces) for i in codes.get(tree, ())}
        if len(nodes.keys):
            grams = _union(shingles(normalised(text), GRAM) for text in texts)
            found |= {("copied", i): s for i, s in nodes.find(grams, self.settings.ngram)}
        return [self._hit(i, name, s) for (name, i), s in found.items() if name not in self.settings.off]

    def _of_task(self, task: Task) -> Iterator[Hit]:
        said = normalised(task.statement)
        found = [(name, i, 1.0) for name in KEYS for k in KEYS[name](task) for i in self.keys[name].get(k, ())]
        found += [("ngram", i, s) for i, s in self.grams.find(shingles(said, GRAM), self.settings.ngram)]
        found += [("minhash", i, s) for i, s in self.near.find(shingles(said, SHINGLE), self.settings.minhash)]
        found += [("cases", i, s) for i, s in self.cases.find(_numbers(task.cases), self.settings.cases)]
        found += self._near_in_repository(task)
        for name, i, score in dict.fromkeys(found):
            few = self.sizes[self.tasks[i].suite] < COMMON_TASKS
            if not (few and name in TEXTUAL and _known_apart(task, self.tasks[i])):
                yield self._hit(i, name, score)
        if self.before is not None and task.created is not None and task.created >= self.before:
            yield from (Hit(suite, None, "cut", 1.0) for suite in self.sizes)

    def _near_in_repository(self, task: Task) -> Iterator[tuple[str, int, float]]:
        rule, window = self.settings.repository, self.settings.window_days
        for i in self.repos.get(task.repo, ()) if rule != "off" and task.repo else ():
            other = self.tasks[i]
            gap = None if task.created is None or other.created is None else abs(task.created - other.created)
            near = gap is not None and gap <= window
            same = bool(task.base_commit) and task.base_commit == other.base_commit
            if same or rule == "any" or (rule == "window" and near):
                yield "repository", i, 1.0 if same or gap is None else max(0.0, 1 - gap / (window + 1))
            if i in self.patched and task.files and (near or gap is None):
                share = len(task.files & other.files) / len(task.files | other.files)
                if share >= self.settings.files:
                    yield "files", i, share

    def _hit(self, i: int, detector: str, score: float) -> Hit:
        return Hit(self.tasks[i].suite, self.tasks[i], detector, score)

    def _by_key(self, name: str, names: list[Named]) -> dict[str, list[int]]:
        keys = [KEYS[name](task) for task in self.tasks]
        dropped = common(keys, names) if name in TEXTUAL else set()
        found: dict[str, list[int]] = defaultdict(list)
        for i, of in enumerate(keys):
            for key in sorted(of):
                if (names[i][0], key) not in dropped:
                    found[key].append(i)
        return dict(found)


def _known_apart(one: Task, other: Task) -> bool:
    """Whether their set itself tells two tasks apart, by tests that it hashed alike."""
    same_set = bool(one.named) and one.named == other.named and one.task_id != other.task_id
    return same_set and bool(one.tests) and bool(other.tests) and not one.tests & other.tests


def _distinct(tasks: Iterable[Task]) -> list[Task]:
    """Tasks that differ in something, each once however many attempts recorded it."""
    return sorted(dict.fromkeys(tasks), key=lambda t: (t.suite, t.task_id, digest(*_facts(t))))


def _facts(task: Task) -> list[object]:
    values = (getattr(task, f.name) for f in fields(task))
    return [sorted(v) if isinstance(v, frozenset) else v for v in values]


def _numbers(hashes: Iterable[str]) -> Hashes:
    return np.unique(np.array([int(sha256(h)[:16], 16) for h in hashes], np.uint64))


def _union(sets: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.empty(0, np.uint64), *sets]))
