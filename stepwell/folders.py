"""Whole folders in the store of a lake, such as model directories: sent once, fetched into a folder of this machine.

A folder is there when its list is, which is written last. Does not belong here: what a folder is (`jobs.registry`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson

from stepwell.errors import LakeError
from stepwell.store import Store

LISTED = "_files.json"
"""File of a sent folder that names the others."""
_CHUNK = 16 << 20


def send(store: Store, folder: Path, under: str) -> None:
    """Copy every file of a folder below a path of the store, then the list that makes it whole."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    for name in names:
        with (folder / name).open("rb") as source, store.fs.open_output_stream(f"{under}/{name}") as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
    store.put(f"{under}/{LISTED}", orjson.dumps(names))


def there(store: Store, under: str) -> bool:
    """Whether a whole folder is below a path of the store."""
    return store.get(f"{under}/{LISTED}") is not None


def fetch(store: Store, under: str, folder: Path) -> Path:
    """The folder with the files below a path of the store, fetched unless it is here; whole or not at all.

    Raises LakeError when no whole folder is there.
    """
    if folder.is_dir():
        return folder
    listed = store.get(f"{under}/{LISTED}")
    if listed is None:
        raise LakeError(f"no whole folder {under!r} in {store.uri}: it was never sent to the end. Make it again.")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for name in orjson.loads(listed):
        target = draft / name
        if not target.resolve().is_relative_to(draft.resolve()):
            raise LakeError(f"the list of {under!r} in {store.uri} names {name!r}, outside of the folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with store.open(f"{under}/{name}") as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                copy.write(chunk)
    try:
        os.replace(draft, folder)
    except OSError:  # another process was first
        shutil.rmtree(draft)
        if not folder.is_dir():
            raise
    return folder


def message(under: str, number: int) -> str:
    """Path of the n-th part (from 1) of what a job on another machine says to the one that launched it."""
    return f"{under}/{number}.json"
