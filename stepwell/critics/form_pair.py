"""The grammar of a reply that compares two attempts at a task, shown as A and B: which of them is better.

Belongs here: what such a reply must state and how it is found. Does not belong here: handling of text that every kind
shares (`reading`), the table of tolerances (`grammar`).
"""

from __future__ import annotations

import re
from typing import Any

from stepwell.critics.reading import HEAD, Facts, Reading, closed, fields, letters, split_lines

BETTER = "BETTER"
_TIE = "TIE"
_ABOUT = "the better attempt"
_JUDGMENTS = {"A": True, "B": False, _TIE: None}

_value = fields(
    {BETTER: r"(?:the )?better(?: attempt)?|winner|(?:final )?(?:answer|verdict|choice|decision|judge?ment)"}
)
_INLINE = re.compile(r"(?<=[ \t.])(?=[*_`]{0,3}better[*_`]{0,3}\s?[:：])", re.IGNORECASE)
_PICK = re.compile(
    r"[\W_]*(?:(?:attempt|option|candidate)\s+)?[*_`\"'\[(]{0,4}(?:(?P<one>[ab])|(?P<none>tie|draw|equal|both|neither))"
    r"[*_`\"'\])>}]{0,4}\s*(?P<next>$|[-–—:：,.;(!|/&]|or\b|and\b)",
    re.IGNORECASE,
)
_OTHER = re.compile(r"(?:[|/&]|or\b|and\b)\W*(?:attempt\s+)?[ab]\b", re.IGNORECASE)
_SENTENCE = re.compile(
    r"(?i)[\W_]*(?:so,? |therefore,? |thus,? )?(?:the )?(?:better (?:attempt|one)|(?:my )?(?:answer|choice|verdict)) is:?\s+"
)
_IS_BETTER = re.compile(r"(?i)[\W_]*(?:attempt )?([ab])[*_`\"'\])]{0,4} is (?:the )?better\b")


class PairForm:
    """One letter: A or B. That neither is better is read where it is said, but is not asked for."""

    heads = re.compile(r"(?i)\bbetter\b|\bwinner\b")

    def scan(self, text: str, facts: Facts) -> None:
        """An answer is a field, a line that is nothing else, or a line that says which attempt is better."""
        for line in split_lines(text, _INLINE):
            found, said = _value(line), _IS_BETTER.match(line[:HEAD])
            sentence = _SENTENCE.match(line[:HEAD])
            if said:
                facts.say(_ABOUT, said[1].upper())
            elif found:
                self._answer(found[1], facts)
            elif sentence:
                self._answer(line[sentence.end() :], facts)
            elif letters(line[:HEAD]) in ("a", "b", "attempta", "attemptb", "tie"):
                self._answer(line, facts)

    def _answer(self, value: str, facts: Facts) -> None:
        found = _PICK.match(value[:HEAD])
        if found and not _OTHER.match(value[found.start("next") :][:HEAD]):
            facts.say(_ABOUT, found["one"].upper() if found["one"] else _TIE)

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """`{"better"}`."""
        before = len(facts.said)
        for key, value in document.items():
            if _value(key) and isinstance(value, str):
                self._answer(value, facts)
        return len(facts.said) > before

    def build(self, facts: Facts) -> Reading:
        """The judgment is that the attempt shown first is the better one; a tie is none, and even odds."""
        better = facts.settle([_ABOUT]).get(_ABOUT)
        facts.repairs += ["a tie was not to choose from"] if better == _TIE else []
        return Reading("ok", judgment=_JUDGMENTS.get(better or ""), confidence=0.5 if better == _TIE else None)

    def write(self, reading: Reading) -> str:
        """Canonical text."""
        return f"{BETTER}: {_letter(reading)}"

    def document(self, reading: Reading) -> dict[str, Any]:
        """Canonical JSON."""
        return {BETTER.lower(): _letter(reading)}

    def schema(self) -> dict[str, Any]:
        """One of both."""
        return closed({BETTER.lower(): {"type": "string", "enum": ["A", "B"]}})

    def sketch(self) -> str:
        """One line."""
        return f"{BETTER}: <A or B>"


def _letter(reading: Reading) -> str:
    return next(letter for letter, judgment in _JUDGMENTS.items() if judgment is reading.judgment)
