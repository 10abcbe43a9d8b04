"""Token-level rows of a sealed dataset, under the names trainers have for them, in JSON lines or Parquet.

`tokens` has `input_ids` and `labels` (-100 where nothing is learnt: TRL and transformers take them as they are), `prime-rl`
`token_ids` and `mask` (booleans), `loss-mask` `input_ids`, `attention_mask` and `loss_mask` (0 and 1: SkyRL and verl). Held:
every token and whether it is in the loss, exactly as the dataset was sealed. With every row stand its `row_id`,
`trajectory_id`, `task_id` and `split`: choose one by --where "split = 'train'". Not held: messages, steps and events (`hf`
has them). Nothing is read back as a trajectory. Left out: rows of trajectories of which something was taken down or redacted
since the dataset was built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa

from stepwell.exporters.base import Make, Obj, Options
from stepwell.exporters.writing import JsonLines, ParquetRows

IGNORED = -100
ORIGIN = ("row_id", "trajectory_id", "task_id", "split")
"""Columns of a dataset that stand with every row exported."""


class Tokens:
    """Writes one row a row of the dataset; `streams` names the columns and makes them of `input_ids` and `labels`."""

    reads: Literal["trajectories", "dataset"] = "dataset"
    kinds: frozenset[str] = frozenset()
    holds: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, name: str, **streams: tuple[pa.DataType, Callable[[list[int], list[int]], list[int]]]) -> None:
        self.name, self._streams = name, streams
        types = {k: pa.string() for k in ORIGIN} | {k: pa.list_(t) for k, (t, _) in streams.items()}
        self._schema = pa.schema(types)
        self.sinks = {".jsonl": JsonLines, ".parquet": self._parquet}

    def _parquet(self, path: Path, options: Options) -> ParquetRows:
        return ParquetRows(path, self._schema)

    def make(self, options: Options) -> Make:
        """Rows with these streams."""

        def row(sealed: Obj) -> Obj:
            ids, labels = sealed["input_ids"], sealed["labels"]
            return {k: sealed[k] for k in ORIGIN} | {k: f(ids, labels) for k, (_, f) in self._streams.items()}

        return row


def _ids(ids: list[int], labels: list[int]) -> list[int]:
    return ids


def _labels(ids: list[int], labels: list[int]) -> list[int]:
    return labels


def _trained(ids: list[int], labels: list[int]) -> list[int]:
    return [int(label != IGNORED) for label in labels]


def _flags(ids: list[int], labels: list[int]) -> list[int]:
    return [label != IGNORED for label in labels]


def _ones(ids: list[int], labels: list[int]) -> list[int]:
    return [1] * len(ids)


_I = pa.int32()
EXPORTERS = (
    Tokens("tokens", input_ids=(_I, _ids), labels=(_I, _labels)),
    Tokens("prime-rl", token_ids=(_I, _ids), mask=(pa.bool_(), _flags)),
    Tokens("loss-mask", input_ids=(_I, _ids), attention_mask=(_I, _ones), loss_mask=(_I, _trained)),
)
