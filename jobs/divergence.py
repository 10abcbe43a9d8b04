"""How far a student is from its teacher on the student's own turns: the mean log ratio of their probabilities (METHODS.md K14).

    python -m jobs.divergence --lake ./lake --corpus rollouts/dagger-2 --student DIR --teacher DIR

On tokens that the student drew itself this estimates the reverse Kullback-Leibler divergence, in nats a token, of the models
as they are (temperature 1): where it drew more sharply the estimate is of what it said, not of what it could say. Both models
must share tokenizer and template, or tokens could not be compared. A scripted teacher has no probabilities: what can be said
of it is how often its labels differ (`stepwell dagger --report`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import orjson
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from jobs.report import command, quiet
from stepwell.bootstrap import Figure, Statistic, figures, ratio
from stepwell.conversation import READS, conversations
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.likeness import BINS
from stepwell.log import EventLog
from stepwell.rendering import Renderer

Turn = tuple[str, int, list[str], float, int]
"""Trajectory, step, the groups its turn counts in, sum of log ratios over its tokens, number of tokens."""


def main() -> None:
    """Parse the command line and print a table, or with --json one document."""
    parser = argparse.ArgumentParser(prog="python -m jobs.divergence", description=__doc__.splitlines()[0])
    parser.add_argument("--lake", required=True, help="lake URI")
    parser.add_argument("--corpus", required=True, help="corpus of rollouts in which the student acted")
    parser.add_argument("--student", required=True, help="model directory of the policy that acted")
    parser.add_argument("--teacher", required=True, help="model directory to compare with")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    found = measured(Lake(options.lake), options.corpus, options.student, options.teacher)
    if options.json:
        plain = {name: {"value": f.value, "low": f.low, "high": f.high, "n_tokens": f.n} for name, f in found.items()}
        sys.stdout.write(orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    table = Table("student's turns", "nats a token [95% interval]", "tokens", title=f"divergence in {options.corpus}")
    for name, figure in found.items():
        table.add_row(name, str(figure), str(figure.n))
    Console(width=100).print(table)


def measured(lake: Lake, corpus: str, student: str, teacher: str) -> dict[str, Figure]:
    """Mean log ratio over the student's tokens: of all its turns, by its share of the turns before, and by declared beta.

    Intervals draw whole trajectories. Raises UsageError when nothing can be compared.
    """
    quiet()
    renderer = Renderer.load(student)
    if renderer.hashes != Renderer.load(teacher).hashes:
        raise UsageError(
            f"{student!r} and {teacher!r} differ in tokenizer or template; compare models that share both."
        )
    # In the numbers that rollouts are sampled in: of weights kept in bfloat16 a ratio would be off by hundredths.
    models = [AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval() for p in (student, teacher)]
    turns = list(_turns(lake, corpus, renderer, models))
    if not turns:
        raise UsageError(
            f"the student has no turn in corpus {corpus!r}; name one of mixed rollouts (`stepwell status`)."
        )
    names = list(dict.fromkeys(name for turn in turns for name in turn[2]))
    ids = list(dict.fromkeys(turn[0] for turn in turns))
    sums = {f"{what} {name}": np.zeros(len(ids)) for name in names for what in ("sum", "n")}
    row = {trajectory: i for i, trajectory in enumerate(ids)}
    for trajectory, _, groups, total, n in turns:
        for name in groups:
            sums[f"sum {name}"][row[trajectory]] += total
            sums[f"n {name}"][row[trajectory]] += n
    return figures(sums, {name: _mean_of(name) for name in names})


def _mean_of(name: str) -> Statistic:
    return lambda drawn: ratio(drawn[f"sum {name}"], drawn[f"n {name}"])


def _turns(lake: Lake, corpus: str, renderer: Renderer, models: list[Any]) -> Iterator[Turn]:
    log = EventLog(lake)
    ids = sorted(set(log.read(corpora=[corpus], kinds=["turn"], columns=["trajectory_id"]).column(0).to_pylist()))
    for events in log.batches(ids, columns=list(dict.fromkeys([*READS, "turn"]))):
        draws = [r for r in events.select(["trajectory_id", "step", "turn"]).to_pylist() if r["turn"]]
        chosen = {
            t: {r["step"]: r["turn"] for r in rows} for t, rows in groupby(draws, key=lambda r: r["trajectory_id"])
        }
        for chat in conversations(events):
            rendered = renderer.encode(chat.messages, [1.0] * len(chat.steps))
            ratios = _log_ratios(rendered.input_ids, models)
            student = 0
            for i, (step, (start, end)) in enumerate(zip(chat.steps, rendered.spans, strict=True)):
                turn = chosen[chat.trajectory_id].get(step) or {}
                if turn.get("chosen") == "agent":
                    before = BINS[0 if not student else 1 if 2 * student <= i else 2]
                    beta = [] if turn["beta"] is None else [f"beta {turn['beta']:g}"]
                    groups = ["all", f"student {before} of the turns before", *beta]
                    yield chat.trajectory_id, step, groups, float(ratios[start:end].sum()), end - start
                    student += 1


@torch.no_grad()
def _log_ratios(ids: list[int], models: list[Any]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log student - log teacher of every token given those before it, (len(ids),); 0 of the first, which has none."""
    tokens = torch.tensor([ids])
    known = []
    for model in models:
        logits = model(input_ids=tokens).logits[0, :-1].double()
        known.append(logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0])
    return np.concatenate([[0.0], (known[0] - known[1]).numpy()])


if __name__ == "__main__":
    command(main)
