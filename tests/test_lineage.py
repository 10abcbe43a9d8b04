"""Lineage: from a model to its files and rollouts, through models that made rollouts, without running in circles."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import lakes
import pyarrow as pa
import pytest
from rich.console import Console
from test_query import dataset_row

from schemas.models import MODELS
from schemas.sources import SOURCES
from stepwell.errors import UnknownName
from stepwell.lake import Lake
from stepwell.lineage import render_trace, trace
from stepwell.log import EventLog


def model(name: str, dataset: str | None, version: int | None, age: int = 0, base: str = "jobs/base") -> dict[str, Any]:
    return {
        "model_id": f"{name}-{age:012d}", "name": name, "path": f"models/{name}-{age}", "recipe": name,
        "recipe_hash": "r" * 64, "dataset": dataset, "dataset_version": version, "dataset_hash": "d" * 64,
        "events_version": 1, "base_model": base, "code_version": "0.1.0", "seed": 0, "n_parameters": 10, "n_rows": 2,
        "n_trained_tokens": 3, "metrics": "{}", "environment": "{}", "wall_s": 1.0,
        "recorded_at": lakes.EPOCH - timedelta(days=age),
    }  # fmt: skip


def source(path: str, corpus: str, ids: list[str]) -> dict[str, Any]:
    return {
        "content_hash": "c" * 64, "path": path, "format": "mini", "corpus": corpus, "n_bytes": 1,
        "n_trajectories": len(ids), "n_steps": 1, "n_events": 1, "n_rejected": 0, "outcome_path": None,
        "trajectory_ids": ids, "batch_id": "b", "recorded_at": lakes.EPOCH,
    }  # fmt: skip


@pytest.fixture
def traced(lake: Lake) -> Lake:
    lakes.build(lake)
    rows = [dataset_row("r1", "srft", "t-good-a"), dataset_row("r2", "srft", "t-good-b", "rollouts/one two")]
    version = lake.replace("datasets/srft", pa.concat_tables(rows), {})
    lake.replace("datasets/srft", dataset_row("r3", "srft", "t-loop-a"), {})
    first = lake.replace("datasets/first", dataset_row("r1", "first", "t-good-a"), {})
    models = [
        model("srft", "datasets/srft", version),
        model("srft", "datasets/srft", version, age=5),
        model("model-b", "datasets/first", first, age=3),
    ]
    lake.add("models", pa.Table.from_pylist(models, schema=MODELS.schema))
    files = [source("a.traj.json", "demo", ["t-good-a", "t-loop-a"]), source("unused.json", "demo", ["t-other"])]
    lake.add("sources", pa.Table.from_pylist(files, schema=SOURCES.schema))
    return lake


def test_a_model_leads_to_its_files_and_to_the_model_that_rolled_out(traced: Lake) -> None:
    tree = trace(traced, "srft").as_dict()
    assert tree["model_id"] == "srft-000000000000", "the newest of the name"
    dataset = tree["made_from"][0]["made_from"][0]
    assert (dataset["name"], dataset["rows"], dataset["masked_steps"]) == ("datasets/srft", 2, 2)
    imported, rolled_out = dataset["made_from"]
    assert (imported["trajectories"], imported["first"]) == (1, ["t-good-a"])
    assert [child["name"] for child in imported["made_from"]] == ["a.traj.json"]
    (rollout,) = rolled_out["made_from"]
    assert (rollout["kind"], rollout["name"], rollout["policy"]) == ("rollout", "run-1", "model-b")
    assert rollout["made_from"][0]["kind"] == "model"
    assert rollout["made_from"][0]["made_from"][0]["made_from"][0]["name"] == "datasets/first"
    assert tree["made_from"][1] == {"kind": "base model", "name": "jobs/base", "made_from": []}


def test_an_id_names_one_model_and_an_unknown_name_lists_them(traced: Lake) -> None:
    assert trace(traced, "srft-000000000005").facts["model_id"] == "srft-000000000005"
    with pytest.raises(UnknownName, match=r"unknown model 'x'; allowed: model-b, .*srft"):
        trace(traced, "x")


def test_a_model_trained_on_its_own_rollouts_ends(lake: Lake) -> None:
    events = lakes.good_repair("t-self", model="loop", corpus="rollouts/self")
    EventLog(lake).append(events, "b")
    version = lake.replace("datasets/loop", dataset_row("r", "loop", "t-self", "rollouts/self"), {})
    row = model("loop", "datasets/loop", version, base="loop")
    lake.add("models", pa.Table.from_pylist([row], schema=MODELS.schema))
    assert sum(node.kind == "model" for node in trace(lake, "loop").walk()) == 1


def test_a_base_model_has_no_dataset(lake: Lake) -> None:
    row = model("brought", None, None)
    lake.add("models", pa.Table.from_pylist([row], schema=MODELS.schema))
    assert [node.kind for node in trace(lake, "brought").walk()] == ["model", "recipe", "base model"]


def test_the_tree_escapes_what_comes_from_outside(traced: Lake) -> None:
    hostile = source("[red]x[/red].json", "demo", ["t-good-a"])
    traced.add("sources", pa.Table.from_pylist([hostile], schema=SOURCES.schema))
    out = io.StringIO()
    Console(file=out, width=200).print(render_trace(trace(traced, "srft")))
    assert "[red]x[/red].json" in out.getvalue()
    assert "a.traj.json" in out.getvalue()
