"""Rolling a trained policy out on held-out tasks: results as events, `evaluations` rows and a rate with its interval.

    python -m jobs.evaluate --recipe srft --lake ./lake              # what the recipe trained, every seed
    python -m jobs.evaluate --recipe srft --lake ./lake --model DIR  # any model directory, such as the base
    python -m jobs.evaluate --recipe bench --predictions all.jsonl   # tasks of a file: patches for the official harness
    python -m jobs.evaluate --recipe bench --report report.json      # and what it said of them

Attempts that are in the log already are not run again, so an interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from jobs import harness, registry
from jobs.replicas import load as load_model
from jobs.report import Reporter, command, flat, reporter
from jobs.vllm_policy import go_where_vllm_is
from stepwell.batching import Crowd
from stepwell.errors import RecipeError, StepwellError, UsageError
from stepwell.evaluation.rows import Evaluated, evaluation_id, record_rows, summarise
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import model_names
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import Wanted, collect, now_and_then
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Batched, Policy
from stepwell.rollout.runs import SCAFFOLDS, policy_of, repairs, repositories
from stepwell.settings import Policy as PolicySettings


@dataclass(frozen=True)
class Engine:
    """What answers: made once for all sampling seeds, a policy of it for each crowd."""

    identity: str
    backend: str
    policy: Callable[[Crowd], Policy]


@dataclass(frozen=True)
class Played:
    """An evaluation whose every attempt is in the log, by trajectory, attempt after attempt."""

    evaluation_id: str
    sampling_seed: int
    trajectories: Sequence[str]


def engine_of(recipe: Recipe, directory: str, identity: str) -> Engine:
    """The model of a directory, or the one that an endpoint serves under that name, as a recipe evaluates it."""
    e = recipe.evaluation
    if e.backend == "endpoint":
        asked = PolicySettings(
            kind="endpoint", model=directory, name=identity, base_url=e.base_url, key_env=e.key_env,
            concurrency=e.batch_size, temperature=e.temperature, top_p=e.top_p, max_new_tokens=e.max_new_tokens,
        )  # fmt: skip
        return Engine(identity, f"endpoint {directory}", lambda crowd: policy_of(asked, crowd))
    model = load_model(directory, identity, e)
    return Engine(identity, model.backend, lambda crowd: Batched(model, crowd, e.batch_size))


def play(recipe: Recipe, lake: Lake, engine: Engine, report: Reporter, sampling_seed: int = 0) -> Played:
    """Play every attempt that is not in the log; raises StepwellError when not all of them came to an end of their own."""
    e, world = recipe.evaluation, recipe.world
    known_as = evaluation_id(recipe, engine.identity, sampling_seed)
    corpus = f"evaluations/{e.suite}"
    report.log(
        f"evaluating {engine.identity} on {e.suite}, {e.attempts} attempts a task, seed {e.seed}, sampling seed "
        f"{sampling_seed}, {engine.backend}"
    )

    def setting(crowd: Crowd) -> Setting:
        return Setting(engine.policy(crowd), world.max_turns, SCAFFOLDS[world.scaffold]())

    done = collect(
        lake, corpus, wanted(recipe, lake, engine.identity, sampling_seed), setting, parallel=e.batch_size,
        progress=now_and_then(lambda r: report.log(r.line())),
    )  # fmt: skip
    if not done.complete:
        raise StepwellError(f"{known_as} is not finished ({done.line()}): {done.stopped}. Run it again to go on.")
    return Played(known_as, sampling_seed, done.trajectories)


def wanted(recipe: Recipe, lake: Lake, identity: str, sampling_seed: int = 0) -> list[Wanted]:
    """The attempts of an evaluation, attempt after attempt, under identities that no other evaluation has.

    What is drawn follows from the model's id; from the evaluation's where that id's rollouts were played for another one
    (other settings), and under every sampling seed but 0.
    """
    e, known_as = recipe.evaluation, evaluation_id(recipe, identity, sampling_seed)
    corpus = f"evaluations/{e.suite}"

    def under(policy: str) -> list[Wanted]:
        if e.tasks is not None:
            return repositories(
                e.tasks, e.n_tasks, e.seed, corpus=corpus, policy=policy, run_id=known_as, attempts=e.attempts
            )
        return repairs(
            recipe.world, "eval", e.n_tasks, e.seed, corpus=corpus, policy=policy, run_id=known_as, attempts=e.attempts
        )

    if sampling_seed:
        return under(known_as)
    plain = under(identity)
    ours = {w.identity for w in plain}
    starts = EventLog(lake).read(corpora=[corpus], kinds=["start"], columns=["trajectory_id", "start"]).to_pylist()
    others = any(r["trajectory_id"] in ours and r["start"]["run_id"] != known_as for r in starts)
    return under(known_as) if others else plain


def settle(recipe: Recipe, lake: Lake, engine: Engine, played: Played, report: Reporter) -> Evaluated | None:
    """Write the rows of an evaluation that was played; None when nobody graded any of it."""
    e = recipe.evaluation
    record_rows(
        lake, played.trajectories, evaluation_id=played.evaluation_id, suite=e.suite, recipe=recipe.name,
        model_id=engine.identity, seed=e.seed, backend=engine.backend, sampling_seed=played.sampling_seed,
    )  # fmt: skip
    where = pc.field("evaluation_id") == played.evaluation_id
    graded = len(lake.read("evaluations", columns=["task_id"], filters=where))
    if graded < len(played.trajectories):
        report.log(
            f"{played.evaluation_id}: {len(played.trajectories) - graded} of {len(played.trajectories)} attempts are not "
            "graded; write --predictions for the suite's own harness, then read its --report"
        )
    result = summarise(lake, played.evaluation_id) if graded else None
    if result is not None:
        report.log(result.line())
    return result


def evaluate(
    recipe: Recipe, lake: Lake, directory: str, identity: str, report: Reporter, sampling_seed: int = 0
) -> Evaluated:
    """Evaluate one model; returns counts, the resolve rate with its Wilson interval, and the evaluation's id."""
    engine = engine_of(recipe, directory, identity)
    played = play(recipe, lake, engine, report, sampling_seed)
    result = settle(recipe, lake, engine, played, report)
    if result is None:
        raise UsageError(
            f"nothing of {played.evaluation_id} is graded; use python -m jobs.evaluate --predictions FILE."
        )
    return result


