"""Keeping the lake quick: small files become few, sorted so that statistics find a trajectory; checkpoints; old files of folds.

Belongs here: what is due, and doing it. Does not belong here: anything that removes data; that is a redaction's alone.
`events` and every other table keep their log and all files of all versions, so that any version can be read again. Only
`trajectories` and `steps`, which are folded from any version of `events`, are vacuumed. A compaction changes no row: it is a
commit whose files hold what the files it takes out of the table held.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs
from deltalake import DeltaTable, WriterProperties
from deltalake.exceptions import CommitFailedError

from stepwell.compaction import compact_events
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.upkeep import PATIENCE, undisturbed

TARGET = 64 << 20
"""Bytes of a compacted file; one of less than a quarter is small."""
FEW, MANY = 16, 256
"""A partition is due when it has FEW small files that are a twentieth of its bytes, or MANY: it is rewritten as a whole."""
RETENTION_HOURS = 7 * 24
_FOLDED = ("trajectories", "steps")
_TRIES = 5
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")


@dataclass(frozen=True)
class Due:
    """A partition to compact (no values: a table without partitions): its small files and all its bytes."""

    partition: dict[str, str]
    n_small: int
    n_bytes: int


@dataclass
class Maintained:
    """What maintenance did to a table, or would do.

    Its version and files afterwards, the partitions compacted, whether a checkpoint was written, files removed from disk.
    """

    table: str
    version: int
    n_files: int
    n_bytes: int
    n_files_after: int | None = None
    due: list[Due] = field(default_factory=list)
    checkpoint: bool = False
    vacuumed: int = 0

    def row(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return asdict(self)


def maintain(
    lake: Lake, dry_run: bool = False, few: int = FEW, many: int = MANY, patience: float = PATIENCE
) -> list[Maintained]:
    """Compact, checkpoint and vacuum what is due in every table; a second run finds nothing to do.

    One process at a time; imports and readers go on meanwhile. Raises LakeError when another maintains or redacts the lake
    for longer than `patience` seconds, and when writers that are no appends leave no moment to commit in. A dry run waits
    for nobody.
    """
    with nullcontext() if dry_run else undisturbed(lake, patience=patience):
        return [_table(lake, name, dry_run, few, many) for name in lake.table_names() if lake.version(name) is not None]


def _table(lake: Lake, name: str, dry_run: bool, few: int, many: int) -> Maintained:
    handle = _opened(lake, name)
    files = _files(handle)
    due = list(_due(files, few, many))
    done = Maintained(name, handle.version(), len(files), sum(f["size_bytes"] for f in files), due=due)
    done.vacuumed = len(handle.vacuum(RETENTION_HOURS, full=True)) if name in _FOLDED else 0
    done.checkpoint = bool(due or done.vacuumed) or _checkpointed(lake, name) != handle.version()
    if dry_run:
        return done
    for one in due:
        _compact(lake, name, one)
    if done.vacuumed:
        with lake.lock(name):
            _opened(lake, name).vacuum(RETENTION_HOURS, dry_run=False, full=True)
    handle = _opened(lake, name)
    done.version, done.n_files_after = handle.version(), len(_files(handle))
    if done.checkpoint:
        handle.create_checkpoint()
    return done


def _opened(lake: Lake, name: str) -> DeltaTable:
    handle = lake.table(name)
    assert handle is not None, "only tables that exist are maintained"
    return handle


def _files(handle: DeltaTable) -> list[dict[str, Any]]:
    """The data files of a table: path, size, and `partition.NAME` for every partition column."""
    return list(pa.table(handle.get_add_actions(flatten=True)).to_pylist())


def _due(files: list[dict[str, Any]], few: int, many: int) -> Iterator[Due]:
    parts: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
    for file in files:
        found = ((k.removeprefix("partition."), v) for k, v in sorted(file.items()) if k.startswith("partition."))
        parts[tuple(found)].append(file["size_bytes"])
    for values, sizes in sorted(parts.items()):
        small = [size for size in sizes if size < TARGET // 4]
        if len(small) >= many or (len(small) >= few and sum(small) * 20 >= sum(sizes)):
            yield Due(dict(values), len(small), sum(sizes))


def _compact(lake: Lake, name: str, due: Due) -> None:
    """Rewrite a partition: of `events` sorted by trajectory while appends go on, of other tables alone with it."""
    where = [(column, "=", value) for column, value in due.partition.items()] or None
    for _ in range(_TRIES):
        try:
            if name == "events":
                compact_events(lake, due.partition["corpus"], TARGET)
                return
            with lake.lock(name):
                properties = WriterProperties(compression="ZSTD")
                _opened(lake, name).optimize.compact(where, TARGET, writer_properties=properties)
            return
        except CommitFailedError:
            continue
    raise LakeError(f"could not compact {name!r} in {_TRIES} tries: other writers hold it. Try again when they stop.")


def _checkpointed(lake: Lake, name: str) -> int | None:
    """Version of the last checkpoint of a table; None before the first."""
    found = lake.store.fs.get_file_info(fs.FileSelector(f"{name}/_delta_log"))
    return max((int(m[1]) for file in found if (m := _CHECKPOINT.fullmatch(file.base_name))), default=None)
