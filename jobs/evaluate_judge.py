"""Evaluating a model that judges whole trajectories, on those that were held out of its training.

    python -m jobs.evaluate_judge --recipe verifier --lake ./lake              # what the recipe trained, every seed
    python -m jobs.evaluate_judge --recipe verifier --lake ./lake --model DIR  # any model, such as the base

The model judges the trajectories of the dataset's held-out split with transformers, under the prompt it learnt; its verdicts go
into the log as those of `stepwell judge` do. A verifier is measured against the tests: AUC, accuracy and best of k with
intervals (METHODS.md 5). A critic of steps is measured against the environment's labels, as `stepwell audit` does.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from transformers import AutoModelForCausalLM

from jobs import registry
from jobs.model_policy import TransformersPolicy
from jobs.report import Reporter, command, flat, quiet, reporter
from stepwell.chat import BatchBackend, Call, Completion, Failure
from stepwell.critics import prompts
from stepwell.critics.audit import COLUMNS as AUDITED
from stepwell.critics.audit import KINDS, audit
from stepwell.critics.audit.training import training_of
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.streams import Counter
from stepwell.datasets.critiques import NO, YES
from stepwell.errors import RecipeError, StepwellError
from stepwell.evaluation import ranking
from stepwell.ids import digest, storable
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import model_names
from stepwell.recipe import Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.policies import View

REPLY = {"verifier": 8, "steps": 512}
"""Most tokens of a reply, by kind of prompt."""
_BATCH = 8


class Answers:
    """A verifier with transformers: the chance of YES against NO, each as the whole reply it was trained to give."""

    def __init__(self, directory: str) -> None:
        quiet()
        self.renderer = Renderer.load(directory)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 1 << 30))

    @torch.inference_mode()
    def __call__(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        """Answer many calls, in order; one that does not fit the context is a failure."""
        return [answer for i in range(0, len(calls), _BATCH) for answer in self._some(calls[i : i + _BATCH])]

    def _some(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        started = time.monotonic()
        rows = []
        for call in calls:
            n = sum(m["role"] == "assistant" for m in call.messages)
            for answer in (YES, NO):
                rows.append(
                    self.renderer.encode([*call.messages, {"role": "assistant", "content": answer}], [0.0] * n + [1.0])
                )
        width = max(len(r.input_ids) for r in rows)
        if width > self.context and len(calls) > 1:
            return [one for call in calls for one in self._some([call])]
        if width > self.context:
            return [Failure("context", f"{width} tokens of {self.context}")]
        ids, labels = torch.zeros((len(rows), width), dtype=torch.long), torch.full((len(rows), width), -100)
        for i, r in enumerate(rows):  # padded behind the reply, where causal attention never looks
            ids[i, : len(r.input_ids)] = torch.tensor(r.input_ids)
            labels[i, : len(r.labels)] = torch.tensor(r.labels)
        device = self.model.device
        logits = self.model(ids.to(device)).logits[:, :-1].float().log_softmax(-1).cpu()
        wanted = labels[:, 1:]
        said = logits.gather(2, wanted.clamp(min=0)[:, :, None])[:, :, 0]
        score = (said * (wanted != -100)).sum(1).view(-1, 2)
        yes = torch.softmax(score, 1)[:, 0].tolist()
        latency = (time.monotonic() - started) / len(calls)
        return [
            Completion(
                YES if p > 0.5 else NO, tokens_in=len(rows[2 * i].input_ids), tokens_out=1, latency_s=round(latency, 6),
                finish="stop", yes=p, at=round(time.time(), 6),
            )
            for i, p in enumerate(yes)
        ]  # fmt: skip


class Words:
    """A model that judges in words, with transformers, greedily."""

    def __init__(self, directory: str, max_tokens: int) -> None:
        self.policy = TransformersPolicy(directory, directory, temperature=0.0, max_new_tokens=max_tokens, seed=0)
        self.context = self.policy.context

    def __call__(self, calls: Sequence[Call]) -> list[Completion | Failure]:
        """Answer many calls at once, in order."""
        replies = self.policy.act_many([View(messages=list(call.messages)) for call in calls])
        return [
            Failure(r.finish, r.detail) if r.text is None else Completion(
                storable(r.text), tokens_in=r.usage["tokens_in"], tokens_out=r.usage["tokens_out"],
                latency_s=r.usage["latency_s"], finish=r.finish,
            )
            for r in replies
        ]  # fmt: skip


def held_out(recipe: Recipe, lake: Lake) -> list[str]:
    """Trajectories of the held-out split of a recipe's dataset; raises RecipeError where there are none."""
    rows = lake.read(recipe.dataset_table, columns=["trajectory_id", "split"])
    found = sorted(set(rows.filter(pc.equal(rows.column("split"), "held_out")).column("trajectory_id").to_pylist()))
    if not found:
        raise RecipeError(f"{recipe.dataset_table} has no held-out rows; raise `dataset.held_out` and build it again.")
    return found


