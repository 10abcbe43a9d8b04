"""Outcomes from files beside the trajectories: found by one rule, joined by instance id, never guessed.

Read are: a report per instance (`{"resolved": bool, "tests_status": ...}`, in a folder named as the instance, or under the
instance id), and aggregates: sb-cli and SWE-bench harness (`resolved_ids`, `unresolved_ids`, `error_ids`, `empty_patch_ids`),
SWE-smith (`ids_resolved`, `ids_unresolved`), SWE-bench experiments (`resolved` list). An id that a file does not list has no
outcome from it; an exit status is never one. Predictions and validation reports are known as companions, without an outcome.
A trial of Harbor (`result.json` with `verifier_result`) says which task the trajectories in its folder and in `agent` below it
are of, where they name none (ATIF has no place for it), and grades them: reward 1 is resolved, 0 is not, any other says
neither, as does one beside a recorded exception, which may make it invalid, and none.

The rule: from the folder of the trajectory walk up at most 3 parents inside the import root; a report counts at a parent when
every folder from there down to it has a usual name (`logs`, `results`, `sb-cli-reports`, `run_evaluation`...), is named as the
instance, or stands below `run_evaluation`. Of each kind the nearest counts. A report nearer to another trajectory of the same
instance, or equally near to two (as are two records of a file that differ), says nothing of this one. Reports that agree are
one outcome (of the most specific); otherwise every one is an outcome, aggregates first and the instance's own report last,
numbered by `rerun` (after those of the trajectory's own file) so that the last stands; when two of the same kind disagree, a
last outcome says null, because nobody can tell which run they graded. When reports change, what they say now stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from stepwell.errors import BadInput
from stepwell.event import Event
from stepwell.ids import storable
from stepwell.importers.base import Imported
from stepwell.importers.companions import AGGREGATE, INSTANCE, TRIAL, Digests, ids_in, is_ids, read_companion
from stepwell.importers.containers import Opened, open_blob
from stepwell.importers.files import Blob, Bytes, File, Gzip, Line, first_line, read_lines
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.regraded import CONFLICT, GRADERS

Obj = dict[str, Any]
_UP, _DOWN = 3, 6
_PLAIN, _PACKED = (".json", ".jsonl"), (".ndjson", ".gz", ".parquet")
_USUAL = {"logs", "log", "results", "result", "evaluation", "evaluations", "eval", "evals", "reports", "report"}
_USUAL |= {"sb-cli-reports", "run_evaluation", "eval_outputs"}
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
    score: float | None = None

    @property
    def grader(self) -> str:
        """Who graded, as far as the shape of the report tells."""
        return GRADERS[self.kind]


@dataclass
class OutcomeIndex:
    """The reports under one import root: built once, in time linear in its files, holding ids and paths only."""

    root: Path
    companions: dict[Path, str] = field(default_factory=dict)
    _own: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _listed: dict[Path, dict[str, bool | None]] = field(default_factory=dict)
    _anchored: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _claims: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    _trials: dict[Path, Path] = field(default_factory=dict)
    _named: set[str] = field(default_factory=set)
    _digests: Digests = field(default_factory=dict)

    @classmethod
    def build(cls, root: Path, files: Iterable[Path]) -> OutcomeIndex:
        """Index the companions among these files (all under `root`)."""
        index, trajectories, others = cls(root), [], []
        for path in files:
            if path.name.endswith((".traj", ".traj.json")):
                trajectories.append(path)
            elif path.suffix in _PACKED:
                others.append(path)
            elif path.suffix in _PLAIN:
                kind, document = read_companion(path, index._digests)
                if kind:
                    index._add(path, kind, document)
                else:
                    others.append(path)
        named = index._named = set(index._own).union(*index._listed.values())
        for path in trajectories:
            for name in {stem(path), path.parent.name} & named:
                index._claims[name].append(path.parent)
        for path in others if named else ():
            for name in _claims_of(path, named):
                index._claims[name].append(path.parent)
        return index

    def _add(self, path: Path, kind: str, document: Any) -> None:
        self.companions[path] = kind
        if kind == TRIAL:
            self._trials[path.parent] = path
        elif kind == INSTANCE:
            names = [path.parent.name] if isinstance(document.get("resolved"), bool) else list(document)
            for name in names:
                self._own[name].append(path)
        elif kind == AGGREGATE:
            self._listed[path] = {i: told for key, told in _LISTS if is_ids(document.get(key)) for i in document[key]}
            folder = path.parent
            for _ in range(_DOWN + 1):
                self._anchored[folder].append(path)
                if folder == self.root or not _usual(folder, None):
                    break
                folder = folder.parent

    def sha256(self, file: File) -> str:
        """The hash of a file's bytes; one that was read for this index, and is as it was, is not read again."""
        state, digest = self._digests.get(file.path, (None, b""))
        return digest.hex() if state == file.state else file.sha256()

    def has_reports(self) -> bool:
        """Whether any report was found at all."""
        return bool(self._own or self._listed or self._trials)

    def lookup(self, trajectory: Path, instance_id: str | None) -> list[Finding]:
        """What the nearest reports say of this trajectory, the least specific first."""
        folder = trajectory.parent
        found: list[Finding] = []
        trial = self._trials.get(folder) or (self._trials.get(folder.parent) if folder.name == "agent" else None)
        if trial is not None:
            found.append(_trial(trial))
        if instance_id not in self._named:
            return found
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


