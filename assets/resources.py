"""Resources: what the graph takes from its environment, read when a run starts and never at import."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from stepwell.errors import RecipeError
from stepwell.lake import Lake
from stepwell.recipe import RECIPES, Recipe, load, names

BASE = "base"
"""What the evaluation of the base model is called, beside those of recipes."""


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
        """Every recipe of a folder, by name; raises RecipeError for one that the graph cannot have under its name."""
        found = {name: load(folder / f"{name}.yaml") for name in names(folder)}
        for file, recipe in found.items():
            if recipe.name != file or file == BASE:
                raise RecipeError(
                    f"recipe {recipe.name!r} in {folder / f'{file}.yaml'}; allowed in Dagster: the file's name, and not "
                    f"{BASE!r}, which is the model that recipes start from. Rename the file, and leave out `name`."
                )
        return cls(folder, found)


def group_of(recipe: Recipe) -> str:
    """The group of a recipe's assets, in the letters that Dagster allows there."""
    return f"recipe_{re.sub(r'[^A-Za-z0-9_]', '_', recipe.name)}"


def job_command(module: str, *arguments: str) -> list[str]:
    """The command line of a job: this very Python, the module, its arguments."""
    return [sys.executable, "-m", module, *arguments]
