"""ShareGPT conversations, as the Agent Data Protocol writes its SFT sets (`conversations` of `from` and `value`, `system`).

Kept where: `system` of the row is the first instruction; `gpt` (also `assistant`, `model`, `function_call`) is one step,
everything else an instruction before the first step and an observation after it. Commands are those of `<function=...>`
blocks or of the last fenced block. `tools` are offered with the first instruction.

In `extra`: everything else. Not in the format: outcome, cost, tokens, time, the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.errors import BadInput
from stepwell.importers.base import Imported, Rejected, SourceFile, Unit
from stepwell.importers.chat_rows import ChatRows, read_row
from stepwell.importers.chatting import messages_of
from stepwell.importers.messages import Obj, obj, take_text

_ROLES = {
    "gpt": "assistant", "assistant": "assistant", "model": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "function_call": "assistant", "human": "user", "user": "user", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip


class ShareGpt:
    """Reads one row as one trajectory."""

    name = "sharegpt"
    versions = ("",)
    unit: Unit = "record"
    capabilities: Mapping[str, str] = {**ChatRows.capabilities}

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """One row -> one trajectory, or one reject when its conversation is none."""
        try:
            rest = obj(data)
            turns = [_message(turn) for turn in messages_of(rest.pop("conversations", None), "conversations")]
            system = take_text(rest, "system")
            before = [] if system is None else [{"role": "system", "content": system}]
            row_id = take_text(rest, "id")
            yield read_row(
                {**rest, **({} if row_id is None else {"traj_id": row_id})}, [*before, *turns], source, self.name
            )
        except BadInput as error:
            yield Rejected(error.reason, error.detail)


IMPORTER = ShareGpt()


def _message(turn: Obj) -> Obj:
    left = dict(turn)
    said = left.pop("from") if isinstance(left.get("from"), str) else "human"
    content = left.pop("value", None)
    more = {} if said in _ROLES else {"from": said}
    return {**left, **more, "role": _ROLES.get(said, "user"), "content": content}
