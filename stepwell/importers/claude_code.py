"""Claude Code sessions: `~/.claude/projects/*/SESSION.jsonl`, exports with `loglines`, and stream-json turns.

Kept where: the records of one reply (same `message.id`, one record a content block) are one step: `text` its text blocks,
`reasoning` its thinking, `tool_calls` its tool uses. Every record repeats the reply's usage: the last one counts, once, and
one that differs stays in `extra`; `tokens_in` adds what was read from and written to the cache, as the column says. Tool
results are observations of the step that made the call, wherever they stand; with `toolUseResult` beside them in `extra`.
What a person says is an instruction before the first step and an observation by a human after it; so are records marked
`isMeta`, by the system. A `result` record (stream-json) gives cost and time of the end.

The log is a tree. Each sidechain (a subagent) is a trajectory of its own, with the session as its parent. Where a session was
rewound and told anew, the line that ends last is the session, and what was left behind is a trajectory that continues it from
the step it forks from: every step is in one trajectory (`extra.without_prefix` of its start: no training row is made of it). A
record without a parent follows the one before it: files without links, and what follows a compaction, are one line. A message
that is there again with the same `uuid`, and equal, is read once. `run_id` is the session.

In `extra`: ids, signatures and all else of a record; records that are nobody's message (summaries, snapshots, attachments, API
errors, also those in a reply's place) are in `extra.records` of the end, in order. Not in the format: outcome, cost per step,
prompts, tool schemas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_float, take_int, take_obj, take_text, take_time
from stepwell.importers.streams import Stream, function_call, lines_of

_SHARED = (
    "sessionId",
    "session_id",
    "version",
    "cwd",
    "gitBranch",
    "userType",
    "slug",
    "agentId",
    "isSidechain",
    "entrypoint",
)
_MESSAGES = ("user", "assistant")
_SYNTHETIC = "<synthetic>"
"""The model of replies that Claude Code writes itself: API errors, limits, and that no response was requested."""


class ClaudeCode:
    """Reads Claude Code session logs; a file is a session, its subagents and the lines it left."""

    name = "claude-code-session"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "no",
        "step tokens": "yes",
        "timestamps": "yes",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def tells(self, o: Obj) -> str:
        """Why an object is of such a session: an export, or a message with a role inside a typed record."""
        if isinstance(o.get("loglines"), list):
            return "`loglines`"
        if o.get("type") == "system" and o.get("subtype") == "init" and "session_id" in o:
            return "`type` system, `subtype` init, `session_id`"
        blocks = obj(o.get("message")).get("content")
        told = o.get("type") in _MESSAGES and isinstance(blocks, str | list) and ("uuid" in o or "session_id" in o)
        return "`type` and `message` with `uuid` or `session_id`" if told else ""

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All records of a file -> the session, its subagents, and the lines that were left behind."""
        records = data if isinstance(data, list) else [data]
        if len(records) == 1 and isinstance(obj(records[0]).get("loglines"), list):
            records = records[0]["loglines"]
        if not any(_role(r) for r in records):
            yield Rejected("malformed", "no user or assistant message; a session has at least one.")
            return
        yield from _sessions(records, source)


@dataclass
class _Node:
    """Records that belong together: a reply, what was said to it, or one other record."""

    role: str
    thread: str
    parent: int | None
    records: list[Obj] = field(default_factory=list)


def _role(record: Any) -> str:
    """user or assistant for a record with a message, else nothing; what the harness says in a reply's place is none."""
    told = isinstance(record, dict) and record.get("type") in _MESSAGES and isinstance(record.get("message"), dict)
    if not told or record.get("isApiErrorMessage") is True or record["message"].get("model") == _SYNTHETIC:
        return ""
    return str(record["type"])


def _sessions(records: list[Any], source: SourceFile) -> Iterator[Imported]:
    threads: dict[str, list[_Node]] = {}
    loose = _threads(records, threads)
    main = "" if "" in threads else next(iter(threads))
    ids: dict[tuple[str, int], tuple[str, int]] = {}
    by_agent: dict[str, tuple[str, int]] = {}
    session = ""
    for thread, nodes in sorted(threads.items(), key=lambda item: item[0] != main):
        for number, (fork, line) in enumerate(lines_of([n.parent for n in nodes])):
            first = nodes[line[0]].records[0]
            parent = ids.get((thread, fork)) if fork is not None else None
            if thread != main and number == 0:
                parent = by_agent.get(thread, (session, -1))
            told = first.get("uuid")
            key = f"{thread}/{told if isinstance(told, str) else number}"
            builder = Builder.of_session(
                source, ClaudeCode.name, _session_id(first), key, len(records), _agent(records)
            )
            session = session or builder.trajectory_id
            _line(
                builder,
                [nodes[i] for i in line],
                parent,
                fork is not None,
                loose if thread == main and number == 0 else [],
            )
            _remember(builder, thread, nodes, line, ids, by_agent)
            yield builder.imported(None)


