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
_NESTED = (dict, list)
_Shape = tuple[str, tuple[str, ...] | None]
"""The path of an object and the keys of the values that count in it; no keys where it counts as one itself."""
_DATED: _Shape = ("occurred_at", None)


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
        found: list[_Shape] = []
        _shapes(data, "", 0, found)
        _add_shapes(self.source, found)

    def kept(self, events: Iterable[Event]) -> None:
        """Count what its events hold."""
        columns: list[_Shape] = []
        extra: list[_Shape] = []
        for event in events:
            payload = event.payload
            told = payload if all(payload.values()) else [k for k, v in payload.items() if v or v not in _EMPTY]
            columns.append((event.kind, tuple(told)))
            if event.usage:
                columns.append(("usage", tuple(event.usage)))
            if event.occurred_at is not None:
                columns.append(_DATED)
            if event.extra:
                _shapes(orjson.loads(event.extra), event.kind, 0, extra)
        _add_shapes(self.columns, columns)
        _add_shapes(self.extra, extra)

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


def _add_shapes(counter: Counter[str], found: list[_Shape]) -> None:
    for (above, keys), n in Counter(found).items():
        for name in [f"{above}.{key}" if above else key for key in keys] if keys is not None else [above]:
            _add(counter, name, n)


def _shapes(value: Any, path: str, depth: int, found: list[_Shape]) -> None:
    """The shape of every object in a value."""
    if depth < DEPTH and isinstance(value, dict) and value:
        keys: list[str] = []
        if depth + 1 < DEPTH:
            for key, item in value.items():
                if isinstance(item, _NESTED):
                    if item:
                        _shapes(item, f"{path}.{key}" if path else key, depth + 1, found)
                elif item or item == 0:
                    keys.append(key)
        else:
            keys = list(value) if all(value.values()) else [k for k, item in value.items() if item or item == 0]
        if keys:
            found.append((path, tuple(keys)))
    elif depth < DEPTH and isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            _shapes(item, f"{path}[]", depth, found)
    elif value or value not in _EMPTY:
        found.append((path, None))


def _add(counter: Counter[str], path: str, n: int) -> None:
    counter[path if path in counter or len(counter) < _MOST_PATHS else "(other)"] += n
