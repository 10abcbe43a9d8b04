"""How alike two sets of trajectories are in what their agents did and in the states they were in (METHODS.md K8, K14).

Belongs here: features of trajectories and states, and which measure is taken of which. Does not belong here: the measures
(`distances`), how near single trajectories of training come to evaluated ones (`contamination.overlap`), who acted (`drift`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from sklearn.feature_extraction.text import HashingVectorizer

from schemas.trajectories import TRAJECTORIES
from stepwell.bootstrap import Figure
from stepwell.conditions import Condition
from stepwell.conversation import answered
from stepwell.critics.shell import commands
from stepwell.distances import Array, Distance, coverage, discrepancy, divergence, lengths, told_apart
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog, live

WORDS = 64
"""Buckets that words of actions and observations are hashed into."""
_RUNS = (1, 2, 3)
_CHARS = 4000  # of a text, from its end: that is what the agent reads last
_COLUMNS = ("event_id", "trajectory_id", "step", "kind", "policy", "turn", "task", "start", "action", "observation",
            "verdict", "end", "retraction")  # fmt: skip
_HASHED = HashingVectorizer(n_features=WORDS, alternate_sign=False, norm="l2", lowercase=True)
BINS = ("none", "up to half", "more than half")
"""Share of the student's turns among those before a state."""


@dataclass
class Seen:
    """One trajectory: what was done, found and reached. `states` has one row of features a turn, before the turn's action;
    `acts` one a turn, of what was said; `by` says which share of the turns before was the student's (an index of BINS).
    """

    trajectory_id: str
    task_id: str
    agent: str = ""
    model: str = ""
    scaffold: str = ""
    exit_status: str = ""
    types: list[str] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)
    states: Array = field(default_factory=lambda: np.zeros((0, WORDS + 4)))
    acts: Array = field(default_factory=lambda: np.zeros((0, WORDS)))
    by: list[int] = field(default_factory=list)

    def runs(self, n: int) -> Counter[str]:
        """How often which n types of action follow each other."""
        return Counter(" ".join(self.types[i : i + n]) for i in range(len(self.types) - n + 1))


@dataclass(frozen=True)
class Described:
    """What a side is made of."""

    n_trajectories: int
    n_steps: int
    n_tasks: int
    agents: tuple[str, ...]
    models: tuple[str, ...]
    scaffolds: tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """Two sides and how far apart they are; `shared_tasks` were attempted by both, and only they count for `told apart`."""

    a: Described
    b: Described
    shared_tasks: int
    distances: Mapping[str, Distance]

    def plain(self) -> dict[str, Any]:
        """As one JSON document."""
        return asdict(self)


@dataclass(frozen=True)
class Shift:
    """States that were trained on beside those an evaluated policy reached alone (K14): distances by the student's share of
    the turns before (and `all`), and the share of evaluated states that lie near trained ones.
    """

    n_trained: int
    n_evaluated: int
    discrepancy: Mapping[str, Distance]
    told_apart: Mapping[str, Distance]
    covered: Figure

    def plain(self) -> dict[str, Any]:
        """As one JSON document."""
        return asdict(self)


def chosen(lake: Lake, where: str) -> list[str]:
    """Ids of the trajectories a SQL condition on `trajectories` holds for; raises UsageError for none or bad SQL."""
    frame = pl.DataFrame(lake.read("trajectories"))
    ids = frame.filter(Condition(where, TRAJECTORIES, "condition").holds(frame))["trajectory_id"].sort().to_list()
    if not ids:
        raise UsageError(f"no trajectory fits {where!r}; `stepwell sql` shows what `trajectories` has.")
    return [str(i) for i in ids]


def seen(lake: Lake, trajectory_ids: Sequence[str], critic: str | None = None) -> list[Seen]:
    """What these trajectories did, in the order of their ids; error categories are those `critic` found (none: any critic)."""
    found = []
    for events in EventLog(lake).batches(trajectory_ids, columns=_COLUMNS):
        for name, rows in groupby(live(events).to_pylist(), key=lambda r: str(r["trajectory_id"])):
            found.append(_seen(name, list(rows), critic))
    return found


def likeness(a: Sequence[Seen], b: Sequence[Seen]) -> Likeness:
    """How far two sides are apart: types of action alone and in runs, error categories, ends, lengths, what was said."""
    shared = {s.task_id for s in a} & {s.task_id for s in b} - {""}
    fixed = [[s for s in side if s.task_id in shared and len(s.acts)] for side in (a, b)]
    judged = [[s for s in side if s.categories] for side in fixed]
    names_of = sorted({name for side in judged for s in side for name in s.categories})
    said = [np.array([s.acts.mean(axis=0) for s in side if len(s.acts)]).reshape(-1, WORDS) for side in (a, b)]
    names = [[s.trajectory_id for s in side if len(s.acts)] for side in (a, b)]
    distances = {f"actions, runs of {n}": divergence([s.runs(n) for s in a], [s.runs(n) for s in b]) for n in _RUNS}
    distances |= {
        "error categories": divergence([s.categories for s in a], [s.categories for s in b]),
        "exit status": divergence([Counter([s.exit_status]) for s in a], [Counter([s.exit_status]) for s in b]),
        "length": lengths([len(s.types) for s in a], [len(s.types) for s in b]),
        "what was said": discrepancy(said[0], said[1], names[0], names[1]),
        "told apart by what was said": _on_shared(fixed, [[s.acts.mean(axis=0) for s in side] for side in fixed]),
        "told apart by error categories": _on_shared(judged, [_shares(side, names_of) for side in judged]),
    }
    return Likeness(_described(a), _described(b), len(shared), distances)


