"""One trajectory as the leak rules see it: its commands and changes, which files it made itself, and what it put back.

Belongs here: whose a file is and what kind of file. Does not belong here: what counts as a leak (`leaks`, `gaming`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from stepwell.critics.edits import Change, same
from stepwell.critics.shell import Command, normal
from stepwell.critics.turns import Turn

_CODE = r"\.(py|[jt]sx?|mjs|rb|go|rs|java|kt|c|cc|cpp|h|cs|php|swift|scala|exs?|sh)$"
TEST = re.compile(rf"(^|/)(test_[^/]*|[^/]*_tests?|tests?|[^/]*\.(test|spec)|[^/]*_spec|[A-Z]\w*Test){_CODE}")
TESTS = re.compile(r"(^|/)(tests?|testing|__tests__|specs?)(/|$)")
RUNNER = re.compile(
    r"(^|/)(conftest\.py|\.?pytest\.ini|tox\.ini|noxfile\.py|(site|user)customize\.py|runtests\.py|jest\.config\.\w+)$|^bin/test$"
)
_COMMON = re.compile(
    r"(tests|test|src|lib|docs|doc|usr|tmp|opt|home|python3|bin|build|dist|examples|scripts|core|utils)$"
)


@dataclass(frozen=True)
class Finding:
    """One thing a rule saw: the step, the category, how bad it is (1 looked or tried, 2 had or did it), and what shows it.

    `path` is the file it is about, where it is undone by putting that file back.
    """

    step: int
    category: str
    severity: int
    evidence: str
    path: str | None = None


@dataclass(frozen=True)
class Seen:
    """One trajectory as the rules see it: every turn with its commands and changes."""

    turns: list[tuple[Turn, list[Command], list[Change]]]

    @cached_property
    def packages(self) -> frozenset[str]:
        """Names that can be the package under test: folders of the source files that commands name."""
        found: set[str] = set()
        for _, parsed, changed in self.turns:
            paths = [p for c in parsed for p in c.paths] + [c.path for c in changed]
            for path in paths:
                if re.search(r"\.\w{1,4}$", path) and "-packages/" not in path and "://" not in path:
                    found |= {part.lower().lstrip("_") for part in path.split("/")[:-1][:3]}
        return frozenset(p for p in found if len(p) > 2 and not _COMMON.match(p))

    @cached_property
    def created(self) -> list[tuple[int, str]]:
        """(step, path) of the files the trajectory made itself: written whole, and named by nothing before."""
        made: list[tuple[int, str]] = []
        known: set[str] = set()
        for turn, parsed, changed in self.turns:
            for change in changed:
                if change.kind == "create" and not any(same(change.path, k) for k in known):
                    made.append((turn.step, change.path))
            if not turn.tool_failed and turn.exit_code in (None, 0):
                own = {p for _, p in made}
                named = {p for c in parsed for p in c.paths if "." in p} | _paths(turn.output or "")
                known |= {p for p in named if not any(same(p, o) for o in own)}
        return made

    def is_own(self, path: str) -> bool:
        """Whether the trajectory made this file; a bare name stands for any file of that name, as folders change."""
        return any(same(path, o) or ("/" not in path and o.rpartition("/")[2] == path) for _, o in self.created)

    def is_source(self, path: str) -> bool:
        """Whether a changed file is part of the solution: no test, and no script the trajectory wrote for itself."""
        test = TEST.search(path) or TESTS.search(path) or RUNNER.search(path)
        return not test and not self.is_own(path) and not path.startswith("/tmp/")

    def undone(self, path: str, step: int) -> bool:
        """Whether a file changed at a step was put back later, or was the trajectory's own and deleted."""
        for turn, _, changed in self.turns:
            for change in changed if turn.step > step else ():
                back = change.kind == "restore" and (change.path == "." or same(change.path, path))
                if back or (change.kind == "delete" and self.is_own(path) and same(change.path, path)):
                    return True
        return False


def _paths(output: str) -> set[str]:
    return {normal(p) for p in re.findall(r"[\w./-]{1,200}\.\w{1,5}\b", output[:20_000])}
