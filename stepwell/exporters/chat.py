"""Chat rows for supervised fine-tuning: JSON lines or Parquet, `messages` with a `train` flag each, `tools` as a JSON string.

Held: the conversation in its order, with roles, tool calls (arguments as JSON strings), thoughts and reasoning; the task, the
model, the run, whether it is resolved, the exit status, the submission. `train` says which replies are in the loss:
all that may be, or of these the ones whose mask by the rule named has a weight above 0. A trainer that does not know it
trains on everything; Stepwell reads a false one as a mask of the source, under which no dataset learns the reply.

JSON lines leave out what a row has not. The library `datasets` takes the columns of JSON lines from the first 10 MB and
refuses a row that has more, or less: give it the Parquet file, where every row has all of them.

Not held: ids of events, verdicts and masks themselves, usage, times, exit codes and raw output, who spoke beyond the role
(an absent one is `user`), replies the model was never shown again, labels, feedback and notices, all but the last grading;
keys of a tool call besides id, name and arguments; whether a text is absent or empty; where steps call with the same id,
whose answer is whose. Commands are parsed anew by a reader. Left out: trajectories without an action, and lines that go on
from a step of another trajectory without what came before it; with a mask rule, those it has not decided or masks as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from stepwell.exporters.base import LeftOut, Make, Obj, OpenSink, Options, Trajectory
from stepwell.exporters.messages import KINDS, about, conversation
from stepwell.exporters.writing import JsonLines, ParquetRows

_S, _B = pa.string(), pa.bool_()
_CALL = pa.struct({"id": _S, "type": _S, "function": pa.struct({"name": _S, "arguments": _S})})
_MESSAGE = pa.struct(
    {
        "role": _S, "content": _S, "train": _B, "tool_calls": pa.list_(_CALL), "tool_call_id": _S, "thought": _S,
        "reasoning_content": _S, "is_demo": _B,
    }
)  # fmt: skip
ABOUT = {
    "stepwell_trajectory": _S, "corpus": _S, "instance_id": _S, "problem_statement": _S, "repo": _S, "base_commit": _S,
    "run_id": _S, "agent": _S, "model": _S, "resolved": _B, "exit_status": _S, "model_patch": _S, "tools": _S,
}  # fmt: skip
"""Columns of what a row says of its trajectory."""
SCHEMA = pa.schema(ABOUT | {"messages": pa.list_(_MESSAGE)})
"""Columns of the Parquet file."""


def _parquet(path: Path, options: Options) -> ParquetRows:
    return ParquetRows(path, SCHEMA)


class Chat:
    """Writes one row a trajectory."""

    name = "chat"
    reads: Literal["trajectories", "dataset"] = "trajectories"
    kinds = KINDS
    holds: Mapping[str, tuple[str, ...]] = {
        "task": ("repo", "base_commit", "statement"),
        "start": ("task_id", "agent", "model", "run_id"),
        "instruction": ("role", "content", "is_demo", "tools"),
        "action": ("text", "thought", "reasoning", "tool_calls"),
        "observation": ("rendered", "role", "tool_call_id"),
        "end": ("exit_status", "submission"),
        "outcome": ("resolved",),
    }
    sinks: Mapping[str, OpenSink] = {".jsonl": JsonLines, ".parquet": _parquet}

    def make(self, options: Options) -> Make:
        """Rows with the flags of the mask rule, or of all replies that may be trained on."""
        return partial(_row, mask_rule=options.mask_rule)


EXPORTER = Chat()


def _row(trajectory: Trajectory, mask_rule: str | None) -> Obj | LeftOut:
    messages = conversation(trajectory, mask_rule)
    return messages if isinstance(messages, LeftOut) else {**about(trajectory), "messages": messages}
