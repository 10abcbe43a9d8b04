"""What redactions concerned and did, as `redactions/NAME.json` keeps it, and which of them are unfinished."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from stepwell.lake import Lake


@dataclass
class Report:
    """What a redaction concerned and did; kept as `redactions/NAME.json`, without the values.

    `models` were trained on rows of the trajectories concerned: their weights are not changed, so whether they may be used
    is to be decided. `left` are files in which a value still is, or that could not be read: empty, or nothing is proven.
    """

    name: str
    reason: str
    action: str = "redact"
    done: bool = False
    trajectories: list[str] = field(default_factory=list)
    taken_down: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    rows_dropped: dict[str, int] = field(default_factory=dict)
    files_erased: dict[str, int] = field(default_factory=dict)
    cached: int = 0
    files_changed: int = 0
    left: list[str] = field(default_factory=list)


def unfinished(lake: Lake) -> list[Report]:
    """Redactions that were begun and not proven, by name: killed, or files were left."""
    paths = (p for p in lake.store.paths("redactions") if p.endswith(".json"))
    reports = [Report(**orjson.loads(lake.store.get(p) or b"")) for p in paths]
    return [report for report in reports if not report.done]


def keep(lake: Lake, report: Report) -> None:
    """Write a report, or replace it."""
    lake.store.put(f"redactions/{report.name}.json", orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2))
