"""How student and teacher differ in what an iteration collected, and where (METHODS.md K14 to K16).

Belongs here: figures of mixed rollouts from the log. Does not belong here: deciding anything by them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, groupby
from typing import Any

from stepwell.evaluation.intervals import wilson
from stepwell.gradings import WHOLE, results
from stepwell.log import EventLog, live
from stepwell.rollout.mixing import z_score

_COLUMNS = ("event_id", "trajectory_id", "step", "kind", "policy", "recorded_at", "extra", "turn", "action", "observation",
            "label", "end", "outcome", "retraction")  # fmt: skip


@dataclass
class Share:
    """`k` of `n`."""

    k: int = 0
    n: int = 0

    def add(self, yes: bool) -> None:
        """Count one."""
        self.k += yes
        self.n += 1

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval."""
        return wilson(self.k, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return "-" if not self.n else f"{100 * self.k / self.n:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of {self.n}"


@dataclass
class Drift:
    """Figures of the mixed rollouts of one iteration.

    `beta` is declared (None: a switch), `taught` the turns the teacher took, `z` how far that is from the declared.
    `differ`: turns whose label is not what was executed, `student_differ` those of the student alone, and by the student's
    share of the turns before (`by_prefix`). `errors_after`: the teacher's commands that failed, by who acted before it.
    `runs`: how many runs of student turns have which length. `self_agreement`: pairs of resampled labels that are equal.
    """

    n_trajectories: int = 0
    beta: float | None = None
    taught: Share = field(default_factory=Share)
    z: float | None = None
    labelled: Share = field(default_factory=Share)
    differ: Share = field(default_factory=Share)
    student_differ: Share = field(default_factory=Share)
    by_prefix: dict[str, Share] = field(default_factory=dict)
    errors_after: dict[str, Share] = field(default_factory=lambda: {"agent": Share(), "teacher": Share()})
    runs: Counter[int] = field(default_factory=Counter)
    student_share: float | None = None
    self_agreement: dict[str, Share] = field(default_factory=dict)
    submitted: Share = field(default_factory=Share)
    resolved: Share = field(default_factory=Share)

    def plain(self) -> dict[str, Any]:
        """The figures as one JSON document, shares as k, n and their interval."""

        def shown(value: Any) -> Any:
            if isinstance(value, Share):
                return {**asdict(value), "share": value.value, "interval": value.interval}
            return {str(k): shown(v) for k, v in value.items()} if isinstance(value, dict) else value

        return {name: shown(value) for name, value in self.__dict__.items()}


def drift(log: EventLog, trajectory_ids: Sequence[str], teacher: str) -> Drift:
    """The figures of these trajectories; labels are those of one teacher."""
    found, betas, shares = Drift(n_trajectories=len(trajectory_ids)), [], []
    for events in log.batches(trajectory_ids, columns=_COLUMNS):
        rows = live(events).to_pylist()
        for (_, about), resolved in results(rows).items():
            if about == WHOLE and resolved is not None:
                found.resolved.add(resolved)
        for _, stream in groupby(rows, key=lambda r: str(r["trajectory_id"])):
            turns = _turns(list(stream), teacher, found)
            betas += [t["beta"] for t in turns if t["beta"] is not None]
            shares += _trajectory(turns, found)
    found.student_share = sum(shares) / len(shares) if shares else None
    if betas and len(betas) == found.taught.n:
        found.z = z_score(betas, found.taught.k)
        found.beta = betas[0] if len(set(betas)) == 1 else sum(betas) / len(betas)
    return found


def _turns(rows: Sequence[dict[str, Any]], teacher: str, found: Drift) -> list[dict[str, Any]]:
    """The turns of a trajectory in order: who acted, what was said, what the labels say, how the command ended."""
    turns: dict[int, dict[str, Any]] = {}
    for row in rows:
        kind = row["kind"]
        if kind == "end":
            found.submitted.add(row["end"]["exit_status"] == "submitted")
        if row["step"] is None:
            continue
        turn = turns.setdefault(row["step"], {"labels": [], "beta": None, "chosen": None, "said": None, "exit": None})
        if kind == "turn":
            turn |= {"beta": row["turn"]["beta"], "chosen": row["turn"]["chosen"]}
        elif kind == "action":
            turn["said"] = (row["action"]["text"] or "", _called(json.loads(row["action"]["tool_calls"] or "[]")))
        elif kind == "observation" and turn["exit"] is None:
            turn["exit"] = row["observation"]["exit_code"]
        elif kind == "label" and row["policy"] == teacher:
            calls = json.loads(row["extra"] or "{}").get("tool_calls") or []
            turn["labels"].append((row["label"]["resample"] or 0, row["label"]["text"] or "", _called(calls)))
    return [turn for _, turn in sorted(turns.items()) if turn["said"] is not None]


def _called(calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The functions that are called with what; ids of calls are new in every reply, and arguments are JSON of any layout."""
    found = []
    for call in calls:
        function = call.get("function") or {}
        try:
            given = json.loads(function.get("arguments") or "{}")
        except (TypeError, ValueError):
            given = function["arguments"]
        found.append((function.get("name"), given))
    return found


def _trajectory(turns: Sequence[dict[str, Any]], found: Drift) -> list[float]:
    """Count the turns of one trajectory; returns the student's share of them, where there are any."""
    student = 0
    for n, turn in enumerate(turns):
        by_student = turn["chosen"] != "teacher"
        prefix = _bin(student, n)
        found.taught.add(not by_student)
        found.labelled.add(bool(turn["labels"]))
        labels = [label[1:] for label in sorted(turn["labels"], key=lambda label: label[0])]
        if labels:
            differs = labels[0] != turn["said"]
            found.differ.add(differs)
            if by_student:
                found.student_differ.add(differs)
                found.by_prefix.setdefault(prefix, Share()).add(differs)
        for a, b in combinations(labels, 2):
            found.self_agreement.setdefault(prefix, Share()).add(a == b)
        if n and not by_student and turn["exit"] is not None:
            found.errors_after[turns[n - 1]["chosen"] or "agent"].add(turn["exit"] != 0)
        student += by_student
    for chosen, run in groupby(turns, key=lambda t: t["chosen"]):
        if chosen != "teacher":
            found.runs[len(list(run))] += 1
    return [student / len(turns)] if turns else []


def _bin(student: int, n: int) -> str:
    """Where the student's share of the turns so far lies."""
    if student == 0:
        return "none"
    return "up to half" if 2 * student <= n else "more than half"
