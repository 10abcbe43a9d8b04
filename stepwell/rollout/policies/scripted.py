"""Scripted policies: who plays when no model does, and who labels what a model did.

`OraclePolicy` is right in every state it is shown, whoever made that state; `NoisyPolicy` is the oracle with the
mistakes of real agents, some of them noticed later. Thoughts are a few fixed phrases that depend only on the command,
so the text never tells a mistake from the right step. What does not belong here: models, and playing (`episode.py`).
"""

from __future__ import annotations

import ast
import random
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stepwell.rollout.policies import View
from stepwell.rollout.repair import (
    ARITHMETIC,
    BUILTIN,
    COMPARISON,
    NEGATION,
    TOKEN,
    split_comment,
)
from stepwell.rollout.scaffolds.bash import format_action

LARGE = 4_000  # characters of mod.py beyond which it is written anew rather than edited
LOOKING = ("view", "check", "ls", "pwd", "cat", "grep", "head", "tail")
THOUGHTS = {
    "view": "Look at the code.",
    "check": "Run the tests.",
    "submit": "All lines match.",
    "ls": "List the files.",
}
REPLACEMENTS = {
    **BUILTIN,
    **NEGATION,
    **{token: new[0] for token, new in COMPARISON.items()},
    **{token: new[0] for token, new in ARITHMETIC.items()},
}


@dataclass(frozen=True)
class Past:
    """One earlier turn: its command (None on a format error), the answer, and whether mod.py is unchanged since."""

    command: str | None
    answer: str
    fresh: bool

    @property
    def succeeded(self) -> bool:
        """Tell whether it ran and returned 0."""
        return self.answer.startswith("<returncode>0<")


def history(view: View) -> list[Past]:
    """Read the earlier turns out of a view."""
    past: list[Past] = []
    fresh = True
    for index in range(len(view.turns) - 1, -1, -1):
        command, answer = view.turns[index]
        if len(view.states) == len(view.turns) + 1:
            fresh = fresh and view.states[index + 1] == view.states[-1]
        elif command is not None and command.split()[0] not in LOOKING:
            fresh = fresh and command.startswith("sub ") and answer.startswith("<returncode>1<")
        past.insert(0, Past(command, answer, fresh))
    return past


def say(command: str) -> str:
    """Write a well-formed turn with the fixed thought of its command."""
    words = command.split()
    thought = THOUGHTS.get(words[0]) or (f"Fix line {words[1]}." if words[0] == "sub" else "Write the file.")
    return format_action(thought, command)


def sub_command(number: int, line: str, want: str) -> str | None:
    """Return the shortest `sub` that turns a line's code into another's, or None when no `sub` can."""
    (code, comment), (goal, goal_comment) = split_comment(line), split_comment(want)
    if comment != goal_comment or not code.strip() or code == goal:
        return None
    spans = [(m.start(), m.end()) for m in TOKEN.finditer(code)]
    goals = [(m.start(), m.end()) for m in TOKEN.finditer(goal)]
    have, aim = [code[a:b] for a, b in spans], [goal[a:b] for a, b in goals]
    first = 0
    while first < min(len(have), len(aim)) and have[first] == aim[first]:
        first += 1
    tail = 0
    while tail < min(len(have), len(aim)) - first and have[-1 - tail] == aim[-1 - tail]:
        tail += 1
    if spans and goals:
        while True:  # widen to the left, then to the right, until the piece is unique and not empty
            stop, goal_stop = len(have) - tail, len(aim) - tail
            if stop > first:
                old = code[spans[first][0] : spans[stop - 1][1]]
                new = goal[goals[first][0] : goals[goal_stop - 1][1]] if goal_stop > first else ""
                if code.count(old) == 1 and code.replace(old, new) == goal:
                    return f"sub {number} {quote(old)} {quote(new)}"
            if first > 0:
                first -= 1
            elif tail > 0:
                tail -= 1
            else:
                break
    return f"sub {number} {quote(code)} {quote(goal)}"


