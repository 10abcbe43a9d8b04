"""A write-ahead journal: what was taken is on disk before that is said, and is there again after the process was killed.

JSON lines in numbered segments. Lines that wait at the same time share one fsync. Every line has a key (a trajectory, a
request); a segment is deleted when all keys in it are forgotten. Does not belong here: what a record means.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from stepwell.errors import UsageError

_SEGMENT_BYTES = 64 << 20


class Journal:
    """The segments in one folder, held by one process at a time. Raises UsageError when another holds it."""

    def __init__(self, folder: Path, segment_bytes: int = _SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.segment_bytes = folder, segment_bytes
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"another process keeps its journal in {str(folder)!r}; stop it, or give this one its own with --journal."
            ) from error
        self.live: dict[Path, set[str]] = {p: set() for p in sorted(folder.glob("journal-*.jsonl"))}
        self._unread = bool(self.live)
        self._next = max((int(p.stem.partition("-")[2]) for p in self.live), default=0) + 1
        self._file: Any = None
        self._current: Path | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._broken: OSError | None = None

    def replay(self) -> Iterator[tuple[Path, int, bytes, dict[str, Any] | None]]:
        """Segment, offset, line and record of all that was written, in order; a line that is no record has None."""
        for path in list(self.live):
            at = 0
            with path.open("rb") as lines:
                for line in lines:
                    try:
                        record = orjson.loads(line) if line.endswith(b"\n") else None
                    except orjson.JSONDecodeError:
                        record = None
                    yield path, at, line, record if isinstance(record, dict) and "t" in record else None
                    at += len(line)
        self._unread = False

    async def append(self, key: str, line: bytes) -> None:
        """Return when the line is on disk; lines are kept in the order of the calls.

        Raises OSError, and again for every later line: nothing may follow a line that is cut off.
        """
        if self._broken is not None:
            raise OSError(f"the journal is broken: {self._broken}") from self._broken
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.live[self._segment()].add(key)
        self._waiting.append((line, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await asyncio.shield(written)

    def _segment(self) -> Path:
        """The segment that is written to; a new one when there is none or it is full."""
        if self._current is None:
            self._current = self.folder / f"journal-{self._next:08}.jsonl"
            self._next += 1
            self._file = self._current.open("ab", buffering=0)
            self.live[self._current] = set()
            folder = os.open(self.folder, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        return self._current

    async def _write(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._flush, b"".join(line for line, _ in taken))
            except OSError as error:
                self._broken = error
                for _, written in [*taken, *self._waiting]:
                    written.set_exception(error)
                    written.exception()  # whoever waited may have gone
                self._waiting = []
                return
            for _, written in taken:
                written.set_result(None)
            if not self._waiting and self._file.tell() >= self.segment_bytes:
                self._file.close()
                self._current = None

    def _flush(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def forget(self, keys: set[str]) -> None:
        """Let go of what is in the lake as a whole, and of segments in which there is nothing else.

        No segment is deleted before all are replayed: of the others it is not known yet what is in them.
        """
        for path, live in list(self.live.items()):
            live -= keys
            if not live and path != self._current and not self._unread:
                path.unlink()
                del self.live[path]

    async def close(self) -> None:
        """Wait for what is being written and let the folder go."""
        if self._writer is not None:
            await self._writer
        if self._file is not None:
            self._file.close()
            if self._current is not None and not self.live[self._current]:
                self._current.unlink()
        self._lock.release()
