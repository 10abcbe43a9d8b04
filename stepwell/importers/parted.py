"""A conversation that is kept as one file an event, as the OpenHands SDK does, read as one file.

Belongs here: which files are the events of one conversation, and their bytes as one. Does not belong here: what they say
(`openhands_sdk`).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from stepwell.errors import BadInput
from stepwell.importers.containers import open_blob
from stepwell.importers.files import LARGEST, File, entries

PARTED = "openhands-sdk-events"
"""The format that is kept so."""
_EVENT = re.compile(r"event-[0-9]{1,18}-.+\.json")
_BREAKS = bytes.maketrans(b"\r\n", b"  ")
"""Line breaks as blanks: between the values of JSON both say nothing, and within them neither can stand as it is."""


class Joined(File):
    """JSON documents of a file each as JSON lines, a line each, all in memory. Raises BadInput when they are too large."""

    def __init__(self, files: Sequence[File]) -> None:
        super().__init__(files[0].path)
        self.size, changed = sum(f.size + 1 for f in files), max(f.state[1] for f in files)
        self.state = (self.size, changed)
        if self.size > LARGEST:
            raise BadInput("too_large", f"{len(files)} files of one conversation, {self.size} bytes; split them.")
        self._joined = b"".join(f.open().read().translate(_BREAKS) + b"\n" for f in files)

    def open(self) -> IO[bytes]:
        """A stream at the first byte."""
        return io.BytesIO(self._joined)

    def unchanged(self) -> None:
        """Nothing to raise: every file was read in one piece."""


def conversation(path: Path, inside: Callable[[Path], bool]) -> list[File]:
    """The files that are read as one with a file, in order: itself, or every event of the conversation it is one of.

    Of the other files those that are `inside`. Raises BadInput for a file that cannot be read.
    """
    file = File(path)
    if not _is_event(path) or not _is_part(file):
        return [file]
    files = [f for p in _events_of(path.parent) if inside(p) and _is_part(f := File(p))]
    return files if len(files) > 1 else [file]


def _is_event(path: Path) -> bool:
    """Whether a file is named as an event of a conversation that is kept as one file an event (OpenHands SDK)."""
    return _EVENT.fullmatch(path.name) is not None


def _events_of(folder: Path) -> list[Path]:
    """The files of a folder that are named as events, in the order of their numbers."""
    return sorted(filter(_is_event, entries(folder)), key=lambda p: (int(p.name.split("-")[1]), p.name))


def _is_part(file: File) -> bool:
    """Whether a file holds one event of a conversation, and nothing else."""
    try:
        opened = open_blob(file)
    except BadInput:
        return False
    return opened.told.format == PARTED and opened.shape == "document"
