"""From what a method chose to a row of the table: tokens, labels, provenance, and the length it may have.

Belongs here: one row at a time. Does not belong here: which rows there are (`build`), tokens of a message (`rendering`).

A row that is too long loses its oldest turns, whole, where its method allows that; never the task, what asks for the reply, or
the reply. A row without a reply to train is a prompt: its tokens end where a model's reply begins, and none is in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from schemas.kinds import UNFINISHED
from stepwell.conversation import Conversation, Message
from stepwell.datasets.cases import Case, Dropped, Found, Parts, Row, Sample
from stepwell.datasets.methods import CRITICS, method, repeats
from stepwell.errors import RenderError
from stepwell.ids import canonical, digest, fraction
from stepwell.recipe import Recipe
from stepwell.rendering import IGNORE, Renderer
from stepwell.rendering.renderer import Rendered


def chosen_of(one: Found, facts: Mapping[str, Any] | None, recipe: Recipe, mask_rule: str) -> Parts:
    """What the recipe's method makes of a trajectory (`facts`: its row of `trajectories`, None: filtered out)."""
    settings = recipe.dataset
    assert settings is not None
    if facts is None:
        return Dropped("filtered by source.where")
    if not one.chat.steps and settings.method not in CRITICS:
        return Dropped("no recorded steps")
    if one.chat.headless and settings.method not in CRITICS:
        return Dropped("what came before it is in the trajectory it continues")
    if facts["exit_status"] in UNFINISHED:
        return Dropped("not finished: it says nothing about the policy")
    case = Case(
        one.chat, facts["resolved"], mask_rule, settings, one.interrupted, one.prompts, one.labels, one.said, one.asked,
        one.rows,
    )  # fmt: skip
    if settings.max_repeats is not None and repeats(case) > settings.max_repeats:
        return Dropped(f"says the same more than {settings.max_repeats} times in a row")
    return method(settings.method)(case)


def row_of(
    sample: Sample, chat: Conversation, facts: Mapping[str, Any], tools: str | None, recipe: Recipe, renderer: Renderer,
    split: str | None,
) -> Row | Dropped:  # fmt: skip
    """The row of a sample, or why there is none; `split` overrides the one that the task decides.

    Beside the columns of the table it has `n_masked_tokens`: those of replies that are not in the loss.
    """
    settings = recipe.dataset
    assert settings is not None
    sample = replace(sample, messages=offering(sample.messages, tools))
    fitted = _fitted(sample, renderer, settings.max_length)
    if isinstance(fitted, Dropped):
        return fitted
    shortened, rendered, worse = fitted
    task = facts["task_id"] or ""
    share = fraction("split", task or chat.trajectory_id)
    row: Row = {
        "row_id": digest(settings.method, chat.trajectory_id, sample.weights, sample.event_ids, *_also(sample)),
        "recipe": recipe.name,
        "method": settings.method,
        "split": split or ("held_out" if share < settings.held_out else "train"),
        "trajectory_id": chat.trajectory_id,
        "corpus": chat.corpus,
        "task_id": task,
        "agent": facts["agent"],
        "model": facts["model"],
        "messages": canonical(shortened.messages).decode("utf-8"),
        "steps": shortened.steps,
        "weights": shortened.weights,
        "event_ids": shortened.event_ids,
        "mask_event_ids": shortened.evidence,
        "input_ids": rendered.input_ids,
        "labels": rendered.labels,
        "n_tokens": len(rendered.input_ids),
        "n_trained_tokens": rendered.n_trained,
        "n_masked_steps": sample.weights.count(0.0) if settings.method not in CRITICS else 0,
        "n_masked_tokens": sum(end - start for start, end in rendered.spans) - rendered.n_trained,
        "judgment": sample.judgment,
        "group_id": sample.group_id,
        "reference": None if sample.reference is None else canonical(sample.reference).decode("utf-8"),
        "rewards": None if sample.rewards is None else list(sample.rewards),
    }
    if sample.shortens is not None:
        row["n_left_out"] = (len(sample.messages) - len(shortened.messages)) // 2
    if worse is not None:
        assert sample.rejected is not None
        row |= {"rejected": canonical([sample.rejected]).decode("utf-8")}
        row |= {"rejected_ids": worse.input_ids, "rejected_labels": worse.labels}
    return row


def offering(messages: list[Message], tools: str | None) -> list[Message]:
    """Messages of which the first carries the tools offered, where the renderer finds them."""
    return messages if tools is None else [{**messages[0], "tools": tools}, *messages[1:]]


def _also(sample: Sample) -> list[Any]:
    """What else tells two rows apart: the pairs of one chosen reply."""
    return [] if sample.rejected is None else [sample.rejected]


Fitted = tuple[Sample, Rendered, Rendered | None]


def _fitted(sample: Sample, renderer: Renderer, most: int) -> Fitted | Dropped:
    """Tokens of a sample with the fewest oldest turns left out, so that it fits."""
    try:
        found = _rendered(sample, renderer)
        if _length(found) > most and sample.shortens is not None:
            found = _shortened(sample, renderer, most)
    except RenderError as error:
        return Dropped(str(error).partition(":")[0])
    if _length(found) > most:
        return Dropped(f"longer than {most} tokens")
    if not found[1].n_trained and _taught(sample):
        return Dropped("no token to train")
    return found


def _shortened(sample: Sample, renderer: Renderer, most: int) -> Fitted:
    """The fewest turns left out that make it fit, found by halving, as fewer turns are never longer; the last turn stays."""
    assert sample.shortens is not None
    low, high = 0, (len(sample.messages) - sample.shortens - 2) // 2 - 1
    best = _rendered(_without(sample, high), renderer) if high > 0 else _rendered(sample, renderer)
    while low + 1 < high and _length(best) <= most:
        middle = (low + high) // 2
        found = _rendered(_without(sample, middle), renderer)
        if _length(found) <= most:
            high, best = middle, found
        else:
            low = middle
    return best


def _without(sample: Sample, turns: int) -> Sample:
    """Without the oldest turns; each is a reply of the agent and its answer."""
    assert sample.shortens is not None
    low, high = sample.shortens, sample.shortens + 2 * turns
    return replace(
        sample,
        messages=[*sample.messages[:low], *sample.messages[high:]],
        steps=sample.steps[turns:],
        weights=sample.weights[turns:],
        event_ids=sample.event_ids[turns:],
    )


def _rendered(sample: Sample, renderer: Renderer) -> Fitted:
    if not _taught(sample):
        ids = renderer.prompt_ids(sample.messages)
        return sample, Rendered(ids, [IGNORE] * len(ids), []), None
    chosen = renderer.encode(sample.messages, sample.weights)
    if sample.rejected is None:
        return sample, chosen, None
    return sample, chosen, renderer.encode([*sample.messages[:-1], sample.rejected], sample.weights)


def _taught(sample: Sample) -> bool:
    return any(sample.weights)


def _length(fitted: Fitted) -> int:
    _, chosen, worse = fitted
    return max(len(chosen.input_ids), len(worse.input_ids) if worse else 0)
