"""The embedded tasks a recipe will be evaluated on, before they are: at the first build no evaluation is in the log yet.

The only module here that knows a stage (`rollout`, which draws them): for the asset graph and the command line, never for a
stage.
"""

from __future__ import annotations

from schemas.kinds import HELD_OUT
from stepwell.contamination.tasks import Task, of_event
from stepwell.recipe import Recipe
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.runs import tasks_of
from stepwell.rollout.sandbox import Sandbox


def planned(recipe: Recipe) -> list[Task]:
    """Tasks of the recipe's evaluation, as its rollouts will record them under `evaluations/<suite>`."""
    e, sandbox = recipe.evaluation, Sandbox()
    drawn = tasks_of(recipe.world, "eval", e.n_tasks, e.seed)
    return [of_event(RepairEnvironment(t, sandbox, "eval").about(), None, f"{HELD_OUT}{e.suite}") for t in drawn]
