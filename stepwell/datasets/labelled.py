"""Learning from a teacher's labels: in every state visited, what the teacher would have done (DAgger, METHODS.md 4).

Belongs here: which rows a labelled trajectory makes. Does not belong here: asking the teacher (`rollout`).

The rows of a trajectory: one sequence whose loss covers exactly the turns in which the label is what was executed, cut
after the last of them, and for every turn in which it is not, the prompt of that turn with the label as its reply. What
was executed is always the context; what the student said is trained on only where the teacher said the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from stepwell.conversation import Message, Prompt, said
from stepwell.datasets.cases import Case, Dropped, Label, Sample

Taken = tuple[Prompt, dict[str, Any]]
"""A turn: its prompt and the row of its action."""


def dagger(case: Case) -> list[Sample] | Dropped:
    """The teacher's label for every visited state, whoever acted; turns without one drop the trajectory."""
    turns: list[Taken] = [(p, p.rows["action"][0]) for p in case.prompts if p.rows.get("action")]
    labels = case.labels or {}
    teachers = {label.teacher for of_step in labels.values() for label in of_step}
    if case.settings.teacher is None and len(teachers) > 1:
        return Dropped("labels of several teachers: name one in dataset.teacher")
    teacher = case.settings.teacher or next(iter(teachers), None)
    chosen = [[label for label in labels.get(p.step, ()) if label.teacher == teacher] for p, _ in turns]
    if not all(chosen):
        return Dropped("turns without the teacher's label")
    if any(m["role"] == "assistant" for m in turns[0][0].messages):
        return Dropped("demonstrations before the first turn")
    growing = grows(turns)
    agreed = [growing and agrees(of_turn[0], action) for of_turn, (_, action) in zip(chosen, turns, strict=True)]
    samples = []
    if any(agreed):
        last = max(i for i, yes in enumerate(agreed) if yes)
        prompt, action = turns[last]
        samples.append(
            Sample(
                [*prompt.messages, _reply(action)],
                [p.step for p, _ in turns[: last + 1]],
                [float(yes) for yes in agreed[: last + 1]],
                [a["event_id"] for _, a in turns[: last + 1]],
                [of_turn[0].event_id for of_turn in chosen[: last + 1]],
            )
        )
    for i, of_turn in enumerate(chosen):
        wanted = of_turn if case.settings.labels == "all" else of_turn[:1]
        samples += [_labelled(turns[: i + 1], label) for label in wanted[1 if agreed[i] else 0 :]]
    return samples


def agrees(label: Label, action: dict[str, Any]) -> bool:
    """Whether the teacher said what was executed, to the letter."""
    executed = json.loads(action["action"]["tool_calls"] or "[]")
    return label.text == (action["action"]["text"] or "") and list(label.tool_calls) == executed


def grows(turns: Sequence[Taken]) -> bool:
    """Whether every prompt is the one before, the reply to it, and more: then one sequence holds them all."""
    for (before, action), (after, _) in pairwise(turns):
        grown = [*before.messages, _reply(action)]
        if after.messages[: len(grown)] != grown:
            return False
    return True


def _reply(action: dict[str, Any]) -> Message:
    return said(action["action"]["text"], json.loads(action["action"]["tool_calls"] or "[]"))


def _labelled(turns: Sequence[Taken], label: Label) -> Sample:
    """The prompt of the last of these turns with the label as its reply, which alone is in the loss."""
    prompt, _ = turns[-1]
    shown = [(p.step, a["event_id"]) for p, a in turns[:-1] if not _hidden(a)]
    return Sample(
        [*prompt.messages, said(label.text, label.tool_calls)],
        [*(step for step, _ in shown), prompt.step],
        [*(0.0 for _ in shown), 1.0],
        [*(event for _, event in shown), label.event_id],
        [label.event_id],
    )


def _hidden(action: dict[str, Any]) -> bool:
    """Whether the source says that the model was never shown this reply again."""
    return bool(json.loads(action.get("extra") or "{}").get("not_in_prompt"))
