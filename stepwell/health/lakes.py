"""Checks of a lake: that it can be reached, read and written, is whole, and is of a format this program knows."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from filelock import FileLock, Timeout

from schemas.column import Table
from schemas.kinds import KINDS
from stepwell.errors import LakeError, SchemaError, StepwellError
from stepwell.fold import FOLDS, seen
from stepwell.health.access import writable
from stepwell.health.finding import Finding, note, ok, problem
from stepwell.lake import Lake
from stepwell.maintenance import maintain
from stepwell.query import connect
from stepwell.redaction.report import unfinished
from stepwell.scanning import file_name

_GB = 1 << 30
LEAST_FREE, FEW_FREE = _GB, 10 * _GB
_WHAT_GOES_WRONG = (StepwellError, DeltaError, OSError, pa.ArrowException, ValueError)


def check_lake(lake: Lake) -> list[Finding]:
    """Everything about one lake; nothing is changed but one small file, written and deleted again on an object store."""
    if lake.local and not Path(lake.uri).is_dir():
        return [note("lake", f"no lake at {lake.uri} yet", "stepwell import FOLDER makes one, or give --lake.")]
    try:
        names = lake.table_names()
    except _WHAT_GOES_WRONG as error:
        return [problem("lake", f"{lake.uri} cannot be read: {_short(error)}", _access(lake))]
    handles, broken = _opened(lake, names)
    found = [ok("lake", f"{lake.uri}: {len(handles)} of {len(names)} tables are there")]
    found += [*_written(lake), *_locked(lake)]
    broken += [finding for name, handle in handles.items() for finding in _table(lake, name, handle)]
    found += broken or [
        ok("tables", "every file of every table is there with its size, its schema is the declared one")
    ]
    if not broken:
        found += [*_log(lake, handles), *_due(lake)]
    return found


def _opened(lake: Lake, names: list[str]) -> tuple[dict[str, DeltaTable], list[Finding]]:
    """The tables that are there, and what is wrong with those that cannot be opened."""
    handles: dict[str, DeltaTable] = {}
    broken = []
    for name in names:
        try:
            handle = lake.table(name)
            lost = [f for f in _files(lake, name) if f.extension == "parquet"] if handle is None else []
        except _WHAT_GOES_WRONG as error:
            act = "restore the table from a backup, or make it readable for this user."
            broken.append(problem(name, f"cannot be opened: {_short(error)}", act))
            continue
        if handle is not None:
            handles[name] = handle
        elif lost:
            act = "restore its _delta_log from a backup" + (f", or delete {lake.path(name)}" if name in FOLDS else "")
            broken.append(problem(name, f"{len(lost)} data files and no log that names them", f"{act}."))
    return handles, broken


def _files(lake: Lake, name: str) -> list[fs.FileInfo]:
    """Every file below a table; none of one that is not there."""
    listed = lake.store.fs.get_file_info(fs.FileSelector(name, recursive=True, allow_not_found=True))
    return [f for f in listed if f.type == fs.FileType.File]


def _access(lake: Lake) -> str:
    if lake.local:
        return "make the folder readable for this user."
    return "check the address, and the credentials and endpoint in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)."


def _written(lake: Lake) -> Iterator[Finding]:
    """May this user write, and is there room?"""
    if not lake.local:
        name = f"_doctor/{uuid.uuid4()}"
        try:
            lake.store.put(name, b"stepwell doctor")
            same = lake.store.get(name) == b"stepwell doctor"
            lake.store.delete(name)
        except _WHAT_GOES_WRONG as error:
            yield problem("object store", f"cannot write below {lake.uri}: {_short(error)}", _access(lake))
            return
        told = "gives back what is written, and deletes it"
        yield (
            ok("object store", told)
            if same
            else problem("object store", "gives back other bytes", "use another store.")
        )
        return
    if not writable(lake):
        act = "to import or build, use a user who may write it."
        yield note("lake", f"{lake.uri} can be read by this user, and not be written", act)
    free = shutil.disk_usage(lake.uri).free
    told = f"{free / _GB:.1f} GB free beside the lake"
    if free < LEAST_FREE:
        yield problem("disk", told, "make room: an import or a compaction that runs out of it stops.")
    elif free < FEW_FREE:
        yield note("disk", told, "a compaction needs as much again as the largest partition; make room before it.")
    else:
        yield ok("disk", told)


def _locked(lake: Lake) -> Iterator[Finding]:
    """Who writes now; a lock that nobody holds is only an empty file and stands in nobody's way."""
    if not lake.local:
        yield note("locks", "an object store has none", "run maintain and redact by one process at a time.")
        return
    if not writable(lake):
        yield note("locks", "whether a lock is held is known to those only who may write", "ask as one of them.")
        return
    held = []
    for file in sorted(Path(lake.uri).glob(".*.lock")):
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout:
            held.append(file.name.strip(".").removesuffix(".lock"))
        except (OSError, NotImplementedError) as error:
            yield problem(
                "locks", f"{file.name} cannot be locked: {_short(error)}", "put the lake on a disk that has locks."
            )
            return
    if held:
        yield note("locks", f"held now: {', '.join(held)}", "wait for the process that writes, or stop it.")
    else:
        yield ok("locks", "nobody is writing")


