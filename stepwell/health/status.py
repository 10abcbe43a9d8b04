"""What a lake holds: its tables with version, size and age, how fresh what is derived is, and what the tables say in short."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TABLES
from stepwell.fold import FOLDS, seen
from stepwell.lake import Lake
from stepwell.redaction.report import unfinished


def tables(lake: Lake) -> list[dict[str, Any]]:
    """One entry a table, an absent one with version None: rows, files, bytes, when it was last written.

    Of folds and datasets also `seen`, the version of `events` they were made from, and `behind`, how many came since.
    """
    events = lake.version("events")
    found = []
    for name in [*TABLES, *lake.dataset_names()]:
        handle = lake.table(name)
        entry: dict[str, Any] = dict.fromkeys(("version", "files", "bytes", "written_at", "seen", "behind"))
        entry = {"table": name, "rows": 0, **entry}
        if handle is not None:
            sizes = pa.table(handle.get_add_actions()).column("size_bytes")
            entry |= {"version": handle.version(), "rows": lake.dataset(handle).count_rows(), "files": len(sizes)}
            entry |= {"bytes": pc.sum(sizes).as_py() or 0, "written_at": _commit(handle.history(1)[0])["written_at"]}
            if name not in TABLES:
                entry["seen"] = next(
                    (int(c["events_version"]) for c in handle.history() if "events_version" in c), None
                )
        if name in FOLDS:
            entry["seen"] = seen(lake, name)
        if events is not None and (name in FOLDS or name not in TABLES):
            entry["behind"] = events - (-1 if entry["seen"] is None else entry["seen"])
        found.append(entry)
    return found


def status(lake: Lake) -> dict[str, Any]:
    """The whole picture as one document: the tables, corpora, rejects by reason, models, unfinished redactions."""
    trajectories = lake.read("trajectories", columns=["corpus", "n_steps", "resolved"])
    graded = pc.is_valid(trajectories.column("resolved"))
    columns = trajectories.append_column("graded", graded.cast(pa.int64())).append_column(
        "won", trajectories.column("resolved").cast(pa.int64())
    )
    sums = columns.group_by("corpus").aggregate(
        [("n_steps", "count"), ("n_steps", "sum"), ("graded", "sum"), ("won", "sum")]
    )
    names = {"n_steps_count": "trajectories", "n_steps_sum": "steps", "graded_sum": "graded", "won_sum": "resolved"}
    corpora = sums.rename_columns([names.get(n, n) for n in sums.column_names]).sort_by("corpus").to_pylist()
    reasons = lake.read("rejects", columns=["reason"]).column(0).value_counts().to_pylist()
    return {
        "lake": lake.uri,
        "tables": tables(lake),
        "corpora": [{**c, "resolved": c["resolved"] or 0} for c in corpora],
        "rejects": {r["values"]: r["counts"] for r in sorted(reasons, key=lambda r: (-r["counts"], r["values"]))},
        "models": sorted(lake.read("models", columns=["model_id"]).column(0).to_pylist()),
        "unfinished_redactions": [report.name for report in unfinished(lake)],
    }


def history(lake: Lake, name: str) -> list[dict[str, Any]]:
    """One entry a version of a table, the newest first: version, when, the operation, and what else its commit says."""
    return [_commit(entry) for entry in lake.commits(name)]


def _commit(entry: dict[str, Any]) -> dict[str, Any]:
    """Facts of a commit; what Stepwell itself wrote there (hashes, versions, recipes) is under `said`."""
    known = {"timestamp", "operation", "operationParameters", "clientVersion", "operationMetrics", "version", "readVersion",
             "isBlindAppend", "engineInfo", "txnId", "userId", "userName", "job", "notebook"}  # fmt: skip
    when = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC) if entry.get("timestamp") else None
    said = {k: str(v) for k, v in sorted(entry.items()) if k not in known}
    return {"version": entry.get("version"), "written_at": when, "operation": entry.get("operation"), "said": said}
