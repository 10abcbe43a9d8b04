"""Rollouts with vLLM in this process: tokens a second with many environments in flight against one at a time.

    STEPWELL_VLLM_PYTHON=.venv-vllm/bin/python python -m tests.bench.rollout_batching [TASKS] [MODEL] [TURNS]

Runs in the interpreter that has vLLM. Prints, for 1 and for 32 environments in flight over the same tasks: tokens made a
second, trajectories an hour, and the ratio.
"""

from __future__ import annotations

import sys
import tempfile
import time

from jobs.vllm_policy import VllmPolicy, go_where_vllm_is
from stepwell.lake import Lake
from stepwell.rollout.collect import collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched
from stepwell.rollout.runs import repairs
from stepwell.settings import World

WORLD = World(functions=2)


def main() -> None:
    """Print the figures."""
    go_where_vllm_is("tests.bench.rollout_batching", "this benchmark")
    given = [*sys.argv[1:], *("32", "jobs/base", "14")[len(sys.argv) - 1 :]]
    n_tasks, turns = int(given[0]), int(given[2])
    policy = VllmPolicy(given[1], "base", temperature=0.5, max_new_tokens=64, seed=0)
    rates = {}
    for parallel in (32, 1, 32, 1):
        with tempfile.TemporaryDirectory() as folder:
            wanted = repairs(WORLD, "eval", n_tasks, 1, corpus="rollouts/bench", policy="p", run_id="b")
            started = time.monotonic()
            report = collect(
                Lake(folder), "rollouts/bench", wanted,
                lambda crowd, parallel=parallel: Setting(Batched(policy, crowd, parallel), turns),
                parallel=parallel,
            )  # fmt: skip
            wall = time.monotonic() - started
        rates[parallel] = report.tokens_out / wall
        print(
            f"{parallel:2d} in flight: {report.n_steps} steps, {report.tokens_out} tokens made in {wall:.1f} s, "
            f"{rates[parallel]:.0f} tokens/s, {3600 * n_tasks / wall:.0f} trajectories/h"
        )
    print(f"ratio of tokens/s: {rates[32] / rates[1]:.1f}")


if __name__ == "__main__":
    main()
