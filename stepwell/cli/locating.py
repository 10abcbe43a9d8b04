"""Where in a source file a trajectory stands: its record is found by reading the file again, and proven by event ids.

Belongs here: what needs both the lineage of a lake and its importers, which no stage may import together.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

from stepwell.errors import BadInput
from stepwell.ids import storable
from stepwell.importers.base import SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.outcome import stem
from stepwell.importers.parted import Joined, conversation
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.units import units
from stepwell.lake import Lake
from stepwell.lineage.trace import Locate
from stepwell.secrets.redact import redactor_of


def locator(lake: Lake) -> Locate:
    """A function from a row of `sources` and a trajectory to the bytes that hold it.

    `first_byte` and `bytes` count in the file, or in what a compressed file unpacks to (`of` says so then). `proven` tells
    whether reading these bytes now gives an event asked for, to its id (verdicts
    and masks are in no file); without any asked for, the trajectory's id. `bytes` says it of a file that is gone or changed.
    """
    redactor = cache(lambda: redactor_of(lake))  # made when it is needed: it may write a salt

    def locate(source: Mapping[str, Any], trajectory: str, events: Set[str]) -> dict[str, Any]:
        path = Path(source["path"])
        try:
            files = conversation(path, lambda p: p.resolve().parent == path.resolve().parent)
            file = files[0] if len(files) == 1 else Joined(files)
            opened = open_blob(file)
            told = source["format"]
            name = next(
                (n for n in sorted(IMPORTERS, key=len, reverse=True) if told == n or told.startswith(f"{n}-")), told
            )
            about = SourceFile(
                storable(str(path)), storable(stem(path)), storable(path.parent.name), "", opened.told.version, ""
            )
            for unit in units(opened, IMPORTERS[name], about, redactor()):
                for found in unit.imported:
                    if found.trajectory_id == trajectory:
                        made = {e.event_id for e in found.events}
                        size = file.size if unit.raw is None else len(unit.raw)
                        of = "" if unit.raw is None or unit.offset + size <= file.size else "the unpacked file"
                        of = "the event files of its folder, joined" if len(files) > 1 else of
                        proven = bool(events & made) if events else True
                        return {"first_byte": unit.offset, "bytes": size, "of": of, "proven": proven}
        except (BadInput, OSError, KeyError) as error:
            return {"bytes": f"not there to be read: {str(error)[:100]}"}
        return {"bytes": "the file no longer holds it"}

    return locate
