"""pi and OpenClaw sessions: JSON lines that open with `type` session, then entries with `id` and `parentId`.

Kept where: every assistant message is one step: text, thinking as `reasoning`, `toolCall` blocks as calls, usage and cost as
stated (`tokens_in` includes cached tokens, as the column says; a cost of zero beside tokens is kept as stated). A reply that
was aborted or failed is a step without a command, the error its `parse_error`. Tool results are observations of the step that
made the call; what a person says is an instruction before the first step and an observation by a human after it, as are
commands a person ran (`bashExecution`) and messages of extensions. Entries form a tree: the line that ends last is the
session, one left behind is a trajectory that continues it from the step it forks from (`extra.without_prefix` of its start: no
training row is made of it). Old files have no ids: one line.

In `extra`: ids, signatures, details of results; entries that are no message (model and thinking level, compactions, labels)
are in `extra.records` of the end, in order. Not in the format: outcome, prompts, tool schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_content, take_float, take_int, take_obj, take_text, take_time
from stepwell.importers.streams import Stream, function_call, lines_of


class Pi:
    """Reads pi and OpenClaw session logs; a file is a session and the lines it left."""

    name = "pi-session"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "where the provider said",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All entries of a file -> the session, and the lines that were left behind."""
        records = data if isinstance(data, list) else [data]
        header = next((dict(r) for r in records if isinstance(r, dict) and r.get("type") == "session"), None)
        if header is None:
            yield Rejected("malformed", "no entry of `type` session; a session opens with one.")
            return
        nodes, parents, loose = _tree(records)
        ends: dict[int, tuple[str, int]] = {}
        for number, (fork, line) in enumerate(lines_of(parents) or [(None, [])]):
            told = nodes[line[0]].get("id") if line and line[0] else ""
            key = told if isinstance(told, str) else str(number)
            builder = Builder.of_session(source, Pi.name, header.get("id"), key, len(records), "pi")
            _line(
                builder,
                dict(header),
                [nodes[i] for i in line],
                ends.get(-1 if fork is None else fork),
                [] if number else loose,
            )
            done = 0
            for place in line:
                done += obj(nodes[place].get("message")).get("role") == "assistant"
                ends[place] = (builder.trajectory_id, done)
            yield builder.imported(None)


def _tree(records: list[Any]) -> tuple[list[Obj], list[int | None], list[Any]]:
    """Messages with their parents among them, and the entries that are no message."""
    nodes: list[Obj] = []
    parents: list[int | None] = []
    loose: list[Any] = []
    where: dict[str, int | None] = {}
    header = True
    for record in records:
        entry = obj(record)
        known = where.get(str(entry.get("parentId")), len(nodes) - 1 if nodes else None)
        if entry.get("type") == "message" and isinstance(entry.get("message"), dict):
            nodes.append(entry)
            parents.append(known)
            known = len(nodes) - 1
        elif header and entry.get("type") == "session":
            header = False
            continue
        else:
            loose.append(record)
        if isinstance(entry.get("id"), str):
            where[entry["id"]] = known
    return nodes, parents, loose


def _line(builder: Builder, header: Obj, nodes: list[Obj], parent: tuple[str, int] | None, loose: list[Any]) -> None:
    stream = Stream(builder)
    header.pop("type")
    models = (take_text(obj(n["message"]), "model") for n in nodes if n["message"].get("role") == "assistant")
    model = next(filter(None, models), None) or take_text(dict(header), "modelId")
    session = take_text(header, "id")
    payload: Obj = {"model": model, "run_id": session}
    if parent:
        payload |= {"parent_trajectory": parent[0], "fork_step": parent[1]}
        header["without_prefix"] = True
    builder.add(
        "start",
        "system",
        {"agent": builder.agent, **payload},
        policy=builder.agent,
        occurred_at=take_time(header, "timestamp"),
        extra=header,
    )
    for node in nodes:
        entry = {k: v for k, v in node.items() if k != "type"}
        message = take_obj(entry, "message")
        occurred_at = take_time(entry, "timestamp")
        role = take_text(message, "role") or "user"
        if role == "assistant":
            _act(stream, message, entry, occurred_at)
        elif role == "toolResult":
            call = take_text(message, "toolCallId")
            text = take_content(message)
            stream.answer(call, {"rendered": text}, _kept(entry, message), occurred_at=occurred_at)
        elif role == "bashExecution":
            code = take_int(message, "exitCode", 32)
            ran = {"role": "user", "rendered": take_text(message, "output"), "exit_code": code}
            stream.answer(None, ran, _kept(entry, message, role), actor="human", occurred_at=occurred_at)
        else:
            text = take_content(message)
            extra = _kept(entry, message, role)
            stream.tell("user", text, extra, actor="human" if role == "user" else "system", occurred_at=occurred_at)
    builder.end({}, {"records": loose} if loose else {})


def _kept(entry: Obj, message: Obj, role: str = "user") -> Obj:
    """What is left of a message and of its entry, and as what it was said when not by a user."""
    return {**message, **({"entry": entry} if entry else {}), **({} if role == "user" else {"said_as": role})}


def _act(stream: Stream, message: Obj, entry: Obj, occurred_at: Any) -> None:
    texts, thoughts, calls, rest = [], [], [], []
    content = message.pop("content", None)
    for block in content if isinstance(content, list) else [content]:
        left = obj(block)
        if left.get("type") == "toolCall":
            left.pop("type")
            calls.append(function_call(left.pop("id", None), left.pop("name", None), left.pop("arguments", None)))
        elif isinstance(block, str):
            texts.append(block)
        else:
            texts.append(take_text(left, "text") or "")
            thoughts.append(take_text(left, "thinking") or "")
        plain = isinstance(block, str | None) or (
            isinstance(block, dict) and left in ({}, {"type": "text"}, {"type": "thinking"})
        )
        rest += [] if plain else [left or block]
    stop = message.get("stopReason")
    usage, spent = take_usage(message)
    failed = take_text(message, "errorMessage") if stop in ("aborted", "error") else None
    stream.act(
        "".join(texts) or None,
        calls,
        reasoning="".join(thoughts) or None,
        parse_error=failed if failed and not calls else None,
        usage=usage,
        policy=take_text(message, "model"),
        occurred_at=occurred_at,
        extra={
            **_kept(entry, message),
            **spent,
            **({"content": rest} if rest else {}),
            **({"error": failed} if failed else {}),
        },
    )


def take_usage(message: Obj) -> tuple[Obj, Obj]:
    """Usage as columns, and what of it has none; `tokens_in` is the prompt with what the cache was read and written for."""
    counts = take_obj(message, "usage")
    told = dict(counts)
    costs = take_obj(counts, "cost")
    cost = take_float(costs, "total")
    plain, read, wrote = (take_int(told, k) for k in ("input", "cacheRead", "cacheWrite"))
    usage = {
        "call_id": take_text(message, "responseId"),
        "tokens_in": None if plain is None else plain + (read or 0) + (wrote or 0),
        "tokens_out": take_int(told, "output"),
        "cache_read": read,
        "cache_write": wrote,
        "cost_usd": cost,
        "price_policy": None if cost is None else "source",
        "finish": take_text(message, "stopReason"),
    }
    return usage, {"usage": {**counts, **({"cost": costs} if costs else {})}} if counts else {}


IMPORTER = Pi()
