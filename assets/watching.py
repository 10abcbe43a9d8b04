"""A sensor over the folders of $STEPWELL_IMPORT: new or changed files ask for an import; a person turns it on."""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from assets.resources import Settings

QUIET_S = 10.0
"""Seconds without a change before files are taken to be whole."""
MOST_S = 600.0
"""Seconds that what is new waits for quiet; where one file is always written to, the others are imported all the same."""


@dg.sensor(
    name="new_sources",
    target=dg.AssetSelection.assets("sources", "events", "trajectories", "steps"),
    minimum_interval_seconds=30,
)
def new_sources(context: dg.SensorEvaluationContext, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Ask for an import of what has come below $STEPWELL_IMPORT since the last; what is known already adds nothing.

    The cursor is a digest of the files last asked for; where files may not be whole there are after it one of those last seen
    and the second since when they are waited for. An import that failed is asked for again after MOST_S.
    """
    if not settings.paths():
        return dg.SkipReason("no folder to watch: set STEPWELL_IMPORT to files and folders, and start Dagster again.")
    missing = "".join(f" {path} is missing." for path in settings.missing())
    files = [(path, *_stat(path)) for root in settings.paths() for path in _files(root)]
    if not files:
        return dg.SkipReason(f"no file;{missing or ' the folders are empty.'}")
    found = hashlib.sha256(repr(files).encode()).hexdigest()
    imported, seen, since = [*(context.cursor or "").split(" "), "", ""][:3]
    now, tags = time.time(), {"stepwell/files": str(len(files))}
    if found == imported:
        if again := _again(context.instance, found, now):
            return dg.RunRequest(run_key=again, tags={**tags, "stepwell/sources": found})
        return dg.SkipReason(f"{len(files)} files, none new since the last import.{missing}")
    age = now - max(min(changed, now) for _, _, changed in files)  # a time to come counts as now
    waited = now - float(since or now)
    if age < QUIET_S and found != seen and waited < MOST_S:
        context.update_cursor(f"{imported} {found} {since or now}")
        return dg.SkipReason(f"a file changed {age:.0f} s ago and may not be whole; looked at again.{missing}")
    context.update_cursor(found)
    return dg.RunRequest(run_key=found, tags={**tags, "stepwell/sources": found})


def _again(instance: dg.DagsterInstance, found: str, now: float) -> str | None:
    """The key of a further run where the last import of these files failed long enough ago."""
    wanted = dg.RunsFilter(tags={"stepwell/sources": found})
    last = next(iter(instance.get_run_records(wanted, limit=1)), None)
    if last is None or last.dagster_run.status != dg.DagsterRunStatus.FAILURE or now - (last.end_time or now) < MOST_S:
        return None
    return f"{found} {last.dagster_run.run_id}"


def _files(root: Path) -> Iterator[Path]:
    """Files at or below a path, by name."""
    if root.is_file():
        yield root
    for folder, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def _stat(path: Path) -> tuple[int, float]:
    """(bytes, time of the last change); nothing for a file that has just gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0.0
    return found.st_size, found.st_mtime
