"""Rows with a chat in them, as the Hugging Face pools have them: SWE-smith, SWE-Gym, R2E-Gym SFT rows, and any other.

Kept where: `messages` (a list, or a JSON string) as `chatting` says; the command is that of the tool calls, of a
`<function=...>` block or of the last fenced block. `resolved` of the row (bool, 0 or 1, or SWE-Gym's report) is the outcome,
graded by the dataset. A reply that is in no loss at the source (`train` or `mask` false, `weight` 0) gets a mask of weight 0.
`tools` are offered with the first instruction. `run_id`, `traj_id` and `model` go to `start`. `test_result.git_patch`,
`model_patch` and `generated_patch` are the submission. A patch under the name `patch` is none: in SWE-smith it often belongs
to another repository; it stays in `extra` of the end. In a row with tests it is the gold patch: gold patches and tests never
enter the log, their hashes are in `task`.

In `extra`: everything else of the row. Not in the format: cost, tokens and time, exit codes, the real task text. A set whose
rows are all successes by selection (R2E-Gym SFT, SWE-Gym SFT) does not say so in the row, and no outcome is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from stepwell.errors import BadInput
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile, Unit
from stepwell.importers.chatting import converse, messages_of
from stepwell.importers.messages import Obj, obj, take_obj, take_text
from stepwell.importers.sealed import Seal
from stepwell.importers.streams import Stream

_GRADING = ("eval_logs", "gen_tests_correct", "pred_passes_gen_tests")
_TESTS = ("test_patch", "FAIL_TO_PASS", "PASS_TO_PASS", "tests")
_SOLUTIONS = ("gold_patch", "reference_patch", "oracle_patch")


class ChatRows:
    """Reads rows that have `messages`; a bare list of messages is a row too."""

    name = "chat"
    versions = ("",)
    unit: Unit = "record"
    family = "chat"
    capabilities: Mapping[str, str] = {
        "outcome": "where the row has one",
        "step cost": "no",
        "step tokens": "no",
        "timestamps": "no",
        "exact prompts": "by replay",
        "tool schemas": "where the row has them",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One row -> one trajectory, or one reject when its messages are no messages."""
        try:
            rest = {"messages": data} if isinstance(data, list) else obj(data)
            yield read_row(rest, messages_of(rest.pop("messages", None), "messages"), source, self.name)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


class NebiusOpenHands:
    """Reads rows of SWE-rebench OpenHands trajectories: chat under `trajectory`, with `trajectory_id` and `resolved`."""

    name = "nebius-openhands"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {**ChatRows.capabilities, "outcome": "yes", "tool schemas": "yes"}

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One row -> one trajectory, or one reject when its trajectory is no list of messages."""
        try:
            rest = obj(data)
            yield read_row(rest, messages_of(rest.pop("trajectory", None), "trajectory"), source, self.name)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTERS = (ChatRows(), NebiusOpenHands())


def read_row(rest: Obj, messages: list[Obj], source: SourceFile, family: str) -> Imported:
    """A row without its messages, and the messages -> its trajectory. Empties `rest`."""
    known = ("patch",) if rest.keys() & set(_TESTS) else ()
    seal = Seal(_TESTS, (*_SOLUTIONS, *known))
    rest = seal.strip(rest)
    instance = take_text(rest, "instance_id") or None
    model = take_text(rest, "model") or take_text(rest, "model_name")
    run = take_text(rest, "traj_id") or take_text(rest, "trajectory_id") or take_text(rest, "run_id")
    tools = rest.pop("tools", None)
    builder = Builder.of(source, family, instance, take_text(rest, "agent") or family)
    builder.task(
        instance, take_text(rest, "problem_statement"), repo=take_text(rest, "repo"),
        base_commit=take_text(rest, "base_commit"), tests_hash=seal.tests_hash, solution_hash=seal.solution_hash,
        compared=seal.compared,
    )  # fmt: skip
    builder.start({"task_id": instance, "model": model, "run_id": run})
    stream = Stream(builder)
    written = tools if isinstance(tools, str | None) else orjson.dumps(tools).decode()
    converse(stream, messages, model, written)
    finish(builder, rest)
    return builder.imported(instance)


def finish(builder: Builder, rest: Obj, beside: Obj | None = None) -> None:
    """The end of a row, and the outcome where the row has one. What is left of `rest` goes with the end, as does `beside`."""
    result = take_obj(rest, "test_result")
    report = take_obj(result, "report")
    resolved = _truth(rest, "resolved")
    graded = _truth(dict(report), "resolved")
    resolved = graded if resolved is None else resolved
    patch = take_text(result, "git_patch")
    for key in ("model_patch", "generated_patch"):
        patch = take_text(rest, key) if patch is None else patch
    kept = {"report": report} if report else {}
    rest |= {"test_result": {**result, **kept}} if result or kept else {}
    exit_status = take_text(rest, "exit_status")
    grade = {k: rest.pop(k) for k in _GRADING if k in rest and resolved is not None}
    builder.end({"exit_status": exit_status, "submission": patch}, {**rest, **(beside or {})})
    if resolved is not None:
        payload = {"subject": "trajectory", "grader": "dataset", "rule": "reported", "resolved": resolved, "rerun": 0}
        caused_by = builder.events[-1].event_id
        builder.add("outcome", "grader", payload, policy="dataset", caused_by=caused_by, extra=grade)


def _truth(rest: Obj, key: str) -> bool | None:
    """Remove and return a truth value, also one written as 0 or 1; anything else stays."""
    value = rest.get(key)
    if not isinstance(value, bool) and value not in (0, 1, 0.0, 1.0):
        return None
    return bool(rest.pop(key))
