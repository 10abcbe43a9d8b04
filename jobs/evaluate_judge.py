"""Evaluating a model that judges whole trajectories, on those that were held out of its training, or in pairs.

    python -m jobs.evaluate_judge --recipe verifier --lake ./lake              # what the recipe trained, every seed
    python -m jobs.evaluate_judge --recipe verifier --lake ./lake --model DIR  # any model, such as the base
    python -m jobs.evaluate_judge --pairs 4 --corpus evaluations/held-out --model DIR --samples 5 --temperature 0.7
    python -m jobs.evaluate_judge --pairs 4 --corpus evaluations/held-out --critic rules@1   # by scores in the log

The model judges the trajectories of the dataset's held-out split with transformers, under the prompt it learnt; its verdicts go
into the log as those of `stepwell judge` do. A verifier is measured against the tests: AUC, accuracy and best of k with
intervals (METHODS.md 5). A critic of steps is measured against the environment's labels, as `stepwell audit` does.

With `--pairs` a judge is shown a right and a wrong attempt at one task, in both orders (`jobs.pairwise`).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs import pairwise, registry
from jobs.judges import Answers, Words
from jobs.report import Reporter, command, flat, reporter
from jobs.vllm_policy import go_where_vllm_is
from stepwell.chat import BatchBackend
from stepwell.critics import prompts
from stepwell.critics.audit import COLUMNS as AUDITED
from stepwell.critics.audit import KINDS, audit
from stepwell.critics.audit.training import training_of
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.streams import Counter
from stepwell.datasets.critiques import NO, YES
from stepwell.errors import RecipeError, StepwellError, UsageError
from stepwell.evaluation import ranking
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.models import model_names
from stepwell.pairs import Pair
from stepwell.recipe import Recipe, load
from stepwell.spending import Prices

REPLY = {"verifier": 8, "steps": 512}
"""Most tokens of a reply, by kind of prompt."""


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
    answers = Answers(directory, (YES, NO)) if prompt.kind == "verifier" else Words(directory, REPLY[prompt.kind])
    critic = ModelCritic(
        prompt, directory, context=answers.context, max_tokens=REPLY[prompt.kind], counter=Counter.of(directory)
    )
    learnt = training_of(lake, critic.id)
    if learnt.trajectory_ids & set(ids):
        raise StepwellError(
            f"{identity} learnt from trajectories it would be evaluated on; hold the same ones out of both."
        )
    if learnt.caveat:
        tell.log(f"what {identity} learnt from is {learnt.caveat}")
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
    options = parsed()
    if options.json:
        os.environ["STEPWELL_JSON"] = "1"
    lake, recipe = Lake(options.lake), load(options.recipe) if options.recipe else None
    if options.backend == "vllm":
        go_where_vllm_is("jobs.evaluate_judge", "comparing pairs with vllm")
    with reporter() as tell:
        told: dict[str, dict[str, Any]] = {}
        if options.critic:
            told[options.critic] = pairwise.recorded(lake, chosen_pairs(options, lake, recipe), options.critic, tell)
        for name in [options.model] if options.model else model_names(recipe) if recipe and not options.critic else []:
            here = options.backend != "endpoint"
            directory, identity = registry.located(lake, name) if here else (name, name)
            if options.pairs is None:
                assert recipe is not None
                told[name] = evaluate(recipe, lake, directory, identity, tell)
            else:
                pairs = chosen_pairs(options, lake, recipe)
                told[name] = pairwise.ask(lake, pairs, asking(options), directory, identity, tell)
            registry.note(lake, Path(directory), identity, told[name])
        tell.done(flat(told), " ".join(document["evaluation_id"] for document in told.values()))


def parsed() -> argparse.Namespace:
    """The command line; raises UsageError for options that do not go together."""
    parser = argparse.ArgumentParser(prog="python -m jobs.evaluate_judge", description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--recipe", help="recipe name or YAML file: its held-out trajectories, and by default its models"
    )
    parser.add_argument("--lake", default=os.environ.get("STEPWELL_LAKE", "lake"), help="lake URI")
    parser.add_argument("--model", help="model name, id or directory, or as an endpoint names it")
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON document")
    pair = parser.add_argument_group("pairs", "compare a right and a wrong attempt at one task, in both orders")
    pair.add_argument("--pairs", type=int, help="most pairs of a task")
    pair.add_argument("--corpus", action="append", help="pairs of this corpus, instead of a recipe's; may be repeated")
    pair.add_argument("--critic", help="compare by the scores of this policy's verdicts in the log; no model is asked")
    pair.add_argument("--backend", choices=pairwise.BACKENDS, help="what answers, default transformers")
    pair.add_argument("--base-url", help="server of --backend endpoint; key in $OPENAI_API_KEY")
    pair.add_argument("--prompt", help="name of a prompt of kind pair, or a YAML file; default pairwise")
    pair.add_argument("--samples", type=int, help="answers for each order, decided by majority; default 1")
    pair.add_argument("--temperature", type=float, help="0, the default: the most likely answer")
    pair.add_argument("--seed", type=int, help="seed of the answers and of which pairs are drawn; default 0")
    pair.add_argument("--max-tokens", type=int, help="longest reply where the model writes one; default 512")
    pair.add_argument("--context", type=int, help="tokens an endpoint's model can hold, reply included; default 32768")
    pair.add_argument("--concurrency", type=int, help="calls under way at once, default 16")
    pair.add_argument("--price-in", type=float, help="US dollars per million prompt tokens")
    pair.add_argument("--price-out", type=float, help="the same for reply tokens")
    pair.add_argument("--max-cost", type=float, help="most US dollars to spend now")
    options = parser.parse_args()
    given = [f"--{a.dest.replace('_', '-')}" for a in pair._group_actions if getattr(options, a.dest) is not None]
    if options.pairs is None and given:
        raise UsageError(f"{', '.join(given)} belong to pairs; give --pairs too.")
    if (options.recipe is None) == (options.corpus is None):
        raise UsageError("name either a --recipe or, with --pairs, a --corpus.")
    if options.critic and options.model:
        raise UsageError("--critic reads verdicts that are there, --model asks for them; give one of both.")
    if options.corpus and not options.model and not options.critic:
        raise UsageError("with --corpus name who compares: --model, or --critic for scores in the log.")
    if options.pairs is not None and options.pairs < 1:
        raise UsageError(f"--pairs {options.pairs}: at least 1 pair a task.")
    if (options.price_in is None) != (options.price_out is None):
        raise UsageError("prices need both --price-in and --price-out, in US dollars per million tokens.")
    return options


def chosen_pairs(options: argparse.Namespace, lake: Lake, recipe: Recipe | None) -> list[Pair]:
    """The pairs of the corpora named, or of the recipe's held-out trajectories."""
    only = None if recipe is None else held_out(recipe, lake)
    return pairwise.pairs_of(lake, options.pairs, options.seed or 0, corpora=options.corpus, only=only)


def asking(options: argparse.Namespace) -> pairwise.Asking:
    """How pairs are asked about; what the command line does not say is at its default."""
    names = {f.name for f in fields(pairwise.Asking)} - {"prices"}
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    priced = options.price_in is not None
    prices = Prices(options.price_in, options.price_in, options.price_out) if priced else None
    return pairwise.Asking(**given, prices=prices)


if __name__ == "__main__":
    command(main)
