"""Rows of a sealed dataset as TRL's trainers take them, in JSON lines or Parquet: pairs, prompts, prompts with completions.

`preference` has `prompt`, `chosen` and `rejected` as messages (DPOTrainer); `preference-tokens` has `prompt_ids`, `chosen_ids`
and `rejected_ids`, which its collator takes; `prompt-completion` has `prompt` and `completion` as messages (SFTTrainer with
`completion_only_loss`), `prompts` has `prompt` with what a reward function needs to run the tests: `group_id`, `reference`
(JSON) and the `rewards` recorded (GRPOTrainer). Messages have role and content, tool calls with arguments as JSON strings;
`tools` is a JSON string. With every row stand its `row_id`, `trajectory_id`, `task_id` and `split`. What `chat` says of JSON
lines and the library `datasets` holds here: give it Parquet.

Held: the messages, or the tokens as sealed. Trainers that are given messages make the tokens themselves, with their own idea of
what a template's line ends are; `preference-tokens`, `tokens` and its siblings are exact. Not held: steps, events, agents (`hf`
has them). Nothing is read back as a trajectory. Left out: rows that are no pair, no prompt, or train more than their last
reply; rows of trajectories of which something was taken down or redacted since the dataset was built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from schemas.column import struct
from schemas.datasets import REWARDED
from stepwell.exporters.base import LeftOut, Make, Obj, Options, loaded
from stepwell.exporters.tokens import IGNORED, ORIGIN
from stepwell.exporters.writing import JsonLines, ParquetRows

_S = pa.string()
_CALL = pa.struct({"id": _S, "type": _S, "function": pa.struct({"name": _S, "arguments": _S})})
_MESSAGES = pa.list_(pa.struct({"role": _S, "content": _S, "tool_calls": pa.list_(_CALL), "tool_call_id": _S}))
_IDS = pa.list_(pa.int32())


class ForTrl:
    """Writes one row a row of the dataset: what `of` makes of it, with these columns."""

    reads: Literal["trajectories", "dataset"] = "dataset"
    kinds: frozenset[str] = frozenset()
    holds: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, name: str, of: Callable[[Obj], Obj | LeftOut], **columns: pa.DataType) -> None:
        self.name, self._of = name, of
        self._schema = pa.schema(dict.fromkeys(ORIGIN, _S) | columns)
        self.sinks = {".jsonl": JsonLines, ".parquet": self._parquet}

    def _parquet(self, path: Path, options: Options) -> ParquetRows:
        return ParquetRows(path, self._schema)

    def make(self, options: Options) -> Make:
        """Rows, or why one is none of this format."""

        def row(sealed: Obj) -> Obj | LeftOut:
            made = self._of(sealed)
            return made if isinstance(made, LeftOut) else {k: sealed[k] for k in ORIGIN} | made

        return row


def _conversation(sealed: Obj) -> tuple[list[Obj], Obj]:
    """The messages, and `tools` where any were offered."""
    messages = [dict(m) for m in loaded(sealed["messages"])]
    tools = messages[0].pop("tools", None)
    for message in messages:
        message.pop("is_demo", None)
    return messages, {} if tools is None else {"tools": tools}


def _preference(sealed: Obj) -> Obj | LeftOut:
    if sealed.get("rejected") is None:
        return LeftOut("no rejected reply")
    messages, tools = _conversation(sealed)
    return {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": loaded(sealed.get("rejected")), **tools}


def _preference_tokens(sealed: Obj) -> Obj | LeftOut:
    if sealed.get("rejected") is None:
        return LeftOut("no rejected reply")
    chosen, rejected = (
        _reply(sealed[i], sealed[x]) for i, x in (("input_ids", "labels"), ("rejected_ids", "rejected_labels"))
    )
    prompt = next(i for i, label in enumerate(sealed["labels"]) if label != IGNORED)
    return {"prompt_ids": sealed["input_ids"][:prompt], "chosen_ids": chosen, "rejected_ids": rejected}


def _reply(ids: list[int], labels: list[int]) -> list[int]:
    return [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]


def _completion(sealed: Obj) -> Obj | LeftOut:
    weights = sealed["weights"]
    if not weights or not weights[-1] or any(weights[:-1]):
        return LeftOut("trains more than its last reply, or nothing")
    messages, tools = _conversation(sealed)
    return {"prompt": messages[:-1], "completion": messages[-1:], **tools}


def _prompt(sealed: Obj) -> Obj | LeftOut:
    if any(sealed["weights"]):
        return LeftOut("has replies to train: it is no prompt alone")
    messages, tools = _conversation(sealed)
    rewards: list[Any] = sealed.get("rewards") or []
    return {
        "prompt": messages,
        "group_id": sealed["group_id"],
        "reference": sealed["reference"],
        "rewards": rewards,
        **tools,
    }


EXPORTERS = (
    ForTrl("preference", _preference, prompt=_MESSAGES, chosen=_MESSAGES, rejected=_MESSAGES, tools=_S),
    ForTrl("preference-tokens", _preference_tokens, prompt_ids=_IDS, chosen_ids=_IDS, rejected_ids=_IDS),
    ForTrl("prompt-completion", _completion, prompt=_MESSAGES, completion=_MESSAGES, tools=_S),
    ForTrl(
        "prompts", _prompt, prompt=_MESSAGES, group_id=_S, reference=_S, rewards=pa.list_(struct(REWARDED)), tools=_S
    ),
)
