"""Following a folder: what is written there is in the lake soon after, until the watch is told to stop.

Belongs here: waiting, passes over what is due, what is told of them. Does not belong here: what is due (`following`). Passes
are imports: the same ledger, the same ids, so that a later import of the folder finds nothing new, and a watch that is killed
is continued by starting it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import watchfiles

from stepwell.errors import UnknownName, UsageError
from stepwell.fold import refresh
from stepwell.ids import unfit_corpus
from stepwell.importers.companions import read_companion
from stepwell.importers.files import Root, corpus_of
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import DATA_SUFFIXES, ImportReport, import_roots
from stepwell.lake import Lake
from stepwell.live.following import Due, Folder
from stepwell.secrets.redact import redactor_of


@dataclass
class Watched:
    """What a watch has done since it began; `waiting` are files with something that is not in the lake yet."""

    passes: int = 0
    files: int = 0
    events: int = 0
    rejected: int = 0
    waiting: int = 0
    redacted: dict[str, int] = field(default_factory=dict)


class Watch:
    """Follows one folder. Times in seconds: `every` between listings at least, `settle` until a file is quiet.

    Raises UsageError for what is no folder and a corpus name that is too long, UnknownName for a format without an importer.
    """

    def __init__(
        self, lake: Lake, path: Path, *, corpus: str | None = None, format: str | None = None, every: float = 1.0,
        settle: float = 2.0, keep_secrets: bool = False, notified: bool = True,
        tell: Callable[[dict[str, Any]], None] = lambda told: None,
    ) -> None:  # fmt: skip
        if not path.is_dir():
            raise UsageError(
                f"no folder {str(path)!r}; give one that exists. A file alone is imported, or its folder watched."
            )
        if format is not None and format not in IMPORTERS:
            raise UnknownName("format", format, IMPORTERS, "Leave it out to have the format told from the content.")
        path = path.absolute()
        self.corpus, self.notified, self.tell = corpus or corpus_of(path), notified, tell
        if why := unfit_corpus(self.corpus):
            raise UsageError(why)
        self.lake, self.path, self.format, self.every = lake, path, format, every
        self.redactor = None if keep_secrets else redactor_of(lake)
        self.folder = Folder(path, settle)
        self.total = Watched()
        self._unfolded = False

    def once(self) -> Watched:
        """Read all that is whole, once."""
        self._pass(last=True)
        self._fold()
        return self.total

    def run(self, stop: threading.Event) -> Watched:
        """Follow the folder until `stop` is set, then read all whole lines and documents that are left."""
        for _ in self._wakes(stop):
            if not self._pass() and self._unfolded:
                self._fold()
            self.tell({"event": "waiting", "files": self.total.waiting})
        return self.once()

    def _wakes(self, stop: threading.Event) -> Iterator[None]:
        """Now, then whenever something changes or may be due."""
        while not stop.is_set():
            yield
            wait = self.folder.wait(time.monotonic(), self.every)
            if self.notified:
                try:
                    changes = watchfiles.watch(
                        self.path, watch_filter=None, debounce=100, step=20, rust_timeout=max(1, int(wait * 1000)),
                        yield_on_timeout=True, stop_event=stop, raise_interrupt=False,
                    )  # fmt: skip
                    next(changes, None)
                    changes.close()
                except FileNotFoundError:  # the folder is gone for now
                    stop.wait(wait)
            else:
                stop.wait(wait)

    def _pass(self, last: bool = False) -> bool:
        """Read what is due; whether anything was."""
        begun = time.monotonic()
        due = self.folder.due(begun, last)
        if due:
            report = self._read(due)
            now = time.monotonic()
            self.folder.done(due, now, now - begun)
            self._count(report, due, now - begun)
        self.total.waiting = len(self.folder.unread)
        return bool(due)

    def _read(self, due: Due) -> ImportReport:
        """Import it; with a report that came, every file that was read before, so that outcomes are joined."""
        inside = sorted(self.folder.files)
        files, beside = due.whole, inside if due.whole else []
        if any(p.suffix == ".json" and self.folder.root.inside(p) and read_companion(p)[0] for p in due.whole):
            files = [p for p in inside if p in due.whole or self.folder.files[p].done]
        renamed = frozenset(p for p in inside if p.suffix not in DATA_SUFFIXES)
        root = Root(
            self.path, [*files, *(p for p in due.begun if p not in files)], beside, explicit=False,
            begun=due.begun, also=renamed,
        )  # fmt: skip
        return import_roots(self.lake, [root], self.corpus, self.format, redactor=self.redactor)

    def _count(self, report: ImportReport, due: Due, took: float) -> None:
        total = self.total
        total.passes, total.files = total.passes + 1, total.files + len(due.whole)
        total.events, total.rejected = total.events + report.events, total.rejected + sum(report.reasons.values())
        total.redacted = report.redacted
        self._unfolded = self._unfolded or report.events > 0
        self.tell(
            {
                "event": "read", "whole": [str(p) for p in due.whole], "growing": [str(p) for p in due.begun],
                "trajectories": report.trajectories, "events": report.events, "known_events": report.known_events,
                "rejected": dict(report.reasons), "took_s": round(took, 3), "batch_id": report.batch_id,
            }
        )  # fmt: skip

    def _fold(self) -> None:
        if self._unfolded:
            refresh(self.lake)
        self._unfolded = False
