"""A trajectory as events while it happens: what was asked, said, executed, observed, and what the environment knows to be true.

Belongs here: which events a turn makes. Does not belong here: when they are written (`collect`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from stepwell.event import Event
from stepwell.ids import canonical, digest
from stepwell.rollout.environments import Environment, Grade
from stepwell.rollout.episode import Turn
from stepwell.rollout.mixing import Decision
from stepwell.rollout.policies import Reply
from stepwell.rollout.scaffolds import Scaffold

GROUND_TRUTH = "ground-truth@1"


def rollout_id(corpus: str, policy: str, task_id: str, seed: int, attempt: int = 0, arm: str | None = None) -> str:
    """Identity of one rollout: known before it is run, so that what is recorded already is not run again."""
    return digest("rollout", corpus, policy, task_id, seed, attempt, *([] if arm is None else [arm]))


def run_again(identity: str, rerun: int) -> str:
    """Trajectory id of a rollout's runs: its identity, then one of its own for each run after an aborted one."""
    return identity if rerun == 0 else digest(identity, "rerun", rerun)


class Record:
    """The events of one trajectory so far, in the order they happened; `written` of them are in the log."""

    def __init__(self, trajectory_id: str, identity: str, corpus: str) -> None:
        self.trajectory_id, self.identity, self.corpus = trajectory_id, identity, corpus
        self.events: list[Event] = []
        self.written = 0
        self.ended = False

    def add(self, kind: str, actor: str, payload: Mapping[str, Any], step: int | None = None, **rest: Any) -> Event:
        """Append one event; nulls of the payload are left out."""
        kept = {k: v for k, v in payload.items() if v is not None}
        event = Event(kind, self.trajectory_id, self.corpus, actor, kept, step=step, **rest)
        self.events.append(event)
        return event

    def open(self, env: Environment, scaffold: Scaffold, start: Mapping[str, Any], instruction: Any) -> None:
        """The task, the start and what the agent is told."""
        about = dict(env.about())
        extra = about.pop("extra", None)
        self.add("task", "system", about, extra=canonical(extra).decode() if extra else None)
        common = {
            "task_id": about["task_id"],
            "agent": scaffold.name,
            "scaffold": scaffold.name,
            "environment": env.name,
        }
        self.add("start", "system", {**common, **start})
        tools = canonical(list(scaffold.tools)).decode() if scaffold.tools else None
        for position, message in enumerate(instruction):
            payload = {"position": position, "role": message["role"], "content": message["content"]}
            self.add("instruction", "system", {**payload, "tools": tools if position == 0 else None})

    def turn(self, turn: Turn, decision: Decision, policy: str, label: tuple[str, Reply, str] | None = None) -> Event:
        """One turn; `label` is the teacher's (name, reply, source). Returns the action."""
        self.add("turn", "system", {**decision.payload(), "state_hash": turn.state_before}, turn.index)
        action = self.add(
            "action",
            decision.chosen,
            {
                "text": turn.text, "command": turn.parsed.command, "parse_error": turn.parsed.error,
                "reasoning": turn.reasoning, "state_hash": turn.state_before,
                "tool_calls": orjson.dumps(list(turn.tool_calls)).decode() if turn.tool_calls else None,
            },
            turn.index,
            policy=policy,
            usage={**turn.usage, "prompt_hash": turn.prompt_hash},
        )  # fmt: skip
        o = turn.observation
        for position, message in enumerate(turn.messages):
            seen: dict[str, Any] = {"role": message["role"], "rendered": message["content"]}
            seen |= {"position": position, "tool_call_id": message.get("tool_call_id"), "state_hash": turn.state_after}
            if o is not None:
                seen |= {"raw": o.raw, "exit_code": o.exit_code, "timed_out": o.timed_out, "duration_s": o.duration_s}
                seen |= {"elided_chars": turn.elided or None}
            cut = {"truncated_bytes": o.truncated_bytes} if o is not None and o.truncated_bytes else None
            extra = None if cut is None else canonical(cut).decode()
            self.add("observation", "environment", seen, turn.index, caused_by=action.event_id, extra=extra)
        if label is not None:
            name, reply, source = label
            self.label(turn.index, turn.state_before, name, reply, source, action.event_id)
        if turn.label is not None:
            truth = {"scope": "step", "label": turn.label, "parse_status": "ok"}
            self.add(
                "verdict", "environment", truth, turn.index, policy=GROUND_TRUTH, caused_by=action.event_id
            )  # fmt: skip
        return action

    def label(self, step: int, state: str, teacher: str, reply: Reply, source: str, cause: str) -> None:
        """The teacher's action for the state before a turn; what it cost rides on the action where it was executed."""
        payload = {"state_hash": state, "text": reply.text, "source": source, "timing": "inline", "resample": 0}
        usage = dict(reply.usage) if source == "queried" and reply.usage else None
        calls = {"tool_calls": reply.tool_calls} if reply.tool_calls else None
        extra = None if calls is None else canonical(calls).decode()
        self.add("label", "teacher", payload, step, policy=teacher, caused_by=cause, usage=usage, extra=extra)

    def end(
        self, exit_status: str, submission: str | None, grade: Grade | None, detail: str = "", same: Sequence[bool] = ()
    ) -> None:
        """How it ended, what it left, and its grade; `same`: whether each replayed turn was answered as it was before."""
        used = [e.usage for e in self.events if e.kind == "action" and e.usage]
        totals: dict[str, Any] = {"n_calls": len([e for e in self.events if e.kind == "action"])}
        for name in ("tokens_in", "tokens_out", "cost_usd"):
            known = [u[name] for u in used if u.get(name) is not None]
            totals[name] = sum(known) if known else None
        more = {**({"detail": detail} if detail else {}), **({"replayed_same": list(same)} if same else {})}
        extra = canonical(more).decode() if more else None
        self.add("end", "environment", {"exit_status": exit_status, "submission": submission, **totals}, extra=extra)
        if grade is not None:
            tests = [{"name": t.name, "group": t.group, "passed": t.passed} for t in grade.tests]
            outcome = {"subject": "trajectory", "grader": grade.grader, "rule": "all", "resolved": grade.resolved}
            self.add("outcome", "grader", {**outcome, "tests": tests}, policy=grade.grader)
        self.ended = True
