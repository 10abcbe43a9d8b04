"""Dataset methods: from a trajectory, what is trained on, or why the trajectory is left out.

`all` trains on every step of every trajectory, `rft` on every step of resolved ones, `srft` on every trajectory with the
steps its mask rule rejects at weight 0 while they stay in the context (METHODS.md 3), `srft_dropped` on the same steps with
the rejected ones, and their observations, taken out of the context (its control), `oec` on the teacher's part of trajectories
that the student began (METHODS.md 4). These are one sequence a trajectory. `dagger` is in `labelled`; critics learn by
`critiques`, `preferences` and `guided`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

from stepwell.conversation import Message
from stepwell.datasets.cases import Case, Dropped, Parts, Sample
from stepwell.datasets.critiques import critic_sft, verifier
from stepwell.datasets.guided import ctrl_rl, ctrl_sft
from stepwell.datasets.labelled import dagger
from stepwell.datasets.preferences import critic_dpo
from stepwell.errors import UnknownName

Chosen = list[Sample] | Dropped
Method = Callable[[Case], Parts]
PER_TURN = ("dagger", "oec")
"""Methods that need the prompt of every turn."""
CRITICS = ("critic_dpo", "critic_sft", "ctrl_rl", "ctrl_sft", "verifier")
"""Methods whose rows teach a critic; they need an Asker, and a `step` of theirs in a funnel is a reply."""
ASKS = {"ctrl_rl": "critique", "verifier": "verifier"}
"""Methods that need requests nobody answered, and the kind of critic these are for."""
UNTAUGHT = ("ctrl_rl",)
"""Methods whose rows are prompts: no token of theirs is in the loss."""


NOT_OURS = "no step to learn: typed by a person, copied, written by the harness, or masked by the source"
INTERRUPTED = "feedback or notices were shown: its prompts are not one growing sequence"


def every_step(case: Case) -> Chosen:
    """Every step of every trajectory."""
    return _whole(case, [1.0] * len(case.chat.steps), [])


def rejection(case: Case) -> Chosen:
    """Every step of resolved trajectories; never graded counts as not resolved, and is told apart in the funnel."""
    if case.resolved is None:
        return Dropped("not graded")
    return every_step(case) if case.resolved else Dropped("not resolved")


def step_rejection(case: Case) -> Chosen:
    """Every trajectory, weights from the mask events of the recipe's rule; a step without one has not been decided."""
    decided = _decided(case)
    return decided if isinstance(decided, Dropped) else _whole(case, *decided)


def dropped_steps(case: Case) -> Chosen:
    """The control of `step_rejection`: rejected steps and their observations are not masked but gone from the context."""
    decided = _decided(case)
    if isinstance(decided, Dropped):
        return decided
    if case.interrupted:
        return Dropped(INTERRUPTED)
    chat, (weights, evidence) = case.chat, decided
    kept, gone, left = list[Message](), False, iter(weights)
    for message in chat.messages:
        if message["role"] == "assistant":
            gone = not message.get("is_demo") and next(left) == 0
        kept += [] if gone else [message]
    left_in = [i for i, weight in enumerate(weights) if weight]
    steps, events = [chat.steps[i] for i in left_in], [chat.event_ids[i] for i in left_in]
    return _learnt(case, Sample(kept, steps, [1.0] * len(steps), events, evidence))


def _decided(case: Case) -> tuple[list[float], list[str]] | Dropped:
    """The weight of every step by the recipe's rule, and the mask events that say so."""
    decided = [case.chat.masks.get((case.mask_rule, step)) for step in case.chat.steps]
    if not all(decided):
        return Dropped("steps without a mask decision")
    weights = [d[0] for d in decided if d]
    return (weights, [d[1] for d in decided if d]) if any(weights) else Dropped("fully masked")


def expert_correction(case: Case) -> Chosen:
    """Trajectories with a single switch from student to teacher, the student's part masked by the rule `student`."""
    rules = {row["turn"]["rule"] for prompt in case.prompts for row in prompt.rows.get("turn", ())}
    return step_rejection(case) if rules == {"switch"} else Dropped("no single switch from student to teacher")


def _whole(case: Case, weights: list[float], evidence: list[str]) -> Chosen:
    if case.interrupted:
        return Dropped(INTERRUPTED)
    chat = case.chat
    return _learnt(case, Sample(chat.messages, chat.steps, weights, chat.event_ids, evidence))


def _learnt(case: Case, sample: Sample) -> Chosen:
    """The sample with steps that are context only at weight 0, whatever a rule says of them."""
    context = case.chat.context
    weights = [0.0 if step in context else weight for step, weight in zip(sample.steps, sample.weights, strict=True)]
    evidence = [*sample.evidence, *(mask for step in sample.steps for mask in context.get(step, ()))]
    return [replace(sample, weights=weights, evidence=evidence)] if any(weights) else Dropped(NOT_OURS)


def repeats(case: Case) -> int:
    """How often the same thing is said in a row, at most: the same words with the same calls, whatever their ids."""
    said = [
        (m["content"], [{**call, "id": None} if isinstance(call, dict) else call for call in m.get("tool_calls", ())])
        for m in case.chat.messages
        if m["role"] == "assistant" and not m.get("is_demo")
    ]
    return max((len(list(run)) for _, run in groupby(said)), default=0)


METHODS: dict[str, Method] = {
    "all": every_step,
    "rft": rejection,
    "srft": step_rejection,
    "dagger": dagger,
    "srft_dropped": dropped_steps,
    "oec": expert_correction,
    "critic_sft": critic_sft,
    "critic_dpo": critic_dpo,
    "ctrl_sft": ctrl_sft,
    "ctrl_rl": ctrl_rl,
    "verifier": verifier,
}


def method(name: str) -> Method:
    """The method of that name; raises UnknownName."""
    if name not in METHODS:
        raise UnknownName("dataset method", name, METHODS, "Set `dataset.method` in the recipe.")
    return METHODS[name]
