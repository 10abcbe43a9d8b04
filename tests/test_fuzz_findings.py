"""What `make fuzz` found in the importers, each as the smallest input that shows it; and its properties without the fuzzer."""

from __future__ import annotations

import zipfile
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from format_examples_i2 import claude
from test_import_contract import MARK, imported, missing, read

from stepwell.importers.base import Rejected
from stepwell.importers.run import ImportReport, import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog
from tests.fuzz import mutation, properties

Obj = dict[str, Any]


def test_the_properties_hold_of_the_seeds() -> None:
    for seed in mutation.seeds():
        properties.check(*mutation.split(seed))


def test_the_properties_hold_of_varied_seeds() -> None:
    random, seeds = Random(7), list(mutation.seeds())
    for _ in range(400):
        varied = mutation.vary(random.choice(seeds), random, lambda body: body[: len(body) // 2] + body[1:])
        properties.check(*mutation.split(varied))


@pytest.mark.parametrize("keep_secrets", [True, False])
def test_an_import_of_varied_seeds_accounts_for_all(keep_secrets: bool) -> None:
    random, seeds = Random(int(keep_secrets)), list(mutation.seeds())
    varied = [mutation.vary(random.choice(seeds), random, lambda body: body[::-1])[1:] for _ in range(60)]
    properties.check_import({f"{i}.json": body for i, body in enumerate(varied)}, keep_secrets)


def test_the_properties_can_fail() -> None:
    rejects = [{"path": "a.json", "reason": "malformed", "detail": "", "raw": b"{}"}]
    assert not properties._whole(rejects, {"a.json": b"{}"}, True)[0]
    with pytest.raises(properties.Broken, match="a reject is explained"):
        properties._reason(Rejected("malformed", ""))


# --- events


def span(**attributes: Any) -> Obj:
    """A model call with two evaluations that differ only in what is kept in `extra`."""
    opinions = ({"stringValue": f"The {which} opinion of it"} for which in ("first", "second"))
    graded = [
        {"name": "gen_ai.evaluation.result", "attributes": [{"key": "gen_ai.evaluation.explanation", "value": o}]}
        for o in opinions
    ]
    told = [{"key": k, "value": v} for k, v in attributes.items()]
    times = {"startTimeUnixNano": "1772359200000000000", "endTimeUnixNano": "1772359201000000000"}
    one = {"traceId": "t" * 32, "spanId": "s" * 16, "name": "chat m", **times, "attributes": told, "events": graded}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [one]}]}]}


def test_events_that_differ_only_in_extra_are_both_kept(lake: Lake, tmp_path: Path) -> None:
    report = written(lake, tmp_path, span(**{"gen_ai.operation.name": {"stringValue": "chat"}}))
    rows = EventLog(lake).read(kinds=["outcome"]).to_pylist()
    assert sorted(orjson.loads(r["extra"])["attributes"]["gen_ai.evaluation.explanation"] for r in rows) == [
        "The first opinion of it", "The second opinion of it",
    ]  # fmt: skip
    assert report.events == len(EventLog(lake).read())


def test_a_reply_of_a_span_that_has_calls_and_no_role_is_a_step() -> None:
    said = '[{"parts":[{"type":"tool_call","id":"c1","name":"bash","arguments":{}}]}]'
    told = {"gen_ai.operation.name": {"stringValue": "chat"}, "gen_ai.output.messages": {"stringValue": said}}
    (one,) = imported("otlp-genai", [span(**told)])
    assert [e.payload["command"] for e in one.events if e.kind == "action"] == ["bash {}"]


CALLS: list[Any] = [
    "no call",
    {"id": "c1"},
    {"id": "c2", "function": {"name": 5, "arguments": "{}"}},
    {"id": "c3", "type": "function", "function": {"name": "bash", "arguments": {"command": "ls"}}},
]


@pytest.mark.parametrize("name", ["chat", "tau-bench", "mini-swe-agent"])
def test_what_is_no_tool_call_is_kept_beside_those_that_are(name: str) -> None:
    messages: list[Obj] = [
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "", "tool_calls": CALLS},
    ]
    rows: dict[str, Obj] = {
        "chat": {"messages": messages},
        "tau-bench": {"task_id": 1, "reward": 1.0, "traj": messages, "info": {}},
        "mini-swe-agent": {"trajectory_format": "mini-swe-agent-1.1", "messages": messages, "info": {}},
    }
    (one,) = imported(name, rows[name])
    (action,) = [e for e in one.events if e.kind == "action"]
    assert [c["id"] for c in orjson.loads(action.payload["tool_calls"])] == ["c3"]
    assert orjson.loads(action.extra or "")["tool_calls"] == CALLS[:3]


# --- what is nested too deep


