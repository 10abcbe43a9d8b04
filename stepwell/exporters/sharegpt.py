"""ShareGPT conversations: JSON, JSON lines or Parquet of `conversations` (`from`, `value`, `train`), `system` and `tools`.

Held: the conversation in its order; system messages before all others are `system`, replies `gpt`, answers `observation` or
`human`. Tool calls are written into the reply's text as `<function=NAME>` blocks with a `<parameter=KEY>` an argument, as the
Agent Data Protocol writes them, since the format has no place for calls. `train` is that of the chat export.

Not held: what the chat export does not hold, and besides: tool calls apart from the text, their ids and which answer is
whose, thoughts and reasoning, roles besides these, what is a demonstration (its replies are not trained on). Left out: as
there. What is said there of JSON lines and the library `datasets` holds here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa

from stepwell.exporters.base import LeftOut, Make, Obj, OpenSink, Options, Trajectory, loaded
from stepwell.exporters.chat import ABOUT
from stepwell.exporters.messages import KINDS, about, conversation
from stepwell.exporters.writing import JsonLines, JsonList, ParquetRows

_FROM = {"assistant": "gpt", "system": "system", "tool": "observation"}
_TURN = pa.struct({"from": pa.string(), "value": pa.string(), "train": pa.bool_()})
SCHEMA = pa.schema(ABOUT | {"system": pa.string(), "conversations": pa.list_(_TURN)})
"""Columns of the Parquet file."""


def _parquet(path: Path, options: Options) -> ParquetRows:
    return ParquetRows(path, SCHEMA)


class ShareGpt:
    """Writes one conversation a trajectory."""

    name = "sharegpt"
    reads: Literal["trajectories", "dataset"] = "trajectories"
    kinds = KINDS
    holds: Mapping[str, tuple[str, ...]] = {
        "task": ("repo", "base_commit", "statement"),
        "start": ("task_id", "agent", "model", "run_id"),
        "instruction": ("content", "tools"),
        "action": ("text",),
        "observation": ("rendered",),
        "end": ("exit_status", "submission"),
        "outcome": ("resolved",),
    }
    sinks: Mapping[str, OpenSink] = {".jsonl": JsonLines, ".json": JsonList, ".parquet": _parquet}

    def make(self, options: Options) -> Make:
        """Conversations with the flags of the mask rule, or of all replies that may be trained on."""
        return partial(_row, mask_rule=options.mask_rule)


EXPORTER = ShareGpt()


def _row(trajectory: Trajectory, mask_rule: str | None) -> Obj | LeftOut:
    messages = conversation(trajectory, mask_rule)
    if isinstance(messages, LeftOut):
        return messages
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = [_turn(m) for m in (messages if system is None else messages[1:])]
    return {**about(trajectory), **({} if system is None else {"system": system}), "conversations": turns}


def _turn(message: Obj) -> Obj:
    blocks = [_block(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())]
    value = "\n".join([*([message["content"]] if message["content"] or not blocks else []), *blocks])
    return {"from": _FROM.get(message["role"], "human"), "value": value, "train": message["train"]}


def _block(name: str, arguments: str | None) -> str:
    given = loaded(arguments or "{}")
    try:
        said = {k: v if isinstance(v, str) else orjson.dumps(v).decode() for k, v in given.items()}
    except (AttributeError, orjson.JSONEncodeError):  # no object, or nested too deep to be written again
        said = {"arguments": arguments or ""}
    lines = [f"<parameter={key}>\n{value}\n</parameter>" for key, value in said.items()]
    return "\n".join([f"<function={name}>", *lines, "</function>"])
