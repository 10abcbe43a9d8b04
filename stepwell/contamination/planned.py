"""The tasks a recipe will be evaluated on, before they are: at the first build no evaluation is in the log yet.

The only module here that knows a stage (`rollout`, which draws them): for the asset graph and the command line, never for a
stage.
"""

from __future__ import annotations

from schemas.kinds import HELD_OUT
from stepwell.contamination.tasks import Task, of_event
from stepwell.ids import canonical
from stepwell.recipe import Recipe
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.environments.repository import tasks_from
from stepwell.rollout.runs import tasks_of
from stepwell.rollout.sandbox import Sandbox


def planned(recipe: Recipe) -> list[Task]:
    """Tasks of the recipe's evaluation, as its rollouts will record them under `evaluations/<suite>`."""
    e, sandbox = recipe.evaluation, Sandbox()
    if e.tasks is not None:
        found = [dict(t.about) for t in tasks_from(e.tasks.path, e.tasks.suite, e.tasks.split)][: e.n_tasks or None]
        return [of_event(about, canonical(about.pop("extra", {})).decode(), f"{HELD_OUT}{e.suite}") for about in found]
    drawn = tasks_of(recipe.world, "eval", e.n_tasks, e.seed)
    told = [RepairEnvironment(t, sandbox, "eval").about() for t in drawn]
    return [of_event(about, canonical(about.pop("extra")).decode(), f"{HELD_OUT}{e.suite}") for about in told]
