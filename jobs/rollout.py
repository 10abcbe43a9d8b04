"""Collecting rollouts with models in this process: what `stepwell rollout` launches when a recipe names a model directory.

    python -m jobs.rollout --recipe pool --lake ./lake

Rollouts that are finished already are not run again.
"""

from __future__ import annotations

import argparse
import os

from jobs.report import Reporter, command, reporter
from jobs.vllm_policy import VllmPolicy, go_where_vllm_is
from stepwell.batching import Crowd
from stepwell.errors import RecipeError
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.policies import Batched, BatchPolicy, Policy
from stepwell.rollout.runs import collect_pool, name_of, policy_of
from stepwell.settings import Policy as PolicySettings


def make_policy(settings: PolicySettings, crowd: Crowd) -> Policy:
    """Any policy of a recipe; a model directory is loaded with the backend it names."""
    if settings.kind != "model":
        return policy_of(settings, crowd)
    if settings.model is None:
        raise RecipeError("a policy of kind model needs `model`: a model directory.")
    model = load_model(
        settings.model, name_of(settings), settings.backend, temperature=settings.temperature, top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens, seed=0,
    )  # fmt: skip
    return Batched(model, crowd, settings.concurrency)


def load_model(
    directory: str, name: str, backend: str, *, temperature: float, max_new_tokens: int, seed: int, top_p: float = 1.0
) -> BatchPolicy:
    """The model of a directory with a backend: `transformers` or `vllm`."""
    if backend == "vllm":
        return VllmPolicy(
            directory, name, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, top_p=top_p
        )
    from jobs.model_policy import TransformersPolicy

    return TransformersPolicy(
        directory, name, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed, top_p=top_p
    )


def run(recipe: Recipe, lake: Lake, report: Reporter, options: argparse.Namespace) -> None:
    """Collect everything the recipe asks for; raises RecipeError when it asks for nothing."""
    if recipe.collect is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `collect`.")
    if any(p.kind == "model" and p.backend == "vllm" for p in recipe.collect.policies):
        go_where_vllm_is("jobs.rollout", f"a policy of recipe {recipe.name!r}")
    done = collect_pool(
        lake, recipe.collect, recipe.world, make=make_policy, parallel=options.parallel, max_cost=options.max_cost,
        max_steps=options.max_steps, progress=now_and_then(lambda r: report.log(r.line())),
    )  # fmt: skip
    refresh(lake)
    report.done(
        {k: v for k, v in done.__dict__.items() if k != "trajectories" and v is not None}, recipe.collect.corpus
    )


def main() -> None:
    """Read the command line, collect, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.rollout", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--parallel", type=int, default=16, help="environments in flight")
    parser.add_argument("--max-cost", type=float, help="most US dollars for model calls")
    parser.add_argument("--max-steps", type=int, help="most steps, all rollouts together")
    options = parser.parse_args()
    with reporter() as report:
        run(load(options.recipe), Lake(options.lake), report, options)


if __name__ == "__main__":
    command(main)
