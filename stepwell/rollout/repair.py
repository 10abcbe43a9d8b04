"""Repair tasks: a small module with seeded bugs, visible tests that may show them and hidden tests that always do.

Belongs here: the kinds of mutation, the sampling of inputs, the choice of tests. A bug changes exactly one token of one
line and changes what the function returns. Hidden tests are chosen so that they kill every single mutation of every
function, seeded or not, so that a wrong edit by an agent is caught as surely as a seeded bug. Everything is a pure
function of the arguments. Here only our own functions and their mutants run; what an agent wrote never does.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stepwell.errors import UnknownName, UsageError
from stepwell.rollout.drawn import draw
from stepwell.rollout.families import FAMILIES, Function

Report = Literal["name", "line", "source"]
MutationKind = Literal["arithmetic", "comparison", "constant", "variable", "builtin", "negation"]

TOKEN = re.compile(r"\w+|<=|>=|==|!=|//|\S")
ARITHMETIC = {"+": "-*", "-": "+*", "*": "+-", "//": "*-", "%": "+-"}
COMPARISON = {"<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("<=", ">=")}
NEGATION = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==", "and": "or", "or": "and"}
BUILTIN = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "max", "len": "sum"}
SAMPLES = 90


@dataclass(frozen=True)
class Difficulty:
    """How hard a task is: functions, bugs (both ends included), the chance that a bug shows, what `check` says."""

    functions: int = 3
    bugs_min: int = 1
    bugs_max: int = 2
    p_visible: float = 0.8
    report: Report = "line"
    drawn: bool = False  # functions drawn (`drawn.py`) instead of the written ones of the family
    one_token: bool = (
        False  # only bugs that `sub` repairs by naming one token, which stands once in the code of its line
    )

    def __post_init__(self) -> None:
        """Raise UsageError on a difficulty no task can have."""
        if not (1 <= self.bugs_min <= self.bugs_max <= self.functions <= 6 and 0 <= self.p_visible <= 1):
            raise UsageError(f"{self}: needs 1 <= bugs_min <= bugs_max <= functions <= 6 and p_visible within 0 and 1")
        if self.report not in ("name", "line", "source"):
            raise UnknownName("report", self.report, ("name", "line", "source"), "Choose one of them.")


@dataclass(frozen=True)
class Mutation:
    """One token of one body line (0-based) put in place of another: `old` at character `at` becomes `new`."""

    kind: MutationKind
    body_line: int
    at: int
    old: str
    new: str

    def apply(self, line: str) -> str:
        """Return the line with the token replaced."""
        return line[: self.at] + self.new + line[self.at + len(self.old) :]

    def short(self, line: str) -> bool:
        """Tell whether the token put in stands once in the code, so that naming it alone is enough to undo it."""
        return split_comment(self.apply(line))[0].count(self.new) == 1


@dataclass(frozen=True)
class Case:
    """One test: the function, its arguments and the result wanted, the last two as Python literals."""

    function: str
    args: str
    want: str

    @property
    def name(self) -> str:
        """Return the call as text."""
        return f"{self.function}({self.args})"


@dataclass(frozen=True)
class Bug:
    """One seeded bug: the 1-based line of the module, the token that was right and the one that stands there."""

    line: int
    function: str
    kind: MutationKind
    right: str
    wrong: str
    visible: bool


@dataclass(frozen=True)
class RepairTask:
    """A module to repair; `source` has the bugs, `solution` is the original text."""

    task_id: str
    family: str
    difficulty: Difficulty
    source: str
    solution: str
    visible: tuple[Case, ...]
    hidden: tuple[Case, ...]
    bugs: tuple[Bug, ...]

    @property
    def tests_hash(self) -> str:
        """Return the sha256 (hex) of the hidden tests."""
        return hashlib.sha256(json.dumps([(case.name, case.want) for case in self.hidden]).encode()).hexdigest()


def split_comment(line: str) -> tuple[str, str]:
    """Split a line into its code and its trailing comment (with the two spaces before it)."""
    code, mark, comment = line.partition("  #")
    return code, mark + comment


def mutations(function: Function) -> list[Mutation]:
    """List every single-token mutation of a function's body, whether or not it changes what it returns."""
    found: list[Mutation] = []
    kinds = dict(function.args)
    for index, line in enumerate(function.body):
        for match in TOKEN.finditer(split_comment(line)[0]):
            token, at = match.group(), match.start()

            def add(kind: MutationKind, new: str, index: int = index, at: int = at, token: str = token) -> None:
                found.append(Mutation(kind, index, at, token, new))

            for new in ARITHMETIC.get(token, ()):
                add("arithmetic", new)
            for new in COMPARISON.get(token, ()):
                add("comparison", new)
            if token in NEGATION:
                add("negation", NEGATION[token])
            if token in BUILTIN:
                add("builtin", BUILTIN[token])
            if token.isdigit():
                add("constant", str(int(token) + 1))
                if token != "0":
                    add("constant", str(int(token) - 1))
            if token in kinds:
                for other, kind in function.args:
                    if other != token and ({kind, kinds[token]} <= {"n", "p"} or kind == kinds[token]):
                        add("variable", other)
    return found


