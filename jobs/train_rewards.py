"""Training a critic on what its critiques are worth, with TRL's GRPO (CTRL stage II, METHODS.md 2.2).

    python -m jobs.train_rewards --recipe ctrl_rl --lake ./lake

A row of the dataset is a problem and a solution. The model writes a group of critiques of it; a frozen generator answers each
one greedily, and the revision's tests say what it was worth, or 0 where no judgment can be read. Every group is a trajectory of
the corpus `rollouts/RECIPE-trained`: solution, critiques, revisions, outcomes and rewards, with the step they belong to.

An interrupted run resumes from its last whole checkpoint; critiques it had rewarded already are not played again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from jobs import registry
from jobs.report import Reporter, command, quiet
from jobs.training import run
from jobs.training.run import Fitted, Work, fitted
from jobs.training.setup import arguments, load_model
from stepwell.chat import Completion, prompt_hash
from stepwell.cli.reviewing import Given
from stepwell.critics import prompts
from stepwell.critics.model_critic import ModelCritic
from stepwell.errors import RecipeError, UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.ids import storable
from stepwell.lake import Lake
from stepwell.launching import REWARDS
from stepwell.models import model_name
from stepwell.recipe import Recipe
from stepwell.rollout.groups import Earned, Group, Groups
from stepwell.rollout.problems import Problem
from stepwell.rollout.revision import problems_in
from stepwell.settings import Grpo, Problems

_ROOM = 1 << 20
"""Tokens of context that requests are made with; whether rows fit the model was checked when the dataset was built."""


def train(
    recipe: Recipe, lake: Lake, seed: int, report: Reporter, *, base: str | None = None, again: bool = False
) -> dict[str, Any]:
    """Train one seed of a recipe and register the checkpoint; see `jobs.training.run.train`."""
    require_sound(recipe)
    return run.train(REWARDS, _fit, _objective, recipe, lake, seed, report, base=base, again=again)


def _objective(recipe: Recipe) -> str:
    g = settings_of(recipe)
    return f"tokens of critiques: GRPO ({g.loss}) on groups of {g.group}, KL to the base weighted {g.beta:g}"


def settings_of(recipe: Recipe) -> Grpo:
    """The settings of a recipe; raises RecipeError when it has none."""
    if recipe.train.grpo is None:
        raise RecipeError(f"recipe {recipe.name!r} has no `train.grpo`; name at least its `generator`.")
    return recipe.train.grpo


def require_sound(recipe: Recipe) -> None:
    """Raise RecipeError for settings that cannot work, before anything is loaded."""
    import importlib.util

    import torch

    settings, t = settings_of(recipe), recipe.train
    for name, meant in (("packing", False), ("loss", "chosen"), ("normalisation", "token"), ("patience", 0)):
        if getattr(t, name) != meant:
            raise RecipeError(f"`train.{name}: {getattr(t, name)}` has no meaning for rewards; leave it out.")
    batch = t.batch_size * t.gradient_accumulation
    if batch % settings.group:
        raise RecipeError(
            f"`train.batch_size` times `gradient_accumulation` is {batch} critiques a step, which is no multiple of "
            f"`grpo.group: {settings.group}`."
        )
    engine = settings.engine
    if engine.kind == "transformers":
        return
    if importlib.util.find_spec("vllm") is None:
        raise UsageError(
            f"`grpo.engine.kind: {engine.kind}` needs vLLM, which is not installed here; install it beside TRL on a machine "
            "with a GPU, or use `transformers`."
        )
    if engine.kind == "server" and engine.url is None:
        raise RecipeError("`grpo.engine.kind: server` needs `url`; start one: trl vllm-serve --model BASE")
    if not torch.cuda.is_available():
        raise RecipeError(f"`grpo.engine.kind: {engine.kind}` needs a CUDA GPU, and there is none; use `transformers`.")


def require_prompts(recipe: Recipe, n_prompts: int) -> None:
    """Raise RecipeError when the prompts do not fill one step: TRL leaves a batch out that is not full."""
    t, group, processes = recipe.train, settings_of(recipe).group, registry.processes()
    wanted = t.batch_size * t.gradient_accumulation * processes // group
    if n_prompts < wanted:
        raise RecipeError(
            f"a step takes {wanted} prompts (`train.batch_size: {t.batch_size}`, `gradient_accumulation: "
            f"{t.gradient_accumulation}`, `grpo.group: {group}`, processes: {processes}), and the dataset has {n_prompts}. "
            "Lower batch_size or gradient_accumulation, or widen `source`."
        )


def require_same_prompts(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise RecipeError where TRL would ask something else than the dataset: it reads special tokens spelt out in content."""
    differing = []
    for r in rows:
        asked = tokenizer.apply_chat_template(json.loads(r["messages"]), add_generation_prompt=True, return_dict=True)
        if list(asked["input_ids"]) != list(r["input_ids"]):
            differing.append(r["row_id"])
    if differing:
        raise RecipeError(
            f"TRL renders {len(differing)} of {len(rows)} prompts otherwise than the dataset (such as "
            f"{', '.join(differing[:3])}): their text spells out special tokens. Leave them out by `source.where`."
        )


