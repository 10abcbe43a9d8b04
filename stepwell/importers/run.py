"""The import run: files in; events, sources and rejects out; each trajectory once, whatever its path and however often.

What a file is to the run is decided before it is parsed: the sha256 of its bytes, with what reports say of it, is looked up in
`sources`. Events are committed before the sources that claim them, so a run that dies is finished by running it again: what
was committed is known by its ids. A trajectory that is already in the log takes only new outcomes.
Files with other suffixes than data files, hidden folders and Delta tables under a folder are not looked into.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from stepwell.errors import BadInput, UnknownName
from stepwell.ids import storable
from stepwell.importers.base import Imported, Importer, Rejected, SourceFile
from stepwell.importers.files import corpus_of, read_bytes, read_head, root_of
from stepwell.importers.ledger import Ledger, Taken
from stepwell.importers.mini_swe_agent import MiniSweAgent
from stepwell.importers.outcome import Finding, OutcomeIndex, outcome_events, stem
from stepwell.importers.sniff import UNREAD, Sniffed, inspect
from stepwell.importers.swe_agent import SweAgent
from stepwell.lake import Lake

IMPORTERS: dict[str, Importer] = {i.name: i for i in (MiniSweAgent(), SweAgent())}
DATA_SUFFIXES = (".json", ".jsonl", ".ndjson", ".traj", ".gz", ".parquet", ".eval")
_IDS = re.compile(rb'"(?:instance_id|environment)":\s*"([^"\\]{1,200})"')


class Progress(Protocol):
    """Called after each file."""

    def __call__(self, done: int, total: int, n_bytes: int) -> None:
        """Files done, files in all, bytes read so far."""


@dataclass
class ImportReport:
    """What a run did: files = imported + known + rejected + outcome + ignored; trajectories are those it took in.

    `outcome` counts companion files (reports, results, predictions); `n_known_events` were in the log already.
    """

    batch_id: str
    files: int = 0
    imported: int = 0
    known: int = 0
    rejected: int = 0
    outcome: int = 0
    ignored: int = 0
    trajectories: int = 0
    steps: int = 0
    events: int = 0
    known_events: int = 0
    resolved: int = 0
    unresolved: int = 0
    n_bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Every count by name; rejected records by reason as `rejected: REASON`."""
        flat = {k: v for k, v in asdict(self).items() if isinstance(v, int)}
        return flat | {f"rejected: {reason}": n for reason, n in sorted(self.reasons.items())}


def import_paths(
    lake: Lake,
    paths: Sequence[str | Path],
    corpus: str | None = None,
    format: str | None = None,
    progress: Progress | None = None,
    batch_events: int = 20_000,
) -> ImportReport:
    """Import files and folders into the lake; every file is counted, none stops the run.

    `corpus` defaults to the name of the folder given (of the file's folder); `format` takes files of one format only, and
    reads what has no telling mark as that format. Raises UsageError for a path that does not exist and UnknownName for a
    format without an importer; a broken lake raises what the lake raises.
    """
    if format is not None and format not in IMPORTERS:
        raise UnknownName("format", format, IMPORTERS, "Leave it out to have the format told from the content.")
    roots = [root_of(Path(p)) for p in paths]
    report = ImportReport(batch_id=f"import-{uuid.uuid4().hex[:16]}")
    ledger = Ledger(lake, report.batch_id, batch_events)
    total = sum(len(r.files) for r in roots)
    for root in roots:
        index = OutcomeIndex.build(root.path, root.beside)
        run = _Run(report, ledger, index, corpus or corpus_of(root.path), format, root.explicit)
        for path in root.files:
            run.file(path)
            if progress is not None:
                progress(report.files, total, report.n_bytes)
    ledger.flush()
    report.events, report.known_events = ledger.n_new, ledger.n_known
    for refused in ledger.refused:
        report.imported, report.rejected = report.imported - 1, report.rejected + 1
        report.trajectories -= len(refused.trajectories)
        report.steps -= sum(t.n_steps for t, _ in refused.trajectories)
        report.reasons["malformed"] = report.reasons.get("malformed", 0) + 1
    parts = report.imported + report.known + report.rejected + report.outcome + report.ignored
    assert report.files == parts == total, f"{report.files} files, {parts} accounted for, {total} found"
    return report


