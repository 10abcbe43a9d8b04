"""What a model is called: by its recipe and seed, and by what is in its directory.

Belongs here: names, and the identity of a checkpoint. Does not belong here: loading or registering one (`jobs`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

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


def model_name(recipe: Recipe, seed: int) -> str:
    """RECIPE-seedN; a recipe whose only seed is 0 gives its model its own name."""
    return recipe.name if seed == 0 and len(recipe.seeds) == 1 else f"{recipe.name}-seed{seed}"


def model_names(recipe: Recipe) -> list[str]:
    """The models of a recipe, one a seed."""
    return [model_name(recipe, seed) for seed in recipe.seeds]
