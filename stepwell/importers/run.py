"""The import run: files in; events, sources and rejects out; each trajectory once, whatever its path and however often.

What a file is to the run is decided before it is parsed: the sha256 of its bytes, with what reports say of it, is looked up in
`sources`. Events are committed before the sources that claim them, so a run that dies is finished by running it again: what
was committed is known by its ids. A trajectory that is already in the log takes only new outcomes.
A conversation that is kept as one file an event is read as one file: the first of its files that is met stands for all.
Files with other suffixes than data files, hidden folders and Delta tables under a folder are not looked into.
"""

from __future__ import annotations

import gc
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from stepwell.errors import BadInput, UnknownName, UsageError
from stepwell.event import Event
from stepwell.gradings import WHOLE
from stepwell.ids import storable, unfit_corpus
from stepwell.importers.base import Imported, Rejected, SourceFile
from stepwell.importers.containers import Opened, Piece, open_blob
from stepwell.importers.fidelity import Fidelity
from stepwell.importers.files import File, Root, corpus_of, read_head, roots_of
from stepwell.importers.identity import findings_before, joined
from stepwell.importers.ledger import Held, Ledger, Taken
from stepwell.importers.outcome import Finding, OutcomeIndex, outcome_events, stem, task_events
from stepwell.importers.parted import PARTED, Joined, conversation
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.sniff import UNREAD, Sniffed
from stepwell.importers.units import units
from stepwell.lake import Lake
from stepwell.secrets.redact import Redactor, redactor_of

DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".traj", ".gz", ".parquet", ".eval")


class Progress(Protocol):
    """Called after each file."""

    def __call__(self, done: int, total: int, n_bytes: int) -> None:
        """Files done, files in all, bytes read so far."""


@dataclass
class ImportReport:
    """What a run did: files = imported + known + rejected + outcome + ignored, records = taken + rejected records.

    `outcome` counts companion files (reports, results, predictions); `known_events` were in the log already; a file with
    rejected records among others that were taken counts as imported.
    """

    batch_id: str
    files: int = 0
    imported: int = 0
    known: int = 0
    rejected: int = 0
    outcome: int = 0
    ignored: int = 0
    records: int = 0
    taken: int = 0
    rejected_records: int = 0
    trajectories: int = 0
    steps: int = 0
    events: int = 0
    known_events: int = 0
    resolved: int = 0
    unresolved: int = 0
    n_bytes: int = 0
    reasons: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    fidelity: dict[str, Fidelity] = field(default_factory=lambda: defaultdict(Fidelity))
    redacted: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Every count by name; rejects by reason as `rejected: REASON`, secrets by kind as `redacted: KIND`."""
        flat = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        flat |= {f"rejected: {reason}": n for reason, n in sorted(self.reasons.items())}
        return flat | {f"redacted: {kind}": n for kind, n in sorted(self.redacted.items())}


def import_paths(
    lake: Lake,
    paths: Sequence[str | Path],
    corpus: str | None = None,
    format: str | None = None,
    progress: Progress | None = None,
    batch_events: int = 20_000,
    keep_secrets: bool = False,
    secret_values: Sequence[str] = (),
) -> ImportReport:
    """Import files and folders into the lake; every file is counted, none stops the run.

    `corpus` defaults to the name of the folder given (of the file's folder); `format` takes files of one format only, and
    reads what has no telling mark, and a file given by name whatever it is, as that format. Secrets, and
    `secret_values` in every form, are taken out before anything is written, unless they are to be kept. Raises UsageError
    for a path that does not exist and UnknownName for a format without an importer; a broken lake raises what the lake raises.
    """
    if format is not None and format not in IMPORTERS:
        raise UnknownName("format", format, IMPORTERS, "Leave it out to have the format told from the content.")
    roots = roots_of(Path(p).absolute() for p in paths)  # what `sources` says holds wherever it is read
    redactor = None if keep_secrets else redactor_of(lake, secret_values)
    return import_roots(lake, roots, corpus, format, progress, batch_events, redactor)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Python looks for cycles whenever there are 700 objects more; parsing makes millions, and hardly one is in a cycle."""
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], 100_000), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_few_collections()
def import_roots(
    lake: Lake,
    roots: Sequence[Root],
    corpus: str | None,
    format: str | None,
    progress: Progress | None = None,
    batch_events: int = 20_000,
    redactor: Redactor | None = None,
) -> ImportReport:
    """Import the files of these roots; of one that is still written to nothing is rejected, and nothing claimed.

    The redactor's counts are the report's. Raises UsageError for a corpus name that is too long, and what the lake raises.
    """
    for root in roots:
        if why := unfit_corpus(corpus or corpus_of(root.path)):
            raise UsageError(why)
    report = ImportReport(batch_id=f"import-{uuid.uuid4().hex[:16]}")
    ledger = Ledger(lake, report.batch_id, batch_events, redactor)
    total = sum(len(r.files) for r in roots)
    apart: set[Path] = set()
    for root in roots:
        index = OutcomeIndex.build(root.path, root.beside)
        run = _Run(report, ledger, index, corpus or corpus_of(root.path), format, root, redactor, roots, apart)
        for path in root.files:
            run.file(path)
            if progress is not None:
                progress(report.files, total, report.n_bytes)
    ledger.flush()
    report.events, report.known_events = ledger.n_new, ledger.n_known
    report.redacted = dict(redactor.counts) if redactor else {}
    _take_back(report, ledger.refused)
    parts = report.imported + report.known + report.rejected + report.outcome + report.ignored
    assert report.files == parts == total, f"{report.files} files, {parts} accounted for, {total} found"
    return report


