"""Ground truth on steps: every turn is labelled from how far the text is from the solution, before and after it.

The label never looks at who acted or why. What does not belong here: judging by reading (`critics`).
"""

from __future__ import annotations

from stepwell.rollout.environments import Label

ANSWERING = ("check", "grep", "diff", "cmp", "test")  # commands whose exit code 1 is an answer, not a failure
IDLE = ("ls", "pwd", "echo", "true", "date", "whoami", "id")  # commands that tell nothing about the task
LONGEST = 200  # lines of a text beyond which distance is not measured line by line


def line_distance(text: str, solution: str) -> int:
    """Count the lines to change, add or remove to turn a text into the solution; trailing space does not count."""
    have, want = ([line.rstrip() for line in part.rstrip().split("\n")] for part in (text, solution))
    if len(have) > LONGEST:
        return len(have)
    row = list(range(len(want) + 1))
    for i, mine in enumerate(have, 1):
        before, row = row, [i]
        for j, theirs in enumerate(want, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (mine != theirs)))
    return row[-1]


def failed(command: str, exit_code: int | None) -> bool:
    """Tell whether a command failed: a non-zero exit, save the 1 with which some commands answer no."""
    return exit_code != 0 and not (exit_code == 1 and command.split()[0] in ANSWERING)


def label_step(
    *,
    command: str | None,
    exit_code: int | None,
    submitted: bool,
    changed: bool,
    distance_before: int,
    distance_after: int,
    outstanding: bool,
    repeated: bool,
) -> Label:
    """Label one turn; `command` is None on a format error. The first rule that holds decides.

    1. mistake: a format error; the distance rose; submitted while the distance is above 0; mod.py changed and the
       distance did not fall; the command failed (`failed`).
    2. recover: the distance fell while a mistake of the agent is outstanding (see `still_outstanding`).
    3. unnecessary: the same command was run before and mod.py is unchanged since; or it tells nothing (`IDLE`).
    4. good: everything else.
    """
    if command is None or distance_after > distance_before or (submitted and distance_after > 0):
        return "mistake"
    if (changed and distance_after == distance_before) or failed(command, exit_code):
        return "mistake"
    if distance_after < distance_before:
        return "recover" if outstanding else "good"
    if repeated or (not submitted and command.split()[0] in IDLE):
        return "unnecessary"
    return "good"


def still_outstanding(outstanding: bool, label: Label, distance: int, best: int) -> bool:
    """Tell whether, after a turn, a mistake of the agent waits for repair: from the mistake until a recovery brings the
    distance back to the lowest (`best`) the episode had seen before."""
    if label == "mistake":
        return True
    return outstanding and not (label == "recover" and distance <= best)


class Truth:
    """The labels of one episode, turn after turn; distances are in lines (`line_distance`)."""

    def __init__(self, distance: int, state: str) -> None:
        self.distance = self.best = distance
        self.state = state
        self.outstanding = False
        self._seen: set[str] = set()  # the commands run since the text last changed

    def label(self, command: str | None, exit_code: int | None, submitted: bool, distance: int, state: str) -> Label:
        """Label the turn that led from the last distance and state to these."""
        changed = state != self.state
        label = label_step(
            command=command,
            exit_code=exit_code,
            submitted=submitted,
            changed=changed,
            distance_before=self.distance,
            distance_after=distance,
            outstanding=self.outstanding,
            repeated=command in self._seen,
        )
        self.outstanding = still_outstanding(self.outstanding, label, distance, self.best)
        self.best, self.distance, self.state = min(self.best, distance), distance, state
        self._seen = (set() if changed else self._seen) | ({command} if command else set())
        return label
