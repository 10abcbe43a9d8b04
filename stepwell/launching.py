"""Which program trains what a recipe's dataset holds, and which one evaluates what comes of it.

Belongs here: the names of the modules to launch, for the command line and the asset graph alike, which never import them.
Does not belong here: what these do (`jobs`).
"""

from __future__ import annotations

from stepwell.recipe import Recipe

POLICY, PAIRS, REWARDS = "jobs.train_policy", "jobs.train_pairs", "jobs.train_rewards"
_TRAINED = {"critic_dpo": PAIRS, "ctrl_rl": REWARDS}
ROLLOUTS, LOOPS, JUDGMENTS = "jobs.evaluate", "jobs.evaluate_critic", "jobs.evaluate_judge"
_EVALUATED = {
    "critic_dpo": LOOPS, "critic_sft": JUDGMENTS, "ctrl_rl": LOOPS, "ctrl_sft": LOOPS, "verifier": JUDGMENTS
}  # fmt: skip


def job_of(recipe: Recipe) -> str:
    """The job that trains on a recipe's dataset: replies and critiques alike, pairs, or prompts that are rewarded."""
    return _TRAINED.get(recipe.dataset.method, POLICY) if recipe.dataset else POLICY


def evaluation_of(recipe: Recipe) -> str:
    """The job that evaluates the model: rollouts, critique-revision loops, or judgments of held-out trajectories."""
    return _EVALUATED.get(recipe.dataset.method, ROLLOUTS) if recipe.dataset else ROLLOUTS