def _table(lake: Lake, name: str, handle: DeltaTable) -> Iterator[Finding]:
    """What keeps a table from being read right."""
    try:
        _fits(lake.spec(name), lake.dataset(handle).schema)
        actions = pa.table(handle.get_add_actions())
        wanted = dict(zip(handle.file_uris(), actions.column("size_bytes").to_pylist(), strict=True))
        lost = _lost(lake, name, wanted)
        if lost:
            yield problem(
                name, f"{len(lost)} files are gone or cut short, first {lost[0]}", "restore the lake from a backup."
            )
            return
        lake.dataset(handle).count_rows()
    except _WHAT_GOES_WRONG as error:
        yield problem(name, _short(error), "restore the table from a backup, or use the Stepwell that wrote it.")


def _fits(spec: Table, stored: pa.Schema) -> None:
    """Raise SchemaError for a stored column that is unknown or of another type; those declared later may be missing."""
    unknown = [n for n in stored.names if n not in spec.schema.names]
    if unknown:
        raise SchemaError(f"columns this version does not know: {', '.join(unknown)}; a newer Stepwell wrote them.")
    present = pa.schema([f for f in spec.schema if f.name in stored.names])
    for field in present:
        kind = stored.field(field.name).type
        if not pa.types.is_nested(field.type) and kind != field.type:
            raise SchemaError(f"column {field.name!r} is {kind}, declared {field.type}")


def _lost(lake: Lake, name: str, wanted: dict[str, int]) -> list[str]:
    """Files that are not there, or not with the bytes the log says."""
    there = {f.base_name: f.size for f in _files(lake, name)}
    return [leaf for uri, size in wanted.items() if there.get(leaf := file_name(uri)) != size]


def _log(lake: Lake, handles: dict[str, DeltaTable]) -> Iterator[Finding]:
    """The rules of the log: append-only, kinds and payload versions that are known, folds no newer than events."""
    events = handles.get("events")
    if events is None:
        yield note("events", "nothing is imported yet", "stepwell import FOLDER.")
        return
    newer = []
    kinds = lake.read("events", columns=["kind", "schema_version"]).group_by(["kind", "schema_version"]).aggregate([])
    for row in kinds.to_pylist():
        known = KINDS.get(row["kind"])
        if known is None or row["schema_version"] > known.version:
            newer.append(f"{row['kind']} version {row['schema_version']}")
    if newer:
        yield problem("events", f"written by a newer Stepwell: {', '.join(sorted(newer))}", "install that version.")
    else:
        yield ok("events", f"version {events.version()}, every kind and payload version is known")
    yield from _claimed(lake, events)
    again = "run the same stepwell redact or takedown again."
    if left := unfinished(lake):
        yield problem("redaction", f"begun and not finished: {', '.join(r.name for r in left)}", again)
    if events.metadata().configuration.get("delta.appendOnly") != "true":
        yield problem("events", "open to deletion, as a redaction was killed half-way", again)
    try:
        connect(lake).close()
    except StepwellError as error:
        yield problem("sql", _short(error), "see the table it names.")
    for name in FOLDS:
        at = seen(lake, name)
        if at is not None and at > events.version():
            act = f"restore `events` from a backup, or delete {lake.path(name)}: it is folded again by the next import."
            yield problem(name, f"folded from events version {at}, and there are only {events.version()}", act)
        elif at != events.version():
            yield note(
                name, f"folded from events version {at} of {events.version()}", "any import or build brings it up."
            )


def _claimed(lake: Lake, events: DeltaTable) -> Iterator[Finding]:
    """Files whose trajectories are not in the log: imports would take them for known, and never write them."""
    held: set[str] = set()
    for batch in lake.dataset(events).to_batches(columns=["trajectory_id"]):
        held.update(pc.unique(batch.column(0)).to_pylist())
    sources = lake.read("sources", columns=["path", "trajectory_ids"]).to_pylist()
    lost = [row["path"] for row in sources if not held.issuperset(row["trajectory_ids"])]
    if lost:
        told = f"{len(lost)} files are there whose trajectories are not in `events`, first {min(lost)}"
        act = (
            f"restore a backup whose `events` is as new, or delete {lake.path('sources')} and import the files again: "
            "what is in `events` is not written twice."
        )
        yield problem("sources", told, act)


def _due(lake: Lake) -> Iterator[Finding]:
    try:
        due = [one for one in maintain(lake, dry_run=True) if one.due]
    except LakeError as error:
        yield note("maintenance", str(error), "look again later.")
        return
    if due:
        n = sum(part.n_small for one in due for part in one.due)
        yield note("maintenance", f"{n} small files in {', '.join(one.table for one in due)}", "stepwell maintain.")
    else:
        yield ok("maintenance", "nothing is due")


def _short(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), type(error).__name__)  # a trace of the library may follow
    return text if len(text) <= 300 else f"{text[:299]}…"
