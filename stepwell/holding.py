"""Which data files of `events` hold a trajectory: an index beside the table, so that one file is opened and not all.

Ids are digests, so what Delta knows of a file, the least and the greatest id in it, rules out none. Data files never change and
no two have one name, so an entry is right or missing; what is missing is read from its file, and an index that is lost or
damaged is made anew. Ids are kept as hashes: a file may be named that does not hold the trajectory, never the other way round.
Belongs here: the index. Does not belong here: reading and writing events (`stepwell.log`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable

from stepwell.lake import Lake
from stepwell.scanning import file_name

INDEX = "events/_holding.arrow"
_LATE = 8
"""Files without an entry on disk before it is written again: so many are read at most by whoever begins."""
_SUM = 16


class Holding:
    """The index of one lake, as far as this process has needed it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._held: dict[str, pa.Array] = {}
        self._on_disk: frozenset[str] | None = None

    def data(self, handle: DeltaTable, trajectory_ids: Iterable[str]) -> ds.Dataset | None:
        """The files of an open table that may hold any of these trajectories, to scan; None when none does.

        Raises LakeError when not all files of the table are there.
        """
        self.lake.require_whole(handle)
        names = _names(handle)
        self._complete(handle, names)
        sought = _hashes(trajectory_ids)
        holding = {name for name in names if pc.any(pc.is_in(self._held[name], sought)).as_py()}
        return self.lake.dataset(handle, holding) if holding else None

    def committed(self, handle: DeltaTable, before: Sequence[str], trajectory_ids: Iterable[str]) -> None:
        """Note what a commit wrote, the files that were not there `before`; nobody else may have committed meanwhile."""
        hashes = _hashes(trajectory_ids)
        names = _names(handle)
        self._held |= dict.fromkeys(set(names) - set(map(file_name, before)), hashes)
        if len(set(names) - (self._on_disk or frozenset())) >= _LATE:
            self._complete(handle, names)
            self._save(names)

    def _complete(self, handle: DeltaTable, names: Sequence[str]) -> None:
        if self._on_disk is None and not self._held.keys() >= set(names):
            self._load()
        missing = set(names) - self._held.keys()
        files = self.lake.dataset(handle, missing).get_fragments() if missing else ()
        for file in files:
            ids = file.to_table(columns=["trajectory_id"]).column(0)
            self._held[file_name(file.path)] = _hashes(pc.unique(ids).to_pylist())

    def _load(self) -> None:
        data = self.lake.store.get(INDEX) or b""
        self._on_disk = frozenset()
        if len(data) > _SUM and _sum(data[_SUM:]) == data[:_SUM]:
            rows = pa.ipc.open_stream(data[_SUM:]).read_all()
            found = zip(rows.column("file").to_pylist(), rows.column("ids").combine_chunks(), strict=True)
            self._held = {**{name: ids.values for name, ids in found}, **self._held}
            self._on_disk = frozenset(self._held)

    def _save(self, names: Sequence[str]) -> None:
        ids = [self._held[name] for name in names]
        offsets = pa.array([0, *pc.cumulative_sum(pa.array(map(len, ids), pa.int32())).to_pylist()], pa.int32())
        rows = pa.table({"file": list(names), "ids": pa.ListArray.from_arrays(offsets, pa.concat_arrays(ids))})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
        data = sink.getvalue().to_pybytes()
        self.lake.store.put(INDEX, _sum(data) + data)
        self._on_disk = frozenset(names)
        self._held = dict(zip(names, ids, strict=True))


def _names(handle: DeltaTable) -> list[str]:
    return [file_name(uri) for uri in handle.file_uris()]


def _hashes(trajectory_ids: Iterable[str]) -> pa.Array:
    found = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in trajectory_ids)
    return pa.array([int.from_bytes(one, "little") for one in found], pa.uint64())


def _sum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_SUM).digest()
