"""What is refused before hours are spent on it, and what a run that cannot go on says."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from small_training import Made, kept, small

from jobs.training.checkpoints import require_room, scratch_of
from jobs.training.data import sealed_for
from jobs.training.setup import memory_advice
from stepwell.errors import RecipeError, StepwellError
from stepwell.recipe import Recipe
from stepwell.seals import seal_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return small(tmp_path_factory.mktemp("training"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bf16": True}, "on a CPU.*set it to false"),
        ({"attention": "flash"}, "needs a CUDA GPU"),
        ({"patience": 2}, "needs `train.eval_steps`"),
    ],
)
def test_what_this_machine_or_recipe_cannot_do_is_refused(made: Made, settings: dict[str, Any], said: str) -> None:
    if torch.cuda.is_available() and "patience" not in settings:
        pytest.skip("this machine can")
    with pytest.raises(RecipeError, match=said):
        made.train("refused", **settings)


def foreign(row: dict[str, Any]) -> list[int]:
    return [t if y != -100 else 4000 for t, y in zip(row["input_ids"], row["labels"], strict=True)]


def broken(column: str, change: Any) -> Any:
    def apply(rows: pa.Table) -> pa.Table:
        table = rows.to_pylist()
        for row in table[:2]:
            row[column] = change(row)
        return pa.Table.from_pylist(table, rows.schema)

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.slice(0, 0), "no token to train in its train split"),
        (broken("labels", lambda r: r["labels"][:-1]), "2 rows of .* not as many labels as tokens"),
        (broken("labels", lambda r: [7] * len(r["labels"])), "2 rows of .* neither -100 nor the token at their place"),
        (broken("input_ids", foreign), "2 rows of .* outside the vocabulary"),
        (broken("input_ids", lambda r: [-3, *r["input_ids"][1:]]), "2 rows of .* outside the vocabulary .*0 to 399"),
    ],
    ids=["empty", "lengths", "labels", "vocabulary", "negative"],
)  # fmt: skip
def test_a_dataset_that_is_not_what_it_should_be_is_refused(made: Made, change: Any, said: str) -> None:
    recipe = made.changed("broken")
    _, seal = seal_of(made.lake, recipe.dataset_table) or (0, {})
    made.lake.replace(recipe.dataset_table, change(made.lake.read(recipe.dataset_table)), kept(seal))
    with pytest.raises(RecipeError, match=said):
        sealed_for(recipe, made.lake, recipe.base_model)


def test_a_base_that_does_not_fit_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.recipe.base_model, tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100}))
    with pytest.raises(RecipeError, match=r"are longer than the 100 tokens of .*`dataset.max_length: 100`"):
        sealed_for(made.recipe, made.lake, str(tmp_path / "short"))
    template = tmp_path / "short" / "chat_template.jinja"
    template.write_text(template.read_text().replace("user", "human") + "{# another #}")
    with pytest.raises(RecipeError, match=r"rendered for another model .*template_hash"):
        sealed_for(made.recipe, made.lake, str(tmp_path / "short"))
    with pytest.raises(RecipeError, match="is no directory"):
        sealed_for(made.recipe, made.lake, str(tmp_path / "nothing"))


def test_a_loss_that_is_no_number_names_its_step_and_rows(made: Made) -> None:
    with pytest.raises(
        StepwellError, match=r"the loss of step \d+ is no number \(nan\), in the rows [0-9a-f]{32}"
    ) as seen:
        made.train("wild", learning_rate=1e30, max_steps=9, batch_size=2)
    ids = set(made.lake.read(made.recipe.dataset_table).column("row_id").to_pylist())
    assert len(set(re.findall(r"[0-9a-f]{32}", str(seen.value))) & ids) == 2
    with pytest.raises(StepwellError, match=r"in the rows [0-9a-f]{32}") as seen:
        made.train("wild", learning_rate=1e30, max_steps=9, batch_size=1, packing=True)
    assert set(re.findall(r"[0-9a-f]{32}", str(seen.value))) <= ids


def test_running_out_of_memory_or_disk_says_what_to_lower(made: Made, tmp_path: Path) -> None:
    said = r"`train.batch_size: 64` and rows of up to 300 tokens: lower batch_size"
    with pytest.raises(RecipeError, match=said), memory_advice(made.recipe.train, 300):
        torch.empty(1 << 55)
    with pytest.raises(RuntimeError, match="size"), memory_advice(made.recipe.train, 300):
        torch.ones(2) @ torch.ones(3)
    with pytest.raises(StepwellError, match="STEPWELL_MODELS"):
        require_room(tmp_path / "models", shutil.disk_usage(tmp_path).free * 2)
    require_room(tmp_path / "models", 1)


def test_a_checkpoint_belongs_to_one_set_of_settings(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = sealed_for(made.recipe, made.lake, made.recipe.base_model)

    def scratch(recipe: Recipe = made.recipe, seed: int = 0, dataset: str = sealed.hash) -> Path:
        other = replace(sealed, seal={**sealed.seal, "dataset_hash": dataset})
        return scratch_of(Path(), recipe, other, recipe.base_model, seed)

    settings = made.recipe.train
    others = [scratch(made.recipe.model_copy(update={"train": settings.model_copy(update={k: v})}))
              for k, v in (("learning_rate", 0.1), ("normalisation", "sequence"), ("batch_size", 2))]  # fmt: skip
    others += [scratch(), scratch(seed=1), scratch(dataset="another")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len({*others, scratch()}) == 7
