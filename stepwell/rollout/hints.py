"""Hints: what running a solution says to a critic that may know it (CTRL stage I, METHODS.md 2.1), and leaks of it.

Belongs here: from results to a hint, and what of a hint or of a solution shows in a critique. Does not belong here: running
tests (`solutions`), the prompt a hint is put into (the critic's).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stepwell import leaking
from stepwell.rollout.problems import Problem, Test
from stepwell.rollout.solutions import Ran, Result

MOST_CHARS = 1000
Reveal = Literal["visible", "all"]
PASS = "Every test passes: the answer is correct. Be brief and positive, and suggest nothing that is not needed."
TIMEOUT = "The solution exceeds the time limit on a test. It has to become more efficient."
FRESH = "The solution is completely incorrect. It needs a fresh start."
UNSEEN = "A test that may not be shown gives another result than wanted."


@dataclass(frozen=True)
class Hint:
    """A hint; `kind` is pass, exception, timeout, wrong or fresh_start, `test` the one it shows, `rng_key` redraws it."""

    kind: str
    text: str
    test: str | None = None
    rng_key: str | None = None

    def payload(self, attempt_id: str) -> dict[str, Any]:
        """Payload of the `hint` event."""
        return {
            "attempt_id": attempt_id, "hint_kind": self.kind, "text": self.text, "test_name": self.test,
            "rng_key": self.rng_key,
        }  # fmt: skip


def derive(problem: Problem, ran: Ran, code: str, key: str, reveal: Reveal = "visible") -> Hint:
    """The hint of a result: the first exception wins, then a time limit, then one failing case drawn by `key`.

    Only cases of visible tests are shown unless `reveal` is all (what CTRL does, where hints are only trained away from).
    """
    if ran.resolved:
        return Hint("pass", PASS)
    raised = next((r for r in ran.results if r.status == "raised"), None)
    if raised is not None:
        return Hint("exception", _exception(raised, code)[:MOST_CHARS], raised.name if _may(raised, reveal) else None)
    if any(r.status == "timeout" for r in ran.results):
        return Hint("timeout", TIMEOUT)
    failing = [(t, r) for t, r in zip(problem.tests, ran.results, strict=True) if not r.passed]
    shown = [(t, r) for t, r in failing if _may(r, reveal)]
    short = [(text, t.name) for t, r in shown if len(text := case(t, r.gave)) < MOST_CHARS]
    if len(failing) == len(ran.results) or (shown and not short):
        return Hint("fresh_start", FRESH)
    if not shown:
        return Hint("wrong", UNSEEN)
    text, name = random.Random(key).choice(short)
    return Hint("wrong", text, name, key)


def _may(result: Result, reveal: Reveal) -> bool:
    return reveal == "all" or result.group == "visible"


def case(test: Test, gave: str | None) -> str:
    """One failing case: input, expected, actual."""
    wanted = "no exception" if test.want is None else test.want
    actual = "" if gave is None else f"\nActual: {gave}"
    return f"The solution fails this case.\nInput: {test.given}\nExpected: {wanted}{actual}"


def _exception(result: Result, code: str) -> str:
    lines = code.splitlines()
    known = result.line is not None and 1 <= result.line <= len(lines)
    where = f"\nLine {result.line}: {lines[result.line - 1].strip()}" if known and result.line is not None else ""
    return f"The solution raises an exception.{where}\nError: {result.error or 'none was reported'}"


def leaks(critique: str, hint: Hint | None, tests: Sequence[Test], solution: str | None) -> list[str]:
    """What a critique gives away (METHODS.md K19).

    `hint` (it is named), `expected` (8 words or more of a result wanted), `code` (a block), `solution` (a line of it).
    """
    found = ["hint"] if hint is not None and leaking.names_hint(critique) else []
    if any(leaking.repeats(critique, t.want) for t in tests if t.want is not None):
        found.append("expected")
    if leaking.has_block(critique):
        found.append("code")
    lines = {line.strip() for line in (solution or "").splitlines() if len(line.strip()) > 8}
    if any(line in critique for line in lines if not line.startswith("def ")):
        found.append("solution")
    return found
