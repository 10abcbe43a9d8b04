"""What became of what a source had: values in, values in columns, values in `extra`, by key path; kept with every file.

A key path is the keys down to a value, at most DEPTH of them, list places left out: `messages[].content`. Counted are values
that are not null and not empty; an object or list at the end of a path counts as one. Paths in `extra` start with the kind of
event. The counts are exact; they are not a proof that nothing is lost: that is in the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.event import Event

DEPTH = 2
_MOST_PATHS = 500
_EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass
class Fidelity:
    """The counts of one file, or of one format in one import: records in = trajectories' records out + rejected."""

    records: int = 0
    taken: int = 0
    rejected: int = 0
    source: Counter[str] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    extra: Counter[str] = field(default_factory=Counter)

    def read(self, data: Any) -> None:
        """Count the values of a record as it was parsed."""
        _count(self.source, data)

    def kept(self, events: Iterable[Event]) -> None:
        """Count what its events hold."""
        for event in events:
            for name, value in event.payload.items():
                self.columns[f"{event.kind}.{name}"] += value not in _EMPTY
            for name in event.usage or ():
                self.columns[f"usage.{name}"] += 1
            self.columns["occurred_at"] += event.occurred_at is not None
            if event.extra:
                _count(self.extra, orjson.loads(event.extra), event.kind)

    def add(self, other: Fidelity) -> None:
        """Count what another has counted too."""
        self.records, self.taken = self.records + other.records, self.taken + other.taken
        self.rejected += other.rejected
        for mine, theirs in ((self.source, other.source), (self.columns, other.columns), (self.extra, other.extra)):
            for path, n in theirs.items():
                _add(mine, path, n)

    def row(self) -> dict[str, Any]:
        """The counts as JSON has them, the most frequent first."""
        parts = {"source": self.source, "columns": self.columns, "extra": self.extra}
        counts = {"records": self.records, "taken": self.taken, "rejected": self.rejected}
        return {**counts, **{name: dict((+part).most_common()) for name, part in parts.items()}}


def _count(counter: Counter[str], value: Any, path: str = "", depth: int = 0) -> None:
    if depth < DEPTH and isinstance(value, dict):
        for key, item in value.items():
            below = f"{path}.{key}" if path else key
            if isinstance(item, dict | list):
                _count(counter, item, below, depth + 1)
            elif item is not None and item != "":
                _add(counter, below, 1)
    elif depth < DEPTH and isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            _count(counter, item, f"{path}[]", depth)
    elif value not in _EMPTY:
        _add(counter, path, 1)


def _add(counter: Counter[str], path: str, n: int) -> None:
    counter[path if path in counter or len(counter) < _MOST_PATHS else "(other)"] += n
