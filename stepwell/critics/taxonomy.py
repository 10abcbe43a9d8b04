"""Taxonomies: the error categories a critic may name, read from `stepwell/critics/taxonomy/*.yaml`.

Belongs here: loading and identifying them. A taxonomy is added by dropping a file into that folder; its id carries a
hash of its content, so verdicts made under different wordings are never mixed up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from stepwell.critics.reading import letters
from stepwell.errors import StepwellError, UnknownName
from stepwell.ids import digest

DEFAULT = "steer-12"
GROUPS = ("specification", "reasoning", "coordination")
_FIELDS = frozenset({"id", "group", "name", "definition", "recovery", "crosswalk"})


@dataclass(frozen=True)
class Category:
    """One error category: what it means, what the agent should then do, and its nearest kin in other taxonomies."""

    id: str
    group: str
    name: str
    definition: str
    recovery: str
    crosswalk: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Taxonomy:
    """A named, versioned list of categories; `id` is name@version#hash of the content."""

    name: str
    version: int
    categories: tuple[Category, ...]

    @property
    def id(self) -> str:
        """Identity recorded with every verdict made under it."""
        content = [[c.id, c.group, c.name, c.definition, c.recovery, c.crosswalk] for c in self.categories]
        return f"{self.name}@{self.version}#{digest(self.name, self.version, content)[:12]}"

    @property
    def groups(self) -> dict[str, list[Category]]:
        """Categories by group, in the order in which critics are asked about them."""
        groups: dict[str, list[Category]] = {}
        for category in self.categories:
            groups.setdefault(category.group, []).append(category)
        return groups

    def __getitem__(self, category: str) -> Category:
        """The category of an id; raises UnknownName with the ids there are."""
        found = next((c for c in self.categories if c.id == category), None)
        if found is None:
            raise UnknownName("category", category, (c.id for c in self.categories), f"Taxonomy {self.id} has these.")
        return found


def names() -> list[str]:
    """Names of the taxonomies there are, sorted."""
    folder = files("stepwell.critics") / "taxonomy"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


@cache
def load(name: str = DEFAULT) -> Taxonomy:
    """Read a taxonomy by name; raises UnknownName, or StepwellError when the file does not declare one."""
    if name not in names():
        raise UnknownName("taxonomy", name, names(), "Drop a YAML file of that name into stepwell/critics/taxonomy/.")
    text = (files("stepwell.critics") / "taxonomy" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return _taxonomy(name, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise StepwellError(f"taxonomy {name!r} is not YAML: {error}. Correct the file.") from error


def _taxonomy(name: str, document: Any) -> Taxonomy:
    wrong = []
    entries = document.get("categories") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise StepwellError(f"taxonomy {name!r} has no name, version and categories. Follow {DEFAULT}.yaml.")
    if document.get("name") != name:
        wrong.append(f"name is {document.get('name')!r}, must be the file's, {name!r}")
    if not isinstance(document.get("version"), int):
        wrong.append(f"version is {document.get('version')!r}, must be a whole number")
    for i, entry in enumerate(entries):
        missing = _FIELDS - {"crosswalk"} - entry.keys()
        foreign = entry.keys() - _FIELDS
        if missing or foreign:
            wrong.append(f"category {i} lacks {sorted(missing)} and has foreign {sorted(foreign)}")
        elif entry["group"] not in GROUPS:
            wrong.append(f"category {entry['id']!r} has group {entry['group']!r}, allowed: {', '.join(GROUPS)}")
    for key in ("id", "name"):
        values = [letters(str(entry.get(key))) for entry in entries]
        if len(set(values)) < len(values):
            wrong.append(f"category {key}s repeat when only their letters are compared: {values}")
    if wrong:
        raise StepwellError(f"taxonomy {name!r}: {'; '.join(wrong)}. Correct the file; {DEFAULT}.yaml is an example.")
    return Taxonomy(name, document["version"], tuple(Category(**entry) for entry in entries))
