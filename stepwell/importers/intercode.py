"""InterCode results: a dict of records, one per task, each with what was tried turn by turn and the reward of every turn.

Kept where: entry i of the lists in `turn_history` is step i: the action (with its thought, in the ReAct runs, where
`execute[...]` is around the command), its observation, and its reward as a `reward` event of that step, without a group. The
query is the statement and, since the prompt around it is not in the source, the one instruction. The best reward
(`summary.max_reward`) is the outcome's score; a task is resolved when it is 1, as InterCode counts success. Files that wrap
their records as `{"meta": ..., "logs": {...}}` are read as well.

In `extra`: `valid_action` (of the observation), lists that do not go turn by turn (a plan, of `start`), what the grader says
of the last action (`info`, of the outcome), all other fields (of `end`), and the key and `meta` around a record.
Never logged: what the reference solution prints (`info.eval_obs`), only its hash.
Not in the format: model, prompts, costs, times, exit codes; the model's words around thought and action.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_float, take_int, take_obj, take_text
from stepwell.importers.sealed import Seal

SOLUTIONS = ("gold", "eval_obs", "diff_miss")
_TURNS = ("actions", "observations", "rewards", "valid_action", "thoughts")
_CALL = re.compile(r"\s*execute\[(.*)\]\s*", re.S)


class InterCode:
    """Reads InterCode result files; one record is one trajectory."""

    name = "intercode"
    versions = ("",)
    unit = "record"
    capabilities: Mapping[str, str] = {
        "outcome": "yes",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def tells(self, record: Obj) -> str:
        """The turns of a record."""
        return "`turn_history`" if isinstance(record.get("turn_history"), dict) else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A record -> one trajectory, or one reject when it has no turns."""
        yield _one(obj(data), source)


IMPORTER = InterCode()


def _one(rest: Obj, source: SourceFile) -> Imported | Rejected:
    history = rest.pop("turn_history", None)
    if not isinstance(history, dict) or not isinstance(history.get("actions"), list):
        return Rejected("malformed", f"record {source.key}: no list of `turn_history.actions`.")
    return _read(rest, history, source)


def _read(rest: Obj, history: Obj, source: SourceFile) -> Imported:
    n = len(history["actions"])
    turns = {k: v for k, v in history.items() if k in _TURNS and isinstance(v, list) and len(v) <= n}
    others = {k: v for k, v in history.items() if k not in turns}
    summary, query, seal = take_obj(rest, "summary"), take_text(rest, "query"), Seal((), SOLUTIONS)
    info = seal.strip(rest.pop("info")) if "info" in rest else None
    rest = seal.strip(rest)
    environment, dataset = take_text(rest, "environment"), take_text(rest, "dataset")
    number = rest.get("task_id")
    named = isinstance(number, int | str) and not isinstance(number, bool)
    parts = [environment, dataset.rpartition("/")[2] if dataset else None, str(rest.pop("task_id")) if named else None]
    instance = "/".join(p for p in parts if p) if named else None
    builder = Builder.of(source, InterCode.name, instance, "InterCode")

    builder.task(instance, query, suite=dataset, solution_hash=seal.solution_hash, compared=seal.compared)
    limit = take_int(summary, "turns_max", 32)
    start = {"task_id": instance, "environment": environment, "step_limit": limit}
    builder.start(start, {"turn_history": others} if others else None)
    if query is not None:
        builder.instruction(0, "user", query, False, {"not_in_source": "the prompt around the query"})
    for i in range(n):
        _turn(builder, {k: v[i] for k, v in turns.items() if i < len(v)})
    best, taken = take_float(summary, "max_reward"), summary.get("turns_taken")
    if taken == n:
        del summary["turns_taken"]
    builder.end({}, {**rest, **({"summary": summary} if summary else {})})
    if best is not None:
        graded: Obj = {"subject": "trajectory", "grader": "InterCode", "rule": "max", "resolved": best == 1, "rerun": 0}
        graded |= {"score": best if 0 <= best <= 1 else None}
        extra: Obj = {} if 0 <= best <= 1 else {"max_reward": best}
        extra |= {} if info is None else {"info": info}
        end = builder.events[-1].event_id
        builder.add("outcome", "grader", graded, policy="InterCode", caused_by=end, extra=extra)
    elif info is not None:
        builder.add("outcome", "grader", {"subject": "trajectory", "grader": "InterCode"}, extra={"info": info})
    return builder.imported(instance)


def _turn(builder: Builder, turn: Obj) -> None:
    """One step: what was said and executed, what came back, and its reward."""
    action, thought = take_text(turn, "actions"), take_text(turn, "thoughts")
    called = _CALL.fullmatch(action or "")
    said = {
        "text": "\n".join(t for t in (thought, action) if t is not None) if action is not None else thought,
        "thought": thought,
        "command": called[1] if called else action or None,
        "parse_error": None if action else "no action in the reply",
    }
    left: Obj = {k: turn[k] for k in ("actions", "thoughts") if k in turn}
    event = builder.action(said, usage={}, policy=None, extra=left)
    raw, reward = take_text(turn, "observations"), take_float(turn, "rewards")
    shown = {k: turn[k] for k in ("observations", "valid_action", "rewards") if turn.get(k) is not None}
    if raw is not None or shown:
        builder.observation(event, {"position": 0, "raw": raw, "role": "user"}, shown)
    if reward is not None:
        payload = {"reward": reward, "rule": "InterCode step reward"}
        builder.add("reward", "grader", payload, policy="InterCode", step=event.step, caused_by=event.event_id)
