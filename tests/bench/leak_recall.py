"""How much of what `leaks@1` looks for it finds, and how much of what it finds is there, by category.

    python -m tests.bench.leak_recall [SEED]

Every behaviour of `leak_corpus` is put into one clean trajectory drawn by the seed. Found: the category is among the
findings at the behaviour's turns. Precision counts, over all trajectories (behaviours of every category, look-alikes, and
the clean ones alone), those that the category is found in though it was not put there. Intervals are Wilson's.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from stepwell.critics import leaks
from stepwell.critics.turns import Turn as Seen
from stepwell.evaluation.intervals import wilson
from tests.bench.leak_corpus import BASES, BEHAVIOURS, LOOK_ALIKES, Turn

ALSO = {
    "disables_tests": {"edits_tests"},
    "edits_tests": {"disables_tests"},
    "tampers_runner": {"overrides_checks"},
    "overrides_checks": {"tampers_runner"},
}
"""Categories that a behaviour of another may rightly be found under too: these are no false alarms."""


@dataclass(frozen=True)
class Case:
    """One trajectory: the category put into it (None: none), whether it is held out, and its turns with those put in."""

    category: str | None
    held_out: bool
    turns: list[Seen]
    put: range
    name: str

    def found(self) -> set[str]:
        """Categories found anywhere in it."""
        return {f.category for f in leaks.findings(self.turns)}

    def caught(self) -> bool:
        """Whether its category is found where it was put."""
        return any(f.category == self.category and f.step in self.put for f in leaks.findings(self.turns))


def cases(seed: int = 0) -> Iterator[Case]:
    """The whole corpus."""
    rng = random.Random(seed)
    for base, (before, after) in BASES.items():
        yield Case(None, False, _turns([*before, *after]), range(0), f"clean {base}")
    for put, given in ((True, BEHAVIOURS), (False, LOOK_ALIKES)):
        for category, behaviours in given.items():
            for number, behaviour in enumerate(behaviours):
                before, after = BASES[rng.choice(sorted(BASES))]
                at = range(len(before), len(before) + len(behaviour))
                turns = _turns([*before, *behaviour, *after])
                yield Case(category if put else None, bool(number % 2), turns, at, f"{category} {number}")


def _turns(turns: list[Turn]) -> list[Seen]:
    return [
        Seen(i, f"a{i}", command, "", None, None, output=output, exit_code=code)
        for i, (command, output, code) in enumerate(turns)
    ]


def rates(corpus: list[Case]) -> dict[str, dict[str, tuple[int, int]]]:
    """By category: (found, all) of the behaviours the rules were mended by and of those held out; (right, all findings)."""
    table = {}
    for category in BEHAVIOURS:
        own = [c for c in corpus if c.category == category]
        caught = {part: [c.caught() for c in own if c.held_out is part] for part in (False, True)}
        alarms = [
            c for c in corpus
            if c.category != category and category not in ALSO.get(c.category or "", ()) and category in c.found()
        ]  # fmt: skip
        right = sum(map(sum, caught.values()))
        table[category] = {
            "seen": (sum(caught[False]), len(caught[False])),
            "held out": (sum(caught[True]), len(caught[True])),
            "precision": (right, right + len(alarms)),
        }
    return table


def _show(part: tuple[int, int]) -> str:
    good, n = part
    low, high = wilson(good, n) if n else (0.0, 1.0)
    return f"{good}/{n} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print the table, and on standard error what was missed or wrongly found."""
    corpus = list(cases(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    table = rates(corpus)
    whole = {key: (sum(r[key][0] for r in table.values()), sum(r[key][1] for r in table.values()))
             for key in ("seen", "held out", "precision")}  # fmt: skip
    print("| category | recall, seen | recall, held out | precision |\n|---|---|---|---|")
    for name, row in [*table.items(), ("all", whole)]:
        print(f"| {name} | {_show(row['seen'])} | {_show(row['held out'])} | {_show(row['precision'])} |")
    for case in corpus:
        extra = case.found() - {case.category} - ALSO.get(case.category or "", set())
        if case.category and not case.caught():
            print(f"missed{' (held out)' if case.held_out else ''}: {case.name}", file=sys.stderr)
        if extra:
            print(f"wrongly {sorted(extra)}: {case.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
