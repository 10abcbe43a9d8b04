"""Verdicts that hold, and the trajectories a critic rules out: shared by datasets, checks and annotation.

Belongs here: reading verdict events. Does not belong here: making them (critics), or weighing steps by them (curation).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.data_settings import Exclude
from stepwell.log import live

_ENVELOPE = ("event_id", "trajectory_id", "corpus", "step", "actor", "policy", "caused_by", "recorded_at")


def holding(events: pa.Table) -> list[dict[str, Any]]:
    """Verdicts among these events that no retraction among them names, as rows of envelope and payload together.

    Needs the columns event_id, trajectory_id, kind, verdict and retraction; keeps the order.
    """
    kept = live(events)
    rows = kept.filter(pc.equal(kept.column("kind"), "verdict"))
    wanted = [c for c in _ENVELOPE if c in rows.column_names]
    return [row | payload for row in rows.select([*wanted, "verdict"]).to_pylist() if (payload := row.pop("verdict"))]


def flagged(events: pa.Table, exclude: Exclude) -> dict[str, str | None]:
    """Trajectory -> the first category (by name) for which `exclude` rules it out, None where it is judged and stays.

    A verdict's severity counts for all of its detections; one without detections (a summary) rules nothing out.
    """
    found: dict[str, str | None] = {}
    for verdict in holding(events):
        if verdict["policy"] != exclude.critic:
            continue
        trajectory = verdict["trajectory_id"]
        bad = (verdict["severity"] or 0) >= exclude.severity
        named = {d["category"] for d in verdict["detections"] or [] if d["category"]} if bad else set()
        hits = [found.get(trajectory), *(c for c in named if not exclude.categories or c in exclude.categories)]
        found[trajectory] = min((c for c in hits if c is not None), default=None)
    return found


def excluded(events: pa.Table, exclude: Exclude) -> dict[str, str]:
    """Trajectory -> why it is left out of a dataset: `excluded:CATEGORY`, or that the critic has not judged it."""
    found = flagged(events, exclude)
    everyone = set(events.column("trajectory_id").to_pylist())
    left = dict.fromkeys(everyone - found.keys(), f"not judged by {exclude.critic}")
    return left | {t: f"excluded:{category}" for t, category in found.items() if category is not None}
