"""What a build has to do: which trajectories to derive anew, and which choices and rows of the last build still hold.

Belongs here: comparing the last build with the log as it is. Does not belong here: deriving (`build`), writing (`sealing`).

A row is a function of its trajectory's events, of what curation said of the trajectory, and of the derivation: the parts of
the recipe that rows depend on, the renderer, the mask rule and the sources of the code. Rows are kept where all of these are
as they were. A build with a derivation of its own starts from nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from schemas.choices import CHOICES
from stepwell.affected import rows_at
from stepwell.code import source_hash
from stepwell.datasets.choices import dataset_hash, frame
from stepwell.datasets.sealing import choices_table
from stepwell.ids import canonical, digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.seals import seal_of
from stepwell.shuffle import ids_of

SOURCES = ("schemas/*.py", "stepwell/*.py", *(f"stepwell/{room}/**/*" for room in ("critics", "datasets", "rendering")))
"""Sources that any row may depend on; to hash too many of them costs a whole build, too few a wrong one."""
_LIBRARIES = ("jinja2", "polars", "tokenizers")
Curated = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """`ids` are to be derived (sorted); `kept` are the choices that hold.

    The rows of `gone` make way (None: all rows there are); `expected` is the version of the dataset this was planned from.
    """

    derivation: str
    events_version: int
    ids: list[str]
    expected: int
    kept: pl.DataFrame = field(default_factory=lambda: frame([]))
    gone: list[str] | None = None


def code_hash() -> str:
    """sha256 of the sources and the versions of the libraries that decide the rows of a dataset."""
    return source_hash(SOURCES, _LIBRARIES)


def derivation_of(recipe: Recipe, renderer: Renderer, mask_rule: str) -> str:
    """Identity of the function from a trajectory's events, and what curation said of it, to its rows."""
    return digest(recipe.model_copy(update={"curate": None}).data_hash, mask_rule, renderer.hashes, code_hash())


def plan(lake: Lake, recipe: Recipe, derivation: str, version: int, curated: Curated) -> Plan:
    """Compare the dataset's last build with the log at a version, and with what curation says now."""
    assert recipe.source is not None
    there = ids_of(lake, version, recipe.source.corpora)
    expected = lake.version(recipe.dataset_table) or 0
    last = _last(lake, recipe, derivation)
    if last is None:
        return Plan(derivation, version, there, expected)
    choices, since = last
    low, high = sorted((since, version))
    stale = set(EventLog(lake).changed(low, high)) if low < high else set()
    said = dict(choices.select("trajectory_id", "curated").iter_rows())
    stale |= {name for name, before in said.items() if before != curated_as(curated.get(name))}
    stale |= said.keys() - set(there)
    ids = [name for name in there if name in stale or name not in said]
    kept = choices.filter(~pl.col("trajectory_id").is_in(list(stale)))
    rows = choices.filter(pl.col("n_rows") > 0, pl.col("trajectory_id").is_in(list(stale)))
    return Plan(derivation, version, ids, expected, kept, rows["trajectory_id"].sort().to_list())


def curated_as(said: Mapping[str, Any] | None) -> str | None:
    """What curation says of a trajectory, as it is stored."""
    return None if said is None else canonical({k: said.get(k) for k in ("dropped", "split")}).decode()


def _last(lake: Lake, recipe: Recipe, derivation: str) -> tuple[pl.DataFrame, int] | None:
    """Choices of the last build and the version of `events` it saw; None unless it can be gone on from."""
    sealed = seal_of(lake, recipe.dataset_table)
    if sealed is None or sealed[1].get("derivation") != derivation:
        return None
    seal = sealed[1]
    # A redaction takes rows out of a dataset and says so in its seal, and erases the choices: neither is what is there.
    rows = rows_at(lake, choices_table(recipe), int(seal["choices_version"]), CHOICES.schema.names)
    choices = None if rows is None else pl.DataFrame(rows)
    if choices is None or dataset_hash(choices) != seal["dataset_hash"]:
        return None
    return choices, int(seal["events_version"])
