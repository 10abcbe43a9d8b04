"""Small lakes built from events, for tests: a trajectory in a few lines, and one lake with everything in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
START_STATE = "s0"


@dataclass(frozen=True)
class Step:
    """One turn: command (None: a format error), output, exit code, the state after it, and the true label."""

    command: str | None
    output: str | None = ""
    exit_code: int | None = 0
    state: str | None = None
    truth: str | None = None
    cost_usd: float | None = None


def trajectory(
    name: str,
    steps: Sequence[Step],
    *,
    corpus: str = "demo",
    model: str = "model-a",
    task_id: str = "task-1",
    run_id: str = "run-1",
    resolved: bool | None = None,
    hashes: bool = False,
) -> list[Event]:
    """The events of one trajectory; with `hashes` every action and observation carries a state hash."""

    def event(kind: str, actor: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
        return Event(kind, name, corpus, actor, payload, step=step, **rest)

    events = [
        event("task", "system", {"task_id": task_id, "split": "train", "repo": "demo"}),
        event("start", "system", {"task_id": task_id, "agent": "demo-agent@1", "model": model, "run_id": run_id}),
        event("instruction", "system", {"position": 0, "role": "user", "content": "Repair it."}),
    ]
    state = START_STATE
    for i, s in enumerate(steps):
        when = EPOCH + timedelta(seconds=i)
        before = state if hashes else None
        error = None if s.command is not None else "no command found"
        said = {"text": s.command or "I wonder.", "command": s.command, "parse_error": error, "state_hash": before}
        usage = {"tokens_in": 100 + i, "tokens_out": 10, "cost_usd": s.cost_usd}
        action = event("action", "agent", said, i, policy=model, usage=usage, occurred_at=when)
        state = s.state or state
        seen = {
            "raw": s.output,
            "rendered": s.output,
            "role": "user",
            "exit_code": s.exit_code,
            "state_hash": state if hashes else None,
        }
        events += [action, event("observation", "environment", seen, i, caused_by=action.event_id, occurred_at=when)]
        if s.truth is not None:
            truth = {"scope": "step", "label": s.truth, "parse_status": "ok"}
            events.append(event("verdict", "environment", truth, i, policy="ground-truth@1", caused_by=action.event_id))
    submitted = any(s.command is not None and s.command.startswith("submit") for s in steps)
    end = {"exit_status": "submitted" if submitted else "limits", "submission": "diff" if submitted else None}
    events.append(event("end", "environment", end))
    if resolved is not None:
        outcome = {"subject": "trajectory", "grader": "demo-tests@1", "rule": "all", "resolved": resolved}
        events.append(event("outcome", "grader", outcome, policy="demo-tests@1"))
    return events


def verdict(action: Event, label: str | None, policy: str = "judge@1", **payload: Any) -> Event:
    """A step verdict about an action."""
    payload = {"scope": "step", "label": label, "parse_status": "ok" if label else "unparseable"} | payload
    where = (action.trajectory_id, action.corpus, "critic", payload, action.step, policy)
    return Event("verdict", *where, caused_by=action.event_id)


def actions(events: Iterable[Event]) -> list[Event]:
    """The action events, in the given order."""
    return [e for e in events if e.kind == "action"]


def good_repair(name: str, **rest: Any) -> list[Event]:
    """View, fail an edit, correct it, check, submit: resolved."""
    steps = [
        Step("view", "1 def f(x):\n2     return x + 1", truth="good", cost_usd=0.01),
        Step("sub 9 a b", "no line 9", 1, truth="mistake", cost_usd=0.01),
        Step("sub 2 + -", "ok", 0, "s1", truth="recover", cost_usd=0.01),
        Step("check", "ok: 3 passed", 0, truth="good", cost_usd=0.01),
        Step("submit", "submitted", 0, truth="good", cost_usd=0.01),
    ]
    return trajectory(name, steps, **({"resolved": True, "hashes": True} | rest))


def looping(name: str, **rest: Any) -> list[Event]:
    """A format error, then the same view four times, then an unverified submission: not resolved."""
    steps = [
        Step(None, "Reply with one command.", None, truth="mistake", cost_usd=0.02),
        *(Step("view", "1 def f(x):", truth=t, cost_usd=0.02) for t in ("good", "unnecessary", "mistake", "mistake")),
        Step("submit", "submitted", truth="mistake", cost_usd=0.02),
    ]
    return trajectory(name, steps, **({"resolved": False, "hashes": True} | rest))


def wasteful(name: str, **rest: Any) -> list[Event]:
    """A wrong edit undone, the right one, a passing check, and two needless steps before submitting: resolved."""
    steps = [
        Step("sub 2 + '*'", "ok", 0, "s2", truth="mistake"),
        Step("check", "FAIL test_one", 1, truth="good"),
        Step("sub 2 '*' +", "ok", 0, "s0", truth="recover"),
        Step("sub 2 + -", "ok", 0, "s1", truth="good"),
        Step("check", "ok: 3 passed", 0, truth="good"),
        Step("view", "1 def f(x):", truth="unnecessary"),
        Step("check", "ok: 3 passed", 0, truth="unnecessary"),
        Step("submit", "submitted", truth="good"),
    ]
    return trajectory(name, steps, **({"resolved": True, "hashes": True} | rest))


def build(lake: Lake) -> list[Event]:
    """The lake of the questions: two corpora, two models, five trajectories; returns its events."""
    events = [
        *good_repair("t-good-a", model="model-a", task_id="task-1"),
        *good_repair("t-good-b", model="model-b", task_id="task-1", corpus="rollouts/one two"),
        *looping("t-loop-a", model="model-a", task_id="task-2"),
        *looping("t-loop-b", model="model-b", task_id="task-2", corpus="rollouts/one two"),
        *wasteful("t-waste-b", model="model-b", task_id="task-3", corpus="rollouts/one two"),
    ]
    EventLog(lake).append(events, "build")
    return events
