"""Evaluating judges on pairs: a right and a wrong attempt at one task, shown in both orders (`jobs.evaluate_judge --pairs`).

Belongs here: from attempts in the log to a document of figures, for a model that is asked and for scores that were recorded.
Does not belong here: the command line, what a pair looks like (`critics.context`), the figures (`evaluation.pairwise`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.judge import VllmCritic
from jobs.judges import Answers
from jobs.report import Reporter
from stepwell.bootstrap import Figure
from stepwell.chat import Backend, BatchBackend, OpenAIBackend
from stepwell.critics import prompts
from stepwell.critics.audit.training import training_of
from stepwell.critics.grammar import render
from stepwell.critics.judging import Report
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.pairing import judge_pairs
from stepwell.critics.reading import Reading
from stepwell.critics.streams import ESTIMATE, Counter
from stepwell.errors import StepwellError, UnknownName, UsageError
from stepwell.evaluation import pairwise, ranking
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.pairs import COLUMNS, KINDS, Pair, drawn, graded
from stepwell.spending import Prices

BACKENDS = ("transformers", "vllm", "endpoint")
_OF_SCORES = ("accuracy", "decided_accuracy", "undecided")
_LETTERS = (render("pair", Reading("ok", judgment=True)), render("pair", Reading("ok", judgment=False)))


@dataclass(frozen=True)
class Asking:
    """How a judge is asked.

    `transformers` weighs the replies A and B against each other and writes nothing else; `vllm` and an `endpoint` (at
    `base_url`) let the model write up to `max_tokens`, of a `context` that is the engine's own with vllm.
    """

    backend: str = "transformers"
    base_url: str | None = None
    prompt: str = "pairwise"
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    context: int = 32_768
    concurrency: int = 16
    prices: Prices | None = None
    max_cost: float | None = None


def pairs_of(
    lake: Lake, most: int, seed: int = 0, *, corpora: Sequence[str] | None = None, only: Collection[str] | None = None
) -> list[Pair]:
    """At most `most` pairs a task among the graded attempts of corpora or trajectories; raises UsageError without any."""
    rows = EventLog(lake).read(
        corpora=corpora, trajectory_ids=None if only is None else sorted(only), kinds=KINDS, columns=COLUMNS
    )
    attempts = graded(rows)
    found = drawn(attempts.values(), most, seed)
    if not found:
        raise UsageError(
            f"no task has both a right and a wrong attempt among the {len(attempts)} graded ones of "
            f"{', '.join(corpora) if corpora else 'the held-out split'}; roll out more attempts at a task."
        )
    return found


def ask(lake: Lake, pairs: Sequence[Pair], asking: Asking, model: str, identity: str, tell: Reporter) -> dict[str, Any]:
    """Have a model compare the pairs and count; `model` is a directory, or the name an endpoint serves it by.

    Raises StepwellError when not everything could be asked, and where the model learnt from a trajectory it compares.
    """
    critic, backend = _judge(asking, model)
    _require_unseen(lake, critic.id, pairs, tell)
    tell.log(
        f"{critic.id} compares {len(pairs)} pairs of {len(_tasks(pairs))} tasks in both orders, {asking.samples} x"
    )
    shown = 0

    def progress(report: Report) -> None:
        nonlocal shown
        if report.n_done >= shown + 50:
            shown = report.n_done
            tell.log(
                f"{shown}/{report.n_trajectories} pairs in an order, {report.n_calls} calls, ${report.cost_usd:.4f}"
            )

    done = judge_pairs(lake, critic, backend, pairs, max_cost=asking.max_cost, progress=progress)
    if not done.complete:
        raise StepwellError(f"not every pair is compared: {done.stopped or dict(done.failed)}. Run it again to go on.")
    log, ids = EventLog(lake), sorted({a.trajectory_id for p in pairs for a in (p.right, p.wrong)})
    rows = log.read(trajectory_ids=ids, kinds=["verdict", "retraction"], columns=pairwise.COLUMNS)
    said = pairwise.answered(rows, critic.id, pairs, asking.samples)
    told = _document(lake, critic.id, identity, pairs, [critic.identity, critic.settings.__dict__, asking.samples])
    told |= {
        "backend": asking.backend, "samples": asking.samples, "compared": len(said.answers), "not_compared": said.n_missing,
        "reasons": str(dict(done.not_judged)), "replies": said.n_replies, "unreadable": said.unreadable, "ties": said.ties,
    }  # fmt: skip
    told |= _plain(pairwise.compared(said.answers, asking.samples))
    told |= {"calls_now": done.n_calls, "cost_now_usd": round(done.cost_usd, 6), **said.spent}
    return _said(told, tell)


def recorded(lake: Lake, pairs: Sequence[Pair], critic: str, tell: Reporter) -> dict[str, Any]:
    """Compare the pairs by the scores that verdicts of a critic in the log come to: rules, verifiers, people.

    Raises UsageError where it has judged no attempt in a pair, and StepwellError where it learnt from one.
    """
    _require_unseen(lake, critic, pairs, tell)
    ids = sorted({a.trajectory_id for p in pairs for a in (p.right, p.wrong)})
    scores, _ = ranking.scored(EventLog(lake).read(trajectory_ids=ids, columns=ranking.COLUMNS), critic)
    answers = pairwise.preferred(pairs, scores)
    if not answers:
        raise UsageError(
            f"{critic} has judged both attempts of no pair; judge them first: stepwell judge --critic {critic}"
        )
    told = _document(lake, critic, critic, pairs, [EventLog(lake).version])
    told |= {"backend": "recorded", "compared": len(answers), "not_compared": len(pairs) - len(answers)}
    figures = {name.removesuffix("@1"): figure for name, figure in pairwise.compared(answers).items()}
    return _said(told | _plain({name: figures[name] for name in _OF_SCORES}), tell)


def _judge(asking: Asking, model: str) -> tuple[ModelCritic, Backend]:
    if asking.backend not in BACKENDS:
        raise UnknownName("backend", asking.backend, BACKENDS, "Choose one of these.")
    context, counter, max_tokens = asking.context, ESTIMATE, asking.max_tokens
    backend: Backend
    model = model if asking.backend == "endpoint" else str(Path(model).resolve())
    if asking.backend == "endpoint":
        backend = OpenAIBackend(model, asking.base_url, concurrency=asking.concurrency)
    elif asking.backend == "vllm":
        engine = VllmCritic(model)
        backend, context, counter = BatchBackend(engine, asking.concurrency), engine.context, Counter.of(model)
    else:
        answers = Answers(model, _LETTERS)
        backend, context, counter = BatchBackend(answers, asking.concurrency), answers.context, Counter.of(model)
        max_tokens = max(counter.message(letter) for letter in _LETTERS)
    critic = ModelCritic(
        prompts.load(asking.prompt), model, context=context, max_tokens=max_tokens, temperature=asking.temperature,
        samples=asking.samples, seed=asking.seed, counter=counter, prices=asking.prices,
    )  # fmt: skip
    return critic, backend


def _require_unseen(lake: Lake, critic: str, pairs: Sequence[Pair], tell: Reporter) -> None:
    learnt = training_of(lake, critic)
    seen = learnt.trajectory_ids & {a.trajectory_id for p in pairs for a in (p.right, p.wrong)}
    if learnt.caveat:
        tell.log(f"what {critic} learnt from is {learnt.caveat}")
    if seen:
        raise StepwellError(
            f"{critic} learnt from {len(seen)} of the trajectories it would compare; name a corpus it did not learn from."
        )


def _tasks(pairs: Sequence[Pair]) -> set[str]:
    return {p.right.task for p in pairs}


def _document(lake: Lake, critic: str, identity: str, pairs: Sequence[Pair], asked: Sequence[Any]) -> dict[str, Any]:
    named = digest([[p.right.id, p.wrong.id] for p in pairs], *asked)[:12]
    return {
        "evaluation_id": f"{identity}@pairs-{named}", "critic": critic, "pairs": len(pairs), "tasks": len(_tasks(pairs)),
    }  # fmt: skip


def _plain(figures: dict[str, Figure]) -> dict[str, str]:
    return {name: str(figure) for name, figure in figures.items() if figure.value is not None}


def _said(told: dict[str, Any], tell: Reporter) -> dict[str, Any]:
    tell.log(", ".join(f"{k} {v}" for k, v in told.items()))
    return told