def nested(depth: int) -> bytes:
    """A list in a list, as JSON."""
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("depth", [300, 900])
def test_a_record_nested_too_deep_is_rejected_with_all_its_bytes(lake: Lake, tmp_path: Path, depth: int) -> None:
    row = b'{"messages":[{"role":"user","content":"Go."}]}'
    deep = row[:-1] + b',"text":"' + "é".encode() * 2000 + b'","deep":' + nested(depth) + b"}"
    assert written(lake, tmp_path, b"[" + row + b"," + deep + b"]").taken == 1
    (reject,) = lake.read("rejects").to_pylist()
    assert reject["reason"] == "too_deep"
    assert reject["raw"].replace(b" ", b"") == deep


def test_a_sample_nested_too_deep_is_rejected_alone(lake: Lake, tmp_path: Path) -> None:
    sample = b'{"id":1,"epoch":1,"messages":[{"role":"assistant","content":"4"}],"attachments":{"a":"b"},"store":%b}'
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as file:
        file.writestr("header.json", orjson.dumps({"version": 2, "status": "success", "eval": {"task": "t"}}))
        for n, depth in enumerate((1, 300, 900, 5000)):
            file.writestr(f"samples/{n}_epoch_1.json", sample % nested(depth))
    report = import_paths(lake, [tmp_path / "log.eval"])
    assert (report.trajectories, dict(report.reasons)) == (1, {"too_deep": 3})


@pytest.mark.parametrize("kind", ["attachments", "pool"])
def test_a_sample_that_would_grow_without_end_is_rejected_alone(lake: Lake, tmp_path: Path, kind: str) -> None:
    said = {"role": "assistant", "content": "4"}
    good: dict[str, Any] = {"id": 1, "epoch": 1, "messages": [said]}
    bomb: dict[str, Any] = {**good, "id": 2}
    if kind == "attachments":
        bomb |= {"attachments": {"a": "x" * 1_000_000}, "store": {"all": ["attachment://a"] * 2_000}}
    else:
        refs = [[0, 100_000]] * 2_000
        bomb |= {"events_data": {"messages": [said] * 100_000}, "events": [{"event": "model", "input_refs": refs}]}
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", orjson.dumps({"version": 2, "status": "success", "eval": {"task": "t"}}))
        for n, sample in enumerate((good, bomb, {**good, "id": 3})):
            file.writestr(f"samples/{n}_epoch_1.json", orjson.dumps(sample))
    report = import_paths(lake, [tmp_path / "log.eval"])
    assert (report.trajectories, dict(report.reasons)) == (2, {"too_large": 1})


# --- values that were lost


def test_a_text_alone_is_no_record_of_openhands() -> None:
    (one,) = read("openhands-output", MARK)
    assert isinstance(one, Rejected)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ({"seconds": 2, "nanos": 500_000_000}, 2.5),
        ({"seconds": 3}, 3.0),
        ({"seconds": 2, "nanos": MARK}, None),
        ({"seconds": True, "nanos": 1}, None),
    ],
)
def test_a_time_limit_that_is_none_is_kept_as_it_is(limit: Obj, seconds: float | None) -> None:
    data = {"name": "anvils", "description": "Make the anvil heavy.", "public_tests": [], "time_limit": limit}
    (one,) = imported("problems-with-tests", data)
    assert one.events[0].payload.get("time_limit_s") == seconds
    assert (orjson.loads(one.events[0].extra or "{}").get("time_limit") == limit) is (seconds is None)
    assert not missing(data, one.events)


def test_what_stands_around_no_spans_is_rejected_with_its_bytes(lake: Lake, tmp_path: Path) -> None:
    batches = [span(**{"gen_ai.operation.name": {"stringValue": "chat"}}), {"resourceSpans": [], "note": MARK}]
    batches.append({"resourceSpans": [{"scopeSpans": [{"scope": {"name": "empty"}, "spans": []}]}]})
    report = written(lake, tmp_path, lines(*batches))
    assert (report.trajectories, dict(report.reasons)) == (1, {"malformed": 1})
    assert orjson.loads(lake.read("rejects").to_pylist()[0]["raw"]) == batches[1:2]


def test_a_finish_reason_that_the_response_does_not_repeat_is_kept() -> None:
    choice = {"message": {"role": "assistant", "content": "Done."}, "finish_reason": "stop"}
    asked = {"messages": [{"role": "user", "content": "Go."}]}
    told = {"request": asked, "response": {"choices": [choice]}, "finish_reason": MARK}
    (one,) = imported(
        "agent-lightning", [{"event_type": "model_request", "rollout_id": "r", "attempt_id": "1", "data": told}]
    )
    assert [(e.usage or {})["finish"] for e in one.events if e.kind == "action"] == ["stop"]
    assert not missing([told], one.events)


