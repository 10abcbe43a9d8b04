"""tau-bench results: one record is one trial of a task, a conversation of an agent with tools and a simulated user.

Kept where: `traj` is a list of chat messages; each of the assistant is a step, what follows it (tool results, the user) its
observations, what stands before the first an instruction. `info.task.instruction`, which the simulated user acts on, is the
statement; `trial` the number of the attempt. `reward` is the outcome's score; a task is resolved when it is 1.
In `extra`: what is left of messages (of their events), of the task (of `task`) and of `info` and the record (of `end`), so
too the cost of the simulated user.
Never logged: the actions and outputs a task expects, only their hash.
Not in the format: the domain of the task, model, cost, tokens and time of a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.event import Event
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_calls, take_content, take_float, take_int, take_obj, take_text
from stepwell.importers.sealed import Seal
from stepwell.importers.streams import command_of

SOLUTIONS = ("actions", "outputs")


class TauBench:
    """Reads tau-bench results; one record is one trajectory."""

    name = "tau-bench"
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
        """A conversation with its reward."""
        return "`traj`, `reward`, `task_id`" if all(k in record for k in ("traj", "reward", "task_id")) else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """A record -> one trajectory, or one reject when it has no conversation."""
        rest = obj(data)
        if isinstance(rest.get("traj"), list):
            yield _read(rest, source)
        else:
            yield Rejected("malformed", "`traj` is no list of messages.")


IMPORTER = TauBench()


def _read(rest: Obj, source: SourceFile) -> Imported:
    messages, seal = rest.pop("traj"), Seal((), SOLUTIONS)
    info = take_obj(rest, "info")
    task = take_obj(info, "task")
    statement = take_text(task, "instruction")
    rest, info, task = seal.strip(rest), seal.strip(info), seal.strip(task)
    number = rest.get("task_id")
    named = isinstance(number, int | str) and not isinstance(number, bool)
    instance = str(rest.pop("task_id")) if named else None
    builder = Builder.of(source, TauBench.name, instance, "tau-bench")
    builder.task(instance, statement, task, suite="tau-bench", solution_hash=seal.solution_hash, compared=seal.compared)
    builder.start({"task_id": instance, "attempt": take_int(rest, "trial", 32)})
    action: Event | None = None
    position, odd = 0, []
    for message in messages:
        if not isinstance(message, dict):
            odd.append(message)
            continue
        left = {k: v for k, v in message.items() if v is not None}
        role = take_text(left, "role") or "user"
        if role == "assistant":
            calls, position = take_calls(left), 0
            payload = {"text": take_content(left), "command": command_of(calls)}
            action = builder.action(payload, calls=calls, usage={}, policy=None, extra=left)
        elif action is None:
            builder.instruction(position, role, take_content(left), False, left)
            position += 1
        else:
            seen = {"position": position, "raw": take_content(left), "role": role}
            seen["tool_call_id"] = take_text(left, "tool_call_id")
            builder.observation(action, seen, left)
            position += 1
    reward, status = take_float(rest, "reward"), take_text(info, "error")
    extra = {**rest, **({"info": info} if info else {}), **({"traj": odd} if odd else {})}
    builder.end({"exit_status": status}, extra)
    if reward is not None:
        score = reward if 0 <= reward <= 1 else None
        graded: Obj = {"subject": "trajectory", "grader": "tau-bench", "rule": "reported", "resolved": reward == 1}
        out = {} if score is not None else {"reward": reward}
        end = builder.events[-1].event_id
        builder.add(
            "outcome", "grader", graded | {"score": score, "rerun": 0}, policy="tau-bench", caused_by=end, extra=out
        )
    return builder.imported(instance)
