"""Embedded problems: one function to write from what its comment says, in the families of the repair world.

Belongs here: making them. Does not belong here: the functions (`drawn`) and the choice of inputs (`repair`), which are
shared with the repair tasks. Hidden tests kill every single-token mutation of the function; families of the train and the
eval split share no noun. Equal arguments give equal problems on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from stepwell.ids import sha256
from stepwell.rollout.drawn import draw
from stepwell.rollout.families import EVAL_FAMILIES, TRAIN_FAMILIES, Function
from stepwell.rollout.problems import Group, Problem, Test
from stepwell.rollout.repair import hidden_of, prepare, split_comment

SUITE = "functions"
N_VISIBLE = 3
TIME_LIMIT_S = 2.0


def problems(split: str, n: int, seed: int) -> Iterator[tuple[Problem, Function]]:
    """`n` distinct problems of a split ("train" or "eval"), each with the function it asks for."""
    families = TRAIN_FAMILIES if split == "train" else EVAL_FAMILIES
    seen: set[str] = set()
    for number in range(seed * 1_000_003, seed * 1_000_003 + 50 * n):
        if len(seen) == n:
            return
        rng = random.Random(f"function:{number}")
        family = rng.choice(list(families))
        (function,) = draw(family, rng, 1)
        problem = make(function, family, split, rng)
        if problem.task_id not in seen:
            seen.add(problem.task_id)
            yield problem, function


def make(function: Function, family: str, split: str, rng: random.Random) -> Problem:
    """The problem of writing a function: its signature, what it returns in words, and tests."""
    spec = "; ".join(split_comment(line)[1].strip().removeprefix("#").strip() for line in function.body)
    signature = f"{function.name}({', '.join(name for name, _ in function.args)})"
    solution = "\n".join([function.lines()[0], *(split_comment(line)[0] for line in function.body)]) + "\n"
    prepared = prepare(function)
    hidden = hidden_of(prepared, rng)
    rest = [i for i in range(len(prepared.inputs)) if i not in hidden]
    visible = rng.sample(rest, min(N_VISIBLE, len(rest)))

    def test(i: int, group: Group) -> Test:
        called = f"{function.name}({prepared.inputs[i]})"
        return Test(called, group, "expression", called, prepared.wants[i])

    tests = (*(test(i, "visible") for i in visible), *(test(i, "hidden") for i in hidden))
    statement = f"Write {signature}. It returns {spec}."
    return Problem(
        f"function-{family}-{sha256(statement)[:12]}", SUITE, split, statement, tests, function.name,
        solution=solution, family=family, time_limit_s=TIME_LIMIT_S, n_all=len(tests),
    )  # fmt: skip
