"""A redaction or takedown from its plan to its proof.

The order makes a killed run harmless: what is concerned is written into `redactions/NAME.json` before anything is changed;
`events` come before what is derived from them; every step done again does nothing. So running the same command again finishes
it. Writers may go on meanwhile, except a proxy or server whose journal is concerned; what they write afterwards is theirs to
redact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TABLES
from stepwell.affected import rows_at, table_of
from stepwell.appending import reject_id, without_bytes
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.redaction.history import erase
from stepwell.redaction.others import clean_caches, clean_files, require_stopped
from stepwell.redaction.rejected import Files, files_of
from stepwell.redaction.report import Report, keep, unfinished
from stepwell.redaction.rewriting import rewritten
from stepwell.redaction.scan import scan
from stepwell.redaction.target import Taking, Target, mapped
from stepwell.secrets.redact import Redactor, salt_of
from stepwell.upkeep import PATIENCE, undisturbed

_BATCH = 200
_COMMIT = (
    "timestamp",
    "operation",
    "operationParameters",
    "engineInfo",
    "clientVersion",
    "version",
    "operationMetrics",
)


def redact(
    lake: Lake,
    target: Target,
    reason: str,
    say: Callable[[str], None] = lambda text: None,
    patience: float = PATIENCE,
) -> Report:
    """Take values, events and trajectories out of every file of a lake, and scan it for the values.

    Waits up to `patience` seconds for another redaction or maintenance to end. Raises LakeError when it does not, while a
    proxy or a server writes to a journal that is concerned (then nothing is changed), and while a cache is open.
    """
    taking = Taking(target, Redactor(salt_of(lake)), reason)
    with undisturbed(lake, say, patience):
        require_stopped(lake, taking)
        report, files = _planned(lake, taking), files_of(lake, target)
        concerned = sorted({*report.trajectories, *report.taken_down})
        say(f"{len(concerned)} trajectories, {len(report.models)} models concerned")
        report.cached += clean_caches(lake, taking, _said(lake, taking))
        for at in range(0, len(concerned), _BATCH):
            with lake.lock("growing"):  # whoever looks what is taken out before an append holds it until after that
                _version(
                    report, lake, "events", taking, lambda rows: rewritten(rows, taking), concerned[at : at + _BATCH]
                )
            say(f"events: {min(at + _BATCH, len(concerned))} of {len(concerned)} trajectories rewritten")
        if lake.version("trajectories") is not None:
            refresh(lake)
        for name in lake.table_names():
            if name not in TABLES:
                _dataset(report, lake, name, taking)
        for name in TABLES:
            if name != "events":
                _table(report, lake, name, taking, files)
        for name in lake.table_names():
            report.files_erased[name] = report.files_erased.get(name, 0) + erase(
                lake, name, taking, set(concerned), files
            )
        report.files_changed += clean_files(lake, taking)
        say("scanning every file")
        report.left = [f"{hit.path}: {hit.how}" for hit in scan(lake, target)]
        report.done = not report.left
        keep(lake, report)
        for other in unfinished(lake):
            if report.done and other.action == "takedown" and set(other.taken_down) <= target.down:
                keep(lake, replace(other, done=True))
    return report


def _planned(lake: Lake, taking: Taking) -> Report:
    """What is concerned, added to what an earlier run of the same request found, and written down."""
    kept = lake.store.get(f"redactions/{taking.name}.json")
    action = "takedown" if taking.target.down else "redact"
    report = Report(**orjson.loads(kept)) if kept else Report(taking.name, taking.reason, action)
    begun = {t for other in unfinished(lake) for t in other.trajectories}
    found = {*report.trajectories, *begun, *_concerned(lake, taking)}
    report.trajectories = sorted(found - taking.target.down)
    report.taken_down = sorted(taking.target.down)
    known = {m["model_id"] for m in report.models}
    report.models += [m for m in models_of(lake, {*found, *report.taken_down}, taking) if m["model_id"] not in known]
    report.done = False
    keep(lake, report)
    return report


def _concerned(lake: Lake, taking: Taking) -> set[str]:
    """Trajectories with an event that holds a value or is named."""
    found: set[str] = set()
    named = pa.array(sorted(taking.target.events), pa.string())
    for rows in _batches(lake, "events"):
        hit = pc.or_(taking.target.rows(rows), pc.is_in(rows.column("event_id"), named))
        found.update(rows.column("trajectory_id").filter(hit).to_pylist())
    return found


def _batches(lake: Lake, name: str) -> Iterable[pa.Table]:
    handle = lake.table(name)
    if handle is not None:
        for batch in lake.dataset(handle).to_batches(batch_size=4096):
            yield pa.Table.from_batches([batch])


def _said(lake: Lake, taking: Taking) -> set[str]:
    """Replies of models in the events that go whole."""
    down, named = pa.array(sorted(taking.target.down)), pa.array(sorted(taking.target.events))
    where = None
    for column, values in (("trajectory_id", down), ("event_id", named)):
        if len(values):
            clause = pc.field(column).isin(values)
            where = clause if where is None else where | clause
    if where is None:
        return set()
    rows = lake.read("events", columns=["action", "label", "verdict", "attempt"], filters=where).to_pylist()
    texts = {(row[k] or {}).get(f) for row in rows for k in row for f in ("text", "raw", "code")}
    return {text for text in texts if text}


def models_of(lake: Lake, trajectories: set[str], taking: Taking) -> list[dict[str, Any]]:
    """Models trained on a dataset version with `rows` of these trajectories or with a value.

    `rows` is null where that version can no longer be read, as an earlier redaction erased it.
    """
    found, concerned = [], pa.array(sorted(trajectories), pa.string())
    for model in lake.read("models").sort_by("recorded_at").to_pylist():
        name = table_of(model)
        if name is None or lake.version(name) is None:
            continue
        told = {k: model[k] for k in ("model_id", "name", "path", "dataset", "dataset_version", "dataset_hash")}
        rows = rows_at(lake, name, model["dataset_version"])
        if rows is None:
            found.append(told | {"rows": None})
            continue
        hit = pc.or_(taking.target.rows(rows), pc.is_in(rows.column("trajectory_id"), concerned))
        if n := pc.sum(hit).as_py():
            found.append(told | {"rows": n})
    return found


def _version(
    report: Report,
    lake: Lake,
    name: str,
    taking: Taking,
    change: Callable[[pa.Table], pa.Table | None],
    trajectories: list[str] | None = None,
    seal: dict[str, str] | None = None,
) -> None:
    """Rewrite a table and note the version that made."""
    metadata = {**(seal or {}), "stepwell.redaction": taking.name}
    key = None if trajectories is None else "trajectory_id"
    version = lake.rewrite(name, change, metadata, key, trajectories or ())
    if version is not None:
        report.versions[name] = version
        keep(lake, report)


def _dataset(report: Report, lake: Lake, name: str, taking: Taking) -> None:
    """Drop what a dataset, or the table of what was chosen for it, has of what is concerned: token ids say what messages say.

    The dataset is to be built again.
    """
    concerned = pa.array([*report.trajectories, *report.taken_down], pa.string())

    def kept(rows: pa.Table) -> pa.Table | None:
        hit = pc.or_(taking.target.rows(rows), pc.is_in(rows.column("trajectory_id"), concerned))
        n = pc.sum(hit).as_py() or 0
        report.rows_dropped[name] = report.rows_dropped.get(name, 0) + n
        return rows.filter(pc.invert(hit)) if n else None

    handle = lake.table(name)
    said = {} if handle is None else handle.history(1)[0]
    seal = {k: taking.clean(v) for k, v in said.items() if isinstance(v, str) and k not in _COMMIT}
    _version(report, lake, name, taking, kept, seal=seal | {"dataset_hash": f"redacted:{taking.name}"})


def _table(report: Report, lake: Lake, name: str, taking: Taking, files: Files) -> None:
    """Put markers into rows that hold a value; drop what was measured on a trajectory taken down, and bytes of its file."""
    down = pa.array(sorted(taking.target.down), pa.string())

    def gone(rows: pa.Table) -> pa.Array:
        return pc.is_in(rows.column("trajectory_id"), down) if name == "evaluations" else pa.repeat(False, len(rows))

    def bare(rows: pa.Table) -> pa.Array:
        return files.rows(rows) if name == "rejects" else pa.repeat(False, len(rows))

    def hit(rows: pa.Table) -> pa.ChunkedArray:
        return pc.or_(pc.or_(gone(rows), bare(rows)), taking.target.rows(rows))

    def changed(rows: pa.Table) -> pa.Table | None:
        mask = hit(rows)
        if not pc.any(mask).as_py():
            return None
        left = rows.filter(pc.and_(mask, pc.invert(gone(rows))))
        touched = [
            mapped(without_bytes(row) if empty else row, taking.clean)
            for row, empty in zip(left.to_pylist(), bare(left).to_pylist(), strict=True)
        ]
        for row in touched if name == "rejects" else []:
            row["reject_id"] = reject_id(row)
        schema = lake.spec(name).schema
        return pa.concat_tables([rows.filter(pc.invert(mask)).cast(schema), pa.Table.from_pylist(touched, schema)])

    if any(pc.any(hit(rows)).as_py() for rows in _batches(lake, name)):
        _version(report, lake, name, taking, changed)