@dataclass
class _Run:
    """The files of one root, one after the other."""

    report: ImportReport
    ledger: Ledger
    index: OutcomeIndex
    corpus: str
    format: str | None
    explicit: bool
    recognised: str | None = None
    """Format of the file at hand, once it is known."""

    def file(self, path: Path) -> None:
        """Take one file in, and count it once."""
        self.report.files += 1
        self.recognised = None
        if not self.explicit and path.suffix not in DATA_SUFFIXES:
            self.report.ignored += 1
            return
        try:
            data = read_bytes(path)
            self.report.n_bytes += len(data)
            self._data(path, data)
        except BadInput as error:
            self._reject(path, [Rejected(error.reason, error.detail, error.offset)], read_head(path), self.recognised)

    def _data(self, path: Path, data: bytes) -> None:
        companion = self.index.companions.get(path)
        plain = hashlib.sha256(data)
        if companion is not None:
            self.report.outcome += 1
            self.ledger.companion(plain.hexdigest(), str(path), companion, self.corpus, len(data))
            return
        content_hash = _joined(plain.hexdigest(), self._findings(path, _names(path, data)))
        if self.ledger.know(content_hash, str(path)):
            self.report.known += 1
            return
        told, document = self._tell(data)
        name, folder = storable(stem(path)), storable(path.parent.name)
        source = SourceFile(storable(str(path)), name, folder, self.corpus, told.version, _identity(document))
        imported, rejected = _read(IMPORTERS[told.format], document, source)
        if rejected:
            self._reject(path, rejected, data, told.format, counted=bool(imported))
        found = [(t, self.index.lookup(path, t.instance_id)) for t in imported]
        content_hash = _joined(plain.hexdigest(), [f for _, findings in found for f in findings])
        if imported and self.ledger.know(content_hash, str(path)):
            self.report.known += 1
        elif imported or not rejected:
            self._take(Taken(content_hash, str(path), f"{told.format}-{told.version}", len(data), len(rejected)), found)

    def _findings(self, path: Path, names: Iterable[str]) -> list[Finding]:
        """What reports say by the ids that path and content show without parsing."""
        return next((found for found in (self.index.lookup(path, name) for name in names) if found), [])

    def _take(self, taken: Taken, found: list[tuple[Imported, list[Finding]]]) -> None:
        self.report.imported += 1
        for trajectory, findings in found:
            self.report.trajectories += 1
            self.report.steps += trajectory.n_steps
            end = next((e.event_id for e in reversed(trajectory.events) if e.kind == "end"), None)
            outcomes = list(outcome_events(findings, trajectory.trajectory_id, trajectory.corpus, end))
            if outcomes:
                resolved = outcomes[-1].payload.get("resolved")
                self.report.resolved += resolved is True
                self.report.unresolved += resolved is False
                taken.outcome_path = findings[-1].path
            taken.trajectories.append((trajectory, outcomes))
        self.ledger.take(taken)

    def _tell(self, data: bytes) -> tuple[Sniffed, Any]:
        """Format and document, or BadInput naming what the file is instead."""
        told, document = inspect(data)
        self.recognised = None if told.format == "unknown" else told.format
        if self.format is not None and told.format != self.format:
            if told.format not in ("unknown", "chat") or document is None:
                raise BadInput("other_format", f"it is {told.format}; only {self.format} was asked for.")
            told = Sniffed(self.format, IMPORTERS[self.format].versions[0], "asked for")
        if told.format in UNREAD:
            act = f"read are: {', '.join(IMPORTERS)}"
            raise BadInput("unsupported_format", f"recognised as {told.format} by {told.why}; no importer yet; {act}.")
        if told.format not in IMPORTERS:
            raise BadInput("unknown_format", f"{told.why}; read are: {', '.join(IMPORTERS)}.")
        versions = IMPORTERS[told.format].versions
        if told.version not in versions:
            detail = f"{told.format} version {told.version[:40]!r}; read are: {', '.join(versions)}."
            raise BadInput("unsupported_version", detail)
        return told, document

    def _reject(
        self, path: Path, rejected: list[Rejected], data: bytes, format: str | None, counted: bool = False
    ) -> None:
        """Keep what of a file could not be taken; `counted` when the file itself counts as imported."""
        self.report.rejected += not counted
        for one in rejected:
            self.report.reasons[one.reason] = self.report.reasons.get(one.reason, 0) + 1
            self.ledger.reject(str(path), one, data, format)


def _read(importer: Importer, document: Any, source: SourceFile) -> tuple[list[Imported], list[Rejected]]:
    """What an importer makes of a document.

    Documents are hostile: whatever one makes an importer raise is the document's fault, and ends that document only.
    """
    try:
        read = list(importer.read(document, source))
    except Exception as error:
        return [], [Rejected("malformed", f"{type(error).__name__}: {str(error)[:200]}")]
    return [r for r in read if isinstance(r, Imported)], [r for r in read if isinstance(r, Rejected)]


def _names(path: Path, data: bytes) -> list[str]:
    """Ids a file may have, without parsing it: as its head and tail, its name and its folder show."""
    shown = _IDS.findall(data[:4096]) + _IDS.findall(data[-4096:])
    return list(dict.fromkeys([*(s.decode("utf-8", "replace") for s in shown), stem(path), path.parent.name]))


def _joined(content: str, findings: list[Finding]) -> str:
    """The identity of a source: its bytes and what reports say of it, wherever they lie."""
    if not findings:
        return content
    said = [(f.kind, f.resolved, f.tests, f.rest) for f in findings]
    return hashlib.sha256(content.encode() + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _identity(document: Any) -> str:
    """sha256 of a document's content, the same for any layout of it."""
    try:
        return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except orjson.JSONEncodeError as error:
        raise BadInput("malformed", f"{error}; documents are nested at most 254 deep.") from error
