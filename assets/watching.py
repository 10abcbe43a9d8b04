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
    """Ask for an import of what has come below $STEPWELL_IMPORT since the last; what is known already adds nothing."""
    if not settings.paths():
        return dg.SkipReason("no folder to watch: set STEPWELL_IMPORT to files and folders, and start Dagster again.")
    missing = [str(path) for path in settings.paths() if not path.exists()]
    files = [(path, *_stat(path)) for root in settings.paths() for path in _files(root)]
    if not files:
        return dg.SkipReason(
            f"no file; {', '.join(missing) or 'the folders'} {'is missing' if missing else 'are empty'}."
        )
    seen = hashlib.sha256(repr(files).encode()).hexdigest()
    if seen == context.cursor:
        return dg.SkipReason(f"{len(files)} files, none new since the last import.")
    if (age := time.time() - max(changed for _, _, changed in files)) < QUIET_S:
        return dg.SkipReason(f"a file changed {max(age, 0):.0f} s ago and may not be whole; looked at again.")
    context.update_cursor(seen)
    return dg.RunRequest(run_key=seen, tags={"stepwell/files": str(len(files))})


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