def one_token(command: str) -> bool:
    """Tell whether a `sub` names one token."""
    return TOKEN.fullmatch(shlex.split(command)[2]) is not None


def quote(text: str) -> str:
    """Quote a piece of code for the shell, always with quotes."""
    return f"'{text}'" if "'" not in text else shlex.quote(text)


def wrong_lines(source: str, solution: str) -> list[int] | None:
    """List the 1-based lines that differ, or None when the texts do not align line by line."""
    have, want = source.rstrip("\n").split("\n"), solution.rstrip("\n").split("\n")
    if len(have) != len(want):
        return None
    return [number for number, (a, b) in enumerate(zip(have, want, strict=True), 1) if a.rstrip() != b.rstrip()]


def next_command(view: View, ignored: frozenset[int] = frozenset()) -> str:
    """Return the right command for a state, treating the ignored lines as if they were right.

    Look once; test whenever the present text is untested; fix the line the test names, else the first wrong one; write
    the whole file when it does not align with the solution; submit when nothing is wrong.
    """
    past = history(view)
    write = f"rm -rf mod.py; cat > mod.py <<'EOF'\n{view.task.solution}EOF"
    if not view.source:
        return write
    if not any(turn.command == "view" and turn.succeeded for turn in past):
        return "view"
    checks = [turn for turn in past if turn.command == "check" and turn.fresh and "<returncode>" in turn.answer]
    if not checks:
        return "check"
    wrong = wrong_lines(view.source, view.task.solution)
    have, want = view.source.split("\n"), view.task.solution.split("\n")
    if wrong is not None:
        wrong = [number for number in wrong if number not in ignored]
        if not wrong:
            return "submit"
        named = checks[-1].answer.partition("FAIL ")[2].partition("(")[0]
        number = next((n for n in wrong if named and _owner(want, n) == named), wrong[0])
        command = sub_command(number, have[number - 1], want[number - 1])
        if command is not None and parses(view.source, number, want[number - 1]):
            return command
    return write


def parses(source: str, number: int, line: str) -> bool:
    """Tell whether the source parses once a line is replaced, as `sub` requires; large text counts as not."""
    lines = source.split("\n")
    lines[number - 1] = line
    if sum(map(len, lines)) > LARGE:
        return False
    try:
        ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _owner(lines: Sequence[str], number: int) -> str:
    """Return the function a line belongs to."""
    for line in reversed(lines[:number]):
        if line.startswith("def "):
            return line[4:].partition("(")[0]
    return ""


class OraclePolicy:
    """The teacher: takes the right step in any state."""

    name = "oracle"

    def act(self, view: View) -> str:
        """Return the right turn."""
        return say(next_command(view))