def test_traces_without_an_id_are_trajectories_of_their_own() -> None:
    traces = [
        {"nodes": [{"message": {"role": "assistant", "content": text}, "sampled": True}], "calls": [], "rewards": {}}
        for text in ("The first of the traces", "The second of the traces")
    ]
    found = imported("verifiers", {"id": "e1", "task": {"key": "k"}, "traces": traces})
    assert len({one.trajectory_id for one in found}) == 2


def test_two_trajectories_of_one_id_are_one_and_a_reject(lake: Lake, tmp_path: Path) -> None:
    sample = {"id": 1, "epoch": 1, "messages": [{"role": "assistant", "content": "4"}]}
    other = {**sample, "messages": [{"role": "assistant", "content": "5"}]}
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": [sample, sample, other]}
    report = written(lake, tmp_path, log)
    assert (report.trajectories, dict(report.reasons)) == (1, {"malformed": 1})
    assert "by one id" in lake.read("rejects").to_pylist()[0]["detail"]


def test_what_records_of_one_reply_say_differently_is_kept() -> None:
    said = [{"type": "text", "text": "A thousand pounds."}]
    first = {
        "id": "m1",
        "model": "smith-1",
        "usage": {"output_tokens": 1, "service_tier": "the tier of the first record"},
    }
    last = {"id": "m1", "model": "smith-2", "usage": {"input_tokens": 9, "output_tokens": 2}}
    records = [
        claude("user", "u", None, "How heavy is it?"),
        claude("assistant", "aa", "u", said, message=first),
        claude("assistant", "aaa", "aa", said, message=last),
    ]
    (one,) = imported("claude-code-session", records)
    (action,) = [e for e in one.events if e.kind == "action"]
    assert (action.policy, (action.usage or {})["tokens_out"]) == ("smith-2", 2)
    kept = orjson.loads(action.extra or "")["records"][0]["message"]
    assert (kept["model"], kept["usage"]) == ("smith-1", first["usage"])
    assert not missing(records, one.events)


# --- sessions


def lines(*records: Obj, bad: bool = False) -> bytes:
    """A session as a file; with a bad line it is read whenever it is met."""
    return b"\n".join([*map(orjson.dumps, records), *([b"no JSON"] if bad else [])])


def test_states_of_a_session_are_told_by_their_records_whatever_changed(lake: Lake, tmp_path: Path) -> None:
    beside = {"isSidechain": True, "agentId": "agent-of-the-scales"}
    told = claude("user", "s", None, "Look at the scales.", **beside)
    main = claude("user", "u", None, "How heavy is the anvil?")
    states = {
        "a.jsonl": lines(told),
        "b.jsonl": lines(main, told, bad=True),
        "c.jsonl": lines(main, told, claude("assistant", "ss", "s", "They are rusty.", **beside), bad=True),
    }
    for name, data in states.items():
        (tmp_path / name).write_bytes(data)
    assert import_paths(lake, [tmp_path]).rejected_records == 2
    version = lake.version("events")
    assert [import_paths(lake, [tmp_path]).events for _ in range(2)] == [0, 0]
    assert lake.version("events") == version
    rows = EventLog(lake).read(kinds=["action", "end", "retraction"]).to_pylist()
    gone = {r["retraction"]["target_event"] for r in rows if r["retraction"]}
    (action,) = [r for r in rows if r["kind"] == "action"]
    (end,) = [
        r for r in rows
        if r["kind"] == "end" and r["event_id"] not in gone and r["trajectory_id"] == action["trajectory_id"]
    ]  # fmt: skip
    assert action["event_id"] not in gone
    assert orjson.loads(end["extra"])["n_records"] == 3


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ([claude("user", "u", None, "How heavy is it?"), claude("assistant", "aa", "u", "Two pounds.")], "diverged"),
        ([claude("user", "u", None, "How light is it?")], "diverged"),
        ([claude("user", "u", None, "How heavy is it?")], None),
    ],
)
def test_a_session_that_says_something_else_is_rejected(
    lake: Lake, tmp_path: Path, other: list[Obj], reason: str | None
) -> None:
    said = [claude("user", "u", None, "How heavy is it?"), claude("assistant", "aa", "u", "A thousand pounds.")]
    written(lake, tmp_path, lines(*said), "a.jsonl")
    report = written(lake, tmp_path, lines(*other), "b.jsonl")
    assert (report.events, list(report.reasons)) == (0, [reason] if reason else [])
    assert [r["raw"] for r in lake.read("rejects").to_pylist()] == ([lines(*other)] if reason else [])


def written(lake: Lake, folder: Path, data: Any, name: str = "x.json") -> ImportReport:
    """The report of importing one document."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else orjson.dumps(data))
    return import_paths(lake, [folder / name])
