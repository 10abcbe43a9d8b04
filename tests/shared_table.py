"""The import of the recorded files beside the project, set against what is known of them: `python -m tests.shared_table`.

Every file of `../shared/data` is imported into a new lake and compared with its rows in RECORDS.tsv: trajectories, steps and
how many were resolved. Why a number differs is said where the tests of the importers say it; a difference without a reason
ends with status 1.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

import test_importers_streams as streams
import test_shared_records as shared

from stepwell.fold import refresh
from stepwell.importers.base import REASONS
from stepwell.importers.run import ImportReport, import_paths
from stepwell.lake import Lake

_FOLDERS = {
    "nemo-gym-rollouts": "RECORDS counts calls of tools; a step is a reply of the model, counted in test_importers_records",
    "problems-with-tests": "RECORDS has no rows of problems; each is a task without steps",
    "hf-parquet-schema": "RECORDS has no rows of these files, which were collected for their columns; they hold some",
}
"""Folder -> why its files differ, where the reason is the same for all."""
_OTHER = "of a format that FORMATS.md does not name: "


@dataclass
class Row:
    """A file or a folder: what is known of it (`n`, `steps`, `good`) and what was imported."""

    known: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    rejected: str = ""
    why: str = ""


def main() -> int:
    """Print the summary a folder and the differences a file; 1 when one has no reason."""
    with tempfile.TemporaryDirectory() as place:
        lake = Lake(place)
        report = import_paths(lake, [shared.SHARED / "data"])
        refresh(lake)
        rows = compared(lake)
    out = Console(width=150, highlight=False)
    out.print(summary(rows))
    differing = {path: row for path, row in rows.items() if row.known != row.found}
    out.print(differences(differing))
    out.print(_totals(report))
    without = [path for path, row in differing.items() if not row.why]
    out.print(
        f"{len(differing)} files differ, {len(without)} without a reason{': ' if without else '.'}{', '.join(without)}"
    )
    return 1 if without else 0


def compared(lake: Lake) -> dict[str, Row]:
    """Every file that RECORDS.tsv or the lake knows, by its path below the shared folder."""
    rows: dict[str, Row] = defaultdict(Row)
    with (shared.SHARED / "data" / "RECORDS.tsv").open() as file:
        for record in csv.DictReader(file, delimiter="\t"):
            one = {"records": 1, "steps": int(record["n_steps"]), "resolved": _is_good(record)}
            rows[record["path"]].known.update(one)
    by_id = {r["trajectory_id"]: r for r in lake.read("trajectories").to_pylist()}
    for source in lake.read("sources").to_pylist():
        own = [by_id[i] for i in source["trajectory_ids"]]
        one = {"records": len(own), "steps": sum(r["n_steps"] for r in own), "resolved": _resolved(own)}
        rows[_below(source["path"])].found.update(one)
    for reject in lake.read("rejects").to_pylist():
        rows[_below(reject["path"])].rejected = reject["reason"]
    for path, row in rows.items():
        row.known, row.found, row.why = +row.known, +row.found, _why(path, row.rejected)
    return dict(rows)


def _below(path: str) -> str:
    return str(Path(path).relative_to(shared.SHARED))


def _is_good(record: dict[str, str]) -> int:
    """Whether a record says that its task was solved: by tests, or by a whole reward."""
    told, kind = record["outcome"].strip("[]"), record["outcome_kind"]
    if kind in ("reward", "max_reward"):
        return int(float(told) == 1)
    if kind == "scores":
        return int({*json.loads(told).values()} == {"C"})
    return int(kind != "none" and told == "True")


def _resolved(own: list[dict[str, Any]]) -> int:
    return sum(r["resolved"] is True for r in own)


def _why(path: str, rejected: str) -> str:
    """Why a file differs, in the words of the test that holds it to that; nothing where none does."""
    folder = path.split("/")[1]
    other = _OTHER if folder == "agent-sessions" and any(name in path for name in streams.OTHERS) else ""
    if rejected:
        known = any(path.endswith(end) and reason == rejected for end, reason in shared.NOT_READ.items())
        return f"{other}rejected, {rejected}: {REASONS[rejected]}" if known else ""
    told = [d[2] for end, d in (*shared.DIFFERENT.items(), *streams.DIFFERENT.items()) if path.endswith(end)]
    return next(iter(told), "") or (f"{other}taken as what it is like" if other else _FOLDERS.get(folder, ""))


def summary(rows: dict[str, Row]) -> Table:
    """One line a folder: files, and of both sides records, steps and resolved."""
    table = Table(
        "folder", "files", "records", "trajectories", "steps known", "steps", "resolved known", "resolved", "differ"
    )
    folders: dict[str, list[Row]] = defaultdict(list)
    for path, row in rows.items():
        folders[path.split("/")[1]].append(row)
    folders["all"] = list(rows.values())
    for name, of in sorted(folders.items(), key=lambda item: (item[0] == "all", item[0])):
        known, found = sum((r.known for r in of), Counter()), sum((r.found for r in of), Counter())
        pairs = [f"{side[key]:,}" for key in ("records", "steps", "resolved") for side in (known, found)]
        table.add_row(name, str(len(of)), *pairs, str(sum(r.known != r.found for r in of) or ""))
    return table


def differences(rows: dict[str, Row]) -> Table:
    """One line a file that differs: what is known, what was imported, and why."""
    table = Table("file", "known", "imported", "why", title="files that differ: records / steps / resolved")
    for path, row in sorted(rows.items()):
        sides = [" / ".join(str(side[k]) for k in ("records", "steps", "resolved")) for side in (row.known, row.found)]
        parts = path.split("/")
        table.add_row(f"{parts[1]}: {'/'.join(parts[-3:])}", *sides, row.why)
    return table


def _totals(report: ImportReport) -> str:
    counts = {k: v for k, v in report.counts().items() if v}
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


if __name__ == "__main__":
    sys.exit(main())
