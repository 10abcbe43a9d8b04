"""What a request means: the values a pattern matches, the trajectories that a task, repository, source or corpus has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from stepwell.affected import trajectories_of, with_children
from stepwell.errors import UnknownName
from stepwell.lake import Lake
from stepwell.redaction.report import unfinished
from stepwell.secrets.redact import salt_of, secret_id
from stepwell.secrets.values import SHORTEST

_SHOWN = 10


def matching(lake: Lake, pattern: re.Pattern[str]) -> list[str]:
    """What a pattern matches in any text of any data file of any version, sorted; nothing of under four characters."""
    found: set[str] = set()
    for path in lake.store.paths():
        if path.endswith(".parquet") and "/_delta_log/" not in path:
            with lake.store.fs.open_input_file(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
                    for text in _texts(batch.to_pylist()):
                        found.update(match[0] for match in pattern.finditer(text))
    return sorted(value for value in found if len(value) >= SHORTEST)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "surrogateescape")
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def known_events(lake: Lake, names: Sequence[str]) -> frozenset[str]:
    """These event ids, which are all in the log or were, before a redaction. Raises UnknownName for one that never was."""
    if not names:
        return frozenset()
    where = pc.field("event_id").isin(names) | (pc.field("kind") == "retraction")
    rows = lake.read("events", columns=["event_id", "retraction"], filters=where).to_pylist()
    known = {row["event_id"] for row in rows} | {(row["retraction"] or {}).get("target_event") for row in rows}
    salt = salt_of(lake)
    for name in names:
        if name not in known and secret_id(name, salt) not in known:
            raise _unknown(lake, "event", name, "events", "event_id")
    return frozenset(names)


def _unknown(lake: Lake, what: str, name: str, table: str, column: str) -> UnknownName:
    found = sorted(pc.unique(lake.read(table, columns=[column]).column(0)).drop_null().to_pylist())
    act = f"There are {len(found)}; list them all: stepwell sql 'SELECT DISTINCT {column} FROM {table}'."
    return UnknownName(what, name, found[:_SHOWN], act)


def taken_down(lake: Lake, asked: Mapping[str, Sequence[str]]) -> set[str]:
    """Trajectories by `trajectory_id`, `task_id`, `repo`, `corpus` or `source` (path), and those that continue them.

    Those of a takedown that was begun and not finished are among them. Call it after a refresh. Raises UnknownName for a
    name that has none: then it is not clear what is to go.
    """
    begun = {t for report in unfinished(lake) if report.action == "takedown" for t in report.taken_down}
    found = set(begun)
    for column, names in asked.items():
        for name in names:
            new = trajectories_of(lake, column, name)
            if not new and not begun:
                where = ("sources", "path") if column == "source" else ("trajectories", column)
                raise _unknown(lake, column.removesuffix("_id"), name, *where)
            found |= new
    return with_children(lake, found)
