"""Which code ran: its version and commit, and the hash of the sources that decide what some result is.

Belongs here: facts about the code. Does not belong here: facts about the machine (`jobs.registry.environment`).
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepwell import __version__

ROOT = Path(__file__).parents[1]


def code() -> dict[str, Any]:
    """Version of the package, and where there is a repository the commit it runs from and whether files differ from it."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        here = Path(__file__).parent
        said = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        said = ""
    return {"version": __version__, "commit": said.removesuffix("-dirty"), "dirty": said.endswith("-dirty")}


def code_version() -> str:
    """Version of the package, and the commit it runs from where there is one: `0.1+COMMIT`, `-dirty` where files differ."""
    told = code()
    return (
        f"{told['version']}+{told['commit']}{'-dirty' if told['dirty'] else ''}" if told["commit"] else told["version"]
    )


@cache
def source_hash(patterns: Sequence[str], packages: Sequence[str] = ()) -> str:
    """sha256 over the files that these patterns name below the repository's root, and versions of packages.

    The same sources have the same hash in every checkout, whatever its folder.
    """
    hasher = hashlib.sha256()
    named = {file for pattern in patterns for file in ROOT.glob(pattern)}
    for file in sorted(f for f in named if f.is_file() and f.parent.name != "__pycache__"):
        hasher.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
        hasher.update(file.read_bytes())
    for package in packages:
        hasher.update(f"{package} {version(package)}\n".encode())
    return hasher.hexdigest()
