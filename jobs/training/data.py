"""The sealed dataset a job trains on, and every reason not to start with it.

Belongs here: reading a dataset table and proving that it fits the base model. Does not belong here: choosing its rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stepwell.errors import RecipeError
from stepwell.lake import Lake
from stepwell.launching import PAIRS, REWARDS, job_of
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.seals import seal_of

IGNORED = -100
_COLUMNS = ["row_id", "split", "input_ids", "labels", "n_tokens", "n_trained_tokens"]
_PAIRED, _ASKED = ("rejected_ids", "rejected_labels"), ("messages", "reference")
"""Columns that datasets of pairs and of prompts have beside these."""


@dataclass(frozen=True)
class Sealed:
    """A dataset at one version: its seal, the rows to fit and those held out, both in row_id order."""

    table: str
    version: int
    seal: dict[str, str]
    fit: pa.Table
    held_out: pa.Table

    @property
    def hash(self) -> str:
        """Content hash of the whole dataset."""
        return self.seal["dataset_hash"]

    @property
    def trained_tokens(self) -> int:
        """Tokens in the loss per epoch."""
        return pc.sum(self.fit.column("n_trained_tokens")).as_py() or 0

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(pc.max(t.column("n_tokens")).as_py() or 0 for t in (self.fit, self.held_out))

    def facts(self) -> dict[str, Any]:
        """What a model card says of it."""
        kept = ("dataset_hash", "events_version", "recipe_hash", "tokenizer_hash", "template_hash", "renderer")
        return {
            "table": self.table, "version": self.version, "rows": len(self.fit), "held_out_rows": len(self.held_out),
            "tokens": pc.sum(self.fit.column("n_tokens")).as_py() or 0, "trained_tokens": self.trained_tokens,
            **{k: self.seal[k] for k in kept if k in self.seal}, "funnel": json.loads(self.seal.get("funnel", "[]")),
        }  # fmt: skip


def sealed_for(recipe: Recipe, lake: Lake, base: str) -> Sealed:
    """The newest version of a recipe's dataset; raises RecipeError when it cannot be trained on with this base model.

    Refused: no dataset, none with a trained token, one rendered with another tokenizer or template, labels that are not the
    tokens they stand for, tokens the model has no embedding of, rows longer than its context.
    With `loss: text` every token is labelled.
    """
    name = recipe.dataset_table
    found = seal_of(lake, name)
    if found is None:
        raise RecipeError(f"no dataset {name!r} in {lake.uri}; build it: stepwell build {recipe.name}")
    if not Path(base).is_dir():
        raise RecipeError(f"base_model {base!r} is no directory; name a model directory (see jobs/smollm2.py for one).")
    version, seal = found
    hashes = Renderer.load(base).hashes
    differing = {k: (seal.get(k), v) for k, v in hashes.items() if seal.get(k) != v}
    if differing:
        raise RecipeError(f"{name} was rendered for another model than {base!r}: {differing}. Rebuild it.")
    config = _config(base)
    job = job_of(recipe)
    more = _PAIRED if job == PAIRS else _ASKED if job == REWARDS else ()
    rows = lake.read(name, version, [*_COLUMNS, *more]).sort_by("row_id")
    for ids, labels in (("input_ids", "labels"), *([_PAIRED] if job == PAIRS else ())):
        _check_labels(name, rows, ids, labels)
        _check_fit(name, rows, ids, config, base)
    if recipe.train.loss == "text":
        rows = _whole(rows)
    fit, held_out = (rows.filter(pc.equal(rows.column("split"), split)) for split in ("train", "held_out"))
    sealed = Sealed(name, version, seal, fit, held_out)
    if job == REWARDS and not len(fit):
        raise RecipeError(f"{name} has no prompt in its train split. Widen `source`.")
    if job != REWARDS and not sealed.trained_tokens:
        raise RecipeError(f"{name} has no token to train in its train split ({len(fit)} rows). Widen `source`.")
    return sealed


def _whole(rows: pa.Table) -> pa.Table:
    """Rows with every token in the loss, but for the first of each, which nothing predicts."""
    n_trained = pc.max_element_wise(pc.subtract(rows.column("n_tokens"), 1), 0).cast(
        rows.schema.field("n_trained_tokens").type
    )
    for name, column in (("labels", rows.column("input_ids")), ("n_trained_tokens", n_trained)):
        rows = rows.set_column(rows.schema.get_field_index(name), name, column)
    return rows


def _config(base: str) -> Any:
    """The base model's configuration, without its weights."""
    from transformers import AutoConfig

    if (Path(base) / "adapter_config.json").is_file():
        raise RecipeError(
            f"base_model {base!r} is an adapter, not a whole model. Train it with `lora: {{merge: true}}`, or name its base."
        )
    try:
        return AutoConfig.from_pretrained(base).get_text_config()
    except (OSError, ValueError) as error:
        raise RecipeError(f"base_model {base!r} cannot be read: {error}. Name a model directory.") from error


def _check_labels(name: str, rows: pa.Table, tokens: str, labelled: str) -> None:
    empty = pc.or_(pc.is_null(rows.column(tokens)), pc.is_null(rows.column(labelled)))
    _refuse(name, rows.filter(empty), f"have no `{tokens}` or `{labelled}`")
    lengths = pc.list_value_length(rows.column(tokens))
    uneven = pc.not_equal(lengths, pc.list_value_length(rows.column(labelled)))
    _refuse(name, rows.filter(uneven), "have not as many labels as tokens")
    ids, labels = _flat(rows, tokens), _flat(rows, labelled)
    wrong = np.flatnonzero((labels != IGNORED) & (labels != ids))
    owners = np.unique(np.repeat(np.arange(len(rows)), lengths.to_numpy())[wrong])
    _refuse(name, rows.take(owners), f"have labels that are neither {IGNORED} nor the token at their place")


def _check_fit(name: str, rows: pa.Table, tokens: str, config: Any, base: str) -> None:
    lengths = pc.list_value_length(rows.column(tokens)).to_numpy()
    context = getattr(config, "max_position_embeddings", None) or 1 << 62
    long = rows.take(np.flatnonzero(lengths > context))
    _refuse(name, long, f"are longer than the {context} tokens of {base!r}; set `dataset.max_length: {context}`")
    ids = _flat(rows, tokens)
    owners = np.unique(np.repeat(np.arange(len(rows)), lengths)[(ids < 0) | (ids >= config.vocab_size)])
    _refuse(name, rows.take(owners), f"have tokens outside the vocabulary of {base!r} (0 to {config.vocab_size - 1})")


def _flat(rows: pa.Table, column: str) -> Any:
    return pc.list_flatten(rows.column(column)).to_numpy()


def _refuse(name: str, rows: pa.Table, why: str) -> None:
    if len(rows):
        some = ", ".join(rows.column("row_id").to_pylist()[:3])
        raise RecipeError(f"{len(rows)} rows of {name} {why} (such as {some}). Rebuild it: stepwell build RECIPE")


def rows_of(inputs: dict[str, Any], rows: pa.Table) -> list[str]:
    """The row ids of a collated batch, padded or packed, found by its tokens."""
    known = {
        tuple(ids): row for ids, row in zip(*(rows.column(c).to_pylist() for c in ("input_ids", "row_id")), strict=True)
    }
    if "seq_idx" in inputs:
        ids, owner = inputs["input_ids"][0], inputs["seq_idx"][0]
        parts = [ids[owner == i] for i in range(int(owner.max()) + 1)]
    else:
        parts = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return [known.get(tuple(part.tolist()), "unknown") for part in parts]