def corpus_of(recipe: Recipe) -> str:
    """Where the groups of a recipe's training are recorded."""
    return settings_of(recipe).corpus or f"rollouts/{recipe.name}-trained"


class Rewarder:
    """TRL's reward function: a batch of critiques -> what each earned, played and recorded as groups.

    `rows` are those trained on, in the order that the column `row` numbers them.
    """

    __name__ = "revision"

    def __init__(
        self, groups: Groups, rows: Sequence[Mapping[str, Any]], problems: Mapping[str, Problem], critic: ModelCritic
    ) -> None:
        self.groups, self.critic = groups, critic
        self.rows = [(json.loads(r["reference"]), prompt_hash(json.loads(r["messages"]))) for r in rows]
        self.problems = problems

    def __call__(
        self, *, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], row: Sequence[int], trainer_state: Any,
        log_metric: Any, **_: Any,
    ) -> list[float | None]:  # fmt: skip
        """One reward a completion, None where nobody was there to tell; the whole batch is played in the first process."""
        from accelerate.state import PartialState  # type: ignore[import-untyped]
        from accelerate.utils import broadcast_object_list, gather_object  # type: ignore[import-untyped]

        state = PartialState()
        mine = [
            (r, storable(c[0]["content"]), len(ids)) for r, c, ids in zip(row, completions, completion_ids, strict=True)
        ]
        said = gather_object(mine) if state.num_processes > 1 else mine
        told: list[Any] = [self.earned(trainer_state.global_step, said) if state.is_main_process else None]
        if state.num_processes > 1:
            told = broadcast_object_list(told)
        earned: list[Earned | None] = told[0]
        known = [e for e in earned if e is not None]
        log_metric("format_rate", sum(e.format_ok for e in known) / len(known))
        log_metric("passed", sum(e.passed for e in known) / len(known))
        first = state.process_index * len(mine)
        return [None if e is None else e.reward for e in earned[first : first + len(mine)]]

    def earned(self, step: int, said: Sequence[tuple[int, str, int]]) -> list[Earned | None]:
        """(row, critique, its tokens) in groups that lie together -> what each earned."""
        n = self.groups.settings.group
        groups, tokens = [], {}
        for start in range(0, len(said), n):
            row, reference = said[start][0], self.rows[said[start][0]][0]
            texts = tuple(text for _, text, _ in said[start : start + n])
            group = Group(
                row, self.problems[reference["task_id"]], reference["attempt_event"], reference["code"], texts
            )
            tokens[row, texts] = [n_tokens for _, _, n_tokens in said[start : start + n]]
            groups.append(group)

        def reviewer(by_stream: Mapping[str, Group]) -> Given:
            def replies(attempt: Event) -> tuple[list[Completion], str]:
                group = by_stream[attempt.trajectory_id]
                counted = zip(group.texts, tokens[group.row, group.texts], strict=True)
                return [Completion(text, tokens_out=n) for text, n in counted], self.rows[group.row][1]

            return Given(self.critic, replies)

        return [e for group in self.groups.play(step, groups, reviewer) for e in group]