def located(recipe: Recipe, lake: Lake, name: str) -> tuple[str, str]:
    """Directory and id of a model; of one that an endpoint serves the name it is served by, and its id where it has one."""
    if recipe.evaluation.backend != "endpoint":
        return registry.located(lake, name)
    try:
        return name, str(registry.find(lake, name)["model_id"])
    except UsageError:
        return name, name


def require_sense(recipe: Recipe) -> None:
    """Raise RecipeError for settings that contradict each other."""
    e = recipe.evaluation
    if len(e.sampling_seeds) > 1 and e.temperature == 0:
        raise RecipeError(
            f"`evaluation.sampling_seeds: {list(e.sampling_seeds)}` at temperature 0, where nothing is drawn: every one would "
            "be the same. Set a temperature, or keep one seed."
        )


def continue_where_vllm_is(recipe: Recipe) -> None:
    """Put the interpreter that has vLLM in the place of this one when the recipe needs it; raises UsageError without one."""
    if recipe.evaluation.backend == "vllm":
        go_where_vllm_is("jobs.evaluate", f"the evaluation of recipe {recipe.name!r}")


def run(recipe: Recipe, lake: Lake, names: Sequence[str], report: Reporter, options: argparse.Namespace) -> None:
    """Evaluate every model under every sampling seed; what is exported and read goes by attempt, in that order."""
    e = recipe.evaluation
    files = harness.files(options.predictions, len(names) * len(e.sampling_seeds) * e.attempts)
    reports = harness.reports(options.report, len(names) * len(e.sampling_seeds) * e.attempts)
    results: dict[str, Evaluated] = {}
    for name in names:
        directory, identity = located(recipe, lake, name)
        engine = engine_of(recipe, directory, identity)
        for seed in e.sampling_seeds:
            played = play(recipe, lake, engine, report, seed)
            for attempt in range(e.attempts):
                share = len(played.trajectories) // e.attempts
                part = played.trajectories[attempt * share : (attempt + 1) * share]
                if files is not None:
                    file = files.pop(0)
                    n = harness.export_predictions(lake, f"evaluations/{e.suite}", part, file)
                    report.log(f"{n} predictions in {file}")
                if reports is not None:
                    told = harness.record(lake, f"evaluations/{e.suite}", part, reports.pop(0))
                    report.log(told.line())
            result = settle(recipe, lake, engine, played, report)
            if result is not None:
                results[name if len(e.sampling_seeds) == 1 else f"{name}/{seed}"] = result
                known_as = {"evaluation_id": result.evaluation_id, "suite": e.suite}
                registry.note(lake, Path(directory), identity, {**known_as, **result.metadata()})
    refresh(lake)
    told_of = {name: result.metadata() for name, result in results.items()}
    report.done(flat(told_of), " ".join(result.evaluation_id for result in results.values()))


def main() -> None:
    """Read the command line, evaluate, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--model", help="model name, id or directory; default: the recipe's, one a seed")
    parser.add_argument(
        "--predictions", type=Path, help="file for what was handed in, as the SWE-bench harness reads it"
    )
    parser.add_argument("--report", type=Path, action="append", help="a report of that harness; one a predictions file")
    options = parser.parse_args()
    recipe, lake = load(options.recipe), Lake(options.lake)
    require_sense(recipe)
    continue_where_vllm_is(recipe)
    with reporter() as report:
        run(recipe, lake, [options.model] if options.model else model_names(recipe), report, options)


if __name__ == "__main__":
    command(main)