def evaluate(lines: Sequence[str], name: str, inputs: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return what one of our own functions gives on each input, as Python literals (or the name of what it raises)."""
    space: dict[str, Any] = {}
    exec("\n".join(lines), space)
    results = []
    for args in inputs:
        try:
            results.append(repr(space[name](*args)))
        except (ArithmeticError, TypeError, ValueError) as error:
            results.append("raised " + type(error).__name__)
    return results


def sample_inputs(function: Function, rng: random.Random) -> list[tuple[Any, ...]]:
    """Draw distinct inputs, a third of them on boundaries (equal arguments, or next to a constant of the body)."""
    constants = [int(word) for line in function.body for word in re.findall(r"\d+", split_comment(line)[0])]
    near = sorted({max(0, c + d) for c in constants for d in (-1, 0, 1) if c + d <= 13}) or [0, 1, 2]
    seen: dict[tuple[Any, ...], None] = {}
    for index in range(SAMPLES):
        style, base = index % 3, rng.randint(1, 6)
        values: list[Any] = []
        for _, kind in function.args:
            if kind == "l":
                values.append([rng.randint(0, 9) if style else base for _ in range(rng.randint(1, 4))])
            elif kind == "w":
                values.append("".join(rng.choice("abc") for _ in range(rng.randint(1, 4))))
            elif style == 0:
                values.append(base)
            elif style == 1 and kind == "n":
                values.append(rng.choice(near))
            else:
                values.append(rng.randint(0, 12) if kind == "n" else rng.randint(1, 6))
        key = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        seen.setdefault(key)
    return [tuple(list(v) if isinstance(v, tuple) else v for v in key) for key in seen]


@dataclass(frozen=True)
class _Prepared:
    """A function with its sampled inputs, what it returns on them, its live mutants and the inputs that kill each."""

    inputs: tuple[str, ...]
    wants: tuple[str, ...]
    killers: dict[Mutation, tuple[int, ...]]


@functools.lru_cache(4096)
def prepare(function: Function) -> _Prepared:
    """Sample inputs for a function and find which of them tell each mutant from the original."""
    inputs = sample_inputs(function, random.Random(function.name))
    wants = evaluate(function.lines(), function.name, inputs)
    killers: dict[Mutation, tuple[int, ...]] = {}
    for mutation in mutations(function):
        body = list(function.body)
        body[mutation.body_line] = mutation.apply(body[mutation.body_line])
        gave = evaluate([function.lines()[0], *body], function.name, inputs)
        killed = tuple(i for i, (a, b) in enumerate(zip(gave, wants, strict=True)) if a != b)
        if killed:
            killers[mutation] = killed
    return _Prepared(tuple(", ".join(map(repr, args)) for args in inputs), tuple(wants), killers)


def hidden_of(prepared: _Prepared, rng: random.Random) -> list[int]:
    """Choose inputs that kill every live mutant (greedily), and two more."""
    chosen: list[int] = []
    order = list(range(len(prepared.inputs)))
    rng.shuffle(order)
    left = {mutation: set(killed) for mutation, killed in prepared.killers.items()}
    while left:
        best = max(order, key=lambda index: sum(index in killed for killed in left.values()))
        chosen.append(best)
        left = {mutation: killed for mutation, killed in left.items() if best not in killed}
    return chosen + [index for index in order if index not in chosen][:2]


def _seedable(function: Function, difficulty: Difficulty) -> list[Mutation]:
    """List the bugs a function can be given: mutants that some input tells from the original."""
    killers = prepare(function).killers
    return [m for m in killers if not difficulty.one_token or m.short(function.body[m.body_line])]


def _choose(family: str, rng: random.Random, difficulty: Difficulty) -> list[Function]:
    """Choose functions of a family of which each can be broken."""
    while True:
        if difficulty.drawn:
            functions = draw(family, rng, difficulty.functions)
        else:
            functions = rng.sample(FAMILIES[family], difficulty.functions)
        if all(_seedable(function, difficulty) for function in functions):
            return functions


def make_task(seed: int, families: Sequence[str], difficulty: Difficulty) -> RepairTask:
    """Make the task these arguments name; equal arguments give an equal task on every machine."""
    for family in families:
        if family not in FAMILIES:
            raise UnknownName("family", family, FAMILIES, "Choose from TRAIN_FAMILIES or EVAL_FAMILIES.")
    if not families:
        raise UsageError("no families given; pass TRAIN_FAMILIES or EVAL_FAMILIES")
    rng = random.Random(f"repair:{seed}")
    family = rng.choice(list(families))
    functions = _choose(family, rng, difficulty)
    broken = set(rng.sample(range(len(functions)), rng.randint(difficulty.bugs_min, difficulty.bugs_max)))
    source: list[str] = []
    solution: list[str] = []
    visible: list[Case] = []
    hidden: list[Case] = []
    bugs: list[Bug] = []
    for position, function in enumerate(functions):
        prepared = prepare(function)
        lines = function.lines()
        killed: tuple[int, ...] = ()
        shows = False
        if position in broken:
            by_kind: dict[MutationKind, list[Mutation]] = {}
            for mutation in _seedable(function, difficulty):
                by_kind.setdefault(mutation.kind, []).append(mutation)
            mutation = rng.choice(by_kind[rng.choice(sorted(by_kind))])
            killed = prepared.killers[mutation]
            shows = rng.random() < difficulty.p_visible
            lines[1 + mutation.body_line] = mutation.apply(lines[1 + mutation.body_line])
        quiet = [index for index in range(len(prepared.inputs)) if index not in killed]
        rng.shuffle(quiet)
        if killed and (shows or len(quiet) < 2):
            shows = True
            picked = [rng.choice(killed), *quiet[:1]] if quiet else rng.sample(killed, 2)
            rng.shuffle(picked)
        else:
            picked = quiet[:2]
        if killed:
            line = len(source) + 2 + mutation.body_line
            bugs.append(Bug(line, function.name, mutation.kind, mutation.old, mutation.new, shows))
        for cases, indices in ((visible, picked), (hidden, hidden_of(prepared, rng))):
            cases += [Case(function.name, prepared.inputs[i], prepared.wants[i]) for i in indices]
        source += lines
        solution += function.lines()
    texts = ("\n".join(source) + "\n", "\n".join(solution) + "\n")
    content = json.dumps([*texts, difficulty.report, [(c.name, c.want) for c in (*visible, *hidden)]])
    task_id = f"repair-{family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    return RepairTask(task_id, family, difficulty, *texts, tuple(visible), tuple(hidden), tuple(bugs))
