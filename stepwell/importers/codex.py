"""Codex sessions: `rollout-*.jsonl`, lines of `timestamp`, `type` and `payload`.

Kept where: one model response is one step: its reasoning, text and calls up to a result, a count of its tokens or another's
message; what the model says or calls after that is the next step. Calls are `function_call`, `custom_tool_call` (its
`input` is the argument text), `local_shell_call` and any other `*_call`; results are observations of the step that made the
call (by `call_id`). An output that is itself JSON with `output` and `metadata` gives the raw text and the exit code, and is
kept as it was shown. `token_count` events give the usage of the step before them: `last_token_usage`; the running totals
are those of the end. Messages of users and developers are instructions before the first step, observations by a human (or
the system) after it.

In `extra`: ids and content parts. `session_meta` is `extra` of the start; turn contexts and events of the interface, which
mostly repeat the items, are in `extra.records` of the end, in order. `encrypted_content` is dropped: only its provider can
read it; its sha256 is kept. Not in the format: outcome, cost, prompts, tool schemas, token ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from stepwell.ids import sha256
from stepwell.importers.base import Builder, Imported, Rejected, SourceFile
from stepwell.importers.messages import Obj, obj, take_content, take_int, take_text, take_time
from stepwell.importers.streams import Stream, function_call

_EXIT = re.compile(r"(?:Process exited with code|Exit code:)\s*(-?\d{1,9})\b")


class Codex:
    """Reads Codex rollouts; a file is one trajectory."""

    name = "codex-session"
    versions = ("",)
    unit = "records"
    capabilities: Mapping[str, str] = {
        "outcome": "no",
        "step cost": "no",
        "step tokens": "where counted",
        "timestamps": "yes",
        "exact prompts": "no",
        "tool schemas": "no",
        "token ids": "no",
    }

    def read(self, data: Any, source: SourceFile) -> Iterator[Imported | Rejected]:
        """All lines of a file -> one trajectory."""
        records = data if isinstance(data, list) else [data]
        if not any(isinstance(obj(r).get("payload"), dict) for r in records):
            yield Rejected("malformed", "no line with a `payload` object; a rollout has at least its `session_meta`.")
            return
        yield _read(records, source)


@dataclass
class _Step:
    """A response as far as it was read; its usage may come after its results."""

    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[Obj] = field(default_factory=list)
    items: list[Obj] = field(default_factory=list)
    usage: Obj = field(default_factory=dict)
    at: Any = None
    model: str | None = None


class _Rollout:
    """The lines of one file: read in order, then written in order, because a step's usage follows what answers it."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.model: str | None = None
        self.totals: Obj = {}
        self._written: list[_Step | tuple[str, tuple[Any, ...], Obj]] = []
        self._open: _Step | None = None

    def line(self, record: Any) -> None:
        """One line: an item of the conversation, or a record about it."""
        payload = dict(obj(obj(record).get("payload")))
        kind, inner = obj(record).get("type"), payload.get("type")
        if kind == "turn_context":
            self.model = take_text(dict(payload), "model") or self.model
        if kind == "event_msg" and inner == "token_count":
            self._count(obj(payload.get("info")))
        if kind != "response_item" or not isinstance(inner, str) or not self._item(inner, payload, record):
            self.records.append(record)

    def _item(self, kind: str, payload: Obj, record: Obj) -> bool:
        """Whether a response item is part of the conversation; it is taken in then."""
        rest = {k: v for k, v in record.items() if k not in ("type", "payload")}
        ours = kind == "reasoning" or kind.endswith("_call") or payload.get("role") == "assistant"
        if not ours:
            self._open = None
        at = take_time(rest if self._open is None else dict(rest), "timestamp")
        payload.pop("type")
        if isinstance(payload.get("encrypted_content"), str):
            payload["encrypted_content_sha256"] = sha256(payload.pop("encrypted_content"))
        if ours and not kind.endswith("_call"):
            self._say(kind, payload, rest, at)
        elif kind.endswith("_call"):
            self._call(kind, payload, rest, at)
        elif kind.endswith("_output"):
            self._answer(kind, payload, rest, at)
        elif kind == "message":
            role = take_text(payload, "role") or "user"
            told = (role, take_content(payload), {**payload, **_line(rest)})
            self._written.append(("tell", told, {"actor": "human" if role == "user" else "system", "occurred_at": at}))
        else:
            return False
        return True

    def _step(self, at: Any) -> _Step:
        if self._open is None:
            self._open = _Step(at=at, model=self.model)
            self._written.append(self._open)
        return self._open

    def _say(self, kind: str, payload: Obj, rest: Obj, at: Any) -> None:
        step = self._step(at)
        if kind == "reasoning":
            step.reasoning += [t for key in ("summary", "content") if (t := take_content(payload, key))]
        else:
            payload.pop("role")
            step.texts.append(take_content(payload) or "")
        step.items.append({"type": kind, **payload, **_line(rest)})

    def _call(self, kind: str, payload: Obj, rest: Obj, at: Any) -> None:
        step = self._step(at)
        call = take_text(payload, "call_id") or take_text(dict(payload), "id")
        name = take_text(payload, "name") or kind.removesuffix("_call")
        key = next((k for k in ("arguments", "input", "action") if k in payload), "")
        step.calls.append(function_call(call, name, payload.pop(key, None)))
        step.items.append({"type": kind, **payload, **_line(rest)})

    def _answer(self, kind: str, payload: Obj, rest: Obj, at: Any) -> None:
        call = take_text(payload, "call_id")
        shown = take_content(payload, "output")
        raw, code = _outcome(shown or "")
        more = {} if kind == "function_call_output" else {"type": kind}
        answer = (call, {"rendered": shown, "raw": raw, "exit_code": code}, {**more, **payload, **_line(rest)})
        self._written.append(("answer", answer, {"occurred_at": at}))

    def _count(self, info: Obj) -> None:
        """Usage of the last response; a count that repeats the totals before it counts nothing."""
        total, last = obj(info.get("total_token_usage")), dict(obj(info.get("last_token_usage")))
        step = next((w for w in reversed(self._written) if isinstance(w, _Step)), None)
        if not last or (total and total == self.totals):
            return
        self.totals, self._open = total, None
        if step is not None and not step.usage:
            step.usage = {
                "tokens_in": take_int(last, "input_tokens"),
                "tokens_out": take_int(last, "output_tokens"),
                "cache_read": take_int(last, "cached_input_tokens"),
                "reasoning": take_int(last, "reasoning_output_tokens"),
            }

    def write(self, stream: Stream) -> None:
        """Everything read so far, as events."""
        for one in self._written:
            if isinstance(one, _Step):
                stream.act(
                    "\n".join(one.texts) if one.texts else None,
                    one.calls,
                    reasoning="\n".join(one.reasoning) or None,
                    usage=one.usage,
                    policy=one.model,
                    occurred_at=one.at,
                    extra={"items": one.items},
                )
            else:
                what, arguments, envelope = one
                (stream.tell if what == "tell" else stream.answer)(*arguments, **envelope)


