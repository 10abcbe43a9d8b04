"""DAgger: collect with the policy so far, have the teacher label every state, train on the labels, again and again.

    python -m jobs.dagger --recipe dagger --lake ./lake
    python -m jobs.dagger --recipe dagger --lake ./lake --iteration 2 --stage collect
    python -m jobs.dagger --recipe dagger --lake ./lake --stage label --corpus rollouts/other

A stage that has been done from the same inputs is not done again, so a loop that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from jobs.evaluate import evaluate
from jobs.report import Reporter, command, reporter
from jobs.rollout import make_policy
from jobs.train_policy import train
from jobs.vllm_policy import go_where_vllm_is
from stepwell.dagger import STAGES, Loop
from stepwell.errors import RecipeError, StepwellError, UsageError
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe, load
from stepwell.registry import local
from stepwell.rollout.collect import collect, now_and_then
from stepwell.rollout.labelling import label_new
from stepwell.rollout.runs import require_prices

Options = argparse.Namespace
Metadata = dict[str, Any]


def collect_stage(loop: Loop, i: int, report: Reporter, options: Options) -> Metadata:
    """Roll student and teacher out; every turn is recorded with its draw, its label and the state of both."""
    wanted = loop.wanted(i)
    report.log(
        f"collecting {len(wanted)} rollouts in {loop.corpus(i)}, student {loop.student(i)[1]}, teacher {loop.teacher}"
    )
    done = collect(
        loop.lake, loop.corpus(i), wanted, loop.setting(i, make_policy), parallel=options.parallel,
        max_cost=options.max_cost, max_steps=options.max_steps, progress=now_and_then(lambda r: report.log(r.line())),
    )  # fmt: skip
    spend(options, done.cost_usd)
    refresh(loop.lake)
    if not done.complete:
        raise StepwellError(f"{loop.corpus(i)} is not finished ({done.line()}): {done.stopped}. Run it again to go on.")
    found = loop.drift(i)
    z = "-" if found.z is None else f"{found.z:+.2f}"
    report.log(
        f"the teacher took {found.taught} turns (declared {found.beta}, z {z}), labels of {found.labelled} turns"
    )
    return {"trajectories": found.n_trajectories, "turns": found.taught.n, "cost_usd": done.cost_usd}


def label_stage(
    loop: Loop, corpus: str, report: Reporter, options: Options, only: Sequence[str] | None = None
) -> Metadata:
    """Ask the teacher for the labels that are missing, in a corpus or `only` in these trajectories of it."""
    done = label_new(
        loop.lake, corpus, lambda crowd: make_policy(loop.settings.teacher, crowd), resamples=loop.settings.resamples,
        only=only, parallel=options.parallel, max_cost=options.max_cost, dry_run=options.dry_run,
    )  # fmt: skip
    spend(options, done.cost_usd)
    report.log(done.line() + (f", the rest costs at most ${done.most_usd:.4f}" if options.dry_run else ""))
    if not done.complete and not options.dry_run:
        raise StepwellError(
            f"{corpus} is not labelled ({done.line()}): {done.stopped or done.reasons}. Run it again to go on."
        )
    return {"labels": done.n_known + done.n_new, "cost_usd": done.cost_usd}


def build_stage(loop: Loop, i: int, report: Reporter) -> Metadata:
    """Put the data together and seal the dataset."""
    built = loop.build(i)
    report.log(
        f"{built.table}@{built.version} {built.hash[:12]}: {built.n_rows} rows, {built.n_trained_tokens} trained tokens"
    )
    return {"rows": built.n_rows, "hash": built.hash, "trained_tokens": built.n_trained_tokens}


def train_stage(loop: Loop, i: int, report: Reporter) -> Metadata:
    """Train on the labels; raises UsageError before the dataset is there."""
    if not loop.done(i, "build"):
        raise UsageError(
            f"datasets/{loop.name(i)} is not there for the present recipe and data; run: stepwell dagger "
            f"{loop.whole.name} --iterations {i} (in Dagster: partition {i} of datasets/{loop.whole.name})"
        )
    recipe = loop.recipe(i)
    row = train(recipe, loop.lake, recipe.seeds[0], report, base=recipe.base_model)
    if loop.model(i) is None:
        raise StepwellError(
            f"{row['model_id']} is registered with another recipe: it has the same weights. Give this recipe another name."
        )
    return {k: row[k] for k in ("model_id", "n_rows", "n_trained_tokens", "wall_s", "metrics")}


def evaluate_stage(loop: Loop, i: int, report: Reporter) -> Metadata:
    """Roll the model out on held-out tasks, and before the first one the base on the same."""
    recipe = loop.evaluated_as(i)
    row = loop.model(i)
    if row is None:
        raise UsageError(
            f"there is no model {loop.name(i)!r} of the present recipe and data; run: stepwell dagger {loop.whole.name} "
            f"--iterations {i} (in Dagster: partition {i} of models/{loop.whole.name})"
        )
    if i == 1:
        evaluate(recipe.model_copy(update={"name": "base"}), loop.lake, *loop.student(1), report)
    return evaluate(recipe, loop.lake, local(loop.lake, row["path"]), row["model_id"], report).metadata()


def spend(options: Options, cost_usd: float) -> None:
    """Take what was spent off the limit of this call."""
    if options.max_cost is not None:
        options.max_cost = max(0.0, options.max_cost - cost_usd)


def recorded_cost(loop: Loop, i: int) -> float:
    """US dollars that the corpus of an iteration has cost so far: what another process spent is only in the log."""
    used = EventLog(loop.lake).read(corpora=[loop.corpus(i)], columns=["usage"]).column("usage").to_pylist()
    return sum((u or {}).get("cost_usd") or 0.0 for u in used)


def run_stage(loop: Loop, i: int, stage: str, report: Reporter, options: Options) -> Metadata:
    """Do one stage of one iteration, in this process."""
    stages: dict[str, Callable[[], Metadata]] = {
        "collect": lambda: collect_stage(loop, i, report, options),
        "label": lambda: label_stage(loop, loop.corpus(i), report, options, loop.trajectories(i)),
        "build": lambda: build_stage(loop, i, report),
        "train": lambda: train_stage(loop, i, report),
        "evaluate": lambda: evaluate_stage(loop, i, report),
    }
    return stages[stage]()


def needs_vllm(recipe: Recipe, stage: str) -> bool:
    """Whether a stage runs a model with vLLM."""
    if recipe.dagger is None:
        return False
    models = {"collect": [recipe.dagger.student, recipe.dagger.teacher], "label": [recipe.dagger.teacher]}
    acting = [p.backend for p in models.get(stage, []) if p.kind == "model"]
    return "vllm" in acting or (stage == "evaluate" and recipe.evaluation.backend == "vllm")


def iterate(recipe: Recipe, lake: Lake, report: Reporter, options: Options) -> None:
    """Every iteration in order, what is done already left alone; two loops of one recipe do not run at once."""
    if recipe.dagger is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `dagger`; add it to iterate.")
    with lake.alone(f"dagger-{recipe.name}", f"iterating {recipe.name}"):
        for i in range(1, (options.iterations or recipe.dagger.iterations) + 1):
            loop = Loop(recipe, lake)
            for stage in STAGES:
                if loop.done(i, stage):
                    continue
                began = time.monotonic()
                if needs_vllm(recipe, stage):
                    before = recorded_cost(loop, i)
                    _apart(options, i, stage)
                    spend(options, recorded_cost(loop, i) - before)
                else:
                    run_stage(loop, i, stage, report, options)
                report.log(f"iteration {i}: {stage} took {time.monotonic() - began:.1f} s")
        report.log(f"{options.iterations or recipe.dagger.iterations} iterations of {recipe.name} are done")


def _apart(options: Options, i: int, stage: str) -> None:
    """Do a stage in a process of its own, whose engine is gone when it ends."""
    limits = {"--parallel": options.parallel, "--max-cost": options.max_cost, "--max-steps": options.max_steps}
    given = [str(x) for name, value in limits.items() if value is not None for x in (name, value)]
    where = ["--recipe", options.recipe, "--lake", options.lake, "--iteration", str(i), "--stage", stage]
    done = subprocess.run([sys.executable, "-m", "jobs.dagger", *where, *given], check=False)
    if done.returncode:
        raise StepwellError(f"`{stage}` of iteration {i} ended with status {done.returncode}; its messages are above.")


def main() -> None:
    """Read the command line; iterate, or do one stage."""
    parser = argparse.ArgumentParser(prog="python -m jobs.dagger", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file, with a `dagger` section")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--iterations", type=int, help="iterate up to this one; default: as the recipe says")
    parser.add_argument("--iteration", type=int, default=1, help="the iteration of --stage")
    parser.add_argument("--stage", choices=STAGES, help="do this stage alone")
    parser.add_argument("--corpus", help="the corpus of --stage label; default: that of --iteration")
    parser.add_argument("--parallel", type=int, default=16, help="environments, or labels, in flight")
    parser.add_argument("--max-cost", type=float, help="most US dollars for model calls")
    parser.add_argument("--max-steps", type=int, help="most steps of a collection in this call")
    parser.add_argument("--dry-run", action="store_true", help="with --stage label: count what is missing, ask nobody")
    options = parser.parse_args()
    recipe, lake = load(options.recipe), Lake(options.lake)
    if (d := recipe.dagger) is not None:
        require_prices(options.max_cost, [d.teacher] if options.stage == "label" else [d.student, d.teacher])
    if options.dry_run and options.stage != "label":
        raise UsageError("--dry-run is for --stage label; for the loop: stepwell dagger RECIPE --dry-run.")
    if options.stage and needs_vllm(recipe, options.stage):
        go_where_vllm_is("jobs.dagger", f"`{options.stage}` of recipe {recipe.name!r}")
    with reporter() as report:
        if options.stage is None:
            iterate(recipe, lake, report, options)
        elif options.corpus:
            report.done(label_stage(Loop(recipe, lake), options.corpus, report, options), options.corpus)
        else:
            done = run_stage(Loop(recipe, lake), options.iteration, options.stage, report, options)
            report.done(done, Loop(recipe, lake).version(options.iteration, options.stage))


if __name__ == "__main__":
    command(main)