def _claims_of(path: Path, named: set[str]) -> list[str]:
    """Those of these instances that a file names, each as often as records that differ do; none if it cannot be read."""
    try:
        file = File(path)
        if path.suffix == ".parquet":
            return _column(file, named)
        blob = Gzip(file) if path.suffix == ".gz" else file
        told = ids_in(blob)
        found, plain = sorted(told.keys() & named), path.suffix in _PLAIN
        if not found or (plain and (all(told[name] == 1 for name in found) or not _has_records(blob))):
            return found
        opened, unit = _opened(file)
        if not unit:
            return found if plain else []
        if unit == "records" or opened.shape == "document":
            return found
        lines = read_lines(opened.blob) if opened.shape == "lines" else opened.pieces()
        records = (line.data if isinstance(line, Line) else line.raw or b"" for line in lines)
        return [name for name, _ in {(name, hash(r)) for r in records for name in ids_in(Bytes(r)).keys() & named}]
    except BadInput:
        return []


def _opened(file: File) -> tuple[Opened, str]:
    """A file opened, and what its importer reads; nothing when it has none. Raises BadInput."""
    opened = open_blob(file)
    importer = IMPORTERS.get(opened.told.format)
    return opened, importer.unit if importer else ""


def _column(file: File, named: set[str]) -> list[str]:
    """Those of these instances that rows of Parquet are of; none of rows that are no trajectories. Raises BadInput."""
    if not _opened(file)[1]:
        return []
    try:
        column = pq.ParquetFile(file.path).read(columns=["instance_id"]).to_pydict()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput("bad_archive", f"not whole Parquet: {str(error)[:160]}; fetch it again.") from error
    return [name for name in column.get("instance_id", ()) if name in named]


def _has_records(blob: Blob) -> bool:
    """Whether a JSON file may be lines or a list, told from its first line without parsing it."""
    first, more = first_line(blob)
    return first.data[:1] == b"[" or (more and first.data.rstrip()[-1:] == b"}")


def _trial(path: Path) -> Finding:
    _, document = read_companion(path)
    told = document if isinstance(document, dict) else {}
    verified = told.get("verifier_result")
    rewards = verified.get("rewards") if isinstance(verified, dict) else None
    rewards = rewards if isinstance(rewards, dict) else {}
    only = next(iter(rewards.values())) if len(rewards) == 1 else rewards.get("reward")
    score = float(only) if isinstance(only, int | float) and not isinstance(only, bool) and 0 <= only <= 1 else None
    failed = told.get("exception_info") is not None
    rest = {k: told[k] for k in ("task_name", "trial_name", "exception_info") if told.get(k) is not None}
    resolved = None if failed or score not in (0, 1) else score == 1
    return Finding(storable(str(path)), TRIAL, resolved, None, {**rest, "rewards": rewards}, score)


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
        for name in (told[key] if is_ids(told.get(key)) else [])
    ]
    return rows or None


def agreed(findings: list[Finding]) -> list[Finding]:
    """Findings as outcomes: one when they agree, else all and, when it is undecided, a last one that says null."""
    if len({f.resolved for f in findings}) <= 1:
        return findings[-1:]
    last = {f.resolved for f in findings if f.kind == findings[-1].kind}
    undecided = Finding(
        "", CONFLICT, None, rest={"reports": [{"path": f.path, "resolved": f.resolved} for f in findings]}
    )
    return findings if len(last) == 1 else [*findings, undecided]


def outcome_events(
    findings: list[Finding], trajectory_id: str, corpus: str, caused_by: str | None, first: int = 0
) -> Iterator[Event]:
    """Outcome events of a trajectory, numbered from `first`; none where nothing was found."""
    for rerun, finding in enumerate(agreed(findings), first):
        conflict = finding.kind == CONFLICT
        payload = {
            "subject": "trajectory",
            "grader": finding.grader,
            "rule": "conflict" if conflict else "reported" if finding.tests is None else "all",
            "resolved": finding.resolved,
            "score": finding.score,
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


def task_events(findings: list[Finding], trajectory: Imported) -> list[Event]:
    """The task that a trial names, for a trajectory whose own file names none and grows no more."""
    named = next((f.rest["task_name"] for f in findings if isinstance(f.rest.get("task_name"), str)), None)
    if named is None or trajectory.n_records is not None or any(e.kind == "task" for e in trajectory.events):
        return []
    return [Event("task", trajectory.trajectory_id, trajectory.corpus, "system", {"task_id": named})]
