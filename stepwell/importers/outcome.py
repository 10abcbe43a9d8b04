"""Outcomes from files beside the trajectories: found by one rule, joined by instance id, never guessed.

Read are: a report per instance (`{"resolved": bool, "tests_status": ...}`, in a folder named as the instance, or under the
instance id), and aggregates: sb-cli and SWE-bench harness (`resolved_ids`, `unresolved_ids`, `error_ids`, `empty_patch_ids`),
SWE-smith (`ids_resolved`, `ids_unresolved`), SWE-bench experiments (`resolved` list). An id that a file does not list has no
outcome from it; an exit status is never one. Predictions and validation reports are known as companions, without an outcome.

The rule: from the folder of the trajectory walk up at most 3 parents inside the import root; a report counts at a parent when
every folder from there down to it has a usual name (`logs`, `results`, `sb-cli-reports`, `run_evaluation`...), is named as the
instance, or stands below `run_evaluation`. Of each kind the nearest counts. A report nearer to another trajectory of the same
instance, or equally near to two, says nothing of this one. Reports that agree are one outcome (of the most specific);
otherwise every one is an outcome, aggregates first and the instance's own report last, numbered by `rerun` so that the
last stands; when two of the same kind disagree, a last outcome says null, because nobody can tell which run they graded.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.ids import storable

Obj = dict[str, Any]
INSTANCE, AGGREGATE, PREDICTIONS, VALIDATION = "instance-report", "results", "predictions", "validation-report"
_UP, _DOWN = 3, 6
_USUAL = {"logs", "log", "results", "result", "evaluation", "evaluations", "eval", "evals", "reports", "report"}
_USUAL |= {"sb-cli-reports", "run_evaluation"}
_MARKS = (b'"resolved', b'"ids_resolved"', b'"model_patch"', b'"FAIL_TO_PASS"')
_MOST = 64 << 20
_LISTS: tuple[tuple[str, bool | None], ...] = (
    ("error_ids", None), ("empty_patch_ids", None), ("ids_unresolved", False), ("unresolved_ids", False),
    ("unresolved", False), ("ids_resolved", True), ("resolved_ids", True), ("resolved", True),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What one report says of one instance; `tests` are rows of the outcome's test list, null where not told."""

    path: str
    kind: str
    resolved: bool | None
    tests: list[Obj] | None = None
    rest: Obj = field(default_factory=dict)

    @property
    def grader(self) -> str:
        """Who graded, as far as the shape of the report tells."""
        return "swe-bench-harness report" if self.kind == INSTANCE else "aggregated results"