def _take_back(report: ImportReport, refused: Sequence[tuple[Held, str]]) -> None:
    """Count trajectories that could not be written as what they are: rejects, and their files that held no other."""
    for held, reason in refused:
        report.trajectories, report.steps = report.trajectories - 1, report.steps - held.trajectory.n_steps
        if not held.file.growing:
            report.reasons[reason] += 1
    files = {id(held.file): held.file for held, _ in refused}
    empty = sum(file.imported and not file.trajectory_ids for file in files.values())
    report.imported, report.rejected = report.imported - empty, report.rejected + empty


def _run_of(outcome: Event) -> int:
    return outcome.payload.get("rerun") or 0


@dataclass
class _Run:
    """The files of one root, one after the other."""

    report: ImportReport
    ledger: Ledger
    index: OutcomeIndex
    corpus: str
    format: str | None
    root: Root
    redactor: Redactor | None
    roots: Sequence[Root]
    parts: set[Path]
    """Files of all roots that were read with another."""
    recognised: str | None = None
    """Format of the file at hand, once it is known."""
    whole_kept: bool = False
    """Whether a reject of the file at hand holds all its bytes already."""
    n: int = 1
    """How many files the one at hand stands for."""

    def file(self, path: Path) -> None:
        """Take one file in, and count it once; one that was read with another was counted with it."""
        if path in self.parts:
            return
        self.recognised, self.whole_kept, self.n = None, False, 1
        if not self.root.explicit and path.suffix not in DATA_SUFFIXES and path not in self.root.also:
            self.report.files, self.report.ignored = self.report.files + 1, self.report.ignored + 1
            return
        try:
            if not self.root.inside(path):
                raise BadInput("unreadable", "a link that leads out of the folder; give what it leads to.")
            file = self.root.begun.get(path) or self._whole(path)
            self.report.n_bytes += file.size
            self._file(path, file)
        except BadInput as error:
            self.report.rejected += self.n
            raw = b"" if not self.root.inside(path) else read_head(path)
            self._reject(path, Rejected(error.reason, error.detail, error.offset), raw)
        self.report.files += self.n

    def _whole(self, path: Path) -> File:
        """The file at a path; of a conversation kept as one file an event, all its events. Raises BadInput."""
        files = conversation(path, self.root.inside) if self.format in (None, PARTED) else [File(path)]
        if len(files) == 1:
            return files[0]
        paths = {path, *(f.path for f in files)}
        self.parts |= paths
        self.n = sum(self.listed[p] for p in paths)
        return Joined(files)

    @cached_property
    def listed(self) -> Counter[Path]:
        """The files of all roots, and how often each was given."""
        return Counter(p for root in self.roots for p in root.files)

    def _file(self, path: Path, file: File) -> None:
        if path in self.root.begun:
            opened = open_blob(file)
            opened.told = self._told(opened.told)
            self._records(path, file, opened, Taken("", str(path), opened.told.format, file.size, growing=True))
            self.report.imported += self.n
            return
        companion, plain = self.index.companions.get(path), self.index.sha256(file)
        if companion is not None:
            self.report.outcome += self.n
            self.ledger.companion(plain, str(path), companion, self.corpus, file.size)
            return
        before = findings_before(self.index, path, file)
        if any(self.ledger.know(joined(plain, found), str(path), bool(found)) for found in before):
            self.report.known += self.n
            return
        opened = open_blob(file)
        opened.told = self._told(opened.told)
        self.recognised = opened.told.format
        taken = Taken("", str(path), f"{opened.told.format}-{opened.told.version}".rstrip("-"), file.size)
        findings = self._records(path, file, opened, taken)
        taken.content_hash = joined(plain, findings)
        if taken.trajectory_ids and self.ledger.know(taken.content_hash, str(path), bool(findings)):
            self.report.known += self.n
            return
        if taken.trajectory_ids or not taken.n_rejected:
            self.report.imported += self.n
            taken.imported = True
            self.ledger.done(taken)
        else:
            self.report.rejected += self.n

    def _records(self, path: Path, file: File, opened: Opened, taken: Taken) -> list[Finding]:
        """Take in every record of a file, or keep why not; returns what reports say of its trajectories."""
        fidelity = taken.fidelity
        source = SourceFile(
            storable(str(path)), storable(stem(path)), storable(path.parent.name), self.corpus, opened.told.version, ""
        )
        findings: list[Finding] = []
        try:
            for unit in units(opened, IMPORTERS[opened.told.format], source, self.redactor):
                fidelity.records, self.report.records = fidelity.records + unit.n, self.report.records + unit.n
                fidelity.rejected += unit.n_rejected
                self.report.rejected_records += unit.n_rejected
                fidelity.taken, self.report.taken = fidelity.taken + unit.n_taken, self.report.taken + unit.n_taken
                for rejected in unit.rejected:
                    taken.n_rejected += 1
                    self._reject(path, rejected, unit.raw)
                if unit.imported:
                    fidelity.read(unit.data)
                for trajectory in unit.imported:
                    fidelity.kept(trajectory.events)
                    findings += self._take(path, Piece(None, unit.offset, unit.raw), trajectory, taken)
            file.unchanged()
        except BadInput as error:
            taken.n_rejected += 1
            self._reject(path, Rejected(error.reason, error.detail, error.offset), None)
        self.report.fidelity[opened.told.format].add(fidelity)
        return findings

    def _take(self, path: Path, piece: Piece, trajectory: Imported, taken: Taken) -> list[Finding]:
        child = any(e.kind == "start" and "parent_trajectory" in e.payload for e in trajectory.events)
        findings = [] if child else self.index.lookup(path, trajectory.instance_id)
        end = next((e.event_id for e in reversed(trajectory.events) if e.kind == "end"), None)
        own = [e for e in trajectory.events if e.kind == "outcome" and e.payload.get("subject", WHOLE) == WHOLE]
        first = max((_run_of(e) + 1 for e in own), default=0)
        reported = [
            *task_events(findings, trajectory),
            *outcome_events(findings, trajectory.trajectory_id, trajectory.corpus, end, first),
        ]
        reported = self.redactor.events(reported) if self.redactor else reported
        told = sorted([*own, *(e for e in reported if e.kind == "outcome")], key=_run_of)
        self.report.trajectories += 1
        self.report.steps += trajectory.n_steps
        if told:
            resolved = told[-1].payload.get("resolved")
            self.report.resolved += resolved is True
            self.report.unresolved += resolved is False
        if findings:
            taken.outcome_path = findings[-1].path
        self.ledger.hold(Held(taken, trajectory, reported, piece.raw, piece.offset))
        return findings

    def _told(self, told: Sniffed) -> Sniffed:
        """The format to read a file as, or BadInput naming what it is instead."""
        self.recognised = None if told.format == "unknown" else told.format
        if self.format is not None and told.format != self.format:
            if told.format not in ("unknown", "chat") and not self.root.explicit:
                raise BadInput("other_format", f"it is {told.format}; only {self.format} was asked for.")
            told = Sniffed(self.format, IMPORTERS[self.format].versions[0], "asked for")
        if told.format in UNREAD:
            act = f"read are: {', '.join(IMPORTERS)}"
            raise BadInput("unsupported_format", f"recognised as {told.format} by {told.why}; no importer yet; {act}.")
        if told.format not in IMPORTERS:
            raise BadInput("unknown_format", f"{told.why}; read are: {', '.join(IMPORTERS)}.")
        versions = IMPORTERS[told.format].versions
        if told.version and told.version not in versions:
            detail = f"{told.format} version {told.version[:40]!r}; read are: {', '.join(versions)}."
            raise BadInput("unsupported_version", detail)
        return told

    def _reject(self, path: Path, rejected: Rejected, raw: bytes | None) -> None:
        """Keep what could not be taken, with its own bytes, else those of its record, else once those of its file."""
        if path in self.root.begun:
            return  # it is read again
        self.report.reasons[rejected.reason] += 1
        kept = rejected.raw if rejected.raw is not None else raw
        if kept is None:
            kept = b"" if self.whole_kept else read_head(path)
            self.whole_kept = True
        self.ledger.reject(str(path), rejected, kept, self.recognised)
