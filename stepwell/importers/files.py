"""Which files an import looks at, and their bytes: hidden folders and Delta tables are not entered, nothing else is skipped."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stepwell.errors import BadInput, UsageError

LARGEST = 1 << 30
_HEAD = 1 << 20


@dataclass(frozen=True)
class Root:
    """One path given to an import: the folder, its files in order, and whether it was given as a file."""

    path: Path
    files: list[Path]
    beside: list[Path]
    """Files the outcome index may read: those of the folder, or those near a file given by name."""
    explicit: bool


def read_bytes(path: Path) -> bytes:
    """All bytes of a regular file. Raises BadInput when it is none, cannot be read, or has more than LARGEST bytes."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BadInput("unreadable", "not a regular file; give files and folders of files.")
        if about.st_size > LARGEST:
            detail = (
                f"{about.st_size} bytes; at most {LARGEST} are read, of a larger file only the head is kept. Split it."
            )
            raise BadInput("too_large", detail)
        return path.read_bytes()
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror or error}; make it readable and import it again.") from error


def read_head(path: Path) -> bytes:
    """What is kept of a rejected file: all of it, of one that is too large the first MiB, nothing where nothing can be read."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(LARGEST if about.st_size <= LARGEST else _HEAD)
    except OSError:
        return b""


def corpus_of(root: Path) -> str:
    """A corpus name from a folder: letters, digits, dot, dash and underscore of its name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", root.resolve().name).strip("-") or "imported"


def root_of(path: Path) -> Root:
    """A path given to an import -> its files. Raises UsageError when there is nothing at it."""
    if path.is_dir():
        files = sorted(_walk(path))
        return Root(path, files, files, explicit=False)
    if not path.exists():
        raise UsageError(f"no file or folder {str(path)!r}; give paths that exist.")
    near = [p for folder in (path.parent, *_folders(path.parent)) for p in _entries(folder)]
    return Root(path.parent, [path], sorted(near), explicit=True)


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and not (Path(folder) / f / "_delta_log").is_dir()
        )
        yield from (Path(folder) / name for name in names)


def _folders(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if p.is_file()]
    except OSError:
        return []
