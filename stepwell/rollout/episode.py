"""An episode: a policy plays a task to its end, and every turn gets its ground-truth label from the environment alone.

The label never looks at who acted or why; it compares how far mod.py is from the solution before and after the turn.
What does not belong here: turning an episode into events for the log, and judging by reading (`critics`).
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass, replace
from typing import Any, Literal

from stepwell.errors import UsageError
from stepwell.rollout.environment import Grade, Observation, RepairEnvironment, render_observation
from stepwell.rollout.policies import Policy, PolicyView
from stepwell.rollout.scaffold import is_submission, parse_action

Label = Literal["good", "unnecessary", "mistake", "recover"]
ANSWERING = ("check", "grep", "diff", "cmp", "test")  # commands whose exit code 1 is an answer, not a failure
IDLE = ("ls", "pwd", "echo", "true", "date", "whoami", "id")  # commands that tell nothing about the task


@dataclass(frozen=True)
class ObservationRecord:
    """What came back: raw, as the agent read it, how many characters that left out, and the duration in seconds."""

    raw: str
    rendered: str
    elided: int
    truncated_bytes: int
    exit_code: int | None
    duration_s: float
    timed_out: bool


@dataclass(frozen=True)
class Turn:
    """One turn: exactly one of `observation` and `format_error` is set; states are sha256 (hex) of mod.py.

    `rendered` is the message the turn was answered with; `usage` is what its model call used, `teacher_text` what the
    teacher would have said in `state_before`, where there was one.
    """

    index: int
    actor: str
    text: str
    command: str | None
    format_error: str | None
    observation: ObservationRecord | None
    rendered: str
    state_before: str
    state_after: str
    distance_before: int
    distance_after: int
    label: Label
    usage: dict[str, Any] | None = None
    teacher_text: str | None = None


@dataclass(frozen=True)
class Episode:
    """One task played once: the instruction (system, user), the turns, how it ended, what it left and its grade.

    `exit_status` is `submitted`, `turn_limit` or the reason given to `EpisodeRunner.stop`; `patch` is a unified diff.
    """

    task_id: str
    environment: str
    instruction: tuple[str, str]
    turns: tuple[Turn, ...]
    exit_status: str
    patch: str
    grade: Grade


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


class EpisodeRunner:
    """An episode being played from outside, one assistant text at a time, in an open environment."""

    def __init__(self, env: RepairEnvironment, actor: str, *, max_turns: int) -> None:
        self.env, self.actor, self.max_turns = env, actor, max_turns
        system, user = env.instruction
        self.messages: list[dict[str, str]] = [
            {"role": "system", "content": system},
            {"role": "user", "content": user},
        ]
        self.states = [env.state]
        self.turns: list[Turn] = []
        self.exit_status: str | None = None if max_turns > 0 else "turn_limit"
        self._seen: set[str] = set()  # the commands run since mod.py last changed
        self._outstanding = False
        self._best = self._distance = env.distance()
        self._start = env.source

    @property
    def finished(self) -> bool:
        """Tell whether no further turn is taken."""
        return self.exit_status is not None

    def view(self, seed: int) -> PolicyView:
        """Return what a policy sees before the next turn; chance is drawn from the seed and the turn only."""
        rng = random.Random(f"{seed}:{len(self.turns)}")
        return PolicyView(tuple(self.messages), self.env.task, self.env.source, rng, tuple(self.states), seed)

    def stop(self, reason: str) -> None:
        """End the episode from outside (no reply fits the context, a budget is spent)."""
        if not self.finished:
            self.exit_status = reason

    def advance(
        self,
        text: str,
        usage: dict[str, Any] | None = None,
        *,
        actor: str | None = None,
        teacher_text: str | None = None,
    ) -> Turn:
        """Take one turn: run the command of the text, label what it did and answer it."""
        if self.exit_status is not None:
            raise UsageError(f"the episode has ended ({self.exit_status}); start another runner")
        parsed = parse_action(text)
        record, answer, submitted = None, parsed.error or "", False
        if parsed.command is not None:
            observation = self.env.execute(parsed.command)
            submitted = is_submission(observation.raw, observation.exit_code)
            record = _record(observation)
            answer = record.rendered
        before, after, state = self._distance, self.env.distance(), self.env.state
        changed = state != self.states[-1]
        label = label_step(
            command=parsed.command,
            exit_code=record.exit_code if record else None,
            submitted=submitted,
            changed=changed,
            distance_before=before,
            distance_after=after,
            outstanding=self._outstanding,
            repeated=parsed.command in self._seen,
        )
        turn = Turn(
            index=len(self.turns),
            actor=actor or self.actor,
            text=text,
            command=parsed.command,
            format_error=parsed.error,
            observation=record,
            rendered=answer,
            state_before=self.states[-1],
            state_after=state,
            distance_before=before,
            distance_after=after,
            label=label,
            usage=usage,
            teacher_text=teacher_text,
        )
        self._outstanding = still_outstanding(self._outstanding, label, after, self._best)
        self._best, self._distance = min(self._best, after), after
        self._seen = (set() if changed else self._seen) | ({parsed.command} if parsed.command else set())
        self.turns.append(turn)
        self.states.append(state)
        self.messages += [{"role": "assistant", "content": text}, {"role": "user", "content": answer}]
        if submitted:
            self.exit_status = "submitted"
        elif len(self.turns) >= self.max_turns:
            self.exit_status = "turn_limit"
        return turn

    def finish(self) -> Episode:
        """Grade what stands there now and return the episode; an unfinished one ends as `stopped`."""
        start, end = (text.splitlines(keepends=True) for text in (self._start, self.env.source))
        return Episode(
            task_id=self.env.task.task_id,
            environment=self.env.name,
            instruction=self.env.instruction,
            turns=tuple(self.turns),
            exit_status=self.exit_status or "stopped",
            patch="".join(difflib.unified_diff(start, end, "a/mod.py", "b/mod.py")),
            grade=self.env.grade(),
        )


def run_episode(
    env: RepairEnvironment, policy: Policy, *, max_turns: int, seed: int, teacher: Policy | None = None
) -> Episode:
    """Play one task with a scripted policy; with a `teacher`, each turn records what it would have said in that state."""
    runner = EpisodeRunner(env, policy.name, max_turns=max_turns)
    while not runner.finished:
        view = runner.view(seed)
        taught = (
            teacher.act(replace(view, rng=random.Random(f"{seed}:{len(runner.turns)}:teacher"))) if teacher else None
        )
        runner.advance(policy.act(view), teacher_text=taught)
    return runner.finish()


def _record(observation: Observation) -> ObservationRecord:
    """Keep an observation both raw and as the agent read it."""
    shown = render_observation(observation)
    return ObservationRecord(
        observation.raw,
        shown.text,
        shown.elided,
        observation.truncated_bytes,
        observation.exit_code,
        observation.duration_s,
        observation.timed_out,
    )