def evaluate(recipe: Recipe, lake: Lake, directory: str, identity: str, tell: Reporter) -> dict[str, Any]:
    """Judge the held-out trajectories and compare; returns the figures with their n and intervals.

    Raises StepwellError when not everything could be judged, and where the model learnt from a trajectory it judges.
    """
    assert recipe.dataset is not None
    prompt = prompts.load(recipe.dataset.critiques.prompt or "verifier")
    if prompt.kind not in REPLY:
        raise RecipeError(
            f"`dataset.critiques.prompt: {prompt.name}` is of kind {prompt.kind}; allowed: {', '.join(REPLY)}."
        )
    ids, directory = held_out(recipe, lake), str(Path(directory).resolve())
    answers = Answers(directory) if prompt.kind == "verifier" else Words(directory, REPLY[prompt.kind])
    critic = ModelCritic(
        prompt, directory, context=answers.context, max_tokens=REPLY[prompt.kind], counter=Counter.of(directory)
    )
    if training_of(lake, critic.id).trajectory_ids & set(ids):
        raise StepwellError(
            f"{identity} learnt from trajectories it would be evaluated on; hold the same ones out of both."
        )
    tell.log(f"{critic.id} judges {len(ids)} held-out trajectories")
    done = judge(lake, critic, BatchBackend(answers, 32), only=frozenset(ids))
    if not done.complete:
        raise StepwellError(f"not everything is judged: {done.stopped or dict(done.failed)}. Run it again to go on.")
    log = EventLog(lake)
    told: dict[str, Any] = {
        "evaluation_id": f"{identity}@{recipe.name}-held-out-{digest(ids, critic.prompt_id)[:12]}", "critic": critic.id,
        "trajectories": len(ids), "not_judged": dict(done.not_judged),
    }  # fmt: skip
    if prompt.kind == "verifier":
        attempts, _ = ranking.scored(log.read(trajectory_ids=ids, columns=ranking.COLUMNS), critic.id)
        told |= {"n": len(attempts)} | {k: str(f) for k, f in ranking.ranked(attempts).items() if f.value is not None}
    else:
        found = audit(log.read(trajectory_ids=ids, kinds=KINDS, columns=AUDITED), critic.id)
        told |= {"n": found.n_steps} | {k: str(f) for k, f in found.agreement.items() if f.value is not None}
        told |= {f"f1 of {s.label}": str(s.f1) for s in found.scores if s.f1.value is not None}
    tell.log(", ".join(f"{k} {v}" for k, v in told.items()))
    return told


def main() -> None:
    """Read the command line, evaluate, report."""
    parser = argparse.ArgumentParser(prog="python -m jobs.evaluate_judge", description=str(__doc__).splitlines()[0])
    parser.add_argument("--recipe", required=True, help="recipe name or YAML file")
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--model", help="model name, id or directory; default: the recipe's, one a seed")
    options = parser.parse_args()
    recipe, lake = load(options.recipe), Lake(options.lake)
    with reporter() as tell:
        told: dict[str, dict[str, Any]] = {}
        for name in [options.model] if options.model else model_names(recipe):
            directory, identity = registry.located(lake, name)
            told[name] = evaluate(recipe, lake, directory, identity, tell)
            registry.note(lake, Path(directory), identity, told[name])
        tell.done(flat(told), " ".join(document["evaluation_id"] for document in told.values()))


if __name__ == "__main__":
    command(main)
