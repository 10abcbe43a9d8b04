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


@dg.sensor(
    name="new_sources",
    target=dg.AssetSelection.assets("sources", "events", "trajectories", "steps"),
    minimum_interval_seconds=30,
)
def new_sources(context: dg.SensorEvaluationContext, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Ask for an import of what has come below $STEPWELL_IMPORT since the last; what is known already adds nothing.

    The cursor is a digest of the files last asked for, and after it one of the files last seen, where these may not be whole.
    """
    if not settings.paths():
        return dg.SkipReason("no folder to watch: set STEPWELL_IMPORT to files and folders, and start Dagster again.")
    missing = "".join(f" {path} is missing." for path in settings.missing())
    files = [(path, *_stat(path)) for root in settings.paths() for path in _files(root)]
    if not files:
        return dg.SkipReason(f"no file;{missing or ' the folders are empty.'}")
    found = hashlib.sha256(repr(files).encode()).hexdigest()
    imported, _, seen = (context.cursor or "").partition(" ")
    if found == imported:
        return dg.SkipReason(f"{len(files)} files, none new since the last import.{missing}")
    now = time.time()
    age = now - max(min(changed, now) for _, _, changed in files)  # a time to come counts as now
    if age < QUIET_S and found != seen:
        context.update_cursor(f"{imported} {found}")
        return dg.SkipReason(f"a file changed {age:.0f} s ago and may not be whole; looked at again.{missing}")
    context.update_cursor(found)
    return dg.RunRequest(run_key=found, tags={"stepwell/files": str(len(files))})


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
