"""Rollouts with a policy that answers at once: what everything but the model and the command costs.

    python -m tests.bench.rollout_overhead [TASKS]

Prints, for 16 environments in flight and for one: this process's own processor time a step (commands run in others), less
what the policy took; steps a second; and the share of opening and grading environments, by playing no turn at all.
"""

from __future__ import annotations

import sys
import tempfile
import time

from stepwell.lake import Lake
from stepwell.rollout.collect import Report, collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Reply, Scripted, View
from stepwell.rollout.policies.scripted import NoisyPolicy
from stepwell.rollout.runs import repairs
from stepwell.settings import World

WORLD = World(functions=2, max_turns=14)


class Timed(Scripted):
    """The noisy policy, with the processor time it takes."""

    spent = 0.0

    async def reply(self, view: View) -> Reply:
        started = time.thread_time()
        reply = await super().reply(view)
        self.spent += time.thread_time() - started
        return reply


def run(n_tasks: int, parallel: int, max_turns: int) -> tuple[Report, float, float]:
    """Roll out -> the report, processor seconds less the policy's, wall seconds."""
    policy = Timed(NoisyPolicy(0.3))
    with tempfile.TemporaryDirectory() as folder:
        wanted = repairs(WORLD, "train", n_tasks, 1, corpus="rollouts/bench", policy="p", run_id="b")
        cpu, wall = time.process_time(), time.monotonic()
        report = collect(
            Lake(folder), "rollouts/bench", wanted, lambda _: Setting(policy, max_turns), parallel=parallel
        )
        return report, time.process_time() - cpu - policy.spent, time.monotonic() - wall


def main() -> None:
    """Print the figures."""
    n_tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    run(4, 4, 14)
    for parallel in (16, 1):
        _, idle, _ = run(n_tasks, parallel, 0)
        report, cpu, wall = run(n_tasks, parallel, WORLD.max_turns)
        print(
            f"{parallel:2d} in flight: {report.n_steps} steps, {1000 * cpu / report.n_steps:.2f} ms CPU a step, "
            f"{1000 * (cpu - idle) / report.n_steps:.2f} ms without opening and grading "
            f"({1000 * idle / n_tasks:.1f} ms CPU a task); {report.n_steps / wall:.1f} steps/s"
        )


if __name__ == "__main__":
    main()
