"""What a selection reads of the lake: rows of `trajectories` and `steps` as they are at a version of `events`.

Belongs here: putting a folded table and what has changed since (or before) together, so that the answer depends on the
version alone and not on when the lake was last refreshed. Does not belong here: writing the folds (`stepwell.fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from stepwell.data_settings import Exclude
from stepwell.fold import APP, FOLDS
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.verdicts import flagged

Progress = Callable[[str, int], None]
_AT_ONCE = 500
_ROWS = 1 << 17
_VERDICTS = ["event_id", "trajectory_id", "kind", "policy", "verdict", "retraction"]


class Reading:
    """The trajectories of some corpora at a version of `events`; `progress` is told what is read and how many rows.

    `keep`: what is worked out of them may be kept in the lake for the next time.
    """

    def __init__(
        self, lake: Lake, corpora: Sequence[str], version: int, progress: Progress | None = None, keep: bool = True
    ) -> None:
        self.keep = keep
        self.lake, self.log, self.version, self.progress = lake, EventLog(lake), version, progress
        self.where = pc.field("corpus").isin(pa.array(list(corpora), pa.string()))

    def trajectories(self) -> pl.DataFrame:
        """All of them, sorted by id."""
        parts = list(self._folded("trajectories", self.lake.spec("trajectories").schema.names))
        return pl.concat(parts).sort("trajectory_id")

    def steps(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Their steps, some at a time and in no order; a trajectory may be in several parts."""
        return self._folded("steps", list(dict.fromkeys(["trajectory_id", "step", *columns])))

    def flagged(self, exclude: Exclude) -> dict[str, str | None]:
        """Judged trajectory -> the first category for which a critic rules it out, or None, as `stepwell.verdicts` has it."""
        handle = self.lake.table("events", self.version)
        if handle is None:
            return {}
        said = (pc.field("kind") == "verdict") & (pc.field("policy") == exclude.critic)
        wanted = self.where & (said | (pc.field("kind") == "retraction"))
        return flagged(self.lake.dataset(handle).to_table(columns=_VERDICTS, filter=wanted), exclude)

    def _folded(self, name: str, columns: list[str]) -> Iterator[pl.DataFrame]:
        handle = self.lake.table(name)
        stale = None if handle is None else self._stale(handle)
        empty = self.lake.spec(name).schema.empty_table().select(columns)
        yield pl.DataFrame(empty)
        read = 0
        if handle is not None and stale is not None:
            skipped = pl.lit(pl.Series(stale, dtype=pl.String).implode())
            data = self.lake.dataset(handle)
            for batch in data.to_batches(columns=columns, filter=self.where, batch_size=_ROWS, batch_readahead=2):
                rows = pl.DataFrame(pa.table(batch).cast(empty.schema))
                yield rows.filter(~pl.col("trajectory_id").is_in(skipped)) if stale else rows
                read += len(batch)
                self._tell(name, read)
        ids = sorted(self._here if stale is None else self._here & set(stale)) if stale != [] else []
        for events in self.log.batches(ids, self.version, _AT_ONCE):
            rows = pl.DataFrame(FOLDS[name](events).select(columns))
            yield rows
            read += len(rows)
            self._tell(name, read)

    def _stale(self, handle: DeltaTable) -> list[str] | None:
        """Trajectories whose rows in a folded table are of another version; None when it was never folded."""
        at = handle.transaction_version(APP)
        if at is None:
            return None
        return [] if at == self.version else self.log.changed(*sorted((at, self.version)))

    @cached_property
    def _here(self) -> set[str]:
        """Trajectories that have events at the version."""
        rows = self.lake.read("events", self.version, ["trajectory_id"], self.where)
        return set(pc.unique(rows.column(0)).to_pylist())

    def _tell(self, name: str, read: int) -> None:
        if self.progress is not None:
            self.progress(name, read)
