"""What a model is called, by its recipe and seed and by what is in its directory, and which models it comes from.

Belongs here: names, the identity of a checkpoint, ancestry. Does not belong here: loading or registering one (`jobs`).
"""

from __future__ import annotations

import hashlib
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


def ancestors(lake: Lake, base: str | None) -> list[dict[str, Any]]:
    """Rows of `models` that a base model comes from, the nearest first: those whose id, directory or name it is."""
    rows = registered(lake)
    chain: list[dict[str, Any]] = []
    while found := next((r for key in ("model_id", "path", "name") for r in rows if base and r[key] == base), None):
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
