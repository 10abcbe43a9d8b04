"""What training costs beside the training: time from the start of the process to the first optimiser step, and the share of
step time spent waiting for data.

    python -m tests.bench.training

Goals: under 15 s to the first step on jobs/base, under 5% waiting. Two runs an arm of the job as a program of its own, each on
the same dataset of recorded rollouts; figures are the job's own, from `card.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs import registry
from jobs.training.card import CARD
from stepwell.curation.masks import rule_of
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.recipe import load
from stepwell.rendering import Renderer
from stepwell.rollout.runs import collect_pool

RECIPE = """
collect: {corpus: rollouts/bench, seed: 7, policies: [{kind: noisy, n_tasks: 160, mistake_rate: 0.3, recover_rate: 0.6}]}
source: {corpora: [rollouts/bench]}
world: {functions: 2}
dataset: {method: all, held_out: 0.05}
train: {max_steps: 10, learning_rate: 5.0e-4, batch_size: 16, packing: %s}
seeds: [0, 1]
"""


def main() -> None:
    """Make a dataset, train on it plain and packed, print what the cards say."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lake = Lake(folder / "lake")
        print("arm, seed, seconds to the first step, waiting for data (% of step time), tokens/s")
        for arm, packing in (("plain", "false"), ("packed", "true")):
            file = folder / f"{arm}.yaml"
            file.write_text(RECIPE % packing)
            recipe = load(file)
            assert recipe.collect
            collect_pool(lake, recipe.collect, recipe.world)
            build(lake, recipe, Renderer.load(recipe.base_model), str(rule_of(recipe.mask)))
            for seed in recipe.seeds:
                command = [sys.executable, "-m", "jobs.train_policy", "--recipe", str(file), "--lake", lake.uri]
                settings = {**os.environ, "OMP_NUM_THREADS": "1"}
                subprocess.run([*command, "--seed", str(seed)], check=True, env=settings, stderr=subprocess.DEVNULL)
                path = registry.find(lake, f"{arm}-seed{seed}")["path"]
                run = json.loads((Path(path) / CARD).read_text())["training"]
                waiting = f"{100 * run['data_share']:.2f}%"
                print(f"{arm}, {seed}, {run['startup_s']:.1f}, {waiting}, {run['tokens_per_s']:.0f}", flush=True)


if __name__ == "__main__":
    main()
