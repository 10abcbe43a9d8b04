"""What a critique gives away that its reader must not be told: the hint it was guided by, the solution (METHODS.md K19).

Belongs here: finding it in texts, while a loop is played (`rollout.hints`) and in those of the log (`datasets.guided`). Does
not belong here: what is done about it (they decide).
"""

from __future__ import annotations

import re

NGRAM = 8
"""Words in a row of an expected result that are a leak of it."""
_HINT = re.compile(r"\bhint(?:s|ed)?\b", re.IGNORECASE)
_EXPECTED = re.compile(r"^Expected: ?(.*?)(?=^Actual: |\Z)", re.MULTILINE | re.DOTALL)
_SHORT = 8
_BLANK = re.compile(r"\s+")


def names_hint(critique: str) -> bool:
    """Whether it speaks of a hint."""
    return _HINT.search(critique) is not None


def shows_expected(critique: str, hint: str) -> bool:
    """Whether NGRAM words in a row of the result that a hint expects stand in the critique."""
    return any(repeats(critique, wanted) for wanted in _EXPECTED.findall(hint))


def repeats(critique: str, wanted: str) -> bool:
    """Whether NGRAM words in a row of a text stand in the critique."""
    return bool(_grams(critique) & _grams(wanted))


def has_block(critique: str) -> bool:
    """Whether it holds a block of code."""
    return "```" in critique


def share_shown(critique: str, attempt: str, revision: str) -> float:
    """The share of the revision's new lines that stand in the critique, blanks aside; short lines do not count."""
    old = {_bare(line) for line in attempt.splitlines()}
    new = {b for line in revision.splitlines() if len(b := _bare(line)) > _SHORT and b not in old}
    told = _bare(critique)
    return sum(line in told for line in new) / len(new) if new else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def _bare(line: str) -> str:
    return _BLANK.sub("", line)