def _session_id(record: Obj) -> str:
    return str(record.get("sessionId") or record.get("session_id") or "")


def _agent(records: list[Any]) -> str:
    version = next((r["version"] for r in records if isinstance(r, dict) and isinstance(r.get("version"), str)), "")
    return f"Claude Code {version}".strip()


def _threads(records: list[Any], threads: dict[str, list[_Node]]) -> list[Any]:
    """Sort the messages of a file into threads of nodes; returns the records that are no message."""
    loose: list[Any] = []
    where: dict[str, tuple[str, int | None]] = {}
    replies: dict[str, tuple[str, int]] = {}
    calls: dict[str, tuple[str, int]] = {}
    met: dict[str, Obj] = {}
    for record in records:
        uuid = record.get("uuid") if isinstance(record, dict) else None
        known = where.get(str(record.get("parentUuid"))) if isinstance(record, dict) else None
        role = _role(record)
        if not role:
            loose.append(record)
            if isinstance(uuid, str) and known:
                where[uuid] = known
            continue
        if isinstance(uuid, str) and met.setdefault(uuid, record) is not record and met[uuid] == record:
            continue
        nodes = threads.setdefault(thread := _thread(record, known), [])
        reply, blocks = record["message"].get("id"), _blocks(record["message"])
        results = [calls.get(str(b.get("tool_use_id"))) for b in blocks if b.get("type") == "tool_result"]
        answered = [place for place in results if place is not None and place[0] == thread]
        if (
            role == "assistant"
            and isinstance(reply, str)
            and replies.get(reply, ("",))[0] == thread
            and reply in replies
        ):
            place = replies[reply][1]
        elif role == "user" and answered:
            place = answered[-1][1]
        else:
            place = len(nodes)
            parent = known[1] if known and known[0] == thread else None
            nodes.append(_Node(role, thread, place - 1 if parent is None and place else parent))
        nodes[place].records.append(record)
        if isinstance(uuid, str):
            where[uuid] = (thread, place)
        if isinstance(reply, str):
            replies[reply] = (thread, place)
        for block in blocks:
            if block.get("type") == "tool_use" and isinstance(block.get("id"), str):
                calls[block["id"]] = (thread, place)
    return loose


def _thread(record: Obj, known: tuple[str, int | None] | None) -> str:
    """Empty for the session itself; a subagent is named by its id, or by the first record of its chain."""
    if record.get("isSidechain") is not True:
        return ""
    named = record.get("agentId")
    return str(named) if named else known[0] if known and known[0] else f"sidechain {record.get('uuid')}"


def _blocks(message: Obj) -> list[Obj]:
    content = message.get("content")
    return [b for b in content if isinstance(b, dict)] if isinstance(content, list) else []


def _remember(
    builder: Builder,
    thread: str,
    nodes: list[_Node],
    line: list[int],
    ids: dict[tuple[str, int], tuple[str, int]],
    by_agent: dict[str, tuple[str, int]],
) -> None:
    """Which trajectory and step a node ends at, and which step called which subagent."""
    done = 0
    for place in line:
        done += nodes[place].role == "assistant"
        ids[thread, place] = (builder.trajectory_id, done)
        for record in nodes[place].records:
            result = record.get("toolUseResult")
            if isinstance(result, dict) and isinstance(agent := result.get("agentId"), str):
                by_agent[agent] = (builder.trajectory_id, done - 1)


def _line(builder: Builder, nodes: list[_Node], parent: tuple[str, int] | None, forked: bool, loose: list[Any]) -> None:
    stream = Stream(builder)
    first = obj(nodes[0].records[0])
    shared = {k: first[k] for k in _SHARED if first.get(k) is not None}
    replies = [r for n in nodes if n.role == "assistant" for r in n.records]
    model = next((m for r in replies if (m := take_text(obj(r["message"]), "model"))), None)
    trajectory, step = parent or ("", -1)
    builder.start(
        {
            "model": model,
            "run_id": _session_id(first) or None,
            "parent_trajectory": trajectory or None,
            "fork_step": step if trajectory and step >= 0 else None,
        },
        {**shared, "without_prefix": True} if forked else shared,
    )
    for node in nodes:
        records = [{k: v for k, v in r.items() if k not in shared or v != shared[k]} for r in node.records]
        if node.role == "assistant":
            _act(stream, [r for r in records if r["type"] == "assistant"])
        for record in (r for r in records if r.get("type") == "user"):
            _hear(stream, record)
    result = obj(next((r for r in reversed(loose) if obj(r).get("type") == "result"), None))
    spent = take_int(dict(result), "duration_ms")
    builder.end(
        {
            "exit_status": take_text(dict(result), "subtype"),
            "submission": take_text(dict(result), "result"),
            "cost_usd": take_float(dict(result), "total_cost_usd"),
            "duration_s": None if spent is None else spent / 1000,
        },
        {"records": loose} if loose else {},
    )