def _line(rest: Obj) -> Obj:
    return {"line": rest} if rest else {}


def _outcome(shown: str) -> tuple[str | None, int | None]:
    """Raw text and exit code that an output states: as JSON with `output` and `metadata`, or in its first lines."""
    if shown.startswith("{"):
        try:
            told = obj(orjson.loads(shown))
        except orjson.JSONDecodeError:
            told = {}
        return take_text(dict(told), "output"), take_int(obj(told.get("metadata")), "exit_code", 32)
    seen = _EXIT.search(shown[:300])
    return None, int(seen[1]) if seen and -(2**31) <= int(seen[1]) < 2**31 else None


def _read(records: list[Any], source: SourceFile) -> Imported:
    metas = (r for r in records if obj(r).get("type") == "session_meta" and isinstance(r.get("payload"), dict))
    first = next(metas, None)
    meta = dict(obj(obj(first).get("payload")))
    agent = " ".join(filter(None, ["Codex", take_text(dict(meta), "cli_version")]))
    builder = Builder.of_session(source, Codex.name, meta.get("id"), "", len(records), agent)
    rollout = _Rollout()
    for record in records:
        if record is not first or first is None:
            rollout.line(record)
    rest = {k: v for k, v in obj(first).items() if k not in ("type", "payload")}
    started = take_time(rest, "timestamp")
    session = take_text(meta, "id")
    models = (w.model for w in rollout._written if isinstance(w, _Step))
    builder.add(
        "start",
        "system",
        {"agent": agent, "model": next(filter(None, models), None) or rollout.model, "run_id": session},
        policy=agent,
        occurred_at=started,
        extra={**rest, **meta},
    )
    stream = Stream(builder)
    rollout.write(stream)
    totals = dict(rollout.totals)
    builder.end(
        {"tokens_in": take_int(totals, "input_tokens"), "tokens_out": take_int(totals, "output_tokens")},
        {"records": rollout.records} if rollout.records else {},
    )
    return builder.imported(None)


IMPORTER = Codex()
