"""The grammar of a step labeller's reply (SRFT, METHODS.md 3): one line a step, `STEP 3: mistake - reason`.

Belongs here: what such a reply must state and how it is found. Does not belong here: handling of text that every kind
shares (`reading`), the table of tolerances (`grammar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from schemas.kinds import LABELS
from stepwell.critics.reading import HEAD, Facts, Reading, bare, closed, closest, fields, letters

_KNOWN = {label: label for label in LABELS}
_NUMBERED = re.compile(
    r"[*_`\[(\"']{0,4}(?P<word>(?:step|turn)s?(?![a-z]))?[ \t_#*`]{0,4}(?P<first>[0-9]{1,9})(?![0-9])"
    r"(?:[ ]?(?:-|–|to|through)[ ]?(?P<last>[0-9]{1,9})(?![0-9]))?(?P<tail>.*)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"[\W_]*(?:(?:label(?:led)?|verdict|classification|category|rating|is|as)\b[\W_]*){0,2}(?P<label>[a-z]+)"
    r"(?P<close>[*_`\"'\])>}]{0,4})(?P<next>.*)",
    re.IGNORECASE,
)
_ENCLOSED = re.compile(r"[\])>}]")
_END = re.compile(r"\s*(?:$|[-–—:：,.;|(/&+=→\[]|(?:because|since|as|or|and)\b)", re.IGNORECASE)
_OTHER = re.compile(
    r"\s*(?:[/|,&+]|or\b|and\b)[\W_]*(?:or\b|and\b|then\b)?[\W_]*(?P<label>[a-z]+)(?![a-z])", re.IGNORECASE
)
_SEPARATOR = re.compile(r"\s*(?:[-–—:：,.;|=→]+|(?:because|since)\b)?\s*", re.IGNORECASE)
_MARK = re.compile(r"[*_`\s]{0,4}[:：.)\]|=→–-]")
_field = fields({"label": "label|verdict|classification|category|rating", "reason": "reason|rationale|explanation|why"})


def _label(text: str) -> tuple[list[str], str, bool]:
    """The labels a text begins with (more than one: it does not decide), the reason after, whether spelt right.

    A label that goes straight on into a sentence (`recover the file`) is none.
    """
    found = _LABEL.match(text[:HEAD])
    label, exact = closest(found["label"], _KNOWN) if found else (None, True)
    if found is None or label is None or not (_ENCLOSED.match(found["close"]) or _END.match(found["next"])):
        return [], "", True
    rest, labels = text[found.end("close") :], [label]
    while (other := _OTHER.match(rest[:HEAD])) and (name := letters(other["label"])) in _KNOWN:
        labels, rest = [*labels, name], rest[other.end() :]
    separator = _SEPARATOR.match(rest)
    return labels, rest[separator.end() :].rstrip(" \t|") if separator else rest, exact


class StepsForm:
    """Replies that label the given steps, each exactly once."""

    heads = re.compile(
        r"(?i)\bsteps?\W{0,3}[0-9]|^[^\w\n]*[0-9]+[^\w\n]*(?:good|unnecessary|mistake|recover)", re.MULTILINE
    )

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = tuple(dict.fromkeys(steps))

    def scan(self, text: str, facts: Facts) -> None:
        """Lines headed by the word step count; lines headed by a mere number only where there are none of those."""
        numbered: list[tuple[bool, range, str]] = []
        for line in text.split("\n"):
            found = _NUMBERED.match(bare(line)) or _NUMBERED.match(bare(line, numbered=False))
            if found and (found["word"] or _label(found["tail"])[0]):
                first, last = int(found["first"]), int(found["last"] or found["first"])
                worded = bool(found["word"])
                if last - first >= max(len(self.steps), 1):
                    facts.refusals.append(f"{_about(first)} to {last} are more than were asked about")
                elif first <= last and (worded or _MARK.match(found["tail"])):
                    numbered.append((worded, range(first, last + 1), found["tail"]))
            elif numbered and (field := _field(line)):
                worded, steps, _ = numbered[-1]
                if field[0] == "label":
                    numbered.append((worded, steps, field[1]))
                else:
                    for step in steps:
                        facts.write(_about(step), field[1])
        worded = any(named and _label(tail)[0] for named, _, tail in numbered)
        for named, steps, tail in numbered:
            if named or not worded:
                labels, reason, exact = _label(tail)
                for step in steps:
                    self._say(step, labels, reason, exact, facts)

    def _say(self, step: int, labels: Sequence[str], reason: str, exact: bool, facts: Facts) -> None:
        for label in labels:
            facts.say(_about(step), label)
        facts.repairs += [] if exact else [f"a label of {_about(step)} is misspelt"]
        if labels:
            facts.write(_about(step), " ".join(reason.split()))

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """`{"steps": {"3": {"label", "reason"}}}`, a list of objects with `step` and `label`, or labels by step."""
        before = len(facts.said)
        stack: list[tuple[str, Any]] = [("", document)]
        while stack:
            key, value = stack.pop()
            if isinstance(value, dict):
                label, reason, step = value.get("label"), value.get("reason"), value.get("step", key)
                if isinstance(label, str):
                    self._entry(step, label, reason if isinstance(reason, str) else "", facts)
                else:
                    stack += reversed(list(value.items()))
            elif isinstance(value, list):
                stack += [(key, entry) for entry in reversed(value)]
            elif isinstance(value, str):
                self._entry(key, value, "", facts)
        return len(facts.said) > before

    def _entry(self, key: object, value: str, reason: str, facts: Facts) -> None:
        digits = re.fullmatch(r"(?:step)?\W{0,2}([0-9]{1,9})", str(key).strip().casefold().replace("_", " "))
        if digits and not isinstance(key, bool):
            labels, after, exact = _label(value)
            self._say(int(digits[1]), labels, reason or after, exact, facts)

    def build(self, facts: Facts) -> Reading:
        """Every step asked about has one label, and no other step has."""
        said = facts.settle([_about(step) for step in self.steps])
        if not self.steps:
            facts.refusals.append("no steps to label")
        return Reading(
            "ok",
            labels={step: said[_about(step)] for step in self.steps if _about(step) in said},
            rationales=dict(self._rationales(facts)),
        )

    def _rationales(self, facts: Facts) -> Iterator[tuple[int, str]]:
        for step in self.steps:
            if reason := facts.text(_about(step), " "):
                yield step, reason

    def write(self, reading: Reading) -> str:
        """Canonical text."""
        reasons = {step: f" - {reason}" for step, reason in reading.rationales.items()}
        return "\n".join(f"{_about(step)}: {label}{reasons.get(step, '')}" for step, label in reading.labels.items())

    def document(self, reading: Reading) -> dict[str, Any]:
        """Canonical JSON; a step without a reason has an empty one."""
        labels = reading.labels.items()
        return {"steps": {str(s): {"label": label, "reason": reading.rationales.get(s, "")} for s, label in labels}}

    def schema(self) -> dict[str, Any]:
        """An object with one key a step, so that no step can be left out or labelled twice."""
        label = {"type": "string", "enum": list(LABELS)}
        item = closed({"label": label, "reason": {"type": "string"}})
        return closed({"steps": closed({str(step): item for step in self.steps})})

    def sketch(self) -> str:
        """One line, to be repeated."""
        return f"STEP <number>: <{', '.join(LABELS[:-1])} or {LABELS[-1]}> - <reason>"


def _about(step: int) -> str:
    return f"STEP {step}"
