"""The seal of a dataset: what it was made from and what it holds, in the commit that made its rows visible.

Belongs here: writing rows, choices and seal. Does not belong here: what the rows are (`build`), and reading seals
(`stepwell.seals`).

Two tables are written, one after the other: the choices, then the rows with a seal that names the version of the choices.
A process that dies in between leaves choices that no seal names, and the dataset as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from schemas.choices import CHOICES
from stepwell.code import code_version
from stepwell.datasets.choices import dataset_hash, funnel
from stepwell.ids import canonical
from stepwell.lake import Lake
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.seals import seal_of

_SAME = ("dataset_hash", "data_hash", "derivation", "events_version")
_PARTS = {"source": "source", "curate": "curate", "mask": "mask", "settings": "dataset", "dagger": "dagger"}
_COUNTS = {
    "rows": "n_rows", "steps": "n_row_steps", "tokens": "n_row_tokens", "trained_tokens": "n_trained_tokens",
    "masked_steps": "n_masked_steps", "masked_tokens": "n_masked_tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A sealed dataset: its table and version in the lake, content hash, counts and funnel.

    `n_derived` trajectories were derived by this build; the choices about all others are from an earlier one.
    """

    table: str
    version: int
    hash: str
    events_version: int
    n_rows: int
    n_tokens: int
    n_trained_tokens: int
    masked_share: float
    funnel: list[dict[str, Any]]
    metadata: dict[str, str]
    n_derived: int = 0


@dataclass(frozen=True)
class Change:
    """What a build changes: `rows` are new, those of `gone` make way (None: all); planned from the version `expected`."""

    rows: pa.RecordBatchReader
    ids: list[str]
    gone: list[str] | None
    expected: int


def choices_table(recipe: Recipe) -> str:
    """Name of the table of what was made of every trajectory."""
    return f"choices/{recipe.name}"


def seal(
    lake: Lake, recipe: Recipe, renderer: Renderer, choices: pl.DataFrame, made_from: dict[str, str], change: Change
) -> Built:
    """Write what changed and the seal; nothing at all when the last seal says the same already.

    `made_from` has the version of `events` and the derivation. Raises LakeError when another process wrote the dataset
    since `change.expected`.
    """
    counts = {"trajectories": choices["rows_hash"].count()}
    counts |= {name: int(choices[column].sum()) for name, column in _COUNTS.items()}
    lines = funnel(choices)
    whole = recipe.model_dump(mode="json")
    metadata = {
        "dataset_hash": dataset_hash(choices),
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "data_hash": recipe.data_hash,
        "base_model": recipe.base_model,
        "code_version": code_version(),
        **made_from,
        **{name: canonical(whole[part]).decode() for name, part in _PARTS.items()},
        "counts": canonical(counts).decode(),
        "funnel": canonical(lines).decode(),
        **renderer.hashes,
    }
    table = recipe.dataset_table
    last = seal_of(lake, table)
    if last is not None and all(last[1].get(key) == metadata[key] for key in _SAME):
        version, metadata = last
    else:
        written = lake.replace(choices_table(recipe), choices.to_arrow().cast(CHOICES.schema), made_from)
        metadata["choices_version"] = str(written)
        same = last is not None and last[1].get("dataset_hash") == metadata["dataset_hash"]
        version = _write(lake, table, change, metadata, same)
    return Built(
        table=table,
        version=version,
        hash=metadata["dataset_hash"],
        events_version=int(metadata["events_version"]),
        n_rows=counts["rows"],
        n_tokens=counts["tokens"],
        n_trained_tokens=counts["trained_tokens"],
        masked_share=counts["masked_steps"] / max(counts["steps"], 1),
        funnel=lines,
        metadata=metadata,
        n_derived=len(change.ids),
    )


def _write(lake: Lake, table: str, change: Change, metadata: dict[str, str], same: bool) -> int:
    if same:  # the rows are there: a commit without rows says what else they are made from
        rows: pa.Table | pa.RecordBatchReader = change.rows.schema.empty_table()
        return lake.replace(table, rows, metadata, gone=[], expected=change.expected)
    gone = sorted({*change.gone, *change.ids}) if change.gone else change.gone
    return lake.replace(table, change.rows, metadata, gone=gone, expected=change.expected)


def manifest(seal: dict[str, str]) -> dict[str, Any]:
    """A seal for people and programs: its JSON parts and numbers as such."""
    told: dict[str, Any] = dict(seal)
    for key in (*_PARTS, "counts", "funnel"):
        if key in told:
            told[key] = orjson.loads(told[key])
    return told | {key: int(told[key]) for key in ("events_version", "choices_version") if key in told}
