"""The export run: what was asked for is chosen, made into rows, written whole or not at all, and told in a manifest beside.

The manifest (`PATH.manifest.json`) says the versions, the filter, the counts, why anything was left out, and the sha256 of
what was written. It has no time in it: the same lake at the same versions gives the same bytes. What was retracted is not
given out, nor is anything older of a trajectory of which something was taken down or redacted since; corpora of evaluations
only when they are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from schemas.kinds import HELD_OUT
from schemas.tables import DATASET
from stepwell.conditions import Condition
from stepwell.errors import UnknownName, UsageError
from stepwell.exporters.base import Exporter, LeftOut, Make, Obj, OpenSink, Options, Sink
from stepwell.exporters.reading import hidden_since, listed, trajectories
from stepwell.exporters.registry import EXPORTERS
from stepwell.exporters.writing import checksum, manifest_of, whole
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.seals import seal_of
from stepwell.shuffle import MOST, Spill

_ROWS = 200
"""Rows of a dataset that are in memory at a time, about."""
Progress = Callable[[int, int], None]
"""Called with trajectories, or rows of a dataset, done and in all."""
Items = Iterator[tuple[Any, int]]
"""Trajectories or rows of a dataset, each with how many there are in all."""


@dataclass(frozen=True)
class Request:
    """What to export: `where` is an SQL condition on the columns of `trajectories`, for a dataset on those of its rows; `at` a
    version of `events`, for a dataset of its table.
    """

    format: str
    corpora: tuple[str, ...] = ()
    where: str = "true"
    dataset: str | None = None
    mask_rule: str | None = None
    at: int | None = None


@dataclass
class Report:
    """What an export did: looked at = passed over by the filter + left out + written."""

    request: Request
    version: int
    looked_at: int = 0
    chosen: int = 0
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    seal: Obj = field(default_factory=dict)
    n_bytes: int = 0
    sha256: str | None = None

    def manifest(self) -> Obj:
        """The report as JSON has it."""
        row = {
            "format": self.request.format,
            "table": "events" if self.request.dataset is None else _table(self.request.dataset),
            "version": self.version,
            "filter": {k: v for k, v in asdict(self.request).items() if k not in ("format", "at")},
            "counts": {"looked_at": self.looked_at, "chosen": self.chosen, "written": self.written},
            "left_out": dict(sorted(self.left_out.items())),
        }
        seal = {k: self.seal[k] for k in ("dataset_hash", "events_version", "recipe", "recipe_hash") if k in self.seal}
        return row | ({"dataset": seal} if seal else {}) | ({"bytes": self.n_bytes, "sha256": self.sha256})


def export(
    lake: Lake, request: Request, path: Path | None, overwrite: bool = False, progress: Progress | None = None
) -> Report:
    """Write a file or folder and its manifest, or without a path only count what would be written.

    Raises UnknownName and UsageError for what there is not, or when nothing is left to write.
    """
    exporter = _exporter(request)
    factory = None if path is None else _sink(exporter, path)
    items, report = (_of_dataset if exporter.reads == "dataset" else _of_log)(lake, request, exporter)
    about = {"table": request.dataset, "version": report.version, "seal": report.seal, "left_out": report.left_out}
    options = Options(request.mask_rule, about)
    make = exporter.make(options)
    with whole(path, overwrite) if path is not None else nullcontext() as part:
        with closing(factory(part, options)) if factory is not None and part is not None else nullcontext() as sink:
            _write(items, make, sink, report, progress)
        if part is not None:
            report.n_bytes, report.sha256 = checksum(part)
    if path is not None:
        with whole(manifest_of(path), overwrite=True) as part:
            part.write_bytes(orjson.dumps(report.manifest(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return report


def _write(items: Items, make: Make, sink: Sink | None, report: Report, progress: Progress | None) -> None:
    for item, total in items:
        made = item if isinstance(item, LeftOut) else make(item)
        report.chosen += 1
        if isinstance(made, LeftOut):
            report.left_out[made.reason] += 1
        else:
            report.written += 1
            if sink is not None:
                sink.write(made)
        if progress is not None:
            progress(report.chosen, total)
    if not report.written:
        raise UsageError(_nothing(report))
    if sink is not None:
        sink.finish()


def _exporter(request: Request) -> Exporter:
    if request.format not in EXPORTERS:
        raise UnknownName("format", request.format, EXPORTERS, "`stepwell export --help` says what each is.")
    exporter = EXPORTERS[request.format]
    if (exporter.reads == "dataset") != (request.dataset is not None):
        act = "needs --dataset NAME" if exporter.reads == "dataset" else "is made of trajectories: leave out --dataset"
        raise UsageError(f"format {request.format!r} {act}.")
    if request.mask_rule is not None and "mask" not in exporter.kinds:
        flags = ", ".join(n for n, e in EXPORTERS.items() if "mask" in e.kinds)
        raise UsageError(f"format {request.format!r} has no masks; leave out --mask-rule, or choose of {flags}.")
    return exporter


def _sink(exporter: Exporter, path: Path) -> OpenSink:
    if path.suffix in exporter.sinks:
        return exporter.sinks[path.suffix]
    if "" in exporter.sinks and path.suffix not in (".json", ".jsonl", ".parquet", ".gz"):
        return exporter.sinks[""]
    allowed = ", ".join(f"PATH{s}" if s else "a folder" for s in exporter.sinks)
    raise UsageError(f"{exporter.name} cannot be written to {path.name!r}; allowed: {allowed}.")


def _nothing(report: Report) -> str:
    why = ", ".join(f"{n} {reason}" for reason, n in sorted(report.left_out.items())) or "the filter passes none"
    return f"nothing to export: of {report.looked_at} looked at {report.chosen} are chosen; left out: {why}. Widen it."


def _corpora(asked: Sequence[str], there: Sequence[str]) -> list[str]:
    """The corpora to export; those of evaluations only when named."""
    for name in asked:
        if name not in there:
            raise UnknownName("corpus", name, there, "Name one of these, or none for all but evaluations.")
    return list(asked) or [c for c in there if not c.startswith(HELD_OUT)]


def _of_log(lake: Lake, request: Request, exporter: Exporter) -> tuple[Items, Report]:
    log = EventLog(lake)
    current = log.version
    if current is None:
        raise UsageError(f"the lake {lake.uri!r} has no events; import or roll out trajectories first.")
    version = current if request.at is None else request.at
    wanted = listed(log, version, _corpora(request.corpora, log.corpora(version)))
    if request.mask_rule is not None:
        rules = _rules(lake, version)
        if request.mask_rule not in rules:
            raise UnknownName("mask rule", request.mask_rule, rules, "Name a rule whose masks are in the log.")
    hidden = hidden_since(log, version) if version != current else set()
    report = Report(request, version, looked_at=len(wanted))

    def items() -> Items:
        for one in trajectories(log, version, wanted, exporter.kinds, request.where):
            gone = not isinstance(one, LeftOut) and one.trajectory_id in hidden
            yield LeftOut("taken down or redacted since") if gone else one, len(wanted)

    return items(), report


def _rules(lake: Lake, version: int) -> set[str]:
    """The mask rules of the log."""
    handle = lake.table("events", version)
    found: set[str] = set()
    if handle is not None:
        rule = {"rule": ds.field("mask", "mask_rule")}
        for batch in lake.dataset(handle).to_batches(columns=rule, filter=ds.field("kind") == "mask"):
            found.update(pc.unique(batch.column(0).drop_null()).to_pylist())
    return found


def _table(name: str) -> str:
    return name if name.startswith("datasets/") else f"datasets/{name}"


def _of_dataset(lake: Lake, request: Request, exporter: Exporter) -> tuple[Items, Report]:
    assert request.dataset is not None
    name = _table(request.dataset)
    if name not in lake.dataset_names():
        raise UnknownName("dataset", name, lake.dataset_names(), "`stepwell build` makes one.")
    current = lake.table(name)
    assert current is not None
    version = current.version() if request.at is None else request.at
    handle = lake.table(name, version)
    assert handle is not None
    _, seal = seal_of(lake, name, version) or (version, {})
    data = lake.dataset(handle)
    there = sorted(set(data.to_table(columns=["corpus"]).column(0).unique().to_pylist()))
    corpora = _corpora(request.corpora, there)
    hidden = hidden_since(EventLog(lake), int(seal.get("events_version", 0)))
    report = Report(request, version, looked_at=data.count_rows(), seal=seal)

    where = Condition(request.where, DATASET, "--where")

    def items() -> Items:
        for batch in _batches(data):
            rows = pl.DataFrame(pa.table(batch))
            for row in rows.filter(where.holds(rows)).to_dicts():
                if row["corpus"] not in corpora:
                    yield LeftOut("of an evaluation, or of a corpus that is not named"), report.looked_at
                elif row["trajectory_id"] in hidden:
                    yield LeftOut("taken down or redacted since"), report.looked_at
                else:
                    yield row, report.looked_at

    return items(), report


def _batches(data: ds.Dataset) -> Iterator[pa.RecordBatch]:
    """Rows in the order of their ids, which are hex digests, in constant memory: parted by their first digits on the way."""
    n = max(1, min(MOST, -(-data.count_rows() // _ROWS)))
    with ExitStack() as opened:
        parts = [opened.enter_context(closing(Spill(data.schema))) for _ in range(n)]
        for batch in data.to_batches(batch_size=_ROWS, batch_readahead=1, fragment_readahead=1):
            numbers = pa.array([int(one[:8], 16) * n >> 32 for one in batch.column("row_id").to_pylist()])
            for number in pc.unique(numbers).to_pylist():
                parts[number].write(pa.Table.from_batches([batch.filter(pc.equal(numbers, number))]))
        for part in parts:
            yield from part.reader().read_all().sort_by("row_id").to_batches(max_chunksize=_ROWS)
            part.close()
