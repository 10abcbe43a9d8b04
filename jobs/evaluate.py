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
from jobs.rollout import load_model
from jobs.vllm_policy import go_where_vllm_is
from stepwell.batching import Crowd
from stepwell.errors import StepwellError
from stepwell.evaluation.rows import Evaluated, evaluation_id, record_rows, summarise
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import collect, now_and_then
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched
from stepwell.rollout.runs import SCAFFOLDS, repairs


def evaluate(recipe: Recipe, lake: Lake, directory: str, identity: str, report: Reporter) -> Evaluated:
    """Evaluate one model; returns counts, the resolve rate with its Wilson interval, and the evaluation's id."""
    e = recipe.evaluation
    known_as = evaluation_id(recipe, identity)
    policy = load_model(
        directory, identity, e.backend, temperature=e.temperature, max_new_tokens=e.max_new_tokens, seed=e.seed
    )
    report.log(f"evaluating {identity} on {e.n_tasks} tasks of {e.suite}, {policy.backend}")
    corpus = f"evaluations/{e.suite}"
    wanted = repairs(
        recipe.world,
        "eval",
        e.n_tasks,
        e.seed,
        corpus=corpus,
        policy=identity,
        run_id=known_as,
        attempts=e.attempts,
    )

    def setting(crowd: Crowd) -> Setting:
        return Setting(Batched(policy, crowd, e.batch_size), recipe.world.max_turns, SCAFFOLDS[recipe.world.scaffold]())

    done = collect(
        lake, corpus, wanted, setting, parallel=e.batch_size, progress=now_and_then(lambda r: report.log(r.line()))
    )
    if not done.complete:
        raise StepwellError(f"{known_as} is not finished ({done.line()}): {done.stopped}. Run it again to go on.")
    trajectories = done.trajectories
    record_rows(
        lake, trajectories, evaluation_id=known_as, suite=e.suite, recipe=recipe.name, model_id=identity, seed=e.seed,
        backend=policy.backend,
    )  # fmt: skip
    result = summarise(lake, known_as)
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
