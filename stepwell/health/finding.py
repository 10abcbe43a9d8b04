"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, a `note` that limits what works here, or a `problem`; the last two name the next act."""

    area: str
    level: Level
    what: str
    act: str = ""

    def __post_init__(self) -> None:
        assert (self.level == "ok") != bool(self.act), f"a {self.level} finding, and its next act is {self.act!r}"


def ok(area: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(area, "ok", what)


def note(area: str, what: str, act: str) -> Finding:
    """Something does not work here, and most do not need it."""
    return Finding(area, "note", what, act)


def problem(area: str, what: str, act: str) -> Finding:
    """Something is wrong."""
    return Finding(area, "problem", what, act)
