"""The exact prompt of every call, out of the events of its trajectory.

A call's prompt is the prompt before it, the reply, and what was observed since. Where a harness did otherwise (dropped or
edited messages, ran calls side by side), `extra.prompt` of the action says after which step it comes and what `then` stood
there, as spans of that step's conversation and messages in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from stepwell.chat import Message
from stepwell.log import live
from stepwell.proxy.messages import join, reply_message, unfold

READS = ("event_id", "trajectory_id", "step", "kind", "extra", "instruction", "action", "observation", "retraction")


def prompts(events: pa.Table) -> Iterator[tuple[str, list[Message]]]:
    """Events of whole trajectories in canonical order -> event id and messages of each action, in order.

    `stepwell.chat.prompt_hash` of the messages is the `usage.prompt_hash` of an action the proxy recorded.
    """
    rows: list[dict[str, Any]] = []
    for row in live(events).select(READS).to_pylist():
        if rows and row["trajectory_id"] != rows[0]["trajectory_id"]:
            yield from _of_one(rows)
            rows = []
        rows.append(row)
    yield from _of_one(rows)


def _of_one(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[Message]]]:
    given = sorted((r for r in rows if r["kind"] == "instruction"), key=lambda r: r["instruction"]["position"])
    observed: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "observation":
            observed.setdefault(row["step"], []).append(row)
    conversations: dict[int, list[Message]] = {}
    last: int | None = None
    for row in [r for r in rows if r["kind"] == "action"]:
        told = _extra(row).get("prompt")
        if told is not None:
            prompt = unfold(told["then"], conversations[told["after"]], lambda m: m)
        elif last is None:
            prompt = [_message(r, "content") for r in given]
        else:
            prompt = conversations[last]
        yield row["event_id"], prompt
        last = row["step"]
        seen = sorted(observed.get(last, ()), key=lambda r: r["observation"]["position"])
        said = reply_message(row["action"]["text"], row["action"]["tool_calls"])
        conversations[last] = [*prompt, said, *(_message(r, "rendered") for r in seen)]


def _message(row: dict[str, Any], column: str) -> Message:
    payload = row[row["kind"]]
    return join(payload["role"], payload[column], _extra(row).get("message", {}))


def _extra(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(row["extra"]) if row["extra"] else {}
    return found
