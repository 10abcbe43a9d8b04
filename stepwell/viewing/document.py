"""What a page is made of: the events of a trajectory that hold, and what datasets train on of them.

Belongs here: reading the lake into one JSON document. Does not belong here: how it looks (`page`).
"""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.viewing.training import trained

MOST = 2
"""Trajectories on one page."""


def find(lake: Lake, name: str) -> str:
    """The trajectory of that id, or the only one whose id begins so; raises UsageError."""
    handle = lake.table("events")
    ids: list[str] = []
    if handle is not None and name:
        events, key = lake.dataset(handle), pc.field("trajectory_id")
        for where in (key == name, pc.starts_with(key, name)):
            ids = ids or sorted(pc.unique(events.to_table(["trajectory_id"], filter=where).column(0)).to_pylist())
    if len(ids) != 1:
        some = f" ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})" if ids else ""
        raise UsageError(
            f"{len(ids)} trajectories begin with {name!r}{some}; give one id, or more of it: "
            "stepwell sql 'SELECT trajectory_id, task_id FROM trajectories'."
        )
    return ids[0]


def document(lake: Lake, names: list[str], tokens: bool = True) -> dict[str, Any]:
    """The document of a page: `{version, runs: [{id, corpus, events, n_retracted, datasets}]}`.

    `names` are trajectory ids or beginnings of them, at most MOST. Events are in canonical order and without nulls;
    `tokens`: whether the tokens of dataset rows are decoded. Raises UsageError.
    """
    if not 1 <= len(names) <= MOST:
        raise UsageError(f"{len(names)} trajectories named; allowed: one, or {MOST} side by side. Name as many.")
    ids = [find(lake, name) for name in names]
    version = EventLog(lake).version
    return {"version": version, "runs": [_run(lake, trajectory, version, tokens) for trajectory in ids]}


def _run(lake: Lake, trajectory: str, version: int | None, tokens: bool) -> dict[str, Any]:
    rows = EventLog(lake).replay(trajectory, version)
    kept = live(rows)
    kept = kept.filter(pc.not_equal(kept.column("kind"), "retraction"))
    if not len(kept):
        reasons = [r["reason"] for r in rows.column("retraction").to_pylist() if r and r["target_event"] is None]
        why = f"was taken down ({'; '.join(map(str, reasons))})" if reasons else "has no event that was not retracted"
        raise UsageError(f"trajectory {trajectory!r} {why}; show another one.")
    return {
        "id": trajectory, "corpus": kept.column("corpus")[0].as_py(), "events": _events(kept),
        "n_retracted": sum(r is not None and r["target_event"] is not None for r in rows.column("retraction").to_pylist()),
        "datasets": trained(lake, trajectory, tokens),
    }  # fmt: skip


def _events(rows: pa.Table) -> list[dict[str, Any]]:
    return [full(row) for row in rows.drop_columns(["corpus", "trajectory_id"]).to_pylist()]


def full(value: Any) -> Any:
    """A value without the nulls in it."""
    if isinstance(value, dict):
        return {k: full(v) for k, v in value.items() if v is not None}
    return [full(v) for v in value] if isinstance(value, list) else value


def embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in, nor be read as anything but text there."""
    text = orjson.dumps(data, option=orjson.OPT_UTC_Z).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
