"""A partition of `events` rewritten: few files, trajectories in order, each whole in one row group, its rows sorted by kind.

Whoever reads one trajectory finds it in one row group, by the group's bounds; whoever asks about one kind of event decodes
little of the rows of other kinds, and texts of one kind compress better side by side. Rows are distributed to ranges of
trajectories on disk first, so memory is that of one range, however large the partition is.
Belongs here: the new files and their commit, which no reader, append or derivation notices. Does not belong here: what is due
(`stepwell.maintenance`).
"""

from __future__ import annotations

import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Any
from urllib.parse import unquote

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from stepwell.errors import LakeError
from stepwell.lake import COMPACTION, Lake
from stepwell.parts import write_groups
from stepwell.scanning import file_name
from stepwell.stored import BOUNDED, BOUNDED_NAMES, BOUNDS

ROWS = 1 << 15
"""Rows of a row group: what is read at least to find one trajectory; every group costs any query some time."""
_HELD = 8
"""Row groups of a range, which is held in memory at once."""
_OPEN = 500
"""Most ranges: each is an open file while rows are distributed."""
_SORTED = 1 << 30
"""Bytes of the largest row group whose rows are brought together by kind: Arrow's offsets of text end at 2 GiB."""
_BY_KIND = [(name, "ascending") for name in ("kind", "trajectory_id", "step", "event_id")]


def compact_events(lake: Lake, corpus: str, size: int) -> None:
    """Put files of about `size` bytes in the place of all files of a corpus, in one commit that changes no row.

    Raises CommitFailedError when a redaction took one of them meanwhile, LakeError when rows would be lost: what was written
    is deleted then.
    """
    handle = lake.table("events")
    assert handle is not None, "only tables that exist are compacted"
    if handle.metadata().configuration.get(BOUNDS) != BOUNDED_NAMES:  # a table from elsewhere: see `as_declared`
        handle.alter.set_table_properties({BOUNDS: BOUNDED_NAMES})
    taken = [f for f in pa.table(handle.get_add_actions(flatten=True)).to_pylist() if f["partition.corpus"] == corpus]
    data = lake.dataset(handle, {file_name(f["path"]) for f in taken})
    columns = [name for name in data.schema.names if name != "corpus"]
    leaves = dict(_leaves([data.schema.field(name) for name in columns]))
    made = write_groups(
        lake.store.fs,
        "events",
        _groups(data, columns),
        BOUNDED,
        {"corpus": corpus},
        size,
        data_change=False,
        write_statistics=[path for path, kind in leaves.items() if _told(path, kind)],
        use_dictionary=[path for path in leaves if path not in ("event_id", "caused_by")],
        bloom_filter_options={"kind": {"ndv": 64, "fpp": 0.01}, "policy": {"ndv": 64, "fpp": 0.01}},
        max_rows_per_page=ROWS,
        store_schema=False,
    )
    try:
        _commit(handle, corpus, taken, made)
    except Exception:
        current = lake.table("events")  # an error does not always mean that there was no commit
        live = set() if current is None else {file_name(uri) for uri in current.file_uris()}
        for path in (file.path for file in made if file_name(file.path) not in live):
            lake.store.delete(f"events/{path}")
        raise


def _commit(handle: DeltaTable, corpus: str, taken: Sequence[Mapping[str, Any]], made: Sequence[AddAction]) -> None:
    found, known = (sum(files) for files in (map(_n_rows, made), (f["num_records"] for f in taken)))
    if found != known:
        raise LakeError(
            f"a compaction of {corpus!r} found {found} rows where the log counts {known}; nothing is changed."
        )
    paths = [unquote(f["path"]) for f in taken]  # a commit encodes what it is given, and a listing is encoded already
    uris = {file_name(uri): uri for uri in handle.file_uris()}
    missing = [path for path in paths if not uris.get(file_name(path), "").endswith(f"/{path}")]
    if missing:
        raise LakeError(
            f"{missing[0]!r} is no file of `events`; nothing is changed. Read its log with `stepwell doctor`."
        )
    now, partition = int(time.time() * 1000), {"corpus": corpus}
    gone = [RemoveAction(path, False, now, f["size_bytes"], partition) for path, f in zip(paths, taken, strict=True)]
    properties = CommitProperties(custom_metadata={COMPACTION: corpus})
    handle.create_write_transaction([*gone, *made], "append", handle.schema(), ["corpus"], commit_properties=properties)


