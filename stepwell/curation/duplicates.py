"""Trajectories that do the same again: exact copies by hash of all steps, near ones by MinHash of their commands.

Belongs here: finding them and saying which one stays. Does not belong here: hashing texts (`contamination.text`), tasks
that repeat evaluations (`contamination`). Signatures are kept in the lake under the hash of the commands they were made of,
so that a later selection computes those of new trajectories only; without the file the answer is the same.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from stepwell.contamination.text import BANDS, PERMUTATIONS, Hashes, command_shingles, signature
from stepwell.curation.choices import GOOD_FIRST, TASK, Gone
from stepwell.curation.reading import Reading
from stepwell.data_settings import Dedup
from stepwell.ids import sha256
from stepwell.store import Store

KEPT = "curation/signatures.parquet"
"""File of the lake that holds signatures, by hash of commands."""
_VERSION = 2  # raised when a signature of the same commands changes
_TEXTS = {
    "actions": ("command", "action"),
    "conversation": ("command", "action", "thought", "observation", "exit_code"),
}
Signature = npt.NDArray[np.uint32]
_PRIMES = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], np.uint64)
_MARKS = ("mark_a", "mark_b")


def exact(kept: pl.DataFrame, reading: Reading, dedup: Dedup) -> Gone:
    """All but one of the trajectories whose steps are the same."""
    if dedup.exact == "off":
        return {}
    marks = _marks(kept, reading, dedup)
    alone = pl.concat_str(pl.lit("\n"), "trajectory_id")
    same = kept.join(marks, on="trajectory_id", how="left").with_columns(
        scope=TASK if dedup.within == "task" else pl.lit(""), alone=pl.when(pl.col(_MARKS[0]).is_null()).then(alone)
    )
    again = same.sort(GOOD_FIRST).filter(pl.int_range(pl.len()).over("scope", *_MARKS, "alone") > 0)
    what = "actions" if dedup.exact == "actions" else "conversation"
    return dict.fromkeys(again["trajectory_id"], f"same {what} as one that is kept")


def near(kept: pl.DataFrame, reading: Reading, dedup: Dedup) -> Gone:
    """All but one of the trajectories whose commands are nearly the same: the best of them stays, and is compared with the
    rest; so no two that stay are alike, and each that goes is like one that stays.
    """
    if dedup.near is None:
        return {}
    scoped = kept.with_columns(scope=TASK if dedup.within == "task" else pl.lit(""))
    several = scoped.filter(pl.len().over("scope") > 1).sort(GOOD_FIRST)
    known = _signatures(several, reading)
    several = several.filter(pl.col("trajectory_id").is_in(list(known)))
    names, scopes = several["trajectory_id"].to_list(), several["scope"].rank("dense").cast(pl.UInt64).to_numpy()
    signatures = np.array([known[name] for name in names], np.uint32).reshape(len(names), PERMUTATIONS)
    keys, counts = _shared(signatures, scopes)
    buckets: dict[int, list[int]] = defaultdict(list)
    gone: Gone = {}
    for i in np.flatnonzero((counts > 1).any(axis=1)).tolist():
        met = keys[i][counts[i] > 1].tolist()
        candidates = sorted({other for key in met for other in buckets.get(key, ()) if scopes[other] == scopes[i]})
        if candidates and (signatures[candidates] == signatures[i]).mean(axis=1).max() >= dedup.near:
            gone[names[i]] = f"commands like those of one that is kept (Jaccard of {dedup.near} or more)"
        else:
            for key in met:
                buckets[key].append(i)
    return gone


def _shared(signatures: Signature, scopes: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each signature and band a number that stands for its values and scope, and how many signatures have the same."""
    halves = signatures.reshape(len(signatures), BANDS, PERMUTATIONS // BANDS).view(np.uint64)
    mixed = scopes[:, None] * _PRIMES[0] + np.arange(BANDS, dtype=np.uint64) * _PRIMES[1]
    for k in range(halves.shape[2]):
        mixed = (mixed ^ (halves[:, :, k] * _PRIMES[2])) * _PRIMES[3]
    _, inverse, n = np.unique(mixed, return_inverse=True, return_counts=True)
    numbers = inverse.reshape(mixed.shape)
    return numbers, n[numbers]


def _marks(kept: pl.DataFrame, reading: Reading, dedup: Dedup) -> pl.DataFrame:
    """Trajectory and 128 bits that two of them share when all their steps are the same.

    Each step is hashed with its number, and the hashes are added up, which is the same in any order of the steps.
    """
    texts = _TEXTS[dedup.exact]
    said = (
        pl.struct("step", pl.coalesce("command", "action")) if dedup.exact == "actions" else pl.struct("step", *texts)
    )
    sums = [said.hash(seed).sum().alias(mark) for seed, mark in enumerate(_MARKS)]
    parts = [_of(rows, kept).group_by("trajectory_id").agg(*sums) for rows in reading.steps(texts)]
    return pl.concat(parts).group_by("trajectory_id").agg(pl.col(_MARKS).sum())


def _signatures(kept: pl.DataFrame, reading: Reading) -> dict[str, Signature]:
    """MinHash signatures of the commands of trajectories, without those too short to have one."""
    known = _load(reading.lake.store)
    found: dict[str, Signature] = {}
    new: dict[str, Signature] = {}
    for name, commands in _commands(kept, reading):
        key = sha256(commands)[:32]
        if key not in known and key not in new:
            hashes = command_shingles(commands)
            new[key] = signature(hashes).astype(np.uint32) if len(hashes) else np.empty(0, np.uint32)
        found[name] = known[key] if key in known else new[key]
    if new and reading.keep:
        _keep(reading.lake.store, known | new)
    return {name: one for name, one in found.items() if len(one)}


def _commands(kept: pl.DataFrame, reading: Reading) -> Iterator[tuple[str, str]]:
    """(trajectory, its commands in the order of its steps, one a line)."""
    parts = [_of(rows, kept).filter(pl.col("command").is_not_null()) for rows in reading.steps(["command"])]
    joined = pl.concat(parts).sort("trajectory_id", "step").group_by("trajectory_id", maintain_order=True)
    yield from joined.agg(pl.col("command").str.join("\n")).iter_rows()


def _of(rows: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    return rows.join(kept.select("trajectory_id"), on="trajectory_id", how="semi")


def _load(store: Store) -> dict[str, Signature]:
    held = store.get(KEPT)
    if held is None:
        return {}
    try:
        rows = pl.read_parquet(io.BytesIO(held)).filter(pl.col("version") == _VERSION)
    except pl.exceptions.PolarsError:  # damaged: all of it can be worked out again
        return {}
    return {key: np.frombuffer(data, np.uint32) for key, data in rows.select("key", "signature").iter_rows()}


def _keep(store: Store, signatures: dict[str, Signature]) -> None:
    rows = pl.DataFrame({"key": list(signatures), "signature": [s.tobytes() for s in signatures.values()]})
    buffer = io.BytesIO()
    rows.with_columns(version=_VERSION).write_parquet(buffer)
    store.put(KEPT, buffer.getvalue())
