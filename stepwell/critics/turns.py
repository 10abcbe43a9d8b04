"""Turns: what the step rules see of a trajectory, told the same way for every harness.

Belongs here: reading actions and observations out of events, and saying what a command is (edit, test run, submission,
inspection) and whether it failed. Does not belong here: judging it (`rules`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stepwell.ids import digest
from stepwell.log import in_order, taken_back

COLUMNS = ("event_id", "corpus", "trajectory_id", "step", "kind", "action", "observation", "retraction")
"""Columns of `events` that `trajectories` reads."""

_HEREDOC = re.compile(r"<<-?[ \t]*['\"]?(\w+)['\"]?")
_FIRST_WORD = re.compile(r"\s*(\w+)")
_AT = r"(?:^|[;&|(]\s*)(?:\w+=\S+\s+)*(?:timeout\s+\S+\s+)?"
_EDIT = re.compile(
    rf"""^sub\s+\S+\s | ^(edit|create|insert|append|undo_edit|apply_patch|write_file|edit_file)\b
      | \bstr_replace(_based_edit_tool|_editor)\s+(create|str_replace|insert|undo_edit)\b
      | {_AT}sed\s+(-\w+\s+)*(-i|--in-place) | {_AT}perl\s+-\w*i | {_AT}patch\s+-
      | {_AT}git\s+(apply|restore|revert|stash|reset\s+--hard|checkout\s+(--\s|[^\s;&|]*\.\w+))
      | {_AT}(cat|echo|printf)\b[^|;&]*>>?\s*(?!/dev/|/tmp/|&)[\w./~-]+
      | \btee\s+(-a\s+)?(?!/dev/|/tmp/)[\w./~-]+""",
    re.VERBOSE | re.MULTILINE,
)
_WRITES = re.compile(r"""\.write_text\(|\bopen\([^)]*["'][wa]["']""")
_TEST = re.compile(
    rf"""^check\b | {_AT}(python[\d.]*\s+(-\w+\s+)*-m\s+)?(pytest|py\.test|tox|nox|nosetests|unittest)\b
      | {_AT}(python[\d.]*\s+)?\S*(runtests\.py|manage\.py\s+test|bin/test)\b
      | {_AT}(make|npm|yarn|pnpm|go|cargo|mvn|gradle|rake|dotnet|swift|mix)\s+(run\s+)?(test|check)\b
      | {_AT}(rspec|phpunit|ctest|jest|vitest)\b
      | {_AT}(python[\d.]*|node|ruby|bash|sh)\s+\S*(test|repro|verify|check)\w*\.(py|js|rb|sh)\b""",
    re.VERBOSE | re.MULTILINE,
)
_SUBMIT = re.compile(
    r"^(submit|finish|exit_forfeit)\b|COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT|MINI_SWE_AGENT_FINAL_OUTPUT", re.MULTILINE
)
_INSPECT = re.compile(
    r"""(cd\s+\S+\s*&&\s*)?(view|open|goto|scroll_\w+|find_file|search_\w+|ls|cat|head|tail|nl|less|more|grep|rg|find|
      tree|pwd|which|type|file|stat|wc|sed\s+-n|git\s+(status|diff|log|show|blame|grep)
      |str_replace\w*\s+view|man|help)\b""",
    re.VERBOSE,
)
_EDIT_ERROR = re.compile(
    r"""No\ replacement\ was\ performed | did\ not\ appear\ verbatim | introduced\ new\ syntax\ error
      | proposed\ edit\ has\ introduced | ^ERROR:.*(file|line|edit|replace|insert|path) | Invalid\ `?path
      | patch\ (failed|does\ not\ apply) | Hunk\ \#\d+\ FAILED | ^usage:\ sub
      | ^(sed|patch|git|perl|tee|(ba)?sh):.*(error|unterminated|unknown|No\ such|can(no|')t|not\ found|denied)""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_TOOL_ERROR = re.compile(
    r"""command\ not\ found | No\ such\ file\ or\ directory | Permission\ denied | unrecognized\ (option|argument)
      | invalid\ option | unknown\ (command|option|tool) | is\ not\ a\ git\ command | syntax\ error\ near | ^usage:
      | cannot\ (open|access|stat)""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_TESTS_FAILED = re.compile(
    r"^FAIL|\bFAILED\b|\b[1-9]\d* (failed|errors?|failures?)\b|^Traceback|^(E\s+)?\w*Error\b", re.MULTILINE
)
_TESTS_PASSED = re.compile(r"^ok: \d+ passed|\b[1-9]\d* passed\b|^OK\b|\b0 failures?\b", re.MULTILINE)
_HEAD = 2000
_OF_ACTION = ("command", "text", "parse_error", "state_hash")
_OF_OBSERVATION = ("position", "raw", "rendered", "exit_code", "timed_out", "state_hash")
_WORD = re.compile(r"[A-Za-z_][\w-]{2,}|\d{2,}")


def without_bodies(command: str) -> str:
    """A command with each here-document's lines left out, up to and with the one that starts with its word.

    One that is never closed is kept whole. Time grows with the length of the command, whatever stands in it.
    """
    lines = command.split("\n")
    if len(lines) == 1:
        return command
    ends: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        if (first := _FIRST_WORD.match(line)) is not None:
            ends.setdefault(first[1], []).append(number)
    kept, number = [], 0
    while number < len(lines):
        line = lines[number]
        kept.append(line)
        number += 1
        for opening in _HEREDOC.finditer(line):
            places = ends.get(opening[1], [])
            if (at := bisect_left(places, number)) < len(places):
                end = lines[places[at]]
                kept[-1] += end[end.index(opening[1]) + len(opening[1]) :]
                number = places[at] + 1
    return "\n".join(kept)


@dataclass(frozen=True)
class Turn:
    """One step of a trajectory: the action, and its observations joined; None where the source says nothing."""

    step: int
    action_id: str
    command: str | None
    text: str
    parse_error: str | None
    state_before: str | None
    output: str | None = None
    exit_code: int | None = None
    timed_out: bool = False
    state_after: str | None = None

    @cached_property
    def normal(self) -> str:
        """The command with white space collapsed; empty when nothing was executed."""
        return " ".join((self.command or "").split())

    @cached_property
    def words(self) -> frozenset[str]:
        """Identifiers, file names and numbers of the command."""
        return frozenset(_WORD.findall(self.command or ""))

    @cached_property
    def line(self) -> str:
        """The command without the bodies of its here-documents, which are data and not commands."""
        return without_bodies((self.command or "").strip())

    @property
    def malformed(self) -> bool:
        """Whether nothing could be executed."""
        return self.parse_error is not None

    @cached_property
    def is_submit(self) -> bool:
        """Whether the command hands the work in."""
        return bool(_SUBMIT.search(self.line))

    @cached_property
    def is_test(self) -> bool:
        """Whether the command runs tests or a script written to check the work."""
        return not self.is_submit and bool(_TEST.search(self.line))

    @cached_property
    def is_edit(self) -> bool:
        """Whether the command is made to change files."""
        return not self.is_submit and bool(_EDIT.search(self.line) or _WRITES.search(self.command or ""))

    @cached_property
    def is_inspection(self) -> bool:
        """Whether the command only looks."""
        return not self.is_edit and not self.is_test and bool(_INSPECT.match(self.line))

    @cached_property
    def edit_failed(self) -> bool:
        """An edit that ended with an exit code other than 0, or whose output says it was not made.

        When the same command line also runs tests its exit code is that of the tests, so only the output counts.
        """
        if not self.is_edit or (self.output is None and self.exit_code is None):
            return False
        marked = bool(_EDIT_ERROR.search((self.output or "")[:_HEAD]))
        return marked or (not self.is_test and self.exit_code not in (None, 0))

    @cached_property
    def tool_failed(self) -> bool:
        """The tool itself failed (not the tests it ran, not the program under repair)."""
        if self.edit_failed or self.timed_out or self.exit_code in (126, 127):
            return True
        return self.exit_code != 0 and not self.is_test and bool(_TOOL_ERROR.search((self.output or "")[:_HEAD]))

    @cached_property
    def tests_passed(self) -> bool:
        """A test run that is known to have passed: by its exit code, or by its summary where there is none."""
        output = self.output or ""
        if not self.is_test or self.timed_out or self.exit_code not in (None, 0) or _TESTS_FAILED.search(output):
            return False
        return self.exit_code == 0 or bool(_TESTS_PASSED.search(output))

    @cached_property
    def succeeded(self) -> bool:
        """Something was executed and nothing says that it failed."""
        return not self.malformed and not self.tool_failed and self.exit_code in (None, 0) and self.output is not None

    @cached_property
    def changed_state(self) -> bool:
        """Whether the files changed: by the state hashes where both are known, else a successful edit."""
        if self.state_before is not None and self.state_after is not None:
            return self.state_before != self.state_after
        return self.is_edit and not self.edit_failed


@dataclass(frozen=True)
class Trajectory:
    """The turns of one trajectory in order; `seen` is the digest of the events they came from."""

    trajectory_id: str
    corpus: str
    seen: str
    turns: list[Turn] = field(default_factory=list)


def trajectories(events: pa.Table) -> Iterator[Trajectory]:
    """Events of whole trajectories in any order (columns COLUMNS) -> their turns, trajectories sorted by id.

    Superseded and redacted actions and observations are left out; a trajectory taken down is left out altogether.
    """
    gone, down = retracted(events)
    kept = in_order(events.filter(pc.is_in(events.column("kind"), pa.array(["action", "observation"]))))
    columns = [kept.column(name).to_pylist() for name in ("trajectory_id", "corpus", "event_id", "kind", "step")]
    columns += [pc.struct_field(kept.column("action"), name).to_pylist() for name in _OF_ACTION]
    columns += [pc.struct_field(kept.column("observation"), name).to_pylist() for name in _OF_OBSERVATION]
    rows = zip(*columns, strict=True)
    for trajectory, group in groupby(rows, key=lambda row: str(row[0])):
        members = [row for row in group if row[2] not in gone and row[4] is not None]
        if members and trajectory not in down:
            yield _trajectory(trajectory, members)


def _trajectory(trajectory_id: str, rows: list[tuple[Any, ...]]) -> Trajectory:
    turns: dict[int, Turn] = {}
    for _, _, event_id, kind, step, command, text, parse_error, state, *_ in rows:
        if kind == "action":
            turns[step] = Turn(step, event_id, command, text or "", parse_error, state)
    answers = sorted((row[4], row[9] or 0, row[2], row[10:]) for row in rows if row[3] == "observation")
    for step, _, _, answer in answers:
        if step in turns:
            turns[step] = _answered(turns[step], *answer)
    return Trajectory(trajectory_id, rows[0][1], digest(sorted(row[2] for row in rows)), list(turns.values()))


def _answered(
    turn: Turn, raw: str | None, shown: str | None, code: int | None, late: bool | None, state: str | None
) -> Turn:
    text = raw if raw is not None else shown
    return replace(
        turn,
        output=text if turn.output is None else f"{turn.output}\n{text or ''}",
        exit_code=code if turn.exit_code in (None, 0) and code is not None else turn.exit_code,
        timed_out=turn.timed_out or bool(late),
        state_after=state if state is not None else turn.state_after,
    )


def superseded(events: pa.Table, policy: str) -> dict[str, str]:
    """Verdicts that a critic took back -> its retraction of each."""
    rows = events.filter(pc.equal(events.column("kind"), "retraction"))
    return taken_back(rows.select(["event_id", "policy", "retraction"]).to_pylist(), policy)


def retracted(events: pa.Table) -> tuple[set[str], set[str]]:
    """Event ids retracted one by one, and trajectories taken down whole."""
    rows = events.filter(pc.equal(events.column("kind"), "retraction"))
    targets = pc.struct_field(rows.column("retraction"), "target_event").to_pylist()
    pairs = list(zip(rows.column("trajectory_id").to_pylist(), targets, strict=True))
    return {target for _, target in pairs if target is not None}, {stream for stream, target in pairs if target is None}