class NoisyPolicy:
    """The oracle with chance: at `mistake_rate` a turn goes wrong; a mistake is noticed at `recover_rate`.

    Each wrong edit of its own is noticed at once or at a later failing test run, each time at `recover_rate`; until
    then the line passes for right. `stop_rate` is the share of mistakes that submit too early. It keeps no state: what
    it believes follows from the view, so one instance may play many episodes at once.
    """

    def __init__(self, mistake_rate: float = 0.2, recover_rate: float = 0.6, stop_rate: float = 0.08) -> None:
        self.mistake_rate, self.recover_rate, self.stop_rate = mistake_rate, recover_rate, stop_rate
        self.name = f"noisy-{mistake_rate:g}-{recover_rate:g}"

    def act(self, view: View) -> str:
        """Return a turn, right or not."""
        past = history(view)
        last = past[-1] if past else None
        wrong = wrong_lines(view.source, view.task.solution)
        ignored = frozenset(number for number in wrong or () if self._blind(number, past, view.seed))
        unread = last is not None and (last.command or "").startswith("sub ") and not last.succeeded
        if last is not None and last.command and unread and view.rng.random() >= self.recover_rate:
            return say(last.command)  # the tool's error goes unread
        if view.rng.random() < self.mistake_rate:
            text = self._mistake(view, past, wrong, ignored)
            if text is not None:
                return text
        return say(next_command(view, ignored))

    def _blind(self, number: int, past: list[Past], seed: int) -> bool:
        """Tell whether a wrong line passes for right: it edited the line itself and has not noticed since."""
        edits = [
            index
            for index, turn in enumerate(past)
            if turn.succeeded and turn.command and turn.command.split()[:2] == ["sub", str(number)]
        ]
        if not edits:
            return False
        looks = [edits[-1], *(i for i, turn in enumerate(past) if i > edits[-1] and "\nFAIL " in turn.answer)]
        return all(random.Random(f"{seed}:{number}:{look}").random() >= self.recover_rate for look in looks)

    def _mistake(self, view: View, past: list[Past], wrong: list[int] | None, ignored: frozenset[int]) -> str | None:
        """Choose a kind of mistake that this state allows, or None."""
        rng, right = view.rng, next_command(view, ignored)
        if past and rng.random() < self.stop_rate and wrong != []:
            return say("submit")
        kinds = ["blocks", "ls"]
        if past and past[-1].command and past[-1].command.split()[0] in ("view", "check", "sub"):
            kinds.append("repeat")
        viewed = any(turn.command == "view" for turn in past)
        if viewed and wrong is not None:
            kinds += ["break"] + (["operator", "line"] * 2 if right.startswith("sub ") else [])
            if any(bug.line not in wrong for bug in view.task.bugs):
                kinds.append("revert")
        kind = rng.choice(kinds)
        if kind == "blocks":
            other = "check" if right != "check" else "view"
            return format_action(THOUGHTS.get(right.split()[0], "Run the tests."), right, other)
        if kind == "ls":
            return say("ls")
        if kind == "repeat":
            return say(past[-1].command or "view")
        return self._wrong_edit(view, kind, right, wrong or [])

    def _wrong_edit(self, view: View, kind: str, right: str, wrong: list[int]) -> str | None:
        """Return an edit that does harm, or an edit of the wrong line, or None when there is none to make."""
        rng, have = view.rng, view.source.rstrip("\n").split("\n")
        want = view.task.solution.rstrip("\n").split("\n")
        bodies = [n for n, line in enumerate(want, 1) if line.startswith(" ")]
        number = rng.choice([n for n in bodies if n not in wrong] or bodies)
        if kind == "line":
            words = shlex.split(right)
            other = rng.choice([n for n in bodies if str(n) != words[1]] or bodies)
            return say(f"sub {other} {quote(words[2])} {quote(words[3])}")
        if kind == "operator":
            number = int(right.split()[1])
        if kind == "revert":
            number = next(bug.line for bug in view.task.bugs if bug.line not in wrong)
            goal = view.task.source.split("\n")[number - 1]
        else:
            spoiled = spoil(want[number - 1], rng, avoid=have[number - 1])
            if spoiled is None:
                return None
            goal = spoiled
        command = sub_command(number, have[number - 1], goal)
        if command is None or not parses(view.source, number, goal):
            return None
        if view.task.difficulty.one_token and not one_token(command):
            return None
        return say(command)


def spoil(line: str, rng: random.Random, avoid: str) -> str | None:
    """Return a line with one operator, builtin or constant of its code made wrong, or None when it has none."""
    code, comment = split_comment(line)
    spoiled = []
    for match in TOKEN.finditer(code):
        token = match.group()
        new = REPLACEMENTS.get(token) or (str(int(token) + 1) if token.isdigit() else None)
        if new is not None:
            spoiled.append(code[: match.start()] + new + code[match.end() :] + comment)
    spoiled = [text for text in spoiled if text != avoid]
    return rng.choice(spoiled) if spoiled else None
