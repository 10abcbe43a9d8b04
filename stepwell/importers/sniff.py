"""Which format a parsed object is, told from its content in a fixed order; the name of a file says nothing.

A format is recognised by name whether or not there is an importer for it, so that a reject can say what it met. The order
matters: a mini-swe-agent file has `messages` and would pass for a chat row, which drops everything else in it. After the
table the importers that know a mark of their own are asked, and last what has `messages` is a chat row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepwell.importers.base import Telling
from stepwell.importers.companions import classify
from stepwell.importers.registry import IMPORTERS

Obj = dict[str, Any]
_LOOKED_AT = 100
_FENCE = re.compile(r"```(?:bash|mswea_bash_command)[^\S\n]*\n")
_MANNER = re.compile(r"exactly ONE (?:bash )?(?:code block|action)|COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", re.I)


@dataclass(frozen=True)
class Sniffed:
    """What a file is: the format (`unknown` when none fits), its version where it has one, and what told it."""

    format: str
    version: str
    why: str


def _has(*keys: str) -> Callable[[Obj], bool]:
    return lambda o: all(k in o for k in keys)


def _first(key: str, inner: str) -> Callable[[Obj], bool]:
    def test(o: Obj) -> bool:
        items = o.get(key)
        return isinstance(items, list) and bool(items) and isinstance(items[0], dict) and inner in items[0]

    return test


def _is_openhands(o: Obj) -> bool:
    return "history" in o and any(k in o for k in ("test_result", "git_patch", "instruction"))


def _is_claude(o: Obj) -> bool:
    known = ("user", "assistant", "system", "summary", "file-history-snapshot", "queue-operation")
    return ("sessionId" in o or "parentUuid" in o) and o.get("type") in known


_TESTS: tuple[tuple[str, Callable[[Obj], bool], str], ...] = (
    ("otlp-genai", _has("resourceSpans"), "`resourceSpans`"),
    ("inspect-log", lambda o: isinstance(o.get("eval"), dict) and "version" in o and "status" in o, "`eval`, `status`"),
    ("verifiers", _has("task", "nodes", "calls", "rewards"), "`nodes`, `calls`, `rewards`"),
    ("verifiers", _has("task", "traces"), "`task`, `traces`"),
    ("openhands-output", _is_openhands, "`history` with a result, patch or instruction"),
    ("openhands-sdk-events", _has("kind", "id", "source", "timestamp"), "`kind`, `id`, `source`, `timestamp`"),
    ("nemo-gym-rollouts", _has("responses_create_params", "response"), "`responses_create_params`, `response`"),
    ("nebius-swe-agent", _has("trajectory", "target"), "`trajectory`, `target`"),
    ("nebius-openhands", _has("trajectory", "resolved", "trajectory_id"), "`trajectory`, `resolved`"),
    ("adp-std", _first("content", "class_"), "`content[0].class_`"),
    ("sharegpt", _first("conversations", "from"), "`conversations[0].from`"),
    ("intercode", lambda o: isinstance(o.get("turn_history"), dict), "`turn_history`"),
    ("tau-bench", _has("traj", "reward", "task_id"), "`traj`, `reward`, `task_id`"),
    ("agent-lightning", _has("rollout_id", "attempt_id", "event_type"), "`rollout_id`, `event_type`"),
    ("agent-lightning", _has("rollout_id", "attempt_id", "sequence_id", "span_id"), "`rollout_id`, `span_id`"),
    ("codex-session", lambda o: o.get("type") == "session_meta" and "payload" in o, "`type` session_meta"),
    ("codex-session", _has("type", "timestamp", "payload"), "`type`, `timestamp`, `payload`"),
    ("pi-session", lambda o: o.get("type") == "session" and "cwd" in o, "`type` session with `cwd`"),
    ("claude-code-session", _is_claude, "`sessionId` or `parentUuid` with a known `type`"),
)
UNREAD = tuple(
    n for n in dict.fromkeys(["atif", "inspect-eval", "chat", *(name for name, _, _ in _TESTS)]) if n not in IMPORTERS
)
"""Formats known by name for which there is no importer yet."""
_TELLING = [(name, importer) for name, importer in IMPORTERS.items() if isinstance(importer, Telling)]


def recognise(document: Any) -> Sniffed:
    """A parsed document -> what it is; of a list or a dict of records the first object decides."""
    if isinstance(document, list):
        if is_conversation(document):
            why = _mini_manner(document)
            return Sniffed("mini-swe-agent", "1", why) if why else Sniffed("chat", "", "a bare list of messages")
        return _first_record(document, "a list without an object in it")
    if not isinstance(document, dict):
        return Sniffed("unknown", "", "neither an object nor a list")
    told = _object(document)
    if told.format == "unknown" and document:
        key, wrapped = wrapped_in(document)
        if key:
            records = list(wrapped.values()) if isinstance(wrapped, dict) else wrapped
            return _first_record(records, f"`{key}` without an object in it")
        if all(isinstance(v, dict) for v in document.values()):
            return _first_record(list(document.values()), "")
    return told


def wrapped_in(document: Obj) -> tuple[str, list[Any] | Obj]:
    """Key and records of an object that wraps them: a list `items`, or a dict `logs` beside `meta`; else nothing."""
    items, logs = document.get("items"), document.get("logs")
    if isinstance(items, list):
        return "items", items
    return ("logs", logs) if "meta" in document and isinstance(logs, dict) else ("", [])


def is_conversation(value: Any) -> bool:
    """Whether a list is one conversation, rather than a list of records."""
    return (
        bool(value)
        and isinstance(value, list)
        and all(isinstance(m, dict) and "role" in m and "content" in m for m in value)
    )


def _first_record(records: list[Any], none: str) -> Sniffed:
    first = None
    for record in records[:_LOOKED_AT]:
        if isinstance(record, dict):
            told = _object(record)
            if told.format != "unknown":
                return told
            first = first or told
    return first or Sniffed("unknown", "", none)


def _object(o: Obj) -> Sniffed:
    schema, trajectory_format = o.get("schema_version"), o.get("trajectory_format")
    if isinstance(schema, str) and schema.startswith("ATIF") and "steps" in o:
        return Sniffed("atif", schema.removeprefix("ATIF-v"), "`schema_version` is ATIF")
    if isinstance(trajectory_format, str) and trajectory_format.startswith("mini-swe-agent-"):
        version = trajectory_format.removeprefix("mini-swe-agent-")
        return Sniffed("mini-swe-agent", version, f"`trajectory_format` is {trajectory_format[:40]}")
    if all(k in o for k in ("trajectory", "history", "info")):
        info = o["info"] if isinstance(o["info"], dict) else {}
        new = "replay_config" in o or "swe_agent_version" in info
        return Sniffed("swe-agent", "1.x" if new else "0.x", "`trajectory`, `history` and `info`")
    companion = classify(o)
    if companion:
        return Sniffed(companion, "", "a companion file: joined to trajectories, none in itself")
    for name, test, why in _TESTS:
        if test(o):
            return Sniffed(name, "", why)
    for name, importer in _TELLING:
        if why := importer.tells(o):
            return Sniffed(name, "", why)
    if isinstance(o.get("messages"), list | str):
        return Sniffed("chat", "", "`messages`, and nothing more telling")
    return Sniffed("unknown", "", f"no known format has the keys {', '.join(sorted(map(str, o)))[:120] or 'of {}'}")


def _mini_manner(messages: list[Obj]) -> str:
    """Why a bare list of messages is mini-swe-agent's (its own tests ship such files), or nothing."""
    texts = [(m["role"], m["content"]) for m in messages if isinstance(m["content"], str)]
    told = any(role in ("system", "user") and _MANNER.search(text) for role, text in texts[:2])
    acts = any(role == "assistant" and _FENCE.search(text) for role, text in texts)
    return "a bare list of messages: prompt in mini-swe-agent's manner, bash blocks in replies" if told and acts else ""
