"""Grammars: what critics must reply, reading what they do reply, and writing it in canonical form.

Belongs here: reading, writing and describing replies of every kind. Does not belong here: what each kind must state
(`form_steer`, `form_steps`, `form_judgment`, `form_pair`), prompts (`prompts`), calling a model (`stepwell.chat`).

A reply is `ok` when it is the canonical form of what it says, white space aside. It is `repaired` when its form differs
but everything the kind needs is stated, once, and without contradiction. Else it is `unparseable`, and carries nothing:
what is missing or contradictory is never guessed. Thoughts (`<think>`), chat markup and line endings are no part of a reply.

    in form, tolerated                                                      status
    ----------------------------------------------------------------------  -----------------------------------------
    bold, headings, bullets, quotes, any case, `：`, blank lines             repaired
    numbering missing, wrong or added; items and fields in any order        repaired
    the whole in a code fence; prose before or after it                     repaired
    several fields on a line; a field's text on the next line               repaired
    a closed thought, anywhere                                              as if it were not there
    a thought never closed / never opened                                   what follows / stands before it is not read
    JSON of the schema                                                      ok
    JSON with other spellings, nesting, lists, prose round it               repaired
    JSON that names a key twice or breaks off                               not read (the text round it is)
    names by id, or within two letters of one name (one below 8 letters)    repaired
    the same statement twice                                                repaired
    an agent's turn (THOUGHT, shell block) with fewer than two fields       unparseable

    in meaning                                                              status
    ----------------------------------------------------------------------  -----------------------------------------
    steer: a category neither Yes nor No, or both                           unparseable
      a group said to have none; `all other categories: No`                 repaired
      Yes without evidence or without recovery action                       repaired; text after Yes is evidence
      No with evidence                                                      repaired; the text is left out
      category outside the taxonomy: Yes / No                               unparseable / repaired
      TASK_STATUS missing, unclear, negated, or two of them                 unparseable
      text after the status                                                 repaired
      guidance missing: On track / otherwise                                repaired / unparseable
      On track with detections, or a worse status without                   as stated (the grammar allows it)
    steps: a step missing, beyond those asked, or with two labels           unparseable
      a range of steps with one label; no reason                            repaired; ok
      a label in a sentence, negated, or no label (`bad`, `not good`)       unparseable (the step is missing)
      labels without step numbers; numbering from another start             unparseable
    critique: both judgments, none, or neither (`partially correct`)        unparseable
      Analysis or suggestions missing                                       repaired
      `Incorrect` that goes on about what is correct                        repaired
    verifier: both answers, or none                                         unparseable
      PROBABILITY (that of YES) on the other side of 0.5 than the answer    unparseable
      a confidence of 0.5 or more                                           repaired; of the answer, so 1 - c for a NO
      a lower confidence, a number outside [0, 1]                           repaired; left out
    pair: both attempts, or none; a letter in a sentence                    unparseable
      a letter alone, be it the first of a `BETTER` that was cut            repaired
      a tie (`TIE`, `both`, `neither`)                                      repaired; no judgment
    a blank of the form left as it was (`<Yes or No>`)                      not an answer
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, get_args

from stepwell.critics.form_judgment import CritiqueForm, VerifierForm
from stepwell.critics.form_pair import PairForm
from stepwell.critics.form_steer import STATUSES, SteerForm
from stepwell.critics.form_steps import StepsForm
from stepwell.critics.reading import Detection, Facts, Form, Kind, Reading, documents, is_agent_turn, spoken, unfenced
from stepwell.critics.taxonomy import Taxonomy, load
from stepwell.errors import UnknownName, UsageError

__all__ = [
    "KINDS",
    "STATUSES",
    "Detection",
    "Kind",
    "Reading",
    "json_schema",
    "read",
    "render",
    "render_json",
    "sketch",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
_FIELDS_OF_A_REPLY = 2
_ZEROS = re.compile(r"(\.[0-9]*?)0+$")


def read(kind: Kind, text: str, *, taxonomy: Taxonomy | None = None, steps: Sequence[int] = ()) -> Reading:
    """What a reply says; never raises on any text. `taxonomy` (steer) is the default one when not given.

    `steps` are those that were to be labelled (steps). Raises UnknownName for a kind that is none.
    """
    form, facts = _form(kind, taxonomy, steps), Facts()
    reply = spoken(text)
    objects, rest = documents(reply, lambda document: form.take(document, facts))
    form.scan(unfenced(rest, form.heads), facts)
    if is_agent_turn(reply) and len(facts.said) + len(facts.texts) < _FIELDS_OF_A_REPLY:
        return Reading("unparseable", problems=("an agent's turn, not a reply of a critic",))
    reading = form.build(facts)
    if facts.refusals:
        return Reading("unparseable", problems=tuple(dict.fromkeys(facts.refusals)))
    if objects:
        exact = objects == [form.document(reading)] and not rest.strip()
    else:
        canonical = form.write(reading)
        exact = reply.strip() == canonical or _lines(reply) == _lines(canonical)
    if exact and not facts.repairs:
        return reading
    problems = dict.fromkeys(facts.repairs or ["its form differs from the grammar"])
    return replace(reading, status="repaired", problems=tuple(problems))


def render(kind: Kind, reading: Reading, *, taxonomy: Taxonomy | None = None) -> str:
    """A reading in canonical form: reading it again says the same.

    Raises UsageError for one that cannot be written: it is unparseable, or a text in it holds what reads as a field.
    """
    text = _form(kind, taxonomy, tuple(reading.labels)).write(reading)
    again = read(kind, text, taxonomy=taxonomy, steps=tuple(reading.labels))
    if reading.status == "unparseable" or _meaning(again) != _meaning(reading):
        raise UsageError(
            f"{reading} cannot be written as {kind}: it reads again as {again}. Texts must be stripped and free of the "
            "grammar's own fields, and everything the kind needs must be there."
        )
    return text


def render_json(kind: Kind, reading: Reading, *, taxonomy: Taxonomy | None = None) -> dict[str, Any]:
    """A reading as an object of `json_schema`; raises UsageError as `render` does."""
    render(kind, reading, taxonomy=taxonomy)
    return _form(kind, taxonomy, tuple(reading.labels)).document(reading)


def json_schema(kind: Kind, *, taxonomy: Taxonomy | None = None, steps: Sequence[int] = ()) -> dict[str, Any]:
    """JSON Schema of a reply, for servers that constrain output; `read` takes what it admits."""
    return _form(kind, taxonomy, steps).schema()


def sketch(kind: Kind, taxonomy: Taxonomy | None = None) -> str:
    """The canonical form with blanks in angle brackets, as prompts show it."""
    return _form(kind, taxonomy, ()).sketch()


def _form(kind: Kind, taxonomy: Taxonomy | None, steps: Sequence[int]) -> Form:
    if kind == "steer":
        return _steer(taxonomy or load())
    if kind == "steps":
        return StepsForm(steps)
    if kind == "critique":
        return CritiqueForm()
    if kind == "verifier":
        return VerifierForm()
    if kind == "pair":
        return PairForm()
    raise UnknownName("kind of critic", kind, KINDS, "A prompt file says its kind.")


_steer = lru_cache(maxsize=32)(SteerForm)


def _lines(text: str) -> list[str]:
    lines = (_ZEROS.sub(r"\1", " ".join(line.split())) for line in text.split("\n"))
    return [line for line in lines if line]


def _meaning(reading: Reading) -> Reading:
    detections = tuple(sorted(reading.detections, key=lambda d: d.category))
    return replace(reading, status="ok", problems=(), detections=detections)
