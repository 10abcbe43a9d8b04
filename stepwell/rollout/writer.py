"""A scripted writer of the embedded problems' functions, for tests and for figures that need no model.

It holds every single-token mutation of the function for possible beside the function itself, and learns from a critique only
what stands in it: a case rules out what contradicts it, `Correct` makes it keep what it has, anything else makes it try again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass

from stepwell.rollout.families import Function
from stepwell.rollout.policies import View
from stepwell.rollout.repair import evaluate, mutations, split_comment
from stepwell.rollout.solving import block

_CASE = re.compile(r"(\w+)\(([^()\n]*)\) must be (.+?)\.?$", re.MULTILINE)
_HINTED = re.compile(r"Input: (\w+)\(([^()\n]*)\)\nExpected: (.+)$", re.MULTILINE)
_FINE = re.compile(r"Overall judgment: Correct|Every test passes")


@dataclass(frozen=True)
class Writer:
    """Writes the right function with probability 1 - `mistake_rate`, else one that is wrong in one token."""

    functions: Mapping[str, Function]
    mistake_rate: float = 0.5

    @property
    def name(self) -> str:
        """Name recorded with each attempt."""
        return f"writer(m={self.mistake_rate:g})"

    def act(self, view: View) -> str:
        """A function as a python block."""
        function = self.functions[view.task.task_id]
        right, *others = self._candidates(function)
        text = view.messages[-1]["content"] if len(view.messages) > 1 else ""
        before = view.messages[-2]["content"] if text else ""
        cases = [*_CASE.findall(text), *_HINTED.findall(text)]
        if _FINE.search(text):
            return before
        possible = [t for t in (right, *others) if all(self._fits(t, *case) for case in cases)]
        if cases:
            possible = [t for t in possible if block(t) != before] or possible
        rest = [t for t in possible if t != right]
        if right in possible and (not rest or view.rng.random() >= self.mistake_rate):
            return block(right)
        return block(view.rng.choice(rest or [right]))

    def _candidates(self, function: Function) -> list[str]:
        head = function.lines()[0]
        bare = [split_comment(line)[0] for line in function.body]
        found = ["\n".join([head, *bare])]
        for m in mutations(function):
            body = list(bare)
            body[m.body_line] = m.apply(bare[m.body_line])
            found.append("\n".join([head, *body]))
        return list(dict.fromkeys(found))

    def _fits(self, text: str, name: str, args: str, want: str) -> bool:
        """Whether one of the writer's own candidates gives this on these literals; a case without sense rules out none."""
        if not re.fullmatch(r"[\w\s,'\[\]\-]*", args) or re.search(r"\d{5}", args):
            return True
        try:
            return evaluate(text.splitlines(), name, [literals(args)]) == [want]
        except (ValueError, SyntaxError, LookupError, AttributeError, NameError, RecursionError, MemoryError):
            return True


def literals(args: str) -> tuple[object, ...]:
    """Arguments of a call as values."""
    return tuple(ast.literal_eval(f"({args},)")) if args.strip() else ()