def _on_shared(sides: Sequence[Sequence[Seen]], rows: Sequence[Sequence[Array]]) -> Distance:
    """A classifier's success on the tasks that both attempted, trajectories of a task never apart."""
    width = len(rows[0][0]) if rows[0] else 1
    arrays = [np.array(side, np.float64).reshape(-1, width) for side in rows]
    tasks = [[s.task_id for s in side] for side in sides]
    return told_apart(arrays[0], arrays[1], tasks[0], tasks[1])


def _shares(side: Sequence[Seen], names: Sequence[str]) -> list[Array]:
    """Which categories the critic found in each trajectory, as shares of what it found there (METHODS.md K10)."""
    return [np.array([s.categories[n] for n in names]) / s.categories.total() for s in side]


def shift(trained: Sequence[Seen], evaluated: Sequence[Seen]) -> Shift:
    """How far the states of training are from those of the evaluated policy, and how many of the latter they cover."""
    alone, paths, tasks = _stacked(evaluated)
    parts = {"all": _stacked(trained)}
    parts |= {f"student {name} of the turns before": _stacked(trained, i) for i, name in enumerate(BINS)}
    parts = {name: part for name, part in parts.items() if len(part[0])}
    return Shift(
        len(parts["all"][0]) if parts else 0,
        len(alone),
        {name: discrepancy(part, alone, of, paths) for name, (part, of, _) in parts.items()},
        {name: told_apart(part, alone, of, tasks) for name, (part, _, of) in parts.items()},
        coverage(*parts["all"][:2], alone, paths) if parts else Figure(None, None, None, len(alone)),
    )


def _stacked(side: Sequence[Seen], by: int | None = None) -> tuple[Array, list[str], list[str]]:
    """States of a side (items, features), the trajectory of each, and its task; of one bin where asked.

    Where both sides attempted a task, its states look alike: a classifier must not learn one side's and be asked the other's.
    """
    kept = [[i for i, bin_ in enumerate(s.by) if by is None or bin_ == by] for s in side]
    rows = [s.states[k] for s, k in zip(side, kept, strict=True) if k]
    paths = [s.trajectory_id for s, k in zip(side, kept, strict=True) for _ in k]
    tasks = [s.task_id or s.trajectory_id for s, k in zip(side, kept, strict=True) for _ in k]
    return (np.concatenate(rows) if rows else np.zeros((0, WORDS + 4))), paths, tasks


def _described(side: Sequence[Seen]) -> Described:
    names = [tuple(sorted({v for s in side if (v := getattr(s, f))})) for f in ("agent", "model", "scaffold")]
    return Described(len(side), sum(len(s.types) for s in side), len({s.task_id for s in side} - {""}), *names)


def _seen(name: str, rows: Sequence[dict[str, Any]], critic: str | None) -> Seen:
    one = Seen(name, "")
    turns: dict[int, dict[str, Any]] = {}
    for row in rows:
        kind, step = row["kind"], row["step"]
        if kind == "start":
            s = row["start"]
            one.agent, one.model, one.scaffold = s["agent"] or "", s["model"] or "", s["scaffold"] or ""
            one.task_id = one.task_id or s["task_id"] or ""
        elif kind == "task":
            one.task_id = row["task"]["task_id"] or one.task_id
        elif kind == "end":
            one.exit_status = row["end"]["exit_status"] or ""
        elif kind == "verdict" and (critic is None or row["policy"] == critic):
            one.categories.update(d["category"] for d in row["verdict"]["detections"] or () if d["category"])
        elif step is not None and kind in ("turn", "action"):
            turns.setdefault(step, {}).setdefault(kind, row[kind])
        elif step is not None and kind == "observation":
            turns.setdefault(step, {}).setdefault("answers", []).append(row[kind])
    acted = [turn for _, turn in sorted(turns.items()) if "action" in turn]
    one.types = [_type(t["action"]) for t in acted]
    if acted:
        said = [(t["action"]["text"] or "")[-_CHARS:] for t in acted]
        for t in acted:
            t["answers"] = sorted(t.get("answers", ()), key=lambda o: o["position"] or 0)
        shown = ["\n".join(answered(o)["content"] for o in t["answers"])[-_CHARS:] for t in acted]
        one.acts = _HASHED.transform(said).toarray()
        one.states, one.by = _states(acted, shown)
    return one


def _states(acted: Sequence[dict[str, Any]], shown: Sequence[str]) -> tuple[Array, list[int]]:
    """Before each turn: words last shown, whether the last command failed or had no exit code, failures and files so far."""
    words = _HASHED.transform(["", *shown[:-1]]).toarray()
    plain, by = np.zeros((len(acted), 4)), []
    failed = student = 0
    files: set[str] = set()
    for i, turn in enumerate(acted):
        answers = acted[i - 1]["answers"] if i else []
        code = answers[-1]["exit_code"] if answers else None
        failed += bool(code)
        files.update(name for o in answers for name in o["files_changed"] or ())
        plain[i] = (float(bool(code)), float(code is None), np.log1p(failed), np.log1p(len(files)))
        by.append(0 if not student else 1 if 2 * student <= i else 2)
        student += (turn.get("turn") or {}).get("chosen") != "teacher"
    return np.concatenate([words, plain], axis=1), by


def _type(action: Mapping[str, Any]) -> str:
    """What kind of action: the program of its command, else the tool called, else whether anything could be read."""
    programs = [c.program for c in commands(action["command"] or "") if c.program not in ("", "cd")]
    if programs:
        return programs[0]
    calls = json.loads(action["tool_calls"] or "[]")
    names = [str((c.get("function") or c).get("name")) for c in calls if isinstance(c, dict)]
    return "+".join(names) or ("unreadable" if action["parse_error"] else "words")