def _groups(data: ds.FileSystemDataset, columns: list[str]) -> Iterator[pa.Table]:
    """All rows as row groups: whole trajectories in the order of their ids, in each group those of one kind together."""
    counts: Counter[str] = Counter()
    for batch in data.to_batches(columns=["trajectory_id"]):
        for value in pc.value_counts(batch.column(0)).to_pylist():
            counts[value["values"]] += value["counts"]
    begins, n = [], ROWS
    for trajectory_id in sorted(counts):
        if n + counts[trajectory_id] > ROWS:
            begins.append(trajectory_id)
            n = 0
        n += counts[trajectory_id]
    held = max(_HELD, -(-len(begins) // _OPEN))
    if len(begins) <= held:
        yield from _of_range(data.to_table(columns=columns), begins)
        return
    ranges = [begins[i : i + held] for i in range(0, len(begins), held)]
    with ExitStack() as stack:
        # Files without a name: a process that is killed leaves nothing behind that a redaction would not look at.
        parts = [stack.enter_context(tempfile.TemporaryFile()) for _ in ranges]
        _distribute(data, columns, [r[0] for r in ranges], parts)
        for begins, part in zip(ranges, parts, strict=True):
            part.seek(0)
            yield from _of_range(pa.ipc.open_stream(part).read_all(), begins)
            part.close()


def _distribute(
    data: ds.FileSystemDataset, columns: list[str], begins: Sequence[str], parts: Sequence[IO[bytes]]
) -> None:
    """Write every row to the part of the range that its trajectory is in; `begins` are the first ids of the ranges."""
    schema = pa.schema([data.schema.field(name) for name in columns])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(part, schema, options=options)) for part in parts]
        for batch in data.to_batches(columns=columns):
            place = _places(batch.column(columns.index("trajectory_id")), begins)
            for number in pc.unique(place).to_pylist():
                writers[number].write(batch.filter(pc.equal(place, number)))


def _of_range(rows: pa.Table, begins: Sequence[str]) -> Iterator[pa.Table]:
    place = _places(rows.column("trajectory_id"), begins)
    for number in range(len(begins)):
        group = rows.filter(pc.equal(place, number))
        yield group.take(pc.sort_indices(group, sort_keys=_BY_KIND)) if group.nbytes < _SORTED else group


def _places(ids: pa.Array | pa.ChunkedArray, begins: Sequence[str]) -> pa.Array | pa.ChunkedArray:
    """The number of the last of `begins` that is not after each id."""
    unique = pc.unique(ids)
    numbers = pa.array([bisect_right(begins, one) - 1 for one in unique.to_pylist()], pa.int32())
    return pc.take(numbers, pc.index_in(ids, unique))


def _told(path: str, kind: pa.DataType) -> bool:
    """Whether a file has bounds of a column: long texts rule nothing out, and would be read with every query."""
    return not pa.types.is_string(kind) or path in (*BOUNDED, "policy") or path.startswith("usage.")


def _leaves(fields: Iterable[pa.Field], above: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Path and type of the columns that a Parquet file has of these fields."""
    for field in fields:
        kind, path = field.type, f"{above}{field.name}"
        while pa.types.is_list(kind):
            kind, path = kind.value_type, f"{path}.list.element"
        if pa.types.is_struct(kind):
            yield from _leaves(kind, f"{path}.")
        else:
            yield path, kind


def _n_rows(file: AddAction) -> int:
    return int(orjson.loads(file.stats)["numRecords"])
