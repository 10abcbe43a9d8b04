"""A training that is killed: it goes on from its last whole checkpoint and ends where an uninterrupted one does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_training import metrics, small, weights

from jobs import registry
from jobs.make_base import start_from_scratch
from jobs.train_policy import last_checkpoint
from stepwell.curation.masks import rule_of
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.recipe import load
from stepwell.rendering import Renderer
from stepwell.rollout.runs import collect_pool

ROOT = Path(__file__).parent.parent
SMALL = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: oracle, n_tasks: 24}]}
source: {corpora: [rollouts/small]}
world: {functions: 1, bugs_max: 1, max_turns: 6}
dataset: {method: all, held_out: 0}
architecture: {vocab_size: 400, hidden_size: 128, layers: 2, heads: 2, intermediate_size: 256}
train: {epochs: 6, learning_rate: 1.0e-3, batch_size: 4, save_steps: 8}
"""


def start(recipe: Path, lake: Lake, models: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.train_policy", "--recipe", str(recipe), "--lake", lake.uri, *options]
    settings = {**os.environ, "STEPWELL_MODELS": str(models), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=settings, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said[-3000:]
    return said


def outcome(said: str) -> str:
    """Model and mean loss, from the job's last line."""
    found = re.search(r"trained (\S+: loss \S+)", said)
    assert found, said[-3000:]
    return found[1]


@pytest.mark.slow
def test_a_killed_training_ends_where_an_uninterrupted_one_does(tmp_path: Path, lake: Lake) -> None:
    (tmp_path / "small.yaml").write_text(SMALL + f"base_model: {tmp_path / 'base'}\n")
    recipe = load(tmp_path / "small.yaml")
    assert recipe.collect
    collect_pool(lake, recipe.collect, recipe.world)
    texts = [str(t) for t in lake.read("events", columns=["action"]).column(0).to_pylist()]
    start_from_scratch(recipe, texts, tmp_path / "base")
    build(lake, recipe, Renderer.load(tmp_path / "base"), str(rule_of(recipe.mask)))

    killed = start(tmp_path / "small.yaml", lake, tmp_path / "killed")
    ends = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("small/trainer-*/checkpoint-*/trainer_state.json")):
        assert time.monotonic() < ends
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it was still training"
    assert len(lake.read("models")) == 0

    resumed = finish(start(tmp_path / "small.yaml", lake, tmp_path / "killed"))
    whole = finish(start(tmp_path / "small.yaml", lake, tmp_path / "whole", "--again"))
    assert "resuming from checkpoint-8" in resumed
    assert "resuming" not in whole
    (row,) = lake.read("models").to_pylist()
    for models in ("killed", "whole"):
        folder = tmp_path / models / "small" / row["model_id"]
        assert registry.model_id("small", folder) == row["model_id"], "the same weights, to the bit"
    assert outcome(resumed) == outcome(whole)
    assert not list((tmp_path / "killed").glob("small/trainer-*")), "nothing of the interrupted run is left"


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step, state in ((90, "{}"), (100, "{}"), (110, '{"best'), (120, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-90"]


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    made = small(tmp_path)
    trained = []
    for name, processes, batch in (("one", 1, 4), ("two", 2, 2)):
        recipe = made.changed(name, max_steps=2, batch_size=batch)
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, "-m", "jobs.train_policy", "--recipe", str(file), "--lake", made.lake.uri]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count(f"training {name}: ") == 1, "one process speaks for all"
        trained.append(registry.find(made.lake, name))
    one, two = (json.loads(row["metrics"]) for row in trained)
    assert json.loads(trained[1]["environment"])["processes"] == 2
    assert two["tokens"] == one["tokens"], "the same rows"
    assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], abs=1e-2)
    weights_of = [weights(row) for row in trained]
    apart = max(float((weights_of[0][k] - weights_of[1][k]).abs().max()) for k in weights_of[0])
    assert apart < 1e-5


def test_a_run_killed_after_its_last_step_takes_no_step_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = small(tmp_path)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    early = {"learning_rate": 0.3, "max_steps": 40, "eval_steps": 2, "patience": 1}
    ways: dict[str, dict[str, Any]] = {"full": {"max_steps": 5, "batch_size": 2, "epochs": 1.5}, "early": early}
    for name, settings in ways.items():
        whole = made.train(f"whole-{name}", scheduler="constant", **settings)
        for step in ("publish", "register"):
            with monkeypatch.context() as patched:
                patched.setattr(registry, step, killed)
                with pytest.raises(KeyboardInterrupt):
                    made.train(f"killed-{name}", scheduler="constant", **settings)
        resumed = made.train(f"killed-{name}", scheduler="constant", **settings)
        for key in ("steps", "train_loss", "eval_loss", "tokens", "stopped_early"):
            assert metrics(resumed).get(key) == metrics(whole).get(key), key
        assert metrics(whole).get("stopped_early", True), "it did stop early"
        one, other = weights(whole), weights(resumed)
        assert all(torch.equal(one[k], other[k]) for k in one)
        assert [p.name for p in Path(resumed["path"]).parent.iterdir()] == [resumed["model_id"]], "nothing else is left"
