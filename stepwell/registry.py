"""Where the directory of a model is: on this machine, or in the object store of a lake, from where it is fetched once.

Belongs here: finding a directory and having it here. Does not belong here: what a model is called (`models`), making
and registering models (`jobs.registry`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stepwell import folders
from stepwell.errors import LakeError
from stepwell.lake import Lake
from stepwell.models import model_id, registered


def models_folder(lake: Lake) -> Path:
    """Where checkpoints go: $STEPWELL_MODELS, else `checkpoints` inside a lake that is a folder, else ./checkpoints."""
    if "STEPWELL_MODELS" in os.environ:
        return Path(os.environ["STEPWELL_MODELS"])
    return Path(lake.uri) / "checkpoints" if lake.local else Path("checkpoints")


def in_store(lake: Lake, path: str) -> str | None:
    """The path below the lake of a model directory that is in its object store; None for one on this machine."""
    return None if lake.local or not path.startswith(f"{lake.uri}/") else path.removeprefix(f"{lake.uri}/")


def there(lake: Lake, path: str) -> bool:
    """Whether a model directory is where its row says, whole; nothing is fetched."""
    under = in_store(lake, path)
    return Path(path).is_dir() if under is None else folders.there(lake.store, under)


def trained(lake: Lake, **wanted: Any) -> dict[str, Any] | None:
    """The newest row of `models` with these values whose directory is there."""
    rows = (r for r in registered(lake) if all(r[k] == v for k, v in wanted.items()))
    return next((r for r in rows if there(lake, r["path"])), None)


def local(lake: Lake, path: str) -> str:
    """A model directory on this machine: fetched into its place among the checkpoints when it is in the lake's store.

    Raises LakeError when it is not whole there, or was changed here since it was fetched.
    """
    under = in_store(lake, path)
    if under is None:
        return path
    _, name, identity = under.rsplit("/", 2)
    folder = folders.fetch(lake.store, under, models_folder(lake) / name / identity)
    if (found := model_id(name, folder)) != identity:
        raise LakeError(f"{folder} is {found}, not {identity}: it was changed since it was fetched. Delete it.")
    return str(folder)
