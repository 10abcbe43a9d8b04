"""What a trained model says of itself, and one model a seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from small_training import HUSH, Made, small
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jobs import registry
from jobs.report import flat
from jobs.train_policy import main, reported, train
from jobs.training import card
from stepwell.lineage import trace
from stepwell.models import model_names
from stepwell.recipe import load
from stepwell.seals import seal_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return small(tmp_path_factory.mktemp("training"))


def test_a_model_says_what_it_was_made_from(made: Made) -> None:
    row = made.train("carded", max_steps=4, batch_size=4, eval_steps=2)
    directory = Path(row["path"])
    told = json.loads((directory / card.CARD).read_text())
    _, seal = seal_of(made.lake, row["dataset"]) or (0, {})
    assert told["dataset"]["dataset_hash"] == seal["dataset_hash"] == row["dataset_hash"]
    assert told["dataset"]["funnel"] == json.loads(seal["funnel"])
    assert told["recipe"]["settings"]["train"]["normalisation"] == "token"
    assert told["recipe"]["settings"]["train"]["max_grad_norm"] == 1.0, "settings are resolved, defaults and all"
    assert told["base"]["model_id"] == registry.model_id("base", Path(made.recipe.base_model)) == row["base_id"]
    assert {"torch", "trl", "processor", "memory_gib"} <= told["environment"].keys()
    assert told["code"]["version"]
    run = told["training"]
    assert (run["steps"], [p["step"] for p in run["eval_curve"]]) == (4, [2, 4])
    assert 0 < run["data_share"] < 1
    assert run["tokens_per_s"] == pytest.approx(run["tokens"] / run["step_s"])
    assert run["device_s"] == row["device_s"] <= row["wall_s"]
    lengths = made.lake.read(row["dataset"], columns=["n_tokens", "split"]).to_pylist()
    assert 0 < run["tokens"] <= 2 * sum(r["n_tokens"] for r in lengths if r["split"] == "train")

    page = (directory / card.README).read_text()
    front = yaml.safe_load(page.split("---\n")[1])
    assert front["base_model"] == made.recipe.base_model
    assert f"stepwell trace {row['model_id']}" in page
    assert "mean over the trained tokens" in page
    assert (directory / card.CURVES).read_bytes().startswith(b"\x89PNG")
    logged = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    losses = {entry["step"]: entry["loss"] for entry in logged if "loss" in entry}
    assert sorted(losses) == [1, 2, 3, 4]
    board = EventAccumulator(str(directory / "tensorboard")).Reload()
    assert {s.step: s.value for s in board.Scalars("train/loss")} == pytest.approx(losses)
    assert [s.step for s in board.Scalars("eval/loss")] == [2, 4]
    assert {"train/learning_rate", "train/grad_norm", "train/data_s"} <= set(board.Tags()["scalars"])
    assert "data:image/png" in reported(row)["loss"]["raw_value"]

    card.add_evaluation(directory, {"evaluation_id": "e1", "rate": 0.25})
    card.add_evaluation(directory, {"evaluation_id": "e1", "rate": 0.5})
    assert "| rate | 0.5 |" in (directory / card.README).read_text()
    assert registry.model_id("carded", directory) == row["model_id"], "a card is no part of a model's identity"
    assert not [p.name for p in directory.parent.iterdir() if p.name != directory.name], "nothing unfinished is left"

    child = train(made.recipe, made.lake, 0, HUSH, base=row["path"])
    parents = json.loads((Path(child["path"]) / card.CARD).read_text())["base"]["parents"]
    assert [p["model_id"] for p in parents] == [row["model_id"]]
    assert trace(made.lake, child["model_id"]).as_dict()["made_from"][1]["name"] == "carded"


def test_a_recipe_with_seeds_trains_a_model_for_each_once(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "seeded.yaml"
    made.changed("seeded")
    file.write_text(yaml.safe_dump({**made.recipe.model_dump(mode="json"), "name": "seeded", "seeds": [0, 1]}))
    monkeypatch.setattr("sys.argv", ["train_policy", "--recipe", str(file), "--lake", made.lake.uri])
    main()
    assert model_names(load(file)) == ["seeded-seed0", "seeded-seed1"]
    first = {name: registry.find(made.lake, name) for name in model_names(load(file))}
    assert [row["seed"] for row in first.values()] == [0, 1]
    assert len({row["model_id"] for row in first.values()}) == 2
    assert capsys.readouterr().err.count("trained seeded-seed") == 2
    more = {**yaml.safe_load(file.read_text()), "seeds": [0, 1, 2], "title": "More", "evaluation": {"n_tasks": 7}}
    file.write_text(yaml.safe_dump(more))
    main()
    said = capsys.readouterr().err
    assert said.count("is trained already") == 2, "a seed more, and how it is evaluated, decide no weights of these"
    assert said.count("trained seeded-seed2-") == 1
    assert {name: registry.find(made.lake, name) for name in first} == first
    merged = flat({name: reported(row) for name, row in first.items()})
    assert {merged[f"{name}/model_id"] for name in first} == {row["model_id"] for row in first.values()}
