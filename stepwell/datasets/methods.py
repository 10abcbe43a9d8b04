"""Dataset methods: from a trajectory, what is trained on, or why the trajectory is left out.

`all` trains on every step of every trajectory, `rft` on every step of resolved ones, `srft` on every trajectory with the
steps its mask rule rejects at weight 0 while they stay in the context (METHODS.md 3), `oec` on the teacher's part of
trajectories that the student began (METHODS.md 4). These are one sequence a trajectory. `dagger` is in `labelled`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from stepwell.datasets.cases import Case, Dropped, Sample
from stepwell.datasets.labelled import dagger
from stepwell.errors import UnknownName

Chosen = list[Sample] | Dropped
Method = Callable[[Case], Chosen]
PER_TURN = ("dagger", "oec")
"""Methods that need the prompt of every turn."""


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
    decided = [case.chat.masks.get((case.mask_rule, step)) for step in case.chat.steps]
    if not all(decided):
        return Dropped("steps without a mask decision")
    weights = [d[0] for d in decided if d]
    if not any(weights):
        return Dropped("fully masked")
    return _whole(case, weights, [d[1] for d in decided if d])


def expert_correction(case: Case) -> Chosen:
    """Trajectories with a single switch from student to teacher, the student's part masked by the rule `student`."""
    rules = {row["turn"]["rule"] for prompt in case.prompts for row in prompt.rows.get("turn", ())}
    return step_rejection(case) if rules == {"switch"} else Dropped("no single switch from student to teacher")


def _whole(case: Case, weights: list[float], evidence: list[str]) -> Chosen:
    if case.interrupted:
        return Dropped("feedback or notices were shown: its prompts are not one growing sequence")
    chat = case.chat
    return [Sample(chat.messages, chat.steps, weights, chat.event_ids, evidence)]


def repeats(case: Case) -> int:
    """How often the same thing is said in a row, at most."""
    said = [m["content"] for m in case.chat.messages if m["role"] == "assistant" and not m.get("is_demo")]
    return max((len(list(run)) for _, run in groupby(said)), default=0)


METHODS: dict[str, Method] = {
    "all": every_step,
    "rft": rejection,
    "srft": step_rejection,
    "dagger": dagger,
    "oec": expert_correction,
}


def method(name: str) -> Method:
    """The method of that name; raises UnknownName."""
    if name not in METHODS:
        raise UnknownName("dataset method", name, METHODS, "Set `dataset.method` in the recipe.")
    return METHODS[name]
