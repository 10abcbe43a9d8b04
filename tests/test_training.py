"""Training settings mean what they say: the loss is the stated mean, adapters act merged or not, the best is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_training import HUSH, Made, metrics, small, weights
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from jobs.model_policy import TransformersPolicy
from jobs.train_policy import train
from jobs.training import card
from stepwell.errors import RecipeError
from stepwell.rollout.policies import View


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return small(tmp_path_factory.mktemp("training"))


def close(a: dict[str, Any], b: dict[str, Any], atol: float = 1e-5) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=atol) for k in one)


def by_hand(made: Made, split: str, model: str) -> tuple[float, float]:
    """The loss of a model on a split, as the mean over trained tokens and over rows."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = [r for r in made.lake.read(made.recipe.dataset_table).to_pylist() if r["split"] == split]
    each = []
    for row in rows:
        logits = loaded(torch.tensor([row["input_ids"]])).logits[0, :-1].detach()
        each.append(cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="none"))
    trained = [e[torch.tensor(r["labels"][1:]) != -100] for e, r in zip(each, rows, strict=True)]
    return torch.cat(trained).mean().item(), torch.stack([t.mean() for t in trained]).mean().item()


@pytest.mark.parametrize("how", [{}, {"packing": True}, {"batch_size": 3, "gradient_accumulation": 5}])
@pytest.mark.parametrize("normalisation", ["token", "sequence"])
def test_the_loss_is_the_mean_it_says(made: Made, normalisation: str, how: dict[str, Any]) -> None:
    row = made.train("norm", normalisation=normalisation, epochs=1, **{"max_steps": 1, **how})
    token, sequence = by_hand(made, "train", made.recipe.base_model)
    assert abs(token - sequence) > 1e-3, "the arms differ"
    assert metrics(row)["train_loss"] == pytest.approx(token if normalisation == "token" else sequence, abs=2e-4)


def test_packing_and_gradient_checkpointing_change_nothing_but_the_cost(made: Made) -> None:
    plain, packed, spared = (
        made.train(f"cost-{i}", **how)
        for i, how in enumerate(({}, {"packing": True}, {"gradient_checkpointing": True}))
    )
    assert close(plain, packed)
    assert close(plain, spared)


def test_packed_tokens_are_all_counted_where_padding_is_the_token_that_closes_a_reply(
    made: Made, tmp_path: Path
) -> None:
    shutil.copytree(made.recipe.base_model, tmp_path / "base")
    file = tmp_path / "base" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": "<|im_end|>"}))
    row = train(made.changed("padded", packing=True), made.lake, 0, HUSH, base=str(tmp_path / "base"))
    rows = made.lake.read(made.recipe.dataset_table).to_pylist()
    assert metrics(row)["tokens"] == sum(r["n_tokens"] for r in rows if r["split"] == "train")


def test_with_every_token_in_the_loss_model_and_card_count_every_token(made: Made) -> None:
    row = made.train("text", loss="text")
    rows = made.lake.read(made.recipe.dataset_table).to_pylist()
    predicted = sum(r["n_tokens"] - 1 for r in rows if r["split"] == "train")
    told = json.loads((Path(row["path"]) / card.CARD).read_text())
    assert row["n_trained_tokens"] == told["dataset"]["trained_tokens"] == predicted


def test_the_held_out_loss_is_that_of_the_weights_saved(made: Made) -> None:
    row = made.train("moved", max_steps=3)
    assert metrics(row)["eval_loss"] == pytest.approx(by_hand(made, "held_out", row["path"])[0], abs=1e-4)


def answers(directory: str) -> list[str | None]:
    policy = TransformersPolicy(directory, "any", temperature=0, max_new_tokens=8, seed=0)
    return [r.text for r in policy.act_many([View([{"role": "user", "content": text}]) for text in ("view", "x y z")])]


def test_adapters_are_merged_or_kept_and_either_way_act_the_same(made: Made) -> None:
    lora = {"rank": 4, "alpha": 64, "target_modules": ["q_proj", "down_proj"]}
    merged, again = (made.train("merged", 1, lora=lora, max_steps=3) for _ in range(2))
    assert again["model_id"] == merged["model_id"]
    before = load_file(Path(made.recipe.base_model) / "model.safetensors")
    moved = {k for k, v in weights(merged).items() if not torch.equal(v, before[k])}
    assert {k.split(".")[-2] for k in moved} == {"q_proj", "down_proj"}
    kept = made.train("kept", 1, lora={**lora, "merge": False}, max_steps=3)
    assert {p.name for p in Path(kept["path"]).glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert answers(kept["path"]) == answers(merged["path"]) != answers(made.recipe.base_model)
    assert (
        json.loads((Path(kept["path"]) / card.CARD).read_text())["training"]["n_trainable"] < kept["n_parameters"] / 10
    )
    with pytest.raises(RecipeError, match="is an adapter, not a whole model"):
        train(made.recipe, made.lake, 0, HUSH, base=kept["path"])
    with pytest.raises(RecipeError, match=r"names \['queries'\].* it has: .*q_proj"):
        made.train("strange", lora={"target_modules": ["queries"]})


def test_training_stops_when_the_held_out_loss_no_longer_falls_and_keeps_the_best(made: Made) -> None:
    row = made.train("early", learning_rate=0.3, max_steps=40, eval_steps=2, patience=3, scheduler="constant")
    told = metrics(row)
    assert told["stopped_early"]
    assert told["steps"] == told["best_step"] + 6 < 40
    assert told["eval_loss"] == min(p["loss"] for p in told["eval_curve"])
    assert told["eval_loss"] < told["eval_curve"][-1]["loss"]
    assert told["eval_loss"] == pytest.approx(by_hand(made, "held_out", row["path"])[0], abs=1e-4)
