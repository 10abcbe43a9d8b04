"""Model directories by what is in them.

Belongs here: the identity of a checkpoint. Does not belong here: loading or registering one (`jobs`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path


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
