"""Step rules: findings that need no model, the same for every harness, combined into one verdict a step.

Belongs here: what a rule looks for and what it says. Does not belong here: reading commands (`turns`), choosing what to
judge (`run`). A rule is a function from the turns of one trajectory to findings; add it to `RULES` to have it count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from stepwell.critics.deterministic import short, verdict
from stepwell.critics.taxonomy import load
from stepwell.critics.turns import Trajectory, Turn, trajectories
from stepwell.event import Event

POLICY = "rules@1"
PRECEDENCE = ("mistake", "recover", "unnecessary", "good")
"""Which label a step gets when its findings differ: the first of these."""
_STUCK = 3
_QUOTED = 100  # characters of a command or an output that evidence quotes
_SUB = re.compile(r"^sub\s+(\S+)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))$")
_SED = re.compile(r"^sed\s+-i\s+(['\"])(\d+)s([/|#,])([\w .=<>!:()]+)\3([\w .=<>!:()]+)\3\1\s+(\S+)$")


@dataclass(frozen=True)
class Finding:
    """One thing a rule saw: the step it is about, how bad it is, and the steps that show it."""

    step: int
    rule: str
    category: str | None
    severity: int
    label: str
    evidence: str
    points_to: tuple[int, ...]


Rule = Callable[[Sequence[Turn]], Iterator[Finding]]


def repeated_action(turns: Sequence[Turn]) -> Iterator[Finding]:
    """The same command with the same result while nothing changed: unnecessary, and a mistake from the third on."""
    seen: dict[str, list[Turn]] = {}
    for turn in turns:
        before = [t for t in seen.get(turn.normal, []) if t.output == turn.output]
        if turn.normal and before and not turn.changed_state:
            steps = (*(t.step for t in before), turn.step)
            stuck = len(steps) >= _STUCK
            text = f"`{short(turn.normal, _QUOTED)}` was run {len(steps)} times with the same result and no change in between"
            label = "mistake" if stuck else "unnecessary"
            yield Finding(turn.step, "repeated_action", "step_repetition", 1 + stuck, label, text, steps)
        if turn.changed_state:
            seen = {}
        elif turn.normal:
            seen.setdefault(turn.normal, []).append(turn)


def failed_edit(turns: Sequence[Turn]) -> Iterator[Finding]:
    """An edit that was not made."""
    for turn in turns:
        if turn.edit_failed:
            code = "" if turn.exit_code is None else f" (exit code {turn.exit_code})"
            text = f"the edit failed{code}: {short(turn.output or '', _QUOTED)}"
            yield Finding(turn.step, "failed_edit", "tool_selection", 1, "mistake", text, (turn.step,))


def format_error(turns: Sequence[Turn]) -> Iterator[Finding]:
    """A reply from which nothing could be executed."""
    for turn in turns:
        if turn.malformed:
            text = f"nothing could be executed: {short(turn.parse_error or '', _QUOTED)}"
            yield Finding(turn.step, "format_error", "task_specification", 1, "mistake", text, (turn.step,))


def reverted_edit(turns: Sequence[Turn]) -> Iterator[Finding]:
    """An edit undone later: the state returns to what it was before, or the next change is the inverse command.

    Where the undone state is restored afterwards, undoing it was the mistake, and only that is found.
    """
    changes = [t for t in turns if t.changed_state]
    for i, back in enumerate(changes):
        start = next((k for k in range(i - 1, -1, -1) if _returns(changes[k : i + 1])), None)
        restored = back.state_before is not None and back.state_before in {t.state_after for t in changes[i + 1 :]}
        if start is None or restored:
            continue
        for undone in changes[start:i]:
            text = f"the edit of step {undone.step} is undone by step {back.step}"
            points = (undone.step, back.step)
            yield Finding(undone.step, "reverted_edit", "problem_misidentification", 1, "mistake", text, points)
        text = f"undoes the edit of step {changes[start].step}"
        yield Finding(back.step, "reverted_edit", None, 0, "recover", text, (changes[start].step, back.step))


def ignored_error(turns: Sequence[Turn]) -> Iterator[Finding]:
    """After a tool failed: the same command again, or one that neither looks, corrects nor concerns the failure.

    Going on is a mistake where it repeats, edits or submits, and unnecessary where it changes nothing.
    """
    for failed, turn in pairwise(turns):
        if not failed.tool_failed or failed.malformed or turn.malformed:
            continue
        again = turn.normal == failed.normal
        if again or not (turn.is_inspection or _related(failed, turn)):
            what = "runs the same command again" if again else f"goes on with `{short(turn.normal, _QUOTED)}`"
            text = f"step {failed.step} failed ({short(failed.output or 'no output', _QUOTED)}) and this step {what}"
            label = "mistake" if again or turn.is_edit or turn.is_submit else "unnecessary"
            points = (failed.step, turn.step)
            yield Finding(turn.step, "ignored_error", "information_processing", 1, label, text, points)


def unverified_submit(turns: Sequence[Turn]) -> Iterator[Finding]:
    """A submission with no passing test run since the last edit."""
    edit: Turn | None = None
    passed = False
    for turn in turns:
        if turn.is_submit and not passed:
            since = "at all" if edit is None else f"since the edit of step {edit.step}"
            points = (turn.step,) if edit is None else (edit.step, turn.step)
            text = f"submits with no passing test run {since}"
            yield Finding(turn.step, "unverified_submit", "verification_failure", 2, "mistake", text, points)
        if turn.changed_state:
            edit, passed = turn, False
        if turn.tests_passed:
            passed = True


def corrected(turns: Sequence[Turn]) -> Iterator[Finding]:
    """The next step that does more than look, after an edit or a tool failed, succeeds at what failed."""
    pending: Turn | None = None
    for turn in turns:
        if pending is not None and turn.succeeded and turn.normal != pending.normal and _corrects(pending, turn):
            text = f"succeeds after the failure of step {pending.step}"
            yield Finding(turn.step, "corrected", None, 0, "recover", text, (pending.step, turn.step))
        if turn.tool_failed:
            pending = turn
        elif not turn.malformed and not turn.is_inspection:
            pending = None


RULES: tuple[Rule, ...] = (
    repeated_action,
    failed_edit,
    format_error,
    reverted_edit,
    ignored_error,
    unverified_submit,
    corrected,
)


def judge(events: pa.Table) -> list[Event]:
    """Events of whole trajectories, in any order -> one verdict a step, by trajectory and step.

    Needs the columns `turns.COLUMNS`. The verdicts are a function of the trajectory's actions and observations, and the
    digest of these is in every event id: a trajectory that grew is judged anew as a whole, under new ids.
    """
    return [verdict for trajectory in trajectories(events) for verdict in _verdicts(trajectory)]


def findings(turns: Sequence[Turn]) -> list[Finding]:
    """What all rules find in one trajectory, by step, worst first."""
    found = [finding for rule in RULES for finding in rule(turns)]
    return sorted(set(found), key=lambda f: (f.step, PRECEDENCE.index(f.label), -f.severity, f.rule, f.points_to))


def _verdicts(trajectory: Trajectory) -> Iterator[Event]:
    taxonomy = load()
    found = findings(trajectory.turns)
    for turn in trajectory.turns:
        here = [f for f in found if f.step == turn.step]
        detections = [
            {
                "category": f.category,
                "evidence": f"{f.rule}: {f.evidence} (steps {', '.join(map(str, f.points_to))})",
                "recovery": taxonomy[f.category].recovery if f.category else None,
            }
            for f in here
        ]
        said = {
            "label": min((f.label for f in here), key=PRECEDENCE.index, default="good"),
            "severity": max((f.severity for f in here), default=0),
            "detections": detections,
        }
        yield verdict(POLICY, taxonomy, trajectory, (turn.step, turn.action_id), said)


def _returns(changes: Sequence[Turn]) -> bool:
    """Whether the last of these consecutive changes restores the state before the first."""
    first, last = changes[0], changes[-1]
    if first.state_before is not None and last.state_after is not None:
        return first.state_before == last.state_after
    return len(changes) == 2 and _inverse(first, last)


def _inverse(first: Turn, last: Turn) -> bool:
    for pattern in (_SUB, _SED):
        one, two = pattern.match(first.line), pattern.match(last.line)
        if one and two:
            a, b = ([g for g in m.groups() if g is not None] for m in (one, two))
            if pattern is _SUB:
                return a[0] == b[0] and a[1:] == b[:0:-1]
            return (a[1], a[2], a[5]) == (b[1], b[2], b[5]) and (a[3], a[4]) == (b[4], b[3])
    return False


def _related(failed: Turn, turn: Turn) -> bool:
    if turn.is_submit or (failed.is_edit and turn.is_test):
        return False
    same_program = failed.normal.split(" ")[0] == turn.normal.split(" ")[0]
    return same_program or bool(failed.words & turn.words) or (failed.is_edit and turn.is_edit)


def _corrects(failed: Turn, turn: Turn) -> bool:
    if failed.is_edit:
        return turn.is_edit
    return not turn.is_inspection and _related(failed, turn)
