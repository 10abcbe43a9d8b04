"""Rows of nebius SWE-agent trajectories: `trajectory` of turns with role `system`, `user` or `ai`, and `target`.

Kept where: the text of a system turn stands in `system_prompt`, of others in `text`; a turn of `ai` is one step, its command
the last fenced block. `target` is the outcome, graded by the dataset, with the whole `eval_logs` in its `extra`;
`generated_patch` the submission. The source's own loss mask (`mask`) and `cutoff_date` stay in `extra` of each turn; a turn of
`ai` that it keeps out of the loss gets a mask of weight 0.

Not in the format: cost, tokens, time, tool calls, tool schemas, an id of the run (instance and model repeat).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.errors import BadInput
from stepwell.importers.base import Imported, Rejected, SourceFile, Unit
from stepwell.importers.chat_rows import ChatRows, read_row
from stepwell.importers.chatting import messages_of
from stepwell.importers.messages import Obj, obj


class NebiusSweAgent:
    """Reads one row as one trajectory."""

    name = "nebius-swe-agent"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {**ChatRows.capabilities, "outcome": "yes", "tool schemas": "no"}

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One row -> one trajectory, or one reject when its trajectory is no list of turns."""
        try:
            rest = obj(data)
            turns = messages_of(rest.pop("trajectory", None), "trajectory")
            if isinstance(rest.get("target"), bool) and "resolved" not in rest:
                rest["resolved"] = rest.pop("target")
            yield read_row(rest, [_message(turn) for turn in turns], source, self.name)
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = NebiusSweAgent()


def _message(turn: Obj) -> Obj:
    """A turn as a chat message: the text is where the role has it, everything else as it is."""
    left = dict(turn)
    if left.get("role") == "ai":
        left["role"] = "assistant"
    key = "text" if isinstance(left.get("text"), str) else "system_prompt"
    content = left.pop(key, None)
    return {**left, "content": content}
