"""A small lake to train on: a dataset of rollouts, a base model of a few thousand weights, and recipes that differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from jobs.make_base import start_from_scratch
from jobs.report import Reporter
from jobs.train_policy import train
from stepwell.curation.masks import rule_of
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.runs import collect_pool
from stepwell.seals import seal_of

SMALL = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: noisy, n_tasks: 12, mistake_rate: 0.4, recover_rate: 0.5}]}
source: {corpora: [rollouts/small]}
world: {functions: 1, bugs_max: 1, max_turns: 10}
dataset: {method: all, held_out: 0.2}
architecture: {vocab_size: 400, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}
train: {max_steps: 1, learning_rate: 1.0e-3, batch_size: 64}
"""
HUSH = Reporter(None, silent=True)


@dataclass(frozen=True)
class Made:
    """A lake with a dataset, and the recipe of it with its base model."""

    lake: Lake
    recipe: Recipe

    def changed(self, name: str, **train_settings: Any) -> Recipe:
        """The recipe under another name, with other settings and the same dataset."""
        settings = self.recipe.train.model_dump() | train_settings
        table = self.recipe.dataset_table
        recipe = Recipe.model_validate(self.recipe.model_dump() | {"name": name, "train": settings})
        _, seal = seal_of(self.lake, table) or (0, {})
        self.lake.replace(recipe.dataset_table, self.lake.read(table), kept(seal))
        return recipe

    def train(self, name: str, seed: int = 0, **train_settings: Any) -> dict[str, Any]:
        """Train the recipe with other settings."""
        return train(self.changed(name, **train_settings), self.lake, seed, HUSH)


def kept(seal: dict[str, str]) -> dict[str, str]:
    """What training reads of a seal."""
    return {
        k: seal[k] for k in ("dataset_hash", "events_version", "funnel", "tokenizer_hash", "template_hash", "renderer")
    }


def small(folder: Path) -> Made:
    """Roll out, make a base, build the dataset."""
    torch.set_num_threads(1)
    (folder / "small.yaml").write_text(SMALL + f"base_model: {folder / 'base'}\n")
    lake, recipe = Lake(folder / "lake"), load(folder / "small.yaml")
    assert recipe.collect
    collect_pool(lake, recipe.collect, recipe.world)
    texts = [str(t) for t in lake.read("events", columns=["action"]).column(0).to_pylist()]
    start_from_scratch(recipe, texts, folder / "base")
    drawn = load_file(folder / "base" / "model.safetensors")  # as drawn, every token is equally likely: no loss differs
    save_file({k: 8 * v for k, v in drawn.items()}, folder / "base" / "model.safetensors", {"format": "pt"})
    build(lake, recipe, Renderer.load(folder / "base"), str(rule_of(recipe.mask)))
    return Made(lake, recipe)


def weights(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights of a model that is no adapter."""
    return dict(load_file(Path(row["path"]) / "model.safetensors"))


def metrics(row: dict[str, Any]) -> dict[str, Any]:
    """The metrics in a row of `models`."""
    found: dict[str, Any] = json.loads(row["metrics"])
    return found