def _act(stream: Stream, records: list[Obj]) -> None:
    """The records of one reply -> one step."""
    texts, thoughts, calls, kept = [], [], [], []
    messages = [take_obj(r, "message") for r in records]
    usage = next((u for m in reversed(messages) if (u := obj(m.get("usage")))), {})
    model = next((m["model"] for m in reversed(messages) if isinstance(m.get("model"), str)), None)
    occurred_at = take_time(records[-1], "timestamp") if records else None
    told = {**_TOLD, "usage": (usage,), "model": (model,)}
    said: list[Obj] = []
    for record, message in zip(records, messages, strict=True):
        content = message.pop("content", None)
        rest: list[Any] = []
        for block in content if isinstance(content, list) else [content]:
            left = obj(block)
            kind = left.get("type")
            if isinstance(block, str):
                texts.append(block)
            elif kind == "tool_use" and "id" in left:
                calls.append(function_call(left.pop("id"), left.pop("name", None), left.pop("input", None)))
                left.pop("type")
            else:
                texts.append(take_text(left, "text") or "")
                thoughts.append(take_text(left, "thinking") or "")
            if block is not None and not isinstance(block, str) and (not isinstance(block, dict) or left not in _EMPTY):
                rest.append(left or block)
        message = {k: v for k, v in message.items() if v is not None and v not in told.get(k, ())}
        said.append(message)
        del record["type"]
        left = {k: v for k, v in record.items() if v is not None}
        kept.append(left | ({"message": message} if message else {}) | ({"content": rest} if rest else {}))
    stop = next((m["stop_reason"] for m in reversed(said) if isinstance(m.get("stop_reason"), str)), None)
    call_id = next((m["id"] for m in said if isinstance(m.get("id"), str)), None)
    extra: Obj = {"records": kept}
    stream.act(
        "".join(texts) or None,
        calls,
        reasoning="".join(thoughts) or None,
        usage={**take_anthropic_usage(usage), "call_id": call_id, "finish": stop},
        policy=model,
        occurred_at=occurred_at,
        extra=extra | ({"usage": usage} if usage else {}),
    )


_TOLD: dict[str, tuple[Any, ...]] = {"type": ("message",), "role": _MESSAGES}
"""What a message says that its record says too."""
_EMPTY: tuple[Obj, ...] = ({}, {"type": "text"}, {"type": "thinking"})


def take_anthropic_usage(counts: Obj) -> Obj:
    """Usage of an Anthropic message as columns; `tokens_in` includes what the cache was read and written for.

    Only where no count is missing or of a wrong type; what has no column, and `input_tokens`, stays in `counts`.
    """
    read, wrote = take_int(counts, "cache_read_input_tokens"), take_int(counts, "cache_creation_input_tokens")
    plain = take_int(dict(counts), "input_tokens") if read or wrote else take_int(counts, "input_tokens")
    return {
        "tokens_in": None if plain is None else plain + (read or 0) + (wrote or 0),
        "tokens_out": take_int(counts, "output_tokens"),
        "cache_read": read,
        "cache_write": wrote,
    }


def _hear(stream: Stream, record: Obj) -> None:
    """A user record -> what answers calls, and what a person or the harness says."""
    message = take_obj(record, "message")
    occurred_at = take_time(record, "timestamp")
    content = message.pop("content", None)
    record.pop("type")
    left = {k: v for k, v in message.items() if v not in _TOLD.get(k, ())}
    extra = {k: v for k, v in record.items() if v is not None}
    if left:
        extra["message"] = left
    blocks = content if isinstance(content, list) else [content]
    said = [b for b in blocks if not (isinstance(b, dict) and b.get("type") == "tool_result")]
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            result = dict(block)
            call = take_text(result, "tool_use_id")
            text, parts = _text(result.pop("content", None))
            result.pop("type")
            more = result | ({"content": parts} if parts else {}) | extra
            stream.answer(call, {"rendered": text}, more, occurred_at=occurred_at)
            extra = {}
    if said:
        text, parts = _text(said if isinstance(content, list) else content)
        more = {**extra, **({"content": parts} if parts else {})}
        actor = "system" if record.get("isMeta") is True or record.get("isCompactSummary") is True else "human"
        stream.tell("user", text, more, actor=actor, occurred_at=occurred_at)


def _text(content: Any) -> tuple[str | None, list[Any]]:
    """The text of a content, and the parts of it that are more than text."""
    if isinstance(content, str):
        return content, []
    parts = content if isinstance(content, list) else [] if content is None else [content]
    texts = [t for p in parts if isinstance(t := p if isinstance(p, str) else obj(p).get("text"), str)]
    plain = len(texts) == len(parts) < 2 and all(
        isinstance(p, str) or p == {"type": "text", "text": p["text"]} for p in parts
    )
    return ("".join(texts) if texts else None), ([] if plain else parts)


IMPORTER = ClaudeCode()