def classify(document: Any, keyed: bool = True) -> str:
    """Kind of companion file a parsed object is, or nothing; `keyed` allows one report a key."""
    if not isinstance(document, dict) or any(k in document for k in ("trajectory", "messages", "history", "steps")):
        return ""
    scalar = not any(isinstance(v, dict | list) for k, v in document.items() if k != "tests_status")
    if (
        scalar
        and isinstance(document.get("resolved"), bool)
        and ("tests_status" in document or "patch_exists" in document)
    ):
        return INSTANCE
    if any(
        _is_ids(document.get(k))
        for k in ("resolved_ids", "ids_resolved", "unresolved_ids", "ids_unresolved", "resolved")
    ):
        return AGGREGATE
    if isinstance(document.get("FAIL_TO_PASS"), list) and isinstance(document.get("PASS_TO_PASS"), list):
        return VALIDATION if "instance_id" not in document and "problem_statement" not in document else ""
    if scalar and "model_patch" in document and "instance_id" in document:
        return PREDICTIONS
    values = list(document.values()) if keyed else []
    kinds = {classify(v, keyed=False) for v in values} if values and all(isinstance(v, dict) for v in values) else set()
    return kinds.pop() if len(kinds) == 1 and kinds <= {INSTANCE, PREDICTIONS} else ""


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def read_companion(path: Path) -> tuple[str, Any]:
    """Kind and parsed content of a possible companion file; an empty kind when it is none."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST:
            return "", None
        data = path.read_bytes()
        if not any(mark in data for mark in _MARKS):
            return "", None
        if path.suffix == ".jsonl":
            rows = [orjson.loads(line) for line in data.splitlines() if line.strip()]
            return (PREDICTIONS if rows and all(classify(r) == PREDICTIONS for r in rows) else ""), None
        document = orjson.loads(data)
    except (OSError, orjson.JSONDecodeError):
        return "", None
    if isinstance(document, list):
        return (PREDICTIONS if document and all(classify(r) == PREDICTIONS for r in document) else ""), None
    return classify(document), document


@dataclass
class OutcomeIndex:
    """The reports under one import root: built once, in time linear in its files, holding ids and paths only."""

    root: Path
    companions: dict[Path, str] = field(default_factory=dict)
    _own: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _listed: dict[Path, dict[str, bool | None]] = field(default_factory=dict)
    _anchored: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _claims: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def build(cls, root: Path, files: Iterable[Path]) -> OutcomeIndex:
        """Index the companions among these files (all under `root`)."""
        index, trajectories = cls(root), []
        for path in files:
            if path.name.endswith((".traj", ".traj.json")):
                trajectories.append(path)
            elif path.suffix in (".json", ".jsonl"):
                kind, document = read_companion(path)
                if kind:
                    index._add(path, kind, document)
        named = set(index._own).union(*index._listed.values())
        for path in trajectories:
            for name in {stem(path), path.parent.name} & named:
                index._claims[name].append(path.parent)
        return index

    def _add(self, path: Path, kind: str, document: Any) -> None:
        self.companions[path] = kind
        if kind == INSTANCE:
            names = [path.parent.name] if isinstance(document.get("resolved"), bool) else list(document)
            for name in names:
                self._own[name].append(path)
        elif kind == AGGREGATE:
            self._listed[path] = {i: told for key, told in _LISTS if _is_ids(document.get(key)) for i in document[key]}
            folder = path.parent
            for _ in range(_DOWN + 1):
                self._anchored[folder].append(path)
                if folder == self.root or not _usual(folder, None):
                    break
                folder = folder.parent

    def lookup(self, trajectory: Path, instance_id: str | None) -> list[Finding]:
        """What the nearest reports say of this trajectory, the least specific first."""
        if instance_id is None:
            return []
        folder = trajectory.parent
        found: list[Finding] = []
        for kind in (AGGREGATE, INSTANCE):
            for path in self._nearest(folder, instance_id, kind):
                finding = self._read(path, kind, instance_id)
                found += [finding] if finding else []
        return found

    def _nearest(self, folder: Path, instance_id: str, kind: str) -> list[Path]:
        own = self._own.get(instance_id, []) if kind == INSTANCE else []
        for up, parent in enumerate([folder, *folder.parents][: _UP + 1]):
            if kind == AGGREGATE:
                here = [p for p in self._anchored.get(parent, []) if instance_id in self._listed[p]]
            else:
                here = [p for p in own if _reaches(parent, p.parent, instance_id)]
            here = [p for p in here if not self._claimed(p, instance_id, folder, up)]
            if here:
                return sorted(here)
            if parent == self.root:
                break
        return []

    def _claimed(self, report: Path, instance_id: str, folder: Path, up: int) -> bool:
        """Whether another trajectory of the instance is as near to the report, or nearer."""
        others = [f for f in self._claims.get(instance_id, []) if f != folder]
        twins = self._claims.get(instance_id, []).count(folder) > 1
        return twins or any(_steps_up(other, report.parent) <= up for other in others)

    def _read(self, path: Path, kind: str, instance_id: str) -> Finding | None:
        if kind == AGGREGATE:
            return Finding(storable(str(path)), kind, self._listed[path][instance_id])
        _, document = read_companion(path)
        if not isinstance(document, dict):
            return None
        report = document if isinstance(document.get("resolved"), bool) else document.get(instance_id)
        if not isinstance(report, dict) or not isinstance(report.get("resolved"), bool):
            return None
        rest = {k: v for k, v in report.items() if k != "resolved" and isinstance(v, str | int | float)}
        return Finding(storable(str(path)), kind, report["resolved"], _tests(report.get("tests_status")), rest)


def stem(path: Path) -> str:
    """File name without `.traj.json`, `.traj` or `.json`."""
    return path.name.removesuffix(".json").removesuffix(".traj") or path.name


def _usual(folder: Path, instance_id: str | None) -> bool:
    above = {folder.parent.name, folder.parent.parent.name}
    return folder.name in _USUAL or folder.name == instance_id or "run_evaluation" in above


def _reaches(parent: Path, folder: Path, instance_id: str) -> bool:
    """Whether every folder below `parent` down to `folder` has a name the rule allows."""
    for _ in range(_DOWN + 1):
        if folder == parent:
            return True
        if not _usual(folder, instance_id) or folder == folder.parent:
            return False
        folder = folder.parent
    return False


def _steps_up(folder: Path, other: Path) -> int:
    """How many parents to walk up from a folder to stand above another."""
    return next(n for n, parent in enumerate([folder, *folder.parents]) if other.is_relative_to(parent))


def _tests(status: Any) -> list[Obj] | None:
    if not isinstance(status, dict):
        return None
    rows = [
        {"name": name, "group": group, "passed": passed}
        for group, told in status.items()
        if isinstance(told, dict)
        for key, passed in (("success", True), ("failure", False))
        for name in (told[key] if _is_ids(told.get(key)) else [])
    ]
    return rows or None


def agreed(findings: list[Finding]) -> list[Finding]:
    """Findings as outcomes: one when they agree, else all and, when it is undecided, a last one that says null."""
    if len({f.resolved for f in findings}) <= 1:
        return findings[-1:]
    last = {f.resolved for f in findings if f.kind == findings[-1].kind}
    undecided = Finding(
        "", "conflict", None, rest={"reports": [{"path": f.path, "resolved": f.resolved} for f in findings]}
    )
    return findings if len(last) == 1 else [*findings, undecided]


def outcome_events(findings: list[Finding], trajectory_id: str, corpus: str, caused_by: str | None) -> Iterator[Event]:
    """Outcome events of a trajectory; none where nothing was found."""
    for rerun, finding in enumerate(agreed(findings)):
        conflict = finding.kind == "conflict"
        payload = {
            "subject": "trajectory",
            "grader": "stepwell import" if conflict else finding.grader,
            "rule": "conflict" if conflict else "reported" if finding.tests is None else "all",
            "resolved": finding.resolved,
            "tests": finding.tests,
            "rerun": rerun,
        }
        extra = {**finding.rest, **({"report": finding.path} if finding.path else {})}
        yield Event(
            "outcome",
            trajectory_id,
            corpus,
            "grader",
            {k: v for k, v in payload.items() if v is not None},
            policy=str(payload["grader"]),
            caused_by=caused_by,
            extra=orjson.dumps(extra).decode(),
        )
