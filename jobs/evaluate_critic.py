"""Evaluating a critic of solutions by what its critiques are good for: critique-revision loops on held-out problems.

    python -m jobs.evaluate_critic --recipe ctrl_rl --lake ./lake              # what the recipe trained, every seed
    python -m jobs.evaluate_critic --recipe ctrl_rl --lake ./lake --model DIR  # any critic, such as the one before

Plays the recipe's `trial`, with the model as the critic of every arm whose model is not named. Reported are Pass@1 by round
with what it is made of (up, down), the critic's judgments against the tests, and how often it ranks a right solution above a
wrong one (METHODS.md 2.3). The other arms are controls, played once for all critics. What is in the log is not played again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import registry
from jobs.report import Reporter, command, flat, reporter
from jobs.revise import Models, need_vllm
from schemas.kinds import HELD_OUT
from stepwell.cli.reviewing import critic_of
from stepwell.cli.revise import line_of
from stepwell.errors import RecipeError, StepwellError
from stepwell.evaluation import ranking
from stepwell.evaluation.revision import COLUMNS, ArmReport, report
from stepwell.evaluation.rows import record_rows
from stepwell.fold import refresh
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import model_names
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.revision import NOT_IDENTITY, revise
from stepwell.settings import Revision, RevisionArm

SHOWN = ("f1_correct", "f1_incorrect", "balanced_accuracy", "unparseable", "leaks")


def trial_of(recipe: Recipe, directory: str, identity: str) -> tuple[Revision, list[RevisionArm]]:
    """The loops with this model as their critic, and the arms that are its own; raises RecipeError where there are none."""
    trial = recipe.trial
    if trial is None or not trial.corpus.startswith(HELD_OUT):
        corpus = None if trial is None else trial.corpus
        raise RecipeError(
            f"recipe {recipe.name!r}: `trial` with a corpus below {HELD_OUT} is needed; its corpus is {corpus!r}."
        )

    def filled(arm: RevisionArm) -> RevisionArm:
        if not _unnamed(arm):
            return arm
        settings = arm.settings.model_copy(update={"model": str(Path(directory).resolve())})
        return arm.model_copy(update={"name": f"{arm.name}:{identity}", "settings": settings})

    arms = [filled(arm) for arm in trial.arms]
    own = [new for new, arm in zip(arms, trial.arms, strict=True) if _unnamed(arm)]
    if not own:
        raise RecipeError(f"recipe {recipe.name!r}: no arm of `trial` has `critic: model` without naming a model.")
    return trial.model_copy(update={"arms": tuple(arms)}), own


def _unnamed(arm: RevisionArm) -> bool:
    return arm.critic == "model" and arm.settings.kind == "model" and arm.settings.model is None


def evaluate(recipe: Recipe, lake: Lake, directory: str, identity: str, tell: Reporter) -> list[dict[str, Any]]:
    """Play the trial of one critic and write its rows; returns one document a own arm: its id, n and figures.

    Raises StepwellError when not every loop came to its end.
    """
    trial, own = trial_of(recipe, directory, identity)
    models = Models()
    done = revise(lake, trial, models.reviewer, make=models.policy, progress=now_and_then(lambda r: tell.log(r.line())))
    refresh(lake)
    tell.log(line_of(done))
    if not done.report.complete:
        raise StepwellError(f"not every loop is played: {done.report.stopped or 'some failed'}. Run it again to go on.")
    events = EventLog(lake).read(
        corpora=[trial.corpus],
        trajectory_ids=done.report.trajectories,
        columns=[*dict.fromkeys([*COLUMNS, *ranking.COLUMNS])],
    )
    arms = {row["trajectory_id"]: row["start"]["arm"] for row in events.to_pylist() if row["kind"] == "start"}
    for arm in trial.arms:
        who = identity if arm in own else arm.name
        played = [t for t in done.report.trajectories if arms[t] == arm.name]
        record_rows(
            lake, played, evaluation_id=evaluation_id(trial, arm, who), suite=trial.corpus.removeprefix(HELD_OUT),
            recipe=recipe.name, model_id=who, seed=trial.seed, backend=f"loops of {trial.generator.kind}",
        )  # fmt: skip
    found = {r.arm: r for r in report(events)}
    told = []
    for arm in own:
        judged, _ = ranking.scored(events, critic_of(arm).id)
        figures = {**figures_of(found[arm.name]), **{f"judge_{k}": f for k, f in ranking.ranked(judged, ks=()).items()}}
        document = {"evaluation_id": evaluation_id(trial, arm, identity), "arm": arm.name, "n": found[arm.name].n_trees}
        document |= {name: str(figure) for name, figure in figures.items() if figure.value is not None}
        tell.log(
            f"{arm.name}: " + ", ".join(f"{k} {v}" for k, v in document.items() if k not in ("evaluation_id", "arm"))
        )
        told.append(document)
    return told


def evaluation_id(trial: Revision, arm: RevisionArm, who: str) -> str:
    """Identity of the evaluation of a critic, or of a control, in these loops."""
    loops = trial.model_dump(mode="json", exclude={"arms": True, "sandboxes": True, "generator": NOT_IDENTITY})
    settings = [loops, arm.model_dump(mode="json", exclude={"settings"})]
    if arm.critic in ("model", "self"):
        called = {"model"} if who != arm.name else set()  # the model of an arm of its own is in `who`
        settings.append(arm.settings.model_dump(mode="json", exclude=NOT_IDENTITY | called))
    return f"{who}@{trial.corpus.removeprefix(HELD_OUT)}-{digest(*settings)[:12]}"


def figures_of(found: ArmReport) -> dict[str, Any]:
    """The figures of rounds and of the critic that there are."""
    rounds = [
        f"{name}@{n}" for n in range(found.n_rounds + 1) for name in ("pass@1", "up", "down", "gain", "over_placebo")
    ]
    return {name: found.figures[name] for name in (*rounds, *SHOWN) if name in found.figures}


def run(recipe: Recipe, lake: Lake, names: Sequence[str], tell: Reporter) -> None:
    """Evaluate every model, and write the results on its card."""
    told: dict[str, dict[str, Any]] = {}
    for name in names:
        directory, identity = registry.located(lake, name)
        for document in evaluate(recipe, lake, directory, identity, tell):
            registry.note(lake, Path(directory), identity, document)
            told[document["arm"]] = document
    tell.done(flat(told), " ".join(document["evaluation_id"] for document in told.values()))


def main() -> None:
    """Read the command line, evaluate, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.evaluate_critic", description=str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--model", help="model name, id or directory; default: the recipe's, one a seed")
    options = parser.parse_args()
    recipe = load(options.recipe)
    if recipe.trial is not None:
        need_vllm(recipe.trial, "jobs.evaluate_critic", f"the loops of recipe {recipe.name!r}")
    with reporter() as tell:
        run(recipe, Lake(options.lake), [options.model] if options.model else model_names(recipe), tell)


if __name__ == "__main__":
    command(main)
