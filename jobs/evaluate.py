"""Rolling a trained policy out on held-out tasks: results as events, `evaluations` rows and a rate with its interval.

    python -m jobs.evaluate --recipe srft --lake ./lake              # the model the recipe trained
    python -m jobs.evaluate --recipe srft --lake ./lake --model DIR  # any model directory, such as the base

Attempts that are in the log already are not run again, so an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from jobs import registry
from jobs.report import Reporter, command, reporter
from jobs.vllm_policy import VllmPolicy, go_where_vllm_is
from stepwell.evaluation.rows import Evaluated, record_rows, summarise
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rollout.batch import BatchPolicy
from stepwell.rollout.collect import collect_batched


def policy_of(recipe: Recipe, directory: str, name: str) -> BatchPolicy:
    """The backend the recipe names, loaded with the model."""
    e = recipe.evaluation
    if e.backend == "vllm":
        return VllmPolicy(directory, name, temperature=e.temperature, max_new_tokens=e.max_new_tokens, seed=e.seed)
    from jobs.model_policy import TransformersPolicy

    return TransformersPolicy(directory, name, temperature=e.temperature, max_new_tokens=e.max_new_tokens, seed=e.seed)


def evaluate(recipe: Recipe, lake: Lake, directory: str, identity: str, report: Reporter) -> Evaluated:
    """Evaluate one model; returns counts, the resolve rate with its Wilson interval, and the evaluation's id."""
    e = recipe.evaluation
    settings = [e.model_dump(mode="json"), recipe.world.model_dump(mode="json")]
    evaluation_id = f"{identity}@{e.suite}-{digest(identity, settings)[:12]}"
    policy = policy_of(recipe, directory, identity)
    report.log(f"evaluating {identity} on {e.n_tasks} tasks of {e.suite}, {policy.backend}")
    trajectories = collect_batched(
        lake,
        policy,
        recipe.world,
        corpus=f"evaluations/{e.suite}",
        run_id=evaluation_id,
        split="eval",
        n_tasks=e.n_tasks,
        attempts=e.attempts,
        seed=e.seed,
        batch_size=e.batch_size,
        progress=lambda done, total: report.log(f"{done}/{total} attempts"),
    )
    record_rows(
        lake, trajectories, evaluation_id=evaluation_id, suite=e.suite, recipe=recipe.name, model_id=identity, seed=e.seed,
        backend=policy.backend,
    )  # fmt: skip
    result = summarise(lake, evaluation_id)
    report.log(result.line())
    return result


def continue_where_vllm_is(recipe: Recipe) -> None:
    """Put the interpreter that has vLLM in the place of this one when the recipe needs it; raises UsageError without one."""
    if recipe.evaluation.backend == "vllm":
        go_where_vllm_is("jobs.evaluate", f"the evaluation of recipe {recipe.name!r}")


def main() -> None:
    """Read the command line, evaluate, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--model", help="model name, id or directory; default: the model the recipe trained")
    options = parser.parse_args()
    recipe, lake = load(options.recipe), Lake(options.lake)
    wanted = options.model or recipe.name
    continue_where_vllm_is(recipe)
    with reporter() as report:
        if Path(wanted).is_dir():
            directory, identity = wanted, registry.model_id(Path(wanted).resolve().name, Path(wanted))
        else:
            row = registry.find(lake, wanted)
            directory, identity = row["path"], row["model_id"]
        result = evaluate(recipe, lake, directory, identity, report)
        report.done(result.metadata(), result.evaluation_id)


if __name__ == "__main__":
    command(main)
