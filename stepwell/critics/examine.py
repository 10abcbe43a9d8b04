"""Examining a critic on a lake: its audit, the curve over its samples, and leakage where asked for, read at one version.

Belongs here: reading what these need, once, for the terminal and the asset graph. Does not belong here: any figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from stepwell.critics.audit import COLUMNS, KINDS, TRUTH, Audit, audit, curve_sheet, leakage_sheet, sheets
from stepwell.critics.audit import leakage as leaking
from stepwell.critics.audit.leakage import Leakage
from stepwell.critics.audit.members import Point
from stepwell.critics.audit.training import training_of
from stepwell.critics.ensemble import curves
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.sheets import Sheet


@dataclass(frozen=True)
class Examined:
    """The audit, curves over the number of samples by what they vote on, leakage by pair of agents, and what was read."""

    audit: Audit
    curves: dict[str, list[Point]]
    leakage: list[Leakage]
    events: pa.Table

    def sheets(self) -> list[Sheet]:
        """All of it as tables."""
        found = sheets(self.audit)
        found += [curve_sheet(f"majorities of samples: {what}", points) for what, points in self.curves.items()]
        return found + ([leakage_sheet(self.leakage)] if self.leakage else [])

    def as_dict(self) -> dict[str, Any]:
        """All of it as one JSON document."""
        curved = {what: [asdict(p) for p in points] for what, points in self.curves.items()}
        return self.audit.as_dict() | {"curves": curved, "leakage": [asdict(x) for x in self.leakage]}


def examine(
    lake: Lake,
    critic: str,
    truth: str = TRUTH,
    *,
    others: Sequence[str] = (),
    windows: bool = False,
    leakage: bool = False,
    corpora: Sequence[str] | None = None,
    at: int | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Examined:
    """Everything there is to say of a critic at a version of `events`; raises what `audit` and `leakage` raise."""
    log = EventLog(lake)
    events = log.read(at, corpora=corpora, kinds=KINDS, columns=COLUMNS)
    result = audit(
        events, critic, truth, draws, seed, others=others, windows=windows, training=training_of(lake, critic)
    )
    found: list[Leakage] = []
    if leakage:
        rows = log.read(at, corpora=corpora, kinds=leaking.KINDS, columns=leaking.COLUMNS)
        found = leaking.leakage(rows, critic, seed=seed)
    return Examined(result, curves(events, critic, truth, draws, seed), found, events)
