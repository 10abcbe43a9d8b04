"""Steered rollouts with models in this process: what `stepwell steer` launches when a recipe names a model directory.

    python -m jobs.steer --recipe steer --lake ./lake

Rollouts that are finished already are not run again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from jobs.report import Reporter, command, reporter
from jobs.rollout import load_model, make_policy
from jobs.vllm_policy import go_where_vllm_is
from stepwell.chat import Backend, BatchBackend, Call, Completion, Failure
from stepwell.critics.live import supervisor_of
from stepwell.errors import RecipeError, StepwellError
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import Report
from stepwell.rollout.policies import View
from stepwell.rollout.runs import collect_steered
from stepwell.settings import Critic
from stepwell.supervision import Supervisor


def critic_backend(settings: Critic) -> Backend | None:
    """The critic's model in this process, when it is a model directory; every call has the settings' sampling."""
    if settings.kind != "model" or settings.model is None:
        return None
    model = load_model(
        settings.model, settings.model, settings.backend, temperature=settings.temperature,
        max_new_tokens=settings.max_tokens, seed=settings.seed,
    )  # fmt: skip

    def answer(calls: Sequence[Call]) -> list[Completion | Failure]:
        replies = model.act_many([View(call.messages, key=f"critic/{call.seed}") for call in calls])
        return [
            Failure(r.finish, r.detail)
            if r.text is None
            else Completion(
                r.text,
                tokens_in=r.usage["tokens_in"],
                tokens_out=r.usage["tokens_out"],
                finish=r.finish,
                latency_s=r.usage["latency_s"],
            )
            for r in replies
        ]

    return BatchBackend(answer, settings.concurrency)


def run(recipe: Recipe, lake: Lake, report: Reporter, options: argparse.Namespace) -> None:
    """Run every arm; raises RecipeError when the recipe steers nothing, StepwellError when an arm is left unfinished."""
    asked = recipe.steer
    if asked is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `steer`.")
    if "vllm" in {p.backend for p in (asked.agent, asked.critic) if p.kind == "model"}:
        go_where_vllm_is("jobs.steer", f"recipe {recipe.name!r}")
    backend = critic_backend(asked.critic)
    told: dict[str, int] = {}

    def tell(arm: str, part: Report) -> None:
        done = part.n_known + part.n_done
        if done // 10 != told.get(arm, -1) // 10:
            told[arm] = done
            report.log(f"{arm}: {part.line()}")

    def supervisor() -> Supervisor:
        return supervisor_of(asked.critic, asked.k, backend)

    done = collect_steered(
        lake, asked, recipe.world, supervisor, make=make_policy, parallel=options.parallel, max_cost=options.max_cost,
        progress=tell,
    )  # fmt: skip
    refresh(lake)
    unfinished = {arm: r.stopped or f"{r.n_failed} failed" for arm, r in done.items() if not r.complete}
    if unfinished or len(done) < len(asked.arms):
        raise StepwellError(f"not every arm is finished: {unfinished}. Run it again to go on.")
    report.done({arm: r.line() for arm, r in done.items()}, asked.corpus)


def main() -> None:
    """Read the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.steer", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--parallel", type=int, default=16, help="environments in flight")
    parser.add_argument("--max-cost", type=float, help="most US dollars for model calls")
    options = parser.parse_args()
    with reporter() as report:
        run(load(options.recipe), Lake(options.lake), report, options)


if __name__ == "__main__":
    command(main)
