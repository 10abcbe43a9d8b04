"""Critique-revision loops with models in this process: what `stepwell revise` launches for model directories.

    python -m jobs.revise --recipe ctrl --lake ./lake

A directory is loaded once, whether it writes, revises or judges. Loops that are finished already are not played again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from jobs.report import Reporter, command, reporter
from jobs.rollout import load_model
from jobs.vllm_policy import go_where_vllm_is
from stepwell.batching import Batcher, Crowd
from stepwell.chat import Call, Completion, Failure
from stepwell.cli.reviewing import ModelReviewer, critic_of
from stepwell.cli.revise import endpoint_reviewer, itself, line_of, settings_of
from stepwell.errors import RecipeError
from stepwell.fold import refresh
from stepwell.ids import canonical, storable
from stepwell.lake import Lake
from stepwell.recipe import Recipe, load
from stepwell.rollout.collect import now_and_then
from stepwell.rollout.policies import Batched, BatchPolicy, Reply, View
from stepwell.rollout.policies import Policy as Replies
from stepwell.rollout.reviewers import Reviewer
from stepwell.rollout.revision import revise
from stepwell.rollout.runs import name_of, policy_of
from stepwell.settings import Critic, Policy, Revision, RevisionArm


class Models:
    """Model directories loaded so far."""

    def __init__(self) -> None:
        self.loaded: dict[tuple[object, ...], BatchPolicy] = {}

    def get(self, of: Policy | Critic, name: str, max_tokens: int, top_p: float = 1.0) -> BatchPolicy:
        """The model of a directory with these settings; raises RecipeError where none is named."""
        if of.model is None:
            raise RecipeError("a policy or critic of kind model needs `model`: a model directory.")
        key = (of.model, of.backend, of.temperature, top_p, max_tokens, name)
        if key not in self.loaded:
            self.loaded[key] = load_model(
                of.model, name, of.backend, temperature=of.temperature, max_new_tokens=max_tokens, seed=0, top_p=top_p
            )
        return self.loaded[key]

    def policy(self, settings: Policy, crowd: Crowd) -> Replies:
        """Any generator of a recipe."""
        if settings.kind != "model":
            return policy_of(settings, crowd)
        return Batched(self.load(settings), crowd, settings.concurrency)

    def load(self, settings: Policy) -> BatchPolicy:
        """The model of a generator."""
        return self.get(settings, name_of(settings), settings.max_new_tokens, settings.top_p)

    def reviewer(self, arm: RevisionArm, generator: Policy, crowd: Crowd) -> Reviewer:
        """Any model critic of a recipe."""
        if arm.critic == "self":
            arm = arm.model_copy(update={"critic": "model", "settings": itself(arm, generator)})
        if arm.settings.kind != "model":
            return endpoint_reviewer(arm, generator, crowd)
        settings = arm.settings.model_copy(update={"tokenizer": arm.settings.tokenizer or arm.settings.model})
        arm = arm.model_copy(update={"settings": settings})
        model = self.get(settings, str(settings.model), settings.max_tokens)
        return ModelReviewer(critic_of(arm), ViewBackend(model, crowd, settings.concurrency))


class ViewBackend:
    """A model in this process as one that completes calls; a sampled reply follows from the messages and the call's seed."""

    def __init__(self, model: BatchPolicy, crowd: Crowd, size: int) -> None:
        self.concurrency = size
        self._batcher: Batcher[View, Reply] = Batcher(model.act_many, size, crowd, 0.25)

    async def complete(self, call: Call) -> Completion | Failure:
        """Wait for the batch that holds this call."""
        key = f"{canonical(list(call.messages)).decode()}:{call.seed}"
        said = await self._batcher.ask(View(messages=list(call.messages), key=key))
        if said.text is None:
            return Failure(said.finish, said.detail)
        tokens = (said.usage.get("tokens_in"), said.usage.get("tokens_out"))
        return Completion(storable(said.text), None, *tokens, latency_s=said.usage.get("latency_s"), finish=said.finish)

    async def close(self) -> None:
        """Wait for the batch that runs."""
        await self._batcher.close()


def need_vllm(loops: Revision, module: str, what: str) -> None:
    """Put the interpreter that has vLLM in the place of this one, at `module`, when generator or critics run in it."""
    asked: Sequence[Policy | Critic] = [loops.generator, *(arm.settings for arm in loops.arms)]
    if any(one.kind == "model" and one.backend == "vllm" for one in asked):
        go_where_vllm_is(module, what)


def run(recipe: Recipe, lake: Lake, report: Reporter, options: argparse.Namespace) -> None:
    """Play everything the recipe asks for."""
    settings = settings_of(recipe)
    need_vllm(settings, "jobs.revise", f"the loops of recipe {recipe.name!r}")
    models = Models()
    done = revise(
        lake, settings, models.reviewer, make=models.policy, parallel=options.parallel, max_cost=options.max_cost,
        max_steps=options.max_steps, progress=now_and_then(lambda r: report.log(r.line())),
    )  # fmt: skip
    refresh(lake)
    report.log(line_of(done))
    figures = {k: v for k, v in done.report.__dict__.items() if isinstance(v, int | float | str)}
    report.done(figures | {"solutions_tested": done.n_run, "solutions_known": done.n_known}, settings.corpus)
    if not done.report.complete:
        raise RecipeError(f"not every loop is played: {done.report.stopped or 'some failed'}. Run it again to go on.")


def main() -> None:
    """Read the command line, play, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.revise", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--parallel", type=int, default=16, help="loops in flight")
    parser.add_argument("--max-cost", type=float, help="most US dollars for model calls")
    parser.add_argument("--max-steps", type=int, help="most solutions, all loops together")
    options = parser.parse_args()
    with reporter() as report:
        run(load(options.recipe), Lake(options.lake), report, options)


if __name__ == "__main__":
    command(main)
