"""Drawn functions: shapes filled with a family's nouns and random operators, so that hardly two tasks share a function.

With a fixed set of functions a policy can learn each one by heart and repair it without reading the comment; drawn ones
can only be repaired by comparing the code with what the comment says. What does not belong here: bugs and tests
(`repair.py`), the nouns and the written functions (`families.py`).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

from stepwell.rollout.families import FAMILIES, Function, Kind

WORDS = {
    "+": "plus", "-": "minus", "*": "times", "//": "over", "%": "mod",
    "<": "below", "<=": "at most", ">": "above", ">=": "at least", "==": "equals", "!=": "differs from",
    "min": "smaller of", "max": "larger of", "sum": "sum of", "any": "any", "all": "all", "and": "and", "or": "or",
}  # fmt: skip
COMPARE = ("<", "<=", ">", ">=", "==")
Shape = Callable[[random.Random, str, str], Function]


@functools.cache
def nouns(family: str) -> tuple[str, ...]:
    """The nouns of a family: every argument of its written functions, in order, once."""
    return tuple(dict.fromkeys(name for function in FAMILIES[family] for name, _ in function.args))


def _function(a: str, b: str | None, first: Kind, second: Kind, *body: tuple[str, str]) -> Function:
    args = ((a, first),) if b is None else ((a, first), (b, second))
    name = f"{a}_{b}" if b is not None else f"{a}_of"
    return Function(name, args, tuple(f"    {code}  # {spec}" for code, spec in body))


def _arithmetic(rng: random.Random, a: str, b: str) -> Function:
    op = rng.choice(("+", "-", "*", "//", "%"))
    kind: Kind = "p" if op in ("//", "%") else "n"
    return _function(a, b, "n", kind, (f"return {a} {op} {b}", f"{a} {WORDS[op]} {b}"))


def _two_operators(rng: random.Random, a: str, b: str) -> Function:
    op, then, k = rng.choice(("+", "-", "*")), rng.choice(("+", "-")), rng.randint(1, 9)
    return _function(a, b, "n", "n", (f"return {a} {op} {b} {then} {k}", f"{a} {WORDS[op]} {b} {WORDS[then]} {k}"))


def _comparison(rng: random.Random, a: str, b: str) -> Function:
    op = rng.choice(COMPARE)
    return _function(a, b, "n", "n", (f"return {a} {op} {b}", f"{a} {WORDS[op]} {b}"))


def _threshold(rng: random.Random, a: str, b: str) -> Function:
    op, then, k = rng.choice(COMPARE), rng.choice(("+", "-")), rng.randint(1, 9)
    return _function(a, b, "n", "n", (f"return {a} {op} {b} {then} {k}", f"{a} {WORDS[op]} {b} {WORDS[then]} {k}"))


def _choice(rng: random.Random, a: str, b: str) -> Function:
    pick = rng.choice(("min", "max"))
    return _function(a, b, "n", "n", (f"return {pick}({a}, {b})", f"{WORDS[pick]} {a} and {b}"))


def _total(rng: random.Random, a: str, b: str) -> Function:
    pick, op = rng.choice(("sum", "min", "max")), rng.choice(("+", "-", "*"))
    return _function(a, b, "l", "n", (f"return {pick}({a}) {op} {b}", f"{WORDS[pick]} {a} {WORDS[op]} {b}"))


def _members(rng: random.Random, a: str, b: str) -> Function:
    pick, op, k = rng.choice(("any", "all")), rng.choice(COMPARE), rng.randint(1, 8)
    return _function(a, None, "l", "n", (f"return {pick}(x {op} {k} for x in {a})", f"{pick} {a} {WORDS[op]} {k}"))


def _both(rng: random.Random, a: str, b: str) -> Function:
    op, then, join = rng.choice(COMPARE), rng.choice(COMPARE), rng.choice(("and", "or"))
    k, m = rng.randint(1, 9), rng.randint(1, 9)
    code, spec = f"{a} {op} {k} {join} {b} {then} {m}", f"{a} {WORDS[op]} {k} {join} {b} {WORDS[then]} {m}"
    return _function(a, b, "n", "n", (f"return {code}", spec))


SHAPES: tuple[Shape, ...] = (
    _arithmetic, _arithmetic, _two_operators, _comparison, _comparison, _threshold, _choice, _total, _members, _both,
)  # fmt: skip


def draw(family: str, rng: random.Random, count: int) -> list[Function]:
    """Draw `count` functions of a family with distinct names; the same generator state gives the same functions."""
    found: dict[str, Function] = {}
    while len(found) < count:
        a, b = rng.sample(nouns(family), 2)
        function = rng.choice(SHAPES)(rng, a, b)
        found.setdefault(function.name, function)
    return list(found.values())