def problems_of(recipe: Recipe, rows: pa.Table) -> tuple[Problems, dict[str, Problem], Any]:
    """Where the tests of the rows are, the problems by task, and functions of embedded ones.

    Raises RecipeError when a row's problem is not there any more, or has other tests than the log says.
    """
    references = [json.loads(r) for r in rows.column("reference").to_pylist()]
    named = {json.dumps(r["problems"], sort_keys=True) for r in references}
    if len(named) > 1 or "null" in named:
        raise RecipeError(
            f"the rows name {len(named)} sets of problems, must be one; set `dataset.synthesis.problems` and build again."
        )
    wanted = Problems.model_validate(json.loads(named.pop()))
    found, functions, _ = problems_in(wanted)
    problems = {p.task_id: p for p in found}
    for r in references:
        known = problems.get(r["task_id"])
        if known is None or known.tests_hash != r["tests_hash"]:
            why = "is not among" if known is None else "has other tests in"
            raise RecipeError(
                f"problem {r['task_id']!r} of a row {why} the problems that {recipe.name!r} names: {wanted!r}."
            )
    return wanted, problems, functions


def _fit(work: Work) -> Fitted:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig

    from jobs.revise import Models
    from jobs.training.critics import RewardTrainer

    quiet()
    recipe, settings = work.recipe, settings_of(work.recipe)
    assert recipe.dataset is not None
    rows = work.sealed.fit.to_pylist()
    require_prompts(recipe, len(rows))
    wanted, problems, functions = problems_of(recipe, work.sealed.fit)
    models = Models()
    if settings.generator.kind == "model":
        models.load(
            settings.generator.model_copy(update={"temperature": 0.0})
        )  # now, as loading draws random numbers, which a resumed run must not
    critic = ModelCritic(
        prompts.load(recipe.dataset.critiques.prompt or "critique"), model_name(recipe, work.seed),
        context=_ROOM + settings.max_new_tokens, max_tokens=settings.max_new_tokens, temperature=settings.temperature,
        samples=settings.group,
    )  # fmt: skip
    corpus = corpus_of(recipe)
    named = f"{model_name(recipe, work.seed)}-{recipe.training_hash[:12]}-{work.sealed.hash[:12]}-{work.seed}"
    groups = Groups(work.lake, settings, corpus, named, wanted, functions, models.policy)
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    require_same_prompts(tokenizer, rows)
    model = load_model(work.base, recipe.train, work.seed)
    asked = Dataset.from_list([{"prompt": json.loads(r["messages"]), "row": i} for i, r in enumerate(rows)])
    shared = arguments(recipe.train, work.scratch, work.seed, evaluates=False)
    config = GRPOConfig(**shared | {"include_num_input_tokens_seen": "no"}, **_of_grpo(settings))

    def make(callbacks: list[Any]) -> RewardTrainer:
        trainer = RewardTrainer(
            model=model, reward_funcs=Rewarder(groups, rows, problems, critic), args=config, train_dataset=asked,
            processing_class=tokenizer, callbacks=callbacks,
        )  # fmt: skip
        trainer.rows = lambda inputs: ["those of its critiques in " + corpus]
        return trainer

    done = fitted(work, model, make, held_out=False)
    refresh(work.lake)
    done.metrics.update(corpus=corpus, unrewarded=groups.n_failed)
    return done


def _of_grpo(settings: Grpo) -> dict[str, Any]:
    """TRL's arguments of these settings."""
    engine = settings.engine
    sampled: dict[str, Any] = {}
    if engine.kind == "colocate":
        sampled = {
            "use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": engine.memory,
            "vllm_tensor_parallel_size": engine.tensor_parallel,
        }  # fmt: skip
    elif engine.kind == "server":
        sampled = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": engine.url}
    return {
        "num_generations": settings.group, "max_completion_length": settings.max_new_tokens, "beta": settings.beta,
        "epsilon": settings.epsilon, "loss_type": settings.loss, "scale_rewards": settings.scale,
        "num_iterations": settings.iterations, "temperature": settings.temperature, "top_p": 1.0, "top_k": 0,
        "repetition_penalty": 1.0, **sampled,
    }  # fmt: skip


def main() -> None:
    """Read the command line, train, report."""
    run.program(REWARDS, str(__doc__).splitlines()[0], train)


if __name__ == "__main__":
    command(main)
