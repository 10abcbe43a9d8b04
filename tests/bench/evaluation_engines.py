"""One evaluation by three engines on the same CPU: vLLM and transformers in batches, and transformers one at a time.

    python -m tests.bench.evaluation_engines [TASKS] [MODEL] [TURNS] [ROUNDS]

Runs in the interpreter that has vLLM (`make vllm`), one thread an engine, greedily, engines in turn ROUNDS times. Goal: vLLM
plays five times as many trajectories an hour as transformers one at a time. Then says how far replies of vLLM and of
transformers agree where both read the same prompt, and for each that differs how far apart the two best tokens are.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import pyarrow.compute as pc
import torch

from jobs.model_policy import TransformersPolicy
from jobs.vllm_policy import VllmPolicy, go_where_vllm_is
from stepwell.lake import Lake
from stepwell.rollout.collect import Report, collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched, BatchPolicy, Reply, View
from stepwell.rollout.runs import repairs
from stepwell.settings import World

BATCH = 32


class Noted:
    """A policy whose prompts and replies are kept by turn, (token ids, text)."""

    def __init__(self, policy: BatchPolicy, renderer: Any) -> None:
        self.policy, self.renderer, self.name, self.backend = policy, renderer, "model", policy.backend
        self.said: dict[str, tuple[tuple[int, ...], str | None]] = {}

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        """Replies of the policy."""
        replies = self.policy.act_many(views)
        for view, reply in zip(views, replies, strict=True):
            self.said[view.key] = (tuple(self.renderer.prompt_ids(view.messages)), reply.text)
        return replies


def play(policy: BatchPolicy, n_tasks: int, turns: int, parallel: int) -> tuple[Report, float, dict[str, bool]]:
    """Roll the tasks out in a lake of their own: report, seconds, and whether each was resolved."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        wanted = repairs(World(functions=2), "eval", n_tasks, 1, corpus="evaluations/bench", policy="model", run_id="b")
        started = time.monotonic()
        report = collect(
            lake, "evaluations/bench", wanted, lambda crowd: Setting(Batched(policy, crowd, parallel), turns),
            parallel=parallel,
        )  # fmt: skip
        seconds = time.monotonic() - started
        rows = lake.read("events", filters=pc.field("kind") == "outcome").to_pylist()
        return report, seconds, {r["trajectory_id"]: bool(r["outcome"]["resolved"]) for r in rows}


def margin(policy: TransformersPolicy, prompt: Sequence[int], a: str, b: str) -> tuple[int, float]:
    """The first token at which two replies part, and how far apart the two best logits are there."""
    ids = [[*policy.renderer.tokenizer.encode(t, add_special_tokens=False).ids, policy.closing[0]] for t in (a, b)]
    same = next((i for i, (x, y) in enumerate(zip(*ids, strict=False)) if x != y), min(map(len, ids)))
    with torch.inference_mode():
        logits = policy.model(torch.tensor([[*prompt, *ids[0][:same]]])).logits[0, -1]
    best = logits.topk(2).values
    return same, float(best[0] - best[1])


def main() -> None:
    """Print the figures."""
    go_where_vllm_is("tests.bench.evaluation_engines", "this benchmark")
    given = [*sys.argv[1:], *("32", "jobs/base", "14", "2")[len(sys.argv) - 1 :]]
    n_tasks, turns, rounds = int(given[0]), int(given[2]), int(given[3])
    torch.set_num_threads(1)
    settings: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 64, "seed": 0}
    plain, fast = TransformersPolicy(given[1], "model", **settings), VllmPolicy(given[1], "model", **settings)
    engines = {
        "vLLM, batched": (Noted(fast, fast.renderer), BATCH), "transformers, batched": (Noted(plain, plain.renderer), BATCH),
        "transformers, one at a time": (Noted(plain, plain.renderer), 1),
    }  # fmt: skip
    hours: dict[str, list[float]] = {name: [] for name in engines}
    resolved = {}
    for _ in range(rounds):
        for name, (policy, parallel) in engines.items():
            report, seconds, resolved[name] = play(policy, n_tasks, turns, parallel)
            hours[name].append(3600 * n_tasks / seconds)
            print(
                f"{name}: {report.n_steps} steps, {report.tokens_in} tokens read, {report.tokens_out} made in {seconds:.1f} s, "
                f"{hours[name][-1]:.0f} trajectories/h",
                flush=True,
            )
    first, *others = engines
    for name in others:
        ratios = [a / b for a, b in zip(hours[first], hours[name], strict=True)]
        told = ", ".join(f"{r:.1f}" for r in ratios)
        print(f"trajectories/h of {first} over {name}: {median(ratios):.1f} ({told})")
        same = sum(resolved[first][t] == resolved[name][t] for t in resolved[first])
        ours, theirs = engines[first][0].said, engines[name][0].said
        shared = [k for k in ours if k in theirs and ours[k][0] == theirs[k][0]]
        differ = [k for k in shared if ours[k][1] != theirs[k][1]]
        print(
            f"  same outcome in {same} of {n_tasks} tasks; same reply in {len(shared) - len(differ)} of {len(shared)} turns"
        )
        for key in differ:
            at, gap = margin(plain, ours[key][0], theirs[key][1] or "", ours[key][1] or "")
            print(f"  {key}: part at token {at}, where the two best logits are {gap:.6f} apart")


if __name__ == "__main__":
    main()
