"""Old data files of a table, erased for good, with what its log says of them; the log itself stays whole.

Order, so that a run killed anywhere is finished by the next: the names of the files go into `_erased.json` (which makes reads
of older versions fail with a clear error), then the files go, then their statistics and every value go from the log's JSON,
then a fresh checkpoint takes the place of the old ones, whose statistics were the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepwell.lake import ERASED, Lake
from stepwell.redaction.rejected import Files
from stepwell.redaction.scan import hit_in
from stepwell.redaction.target import Taking
from stepwell.scanning import file_name


def erase(lake: Lake, name: str, taking: Taking, trajectories: Set[str], files: Files) -> int:
    """Erase every file of a table that no longer counts and holds rows of these trajectories, bytes of their files or a value.

    Returns how many.
    """
    with lake.lock(name):
        handle = lake.table(name)
        if handle is None:
            return 0
        lake.close(name)
        live = set(map(file_name, handle.file_uris()))
        log = f"{name}/_delta_log/"
        old = [p for p in lake.store.paths(name) if p.endswith(".parquet") and not p.startswith(log)]
        old = [p for p in old if file_name(p) not in live and _concerned(lake, p, taking, trajectories, files)]
        gone = lake.erased(name) | {file_name(p) for p in old}
        if gone:
            lake.store.put(f"{name}/{ERASED}", orjson.dumps(sorted(gone)))
        for path in old:
            lake.store.delete(path)
        _clean_log(lake, name, taking, gone)
        return len(old)


def _concerned(lake: Lake, path: str, taking: Taking, trajectories: Set[str], files: Files) -> bool:
    if hit_in(lake, path, taking.target) is not None:
        return True
    with lake.store.fs.open_input_file(path) as file:
        parquet = pq.ParquetFile(file)
        if {"path", "raw"} <= set(parquet.schema_arrow.names):
            rows = (pa.Table.from_batches([b]) for b in parquet.iter_batches(batch_size=1024, columns=["path", "raw"]))
            return any(pc.any(files.rows(some)).as_py() for some in rows)
        if not trajectories or "trajectory_id" not in parquet.schema_arrow.names:
            return False
        found = (pc.unique(b.column(0)).to_pylist() for b in parquet.iter_batches(columns=["trajectory_id"]))
        return any(not trajectories.isdisjoint(names) for names in found)


def _clean_log(lake: Lake, name: str, taking: Taking, gone: Collection[str]) -> None:
    store, log = lake.store, f"{name}/_delta_log"
    for path in store.paths(log):
        if path.endswith(".json"):
            kept = store.get(path) or b""
            clean = b"".join(_line(line, taking.clean, gone) for line in kept.splitlines(keepends=True))
            if clean != kept:
                store.put(path, clean)
    handle = lake.table(name)
    old = [p for p in store.paths(log) if ".checkpoint." in p]
    if handle is None or not old or not (gone or any(hit_in(lake, p, taking.target) for p in old)):
        return
    handle.create_checkpoint()
    current = f"{log}/{handle.version():020}.checkpoint."
    for path in old:
        if not path.startswith(current):
            store.delete(path)


def _line(line: bytes, clean: Callable[[str], str], gone: Collection[str]) -> bytes:
    """One action of a commit, without values, and without statistics where it is about a file that is gone."""
    text = line.decode("utf-8", "surrogateescape")
    line = clean(text).encode("utf-8", "surrogateescape")
    if b'"stats"' in line and any(name.encode() in line for name in gone):
        action = orjson.loads(line)
        for about in action.values():
            about.pop("stats", None)
        line = orjson.dumps(action, option=orjson.OPT_APPEND_NEWLINE)
    return line
