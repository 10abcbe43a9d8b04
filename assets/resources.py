"""Resources: what the graph takes from its environment, read when a run starts and never at import."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from stepwell.lake import Lake
from stepwell.recipe import RECIPES, Recipe, load, names


class Settings(dg.ConfigurableResource[None]):
    """Where the lake is, and which files to import; empty means $STEPWELL_LAKE, else ./lake, and $STEPWELL_IMPORT."""

    lake_uri: str = ""
    import_paths: str = ""

    def lake(self) -> Lake:
        """The lake of this run."""
        return Lake(self.uri)

    @property
    def uri(self) -> str:
        """URI of the lake of this run."""
        return self.lake_uri or os.environ.get("STEPWELL_LAKE") or "lake"

    def paths(self) -> list[Path]:
        """Files and folders to import, separated by the system's path separator."""
        given = self.import_paths or os.environ.get("STEPWELL_IMPORT", "")
        return [Path(p) for p in given.split(os.pathsep) if p]

    def missing(self) -> list[Path]:
        """Those of them that are not there."""
        return [path for path in self.paths() if not path.exists()]


@dataclass(frozen=True)
class Experiments:
    """The recipes that become branches of the graph."""

    folder: Path = RECIPES
    recipes: dict[str, Recipe] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path = RECIPES) -> Experiments:
        """Every recipe of a folder, by name."""
        return cls(folder, {name: load(folder / f"{name}.yaml") for name in names(folder)})


def job_command(module: str, *arguments: str) -> list[str]:
    """The command line of a job: this very Python, the module, its arguments."""
    return [sys.executable, "-m", module, *arguments]
