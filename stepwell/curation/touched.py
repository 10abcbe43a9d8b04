"""Which trajectories a derivation has still to look at: those that gained events of the kinds it reads.

Belongs here: versions and files of `events`. Does not belong here: what is then decided (`masks`). The last batch of a
run names in its `batch_id` the version of `events` it went through, so nothing is kept beside the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from stepwell.lake import Lake

KINDS = ("action", "verdict", "outcome", "retraction")
_THROUGH = re.compile(r":through-(\d+)$")


def through(lake: Lake, policy: str) -> int | None:
    """Version of `events` this rule has decided through; None before its first complete run."""
    handle = lake.table("events")
    if handle is None:
        return None
    where = pc.field("kind").isin(["mask", "retraction"]) & (pc.field("policy") == policy)
    names: set[str] = set()
    for batch in handle.to_pyarrow_dataset().to_batches(columns=["batch_id"], filter=where):
        names.update(pc.unique(batch.column(0)).to_pylist())
    return max((int(m[1]) for name in names if (m := _THROUGH.search(name))), default=None)


def changed(lake: Lake, since: int | None, until: int) -> list[str]:
    """Trajectories with events of KINDS in files that `events` gained after version `since` up to `until`, sorted.

    The files are compared and not the change feed of delta-rs, which cannot read partitions whose value needs escaping
    (a corpus such as `rollouts/one`). After a compaction it may name more trajectories than changed, never fewer.
    """
    old = set() if since is None else {f.path for f in _files(lake, since)}
    found: set[str] = set()
    for file in _files(lake, until):
        if file.path not in old:
            for batch in file.to_batches(columns=["trajectory_id"], filter=pc.field("kind").isin(list(KINDS))):
                found.update(pc.unique(batch.column(0)).to_pylist())
    return sorted(found)


def _files(lake: Lake, version: int) -> Iterator[Any]:
    handle = lake.table("events", version)
    if handle is not None:
        yield from handle.to_pyarrow_dataset().get_fragments()
