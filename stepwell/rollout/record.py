"""An episode as events of the log: what was asked, said, executed, observed, and what the environment knows to be true."""

from __future__ import annotations

from typing import Any

from stepwell.event import Event
from stepwell.ids import digest, sha256
from stepwell.rollout.episode import Episode
from stepwell.rollout.repair import RepairTask

AGENT = "stepwell-bash@1"
GRADER = "repair-tests@1"
GROUND_TRUTH = "ground-truth@1"
SUITE = "repair"


def rollout_id(corpus: str, policy: str, task_id: str, seed: int, attempt: int = 0) -> str:
    """Identity of one rollout: known before it is run, so that what is recorded already is not run again."""
    return digest("rollout", corpus, policy, task_id, seed, attempt)


def record(
    task: RepairTask, episode: Episode, *, corpus: str, policy: str, run_id: str, split: str, seed: int, attempt: int = 0,
    max_turns: int,
) -> list[Event]:  # fmt: skip
    """The events of one episode, in the order they happened."""
    stream = rollout_id(corpus, policy, task.task_id, seed, attempt)

    def event(kind: str, actor: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
        return Event(kind, stream, corpus, actor, payload, step=step, **rest)

    system, user = episode.instruction
    statement = {
        "task_id": task.task_id, "suite": SUITE, "split": split, "repo": task.family, "statement": user,
        "statement_hash": sha256(user), "tests_hash": task.tests_hash, "solution_hash": sha256(task.solution),
    }  # fmt: skip
    start = {
        "task_id": task.task_id, "attempt": attempt, "agent": AGENT, "model": policy, "scaffold": AGENT,
        "environment": episode.environment, "run_id": run_id, "seed": seed, "step_limit": max_turns,
    }  # fmt: skip
    events = [
        event("task", "system", statement),
        event("start", "system", start),
        event("instruction", "system", {"position": 0, "role": "system", "content": system}),
        event("instruction", "system", {"position": 1, "role": "user", "content": user}),
    ]
    for turn in episode.turns:
        said = {
            "text": turn.text, "command": turn.command, "parse_error": turn.format_error, "state_hash": turn.state_before,
        }  # fmt: skip
        draw = {"rule": "fixed", "chosen": "agent", "state_hash": turn.state_before}
        action = event("action", "agent", said, turn.index, policy=policy, usage=turn.usage)
        events += [event("turn", "system", draw, turn.index), action]
        seen: dict[str, Any] = {"rendered": turn.rendered, "role": "user", "state_hash": turn.state_after}
        if turn.observation is not None:
            o = turn.observation
            seen |= {"raw": o.raw, "exit_code": o.exit_code, "timed_out": o.timed_out, "duration_s": o.duration_s}
        events.append(event("observation", "environment", seen, turn.index, caused_by=action.event_id))
        truth = {"scope": "step", "label": turn.label, "parse_status": "ok"}
        events.append(
            event("verdict", "environment", truth, turn.index, policy=GROUND_TRUTH, caused_by=action.event_id)
        )
    tests = [{"name": t.name, "group": t.group, "passed": t.passed} for t in episode.grade.tests]
    usages = [t.usage for t in episode.turns if t.usage]
    totals = {k: sum(u[k] for u in usages) for k in ("tokens_in", "tokens_out")} if usages else {}
    end = {"exit_status": episode.exit_status, "submission": episode.patch, "n_calls": len(episode.turns), **totals}
    outcome = {
        "subject": "trajectory",
        "grader": GRADER,
        "rule": "all",
        "resolved": episode.grade.resolved,
        "tests": tests,
    }
    return [*events, event("end", "environment", end), event("outcome", "grader", outcome, policy=GRADER)]
