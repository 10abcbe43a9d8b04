"""Jobs, for real: a base made from scratch, trained on with TRL, rolled out in the sandbox."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs import registry
from jobs.evaluate import evaluate
from jobs.make_base import make
from jobs.model_policy import Sampled, TransformersPolicy
from jobs.report import Reporter
from jobs.train_policy import train
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.errors import RecipeError, UsageError
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.policies import View

SMALL = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: noisy, n_tasks: 16, mistake_rate: 0.4, recover_rate: 0.5}]}
source: {corpora: [rollouts/small]}
world: {functions: 2, bugs_max: 1, max_turns: 6}
mask: {rule: srft}
dataset: {method: %s, max_length: 1024, held_out: 0.1}
architecture: {vocab_size: 500, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}
train: {epochs: 1, learning_rate: 1.0e-3, batch_size: 4, save_steps: 2}
evaluation: {n_tasks: 4, batch_size: 4, max_new_tokens: 12}
"""


@dataclass(frozen=True)
class Made:
    """A lake with rollouts, masks and datasets, and a base model."""

    lake: Lake
    base: Path
    recipe: Recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("jobs")
    torch.set_num_threads(1)
    for method in ("all", "srft"):
        (folder / f"small_{method}.yaml").write_text(SMALL % method)
    lake = Lake(folder / "lake")
    make(load(folder / "small_all.yaml"), lake, folder / "base", Reporter(None))
    recipe = load(folder / "small_srft.yaml")
    judge_new(lake)
    mask_new(lake, rule_of(recipe.mask))
    build(lake, recipe, Renderer.load(folder / "base"), str(rule_of(recipe.mask)))
    return Made(lake, folder / "base", recipe)


def test_the_base_is_small_and_registered(made: Made) -> None:
    assert sum(f.stat().st_size for f in made.base.iterdir()) < 5 << 20
    row = registry.find(made.lake, "small_all")
    assert row["n_parameters"] > 10_000
    assert json.loads(row["metrics"])["train_loss"] > 0


def test_training_changes_the_weights_and_is_registered(made: Made) -> None:
    row = train(made.recipe, made.lake, 0, Reporter(None), base=str(made.base))
    assert Path(row["path"]).name == row["model_id"]
    assert registry.model_id("small_srft", Path(row["path"])) == row["model_id"]
    before = AutoModelForCausalLM.from_pretrained(made.base, dtype=torch.float32).state_dict()
    after = AutoModelForCausalLM.from_pretrained(row["path"], dtype=torch.float32).state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    found = registry.find(made.lake, "small_srft")
    assert (found["dataset"], found["dataset_hash"]) == ("datasets/small_srft", row["dataset_hash"])
    assert {"torch", "trl", "device"} <= json.loads(found["environment"]).keys()


def test_the_same_seed_gives_the_same_model(made: Made) -> None:
    first = train(made.recipe, made.lake, 1, Reporter(None), base=str(made.base))
    second = train(made.recipe, made.lake, 1, Reporter(None), base=str(made.base), again=True)
    assert first["model_id"] == second["model_id"]
    assert "recorded_at" not in second, "it was trained, not looked up"


def test_an_evaluation_is_recorded_and_goes_on_where_it_stopped(made: Made) -> None:
    identity = registry.model_id("base", made.base)
    first = evaluate(made.recipe, made.lake, str(made.base), identity, Reporter(None))
    version = made.lake.version("events")
    again = evaluate(made.recipe, made.lake, str(made.base), identity, Reporter(None))
    assert first == again
    assert first.n == 4
    assert made.lake.version("events") == version, "nothing was run twice"


def test_batched_replies_equal_single_ones(made: Made) -> None:
    policy = TransformersPolicy(made.base, "base", temperature=0, max_new_tokens=8, seed=0)
    views = [View([{"role": "user", "content": "view " * n}]) for n in (1, 5, 9)]
    together = [r.text for r in policy.act_many(views)]
    assert together == [policy.act_many([view])[0].text for view in views]
    used = [r.usage["tokens_in"] for r in policy.act_many(views)]
    assert used == [len(policy.renderer.prompt_ids(v.messages)) for v in views]


def test_a_sampled_reply_follows_from_its_key_whoever_is_in_the_batch(made: Made) -> None:
    policy = TransformersPolicy(made.base, "base", temperature=1.0, max_new_tokens=12, seed=0, top_p=0.95)
    views = [View([{"role": "user", "content": "view " * n}], key=f"turn/{n}") for n in (1, 1, 4, 9)]
    views[1] = View(views[0].messages, key="another")
    together = [r.text for r in policy.act_many(views)]
    assert together == [policy.act_many([view])[0].text for view in views]
    assert together[0] != together[1]


def test_a_reply_ends_at_the_token_that_closes_it_whatever_the_end_of_text_is(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.base, tmp_path / "other")  # as Qwen's and Gemma's bases have it
    file = tmp_path / "other" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|endoftext|>"}))
    policy = TransformersPolicy(tmp_path / "other", "other", temperature=9.0, max_new_tokens=24, seed=0)
    replies = policy.act_many([View([{"role": "user", "content": "view"}], key=str(n)) for n in range(300)])
    assert {r.finish for r in replies} == {"stop", "length"}
    assert not any("<|im_end|>" in (r.text or "") for r in replies)


def test_sampling_follows_the_softmax() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(4000, 1)
    drawn = Sampled(range(4000))(torch.zeros(4000, 1), scores).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_a_conversation_beyond_the_context_is_said_not_cut(made: Made) -> None:
    policy = TransformersPolicy(made.base, "base", temperature=0, max_new_tokens=8, seed=0)
    long, short = (View([{"role": "user", "content": text}]) for text in ("x y " * 3000, "x"))
    replies = policy.act_many([long, short])
    assert (replies[0].text, replies[0].finish) == (None, "context")
    assert replies[1].text is not None


def test_clear_errors_before_hours_are_spent(made: Made, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="build it: stepwell build nothing"):
        train(made.recipe.model_copy(update={"name": "nothing"}), made.lake, 0, Reporter(None), base=str(made.base))
    from jobs.tokenizer import train_tokenizer

    train_tokenizer(["other words"] * 5, 300).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="rendered for another model"):
        train(made.recipe, made.lake, 0, Reporter(None), base=str(tmp_path))
    with pytest.raises(UsageError, match="there are: "):
        registry.find(made.lake, "no-such-model")
