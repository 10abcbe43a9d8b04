"""What a model is called, by its recipe and seed and by what is in its directory, and which models it comes from.

Belongs here: names, the identity of a checkpoint, ancestry. Does not belong here: loading or registering one (`jobs`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell.lake import Lake
from stepwell.recipe import Recipe


def model_id(name: str, directory: Path) -> str:
    """Name and 12 hex digits of the hash of weights and tokenizer files."""
    hasher = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.suffix in (".safetensors", ".bin") or file.name in ("tokenizer.json", "config.json"):
            hasher.update(file.name.encode())
            with file.open("rb") as opened:
                while chunk := opened.read(1 << 20):
                    hasher.update(chunk)
    return f"{name}-{hasher.hexdigest()[:12]}"


def identity_of(directory: Path) -> str:
    """Id of a model directory: its name and the hash of what is in it, once where its name is its id already."""
    name = directory.resolve().name
    found = model_id(name, directory)
    return name if name.endswith(found.removeprefix(name)) else found


def registered(lake: Lake) -> list[dict[str, Any]]:
    """Rows of `models`, the newest first."""
    rows = lake.read("models").sort_by([("recorded_at", "descending"), ("model_id", "ascending")])
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def find(
    model: str, rows: Sequence[dict[str, Any]], keys: Sequence[str] = ("model_id", "name", "path")
) -> dict[str, Any] | None:
    """The first of these rows of `models` that has this id, name or directory, however its path is written."""
    for key in keys:
        wanted = _place(model) if key == "path" else model
        found = next((m for m in rows if model and (_place(m[key]) if key == "path" else m[key]) == wanted), None)
        if found is not None:
            return found
    return None


def named(lake: Lake, base: str, identity: str) -> str:
    """How a row of `models` names its base: one of the lake by the path of its row, any other as it was given."""
    row = find(identity, registered(lake), ("model_id",))
    return row["path"] if row else base


def _place(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.abspath(path)


def ancestors(lake: Lake, base: str | None) -> list[dict[str, Any]]:
    """Rows of `models` that a base model comes from, the nearest first: those whose id, directory or name it is."""
    rows = registered(lake)
    chain: list[dict[str, Any]] = []
    while found := find(base or "", rows, ("model_id", "path", "name")):
        if found in chain:
            break
        chain.append(found)
        base = found["base_model"]
    return chain


def model_name(recipe: Recipe, seed: int) -> str:
    """RECIPE-seedN; a recipe whose only seed is 0 gives its model its own name."""
    return recipe.name if seed == 0 and len(recipe.seeds) == 1 else f"{recipe.name}-seed{seed}"


def model_names(recipe: Recipe) -> list[str]:
    """The models of a recipe, one a seed."""
    return [model_name(recipe, seed) for seed in recipe.seeds]
