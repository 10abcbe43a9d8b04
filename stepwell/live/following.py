"""Which files of a folder are to be read now, and how much of each; what they hold is told by the import.

A file of JSON lines is read up to its last newline whenever it has changed, and as a whole once it has been quiet; any other
file only once it has been quiet, because half of it is nothing. What says that its run goes on (a document that its harness
writes anew after every step, the lines of a run that has no id) is read when the run is over or has been silent for long: each
state would be a trajectory.

The listing of the folder decides, not notifications, which can be missed and do not exist everywhere: so a file that was
renamed, replaced, cut off or deleted is simply what is there now. Does not belong here: waiting (`watching`), reading.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.errors import BadInput
from stepwell.importers.files import Root, walk
from stepwell.importers.run import DATA_SUFFIXES
from stepwell.live.snapshot import Begun, goes_on, parses, whole_lines

LINES, DOCUMENTS = (".jsonl", ".ndjson"), (".json", ".traj")
PATIENCE = 10
"""Times the quiet time after which what is no whole document, or no whole last line, is taken as it is, and rejected."""
SILENCE = 300
"""Times the quiet time after which the file of a run that goes on is taken as it is: the run was killed, or says no end."""
_SHARE = 4
"""A growing file is left alone for so many times as long as reading it took: it is read as a whole each time."""

Signature = tuple[int, int, int, int]
"""Device, inode, bytes, time of change in nanoseconds."""


@dataclass
class Followed:
    """What is known of a file: as it was last seen and since when, up to where it was read, and as it was read for good."""

    seen: Signature
    since: float
    lines: bool
    read: int = -1
    not_before: float = 0.0
    done: Signature | None = None
    unfinished: Signature | None = None
    """As it was when it said that its run goes on."""


@dataclass
class Due:
    """What is to be read now: files that are whole, and files that grow with as much of them as can be read."""

    whole: list[Path] = field(default_factory=list)
    begun: dict[Path, Begun] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.whole or self.begun)


class Folder:
    """The files of a folder over time; `settle`: seconds without a change after which a file is quiet."""

    def __init__(self, path: Path, settle: float) -> None:
        self.root, self.settle = Root(path, [], [], explicit=False), settle
        self.files: dict[Path, Followed] = {}

    @property
    def unread(self) -> list[Path]:
        """Files that have not been read for good as they are."""
        return sorted(p for p, f in self.files.items() if f.done != f.seen)

    def due(self, now: float, last: bool = False) -> Due:
        """What is to be read at a time; `last`: nothing will be read later, so all that is whole is read now."""
        self._list(now)
        found = Due()
        for path in self.unread:
            file = self.files[path]
            quiet = now - file.since
            try:
                if last or quiet >= self.settle:
                    self._settled(found, path, file, quiet, last)
                elif file.lines and now >= file.not_before and self.root.inside(path) and not self._goes_on(path, file):
                    self._growing(found, path, file)
            except (OSError, BadInput):
                continue  # gone or replaced since it was listed: the next listing tells
        return found

    def _settled(self, found: Due, path: Path, file: Followed, quiet: float, last: bool) -> None:
        size = file.seen[2]
        if not self.root.inside(path) or not path.is_file():
            found.whole.append(path)  # the import says why it is not read
        elif (last or quiet < PATIENCE * self.settle) and file.lines and not parses(path, whole_lines(path, size)):
            if last or not self._goes_on(path, file):
                self._growing(found, path, file)
        elif not (file.lines or path.suffix in DOCUMENTS) or not self._is_awaited(path, file, quiet, last):
            found.whole.append(path)

    def _is_awaited(self, path: Path, file: Followed, quiet: float, last: bool) -> bool:
        """Whether more is to come of a file: it is no whole document, or says that its run goes on."""
        if not file.lines and (last or quiet < PATIENCE * self.settle) and not parses(path, 0):
            return True
        return not last and quiet < SILENCE * self.settle and self._goes_on(path, file)

    def _goes_on(self, path: Path, file: Followed) -> bool:
        if file.unfinished != file.seen and goes_on(path, file.lines):
            file.unfinished = file.seen
        return file.unfinished == file.seen

    def _growing(self, found: Due, path: Path, file: Followed) -> None:
        cut = whole_lines(path, file.seen[2])
        if cut and cut != file.read:
            found.begun[path] = Begun(path, cut)

    def done(self, due: Due, now: float, took: float) -> None:
        """Note that what was due has been read, which took so many seconds."""
        for path in due.whole:
            self.files[path].done = self.files[path].seen
        for path, begun in due.begun.items():
            self.files[path].read = begun.size
            self.files[path].not_before = now + _SHARE * took

    def wait(self, now: float, every: float) -> float:
        """Seconds until something may be due without any change."""
        times = [every]
        for path in self.unread:
            file = self.files[path]
            quiet_at = file.since + self.settle
            times.append((file.not_before if file.lines and now < quiet_at else quiet_at) - now)
        return min(every, max(0.02, min((t for t in times if t > 0), default=every)))

    def _list(self, now: float) -> None:
        there = dict(self._signatures())
        places = {f.seen[:2]: p for p, f in self.files.items()}
        for path, signature in there.items():
            old = self.files.get(path)
            before = places.get(signature[:2])
            if old is not None and old.seen[:2] == signature[:2]:
                if old.seen != signature:
                    old.read = old.read if signature[2] > old.seen[2] else -1
                    old.seen, old.since = signature, now
            elif path.suffix in DATA_SUFFIXES:
                self.files[path] = Followed(signature, now, path.suffix in LINES)
            elif before is not None and there.get(before, (0, 0))[:2] != signature[:2]:
                self.files[path] = Followed(signature, now, self.files[before].lines)  # a log file that was renamed
        self.files = {p: f for p, f in self.files.items() if p in there}

    def _signatures(self) -> Iterator[tuple[Path, Signature]]:
        for path in walk(self.root.path):
            try:
                about = path.stat() if self.root.inside(path) else path.lstat()
            except OSError:
                continue
            if about.st_size and not stat.S_ISDIR(about.st_mode):
                yield path, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
