"""The contract of an exporter: what it is given, what it makes of it, and what the target holds of it.

An exporter is found by the registry as `EXPORTER` of its module, or as one of `EXPORTERS`. It sees one trajectory or one row of
a dataset at a time, never the lake, and makes one row of the file of it, or says why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

Obj = dict[str, Any]
Row = dict[str, Any]
"""An event: its envelope, and its columns under `payload`."""


@dataclass(frozen=True)
class LeftOut:
    """Why a trajectory or a row of a dataset is not in the file."""

    reason: str


@dataclass(frozen=True)
class Trajectory:
    """One trajectory: events that hold, by kind in canonical order, and its row of `trajectories`."""

    trajectory_id: str
    corpus: str
    events: Mapping[str, list[Row]]
    facts: Obj

    def of(self, kind: str) -> list[Row]:
        """The events of a kind."""
        return self.events.get(kind, [])

    def first(self, kind: str) -> Obj:
        """The columns of the first event of a kind; empty when there is none."""
        rows = self.of(kind)
        return rows[0]["payload"] if rows else {}

    def last(self, kind: str) -> Obj:
        """The columns of the last event of a kind; empty when there is none."""
        rows = self.of(kind)
        return rows[-1]["payload"] if rows else {}


@dataclass(frozen=True)
class Options:
    """What an exporter may need to know: the rule whose masks count, and what is known of the dataset."""

    mask_rule: str | None = None
    about: Obj = field(default_factory=dict)


def loaded(text: str | None) -> Any:
    """The value of JSON text; None where there is none, and where it is no JSON."""
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def flagged(row: Row, name: str) -> bool:
    """Whether `extra` of an event says so; parsed only where the name stands in it."""
    extra = loaded(row["extra"]) if row["extra"] and name in row["extra"] else None
    return isinstance(extra, dict) and extra.get(name) is True


def by_position(rows: Iterable[Row]) -> list[Row]:
    """Instructions, or observations of a step, in the order they were shown."""
    return sorted(rows, key=lambda row: row["payload"]["position"] or 0)


def by_step(rows: Iterable[Row]) -> dict[int | None, list[Row]]:
    """Step -> its observations in the order they were shown."""
    found: dict[int | None, list[Row]] = {}
    for row in by_position(rows):
        found.setdefault(row["step"], []).append(row)
    return found


Make = Callable[[Any], Obj | LeftOut]
"""A trajectory, or a row of a dataset -> a row of the file, or why there is none."""


class Sink(Protocol):
    """Where rows go."""

    def write(self, row: Obj) -> None:
        """Add a row."""

    def finish(self) -> None:
        """Complete what was written."""

    def close(self) -> None:
        """Release what was opened, also when nothing was finished."""


OpenSink = Callable[[Path, Options], Sink]
"""Opens a sink on a path that is not there yet."""


class Exporter(Protocol):
    """Writes one format."""

    @property
    def name(self) -> str:
        """Format name, as the command line has it."""

    @property
    def reads(self) -> Literal["trajectories", "dataset"]:
        """What a row is made of."""

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of events it looks at; none for a dataset."""

    @property
    def holds(self) -> Mapping[str, tuple[str, ...]]:
        """Kind of event -> columns that come back when the file is imported; `usage` counts as a kind."""

    @property
    def sinks(self) -> Mapping[str, OpenSink]:
        """Suffix of the path ("" for a folder) -> what writes there."""

    def make(self, options: Options) -> Make:
        """The function that makes the rows of one export."""
