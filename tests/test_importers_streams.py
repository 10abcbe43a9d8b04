"""The stream formats: sessions, event streams, logs, spans and traces become the right events, and nothing of them is lost."""

from __future__ import annotations

import csv
import json
import struct
import time
import zipfile
import zlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import format_examples_i2 as made
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_importers import leaves

from stepwell.event import Event, to_table
from stepwell.fold import fold_trajectories, refresh
from stepwell.ids import sha256
from stepwell.importers.base import Imported, Rejected, SourceFile
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.importers.streams import Prompts, command_of, function_call, lines_of
from stepwell.lake import Lake

Obj = dict[str, Any]
SHARED = Path(__file__).parent.parent.parent / "shared"


def read(name: str, data: Any) -> list[Imported]:
    """All trajectories of data; none of it may be rejected."""
    found = list(IMPORTERS[name].read(data, SourceFile("p", "s", "f", "c", "", "identity")))
    assert not [f for f in found if isinstance(f, Rejected)]
    return [f for f in found if isinstance(f, Imported)]


def of(kind: str, one: Imported) -> list[Event]:
    return [e for e in one.events if e.kind == kind]


def extra(event: Event) -> Obj:
    told: Obj = json.loads(event.extra or "{}")
    return told


def shown(one: Imported, step: int) -> list[tuple[str, Any]]:
    """Actor and text of what came back for a step."""
    observations = [e for e in of("observation", one) if e.step == step]
    return [(e.actor, e.payload.get("rendered")) for e in observations]


def usages(one: Imported, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple((a.usage or {}).get(c) for c in columns) for a in of("action", one)]


# --- what several formats share


@given(st.lists(st.none() | st.integers(0, 30), max_size=30))
def test_every_node_is_in_one_line_after_its_parent(told: list[int | None]) -> None:
    parents = [p if p is not None and p < i else None for i, p in enumerate(told)]
    lines = lines_of(parents)
    assert sorted(n for _, line in lines for n in line) == list(range(len(parents)))
    for fork, line in lines:
        assert line == sorted(line)
        assert [parents[n] for n in line] == [fork, *line[:-1]]
    if parents:
        assert lines[0][1][-1] == len(parents) - 1, "the line that ends last is first"
        assert lines[0][0] is None, "and starts at a root"


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6))
def test_prompts_can_be_rebuilt_from_their_ranges(prompts: list[list[int]]) -> None:
    read_so_far, seen = Prompts(), []
    for prompt in prompts:
        new, ranges = read_so_far.read([{"role": "user", "content": n} for n in prompt])
        seen += [m["content"] for _, m in new]
        assert [seen[n] for start, end in ranges for n in range(start, end)] == prompt
    assert len(set(seen)) == len(seen)


def test_commands_of_calls() -> None:
    calls = [
        function_call("1", "bash", {"command": "ls -la"}),
        function_call("2", "shell", {"command": ["bash", "-lc", "make all"]}),
        function_call("3", "edit", '{"command": "view"}'),
        function_call("4", "shell", {"command": ["echo", "a b"]}),
        "odd",
        function_call("5", "Bash", "not JSON"),
    ]
    assert command_of(calls) == 'ls -la\nmake all\nedit {"command": "view"}\necho \'a b\'\nBash not JSON'
    assert command_of([]) is None


# --- OpenHands SDK


def test_openhands_critic_results_are_verdicts() -> None:
    (one,) = read("openhands-sdk-events", made.openhands_sdk())
    verdicts, actions = of("verdict", one), of("action", one)
    assert [(v.step, v.payload.get("confidence"), v.payload.get("guidance")) for v in verdicts] == [
        (0, 0.85, "The agent looked before it leapt."),
        (1, 0.05, None),
        (3, 0.5, "A claim without a test run."),
    ]
    assert {(v.actor, v.payload["scope"], v.payload["parse_status"]) for v in verdicts} == {("critic", "step", "ok")}
    assert [v.caused_by for v in verdicts] == [actions[i].event_id for i in (0, 1, 3)]
    assert not {"label", "judgment", "severity"} & {k for v in verdicts for k in v.payload}, (
        "a score says none of these"
    )
    assert json.loads(verdicts[0].payload["raw"])["score"] == 0.85
    odd = read("openhands-sdk-events", [made.sdk_action(1, "ls", {"score": 7}), made.sdk_action(2, "ls", "good")])[0]
    assert [v.payload["parse_status"] for v in of("verdict", odd)] == ["unparseable"] * 2


def test_openhands_actions_answers_and_totals() -> None:
    (one,) = read("openhands-sdk-events", made.openhands_sdk())
    actions = of("action", one)
    assert [a.payload.get("command") for a in actions] == [
        "cat anvil.py",
        "rm -rf /the/whole/smithy",
        "pytest -q",
        None,
    ]
    assert [o.payload.get("exit_code") for o in of("observation", one)] == [0, None, 1]
    assert shown(one, 1) == [("environment", "Do not burn down the smithy.")]
    assert [i.payload["role"] for i in of("instruction", one)] == ["system", "user"]
    assert json.loads(of("instruction", one)[0].payload["tools"]) == [{"name": "terminal"}]
    (end,) = of("end", one)
    assert (end.payload["tokens_in"], end.payload["tokens_out"], end.payload["cost_usd"]) == (900, 80, 0.25)
    assert [r["kind"] for r in extra(end)["records"]] == ["ConversationStateUpdateEvent", "Condensation"]


# --- Inspect


def test_openhands_reasoning_in_the_shape_of_its_provider() -> None:
    def act(n: int, **told: Any) -> Obj:
        event = {
            "kind": "ActionEvent",
            "id": f"e{n}",
            "timestamp": "2026-01-01T00:00:00",
            "source": "agent",
            "thought": [],
        }
        return {**event, "action": {"kind": "ThinkAction"}, "tool_name": "think", "tool_call_id": f"c{n}", **told}

    blocks = [
        {"type": "thinking", "thinking": "It is heavy.", "signature": "x"},
        {"type": "redacted_thinking", "data": "y"},
    ]
    item = {"id": "rs", "summary": ["It is", "light."], "content": None, "encrypted_content": "z"}
    events = [act(0, thinking_blocks=blocks), act(1, responses_reasoning_item=item)]
    said = {"role": "assistant", "content": [{"type": "text", "text": "Done."}], "thinking_blocks": blocks}
    about = {"id": "m", "timestamp": "2026-01-01T00:00:00", "source": "agent"}
    (one,) = read("openhands-sdk-events", [*events, {"kind": "MessageEvent", **about, "llm_message": said}])
    assert [a.payload.get("reasoning") for a in of("action", one)] == [
        "It is heavy.",
        "It is\n\nlight.",
        "It is heavy.",
    ]


def test_inspect_samples_are_attempts_with_outcomes() -> None:
    first, second = read("inspect-log", made.inspect_log())
    assert [of("start", o)[0].payload["attempt"] for o in (first, second)] == [0, 1]
    assert [of("outcome", o)[0].payload.get("resolved") for o in (first, second)] == [True, False]
    assert [o.n_steps for o in (first, second)] == [2, 2], "the scorer's own call is no step"
    assert first.instance_id == "weigh_anvil/1"
    assert (
        usages(first, "tokens_in", "tokens_out", "cache_read", "cost_usd", "latency_s")
        == [(107, 20, 100, 0.002, 1.5)] * 2
    )
    assert of("action", first)[0].payload["text"] == "Let me weigh it on the scales."
    assert of("action", first)[0].payload["reasoning"] == "The scales are in the cellar."
    (observation,) = of("observation", first)
    assert (observation.step, observation.payload["duration_s"]) == (0, 0.75)
    assert [extra(a)["prompt"] for a in of("action", first)] == [[[0, 2]], [[0, 4]]]
    assert "results" in extra(of("end", first)[0])["log"]
    assert "log" not in extra(of("end", second)[0])


def test_inspect_targets_and_solutions_are_hashes() -> None:
    for data in (made.inspect_log(), made.inspect_pooled()):
        for one in read("inspect-log", data):
            (task,) = of("task", one)
            assert task.payload["solution_hash"] == sha256(made.TARGET)
            written = json.dumps([[e.payload, e.extra] for e in one.events])
            assert made.TARGET not in written
            assert "the reference" not in json.dumps(extra(task))


@pytest.mark.parametrize(
    ("value", "resolved", "score"),
    [
        ("C", True, 1.0),
        ("P", None, 0.5),
        ("N", False, 0.0),
        (0.25, None, 0.25),
        (True, True, 1.0),
        (12, None, None),
        ({"a": 1}, None, None),
    ],
)
def test_inspect_scores(value: Any, resolved: bool | None, score: float | None) -> None:
    log = made.inspect_header() | {"samples": [made.inspect_sample(value=value)]}
    (outcome,) = of("outcome", read("inspect-log", log)[0])
    assert (outcome.payload.get("resolved"), outcome.payload.get("score")) == (resolved, score)
    assert extra(outcome)["value"] == value


def test_inspect_messages_without_events_are_steps() -> None:
    sample = made.inspect_sample() | {"events": []}
    (one,) = read("inspect-log", made.inspect_header() | {"samples": [sample]})
    assert [a.payload["text"] for a in of("action", one)] == [
        "Let me weigh it on the scales.",
        "It weighs a thousand pounds.",
    ]
    assert shown(one, 0) == [("environment", "1000 pounds, give or take")]


def test_inspect_logs_of_any_make_are_the_same() -> None:
    plain = read("inspect-log", made.inspect_log())[0]
    pooled = read("inspect-log", made.inspect_pooled())[0]
    archived, chunked = read("inspect-eval", made.inspect_archive())
    for other in (pooled, archived, chunked):
        for kind in ("instruction", "action", "observation"):
            assert [e.payload for e in of(kind, other)] == [e.payload for e in of(kind, plain)]
        assert [extra(a).get("prompt") for a in of("action", other)] == [
            extra(a).get("prompt") for a in of("action", plain)
        ]


def test_inspect_log_without_samples_is_rejected_with_its_status() -> None:
    (found,) = IMPORTERS["inspect-log"].read(
        made.inspect_header("cancelled") | {"samples": []}, SourceFile("p", "s", "f", "c", "", "i")
    )
    assert isinstance(found, Rejected)
    assert "cancelled" in found.detail


def zstd_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A zip whose members are compressed with zstd (method 93), as current Inspect writes them."""
    packed = {name: pa.Codec("zstd").compress(data, asbytes=True) for name, data in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in packed.items():
            file.writestr(name, data)
        places = [(i.header_offset, members[i.filename]) for i in file.infolist()]
        directory = file.start_dir
    raw = bytearray(path.read_bytes())
    for at, data in places:
        raw[at + 8 : at + 10] = struct.pack("<H", 93)
        raw[at + 14 : at + 18], raw[at + 22 : at + 26] = (
            struct.pack("<I", zlib.crc32(data)),
            struct.pack("<I", len(data)),
        )
    at = directory
    for _, data in places:
        raw[at + 10 : at + 12] = struct.pack("<H", 93)
        raw[at + 16 : at + 20], raw[at + 24 : at + 28] = (
            struct.pack("<I", zlib.crc32(data)),
            struct.pack("<I", len(data)),
        )
        at += 46 + sum(struct.unpack("<3H", raw[at + 28 : at + 34]))
    path.write_bytes(raw)
    return path


def test_inspect_archives_with_zstd_are_imported(lake: Lake, tmp_path: Path) -> None:
    report = import_paths(lake, [zstd_zip(tmp_path / "log.eval", made.inspect_archive())])
    assert (report.trajectories, report.steps, report.rejected) == (2, 4, 0), report.reasons


# --- spans


def test_otlp_spans_of_a_conversation_are_one_trajectory() -> None:
    one, bare = read("otlp-genai", made.otlp_gen_ai())
    assert (one.n_steps, bare.n_steps) == (2, 1)
    assert [i.payload["content"] for i in of("instruction", one)] == [
        "You know about the weather.",
        "What is the weather like?",
    ]
    first, last = of("action", one)
    assert (first.payload["text"], first.payload["reasoning"]) == (
        "Let me look outside.",
        "A tool knows about the weather.",
    )
    assert first.payload["command"] == 'get_weather {"place":"the smithy"}'
    assert [extra(a)["prompt"] for a in (first, last)] == [[[0, 2]], [[0, 4]]]
    assert usages(one, "tokens_in", "tokens_out", "latency_s", "finish") == [(61, 15, 0.500000123, "stop")] * 2
    (answer,) = of("observation", one)
    assert (answer.payload["rendered"], answer.payload["tool_call_id"]) == (made.WEATHER, "call-otlp-1")
    (outcome,) = of("outcome", one)
    assert (outcome.policy, outcome.payload["score"], outcome.payload["resolved"]) == ("relevance", 0.75, True)
    assert "text" not in of("action", bare)[0].payload, "content is opt-in: what was not recorded is not made up"


def test_otlp_open_inference_tells_the_same_story() -> None:
    (one,) = read("otlp-genai", made.otlp_open_inference())
    first, last = of("action", one)
    assert (first.payload["text"], first.payload["command"]) == ("Let me look outside.", "get_weather {}")
    assert shown(one, 0) == [("environment", made.WEATHER)]
    assert [extra(a)["prompt"] for a in (first, last)] == [[[0, 1]], [[0, 4]]]
    assert of("start", one)[0].payload["run_id"] == "session-of-the-smith"
    assert [r["name"] for r in extra(of("end", one)[0])["records"]] == ["agent"]


def test_otlp_traces_about_no_model_and_odd_items_are_rejected() -> None:
    data = [
        made.batch(made.span(1, "GET /", {"http.method": "GET"}, trace="c3" * 16)),
        {"resourceSpans": [None]},
        *made.otlp_open_inference(),
    ]
    found = list(IMPORTERS["otlp-genai"].read(data, SourceFile("p", "s", "f", "c", "", "i")))
    assert Counter(type(f) for f in found) == {Rejected: 2, Imported: 1}


# --- rollouts


def test_of_several_evaluations_the_last_that_decides_stands() -> None:
    def evaluated(number: int, labels: list[str]) -> Obj:
        def text(key: str, value: str) -> Obj:
            return {"key": key, "value": {"stringValue": value}}

        events = [
            {
                "name": "gen_ai.evaluation.result",
                "attributes": [text("gen_ai.evaluation.name", f"e{n}"), text("gen_ai.evaluation.score.label", label)],
            }
            for n, label in enumerate(labels)
        ]
        about = [text("gen_ai.operation.name", "chat"), text("gen_ai.request.model", f"m{number}")]
        span = {"traceId": "t", "spanId": "s", "startTimeUnixNano": "5", "attributes": about, "events": events}
        return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}

    for number in range(6):
        (one,) = read("otlp-genai", evaluated(number, ["fail", "pass", "polite"]))
        assert [e.payload["rerun"] for e in of("outcome", one)] == [1, 2, 0]
        (row,) = fold_trajectories(to_table(one.events, "b", datetime.now(UTC))).to_pylist()
        assert (row["resolved"], row["grader"]) == (True, "e1")


def test_an_import_counts_the_outcome_that_stands(tmp_path: Path) -> None:
    scored = {"includes": {"value": "C"}, "style": {"value": 0.5}}
    sample = {"id": 1, "epoch": 1, "input": "do", "messages": [{"role": "assistant", "content": "x"}], "scores": scored}
    log = {"version": 2, "status": "success", "eval": {"task": "t", "model": "m"}, "samples": [sample]}
    (tmp_path / "log.json").write_text(json.dumps(log))
    lake = Lake(tmp_path / "lake")
    report = import_paths(lake, [tmp_path / "log.json"])
    refresh(lake)
    assert (report.resolved, report.unresolved) == (1, 0)
    assert lake.read("trajectories").column("resolved").to_pylist() == [True]


def test_lightning_attempts_rewards_and_usage() -> None:
    one, other = read("agent-lightning", made.lightning_events())
    assert (one.n_steps, other.n_steps) == (2, 0)
    assert [r.payload["reward"] for r in of("reward", one)] == [0.25, 1.0]
    assert [o.payload["resolved"] for o in of("outcome", one)] == [True]
    assert usages(one, "tokens_in", "tokens_out", "latency_s", "finish") == [(50, 9, 1.25, "stop")] * 2
    assert shown(one, 0) == [("environment", "a thousand pounds, roughly")]
    assert extra(of("action", one)[0])["response"]["prompt_token_ids"] == [1, 2, 3]
    (spans,) = read("agent-lightning", made.lightning_spans())
    assert (spans.n_steps, of("reward", spans)[0].payload["reward"]) == (1, 0.5)


def test_verifiers_graphs_train_every_node_once() -> None:
    main, fork = read("verifiers", made.verifiers_episode())
    assert [a.payload["text"] for a in of("action", main)] == [
        "First I weigh the anvil.",
        "Quite sure: a thousand pounds.",
    ]
    assert [a.payload["text"] for a in of("action", fork)] == ["This line was left behind."]
    (start,) = of("start", fork)
    assert (start.payload["parent_trajectory"], start.payload["fork_step"]) == (main.trajectory_id, 1)
    assert usages(main, "tokens_in", "cache_read", "cost_usd", "latency_s")[0] == (140, 100, 0.004, 1.5)
    assert [(r.payload["reward"], r.payload["group_id"]) for r in of("reward", main)] == [
        (0.75, "group-of-the-anvil-0001")
    ]
    assert not of("reward", fork)
    assert extra(of("action", main)[0])["loss_weights"] == {"rl": [0.0, 1.0]}
    assert of("task", main)[0].payload["solution_hash"] == sha256(made.TARGET)


def test_forks_of_several_verifiers_traces_without_ids_are_trajectories_of_their_own() -> None:
    def trace(name: str) -> Obj:
        told = [(None, "user", "q"), (0, "assistant", f"left {name}"), (0, "assistant", f"kept {name}")]
        nodes = [
            {"parent": parent, "message": {"role": role, "content": text}, "sampled": role == "assistant"}
            for parent, role, text in told
        ]
        return {"task": {"data": {"idx": 0}}, "nodes": nodes, "calls": [], "rewards": {}}

    found = read("verifiers", {"id": "e", "task": {}, "traces": [trace(n) for n in "abc"]})
    assert len({one.trajectory_id for one in found}) == 6
    starts = [of("start", one)[0].payload.get("parent_trajectory") for one in found]
    assert starts == [t for main in found[::2] for t in (None, main.trajectory_id)]


def test_verifiers_rows_of_older_releases() -> None:
    (one,) = read("verifiers", made.verifiers_row())
    assert [a.payload["text"] for a in of("action", one)] == [
        "I weigh it twice to be sure.",
        "It weighs a thousand pounds.",
    ]
    assert shown(one, 0) == [("environment", "a thousand pounds, twice over")]
    bare = made.verifiers_row()
    del bare["trajectory"]
    (same,) = read("verifiers", bare)
    assert [e.payload for e in of("observation", same)] == [e.payload for e in of("observation", one)]


# --- sessions


def test_claude_reply_in_several_records_is_one_step_with_its_usage_once() -> None:
    main, fork, subagent = read("claude-code-session", made.claude_session())
    first = of("action", main)[0]
    assert first.payload["reasoning"] == "The anvil must be weighed."
    assert [c["function"]["name"] for c in json.loads(first.payload["tool_calls"])] == ["Bash", "Task"]
    assert usages(main, "tokens_in", "tokens_out", "cache_read", "cache_write")[0] == (130, 5, 100, 20)
    assert shown(main, 0)[:2] == [
        ("environment", "a thousand pounds, roughly"),
        ("environment", "The scales are a bit rusty."),
    ]
    assert [one.n_steps for one in (main, fork, subagent)] == [3, 1, 1]


def test_claude_lines_and_subagents_name_their_parents() -> None:
    main, fork, subagent = read("claude-code-session", made.claude_session())
    assert [a.payload["text"] for a in of("action", main)[1:]] == [
        "Quite sure: a thousand pounds.",
        "Still a thousand pounds.",
    ]
    assert [a.payload["text"] for a in of("action", fork)] == ["This line was left behind."]
    told = [
        (s.payload["parent_trajectory"], s.payload["fork_step"])
        for s in (of("start", fork)[0], of("start", subagent)[0])
    ]
    assert told == [(main.trajectory_id, 1), (main.trajectory_id, 0)]
    assert [(a, t) for a, t in shown(main, 0) if a == "human"] == [("human", "Are you sure about that, smith?")]
    assert shown(main, 1) == [("system", "Weigh it once more, would you?")], "`isMeta` is no person"


def test_claude_stream_json_ends_with_cost_and_time() -> None:
    (one,) = read("claude-code-session", made.claude_stream())
    (end,) = of("end", one)
    assert (end.payload["cost_usd"], end.payload["duration_s"], end.payload["exit_status"]) == (0.125, 1.5, "success")
    (wrapped,) = read("claude-code-session", [{"loglines": made.claude_stream()}])
    assert wrapped.n_steps == 1


def test_codex_steps_end_with_results_and_count_their_tokens_once() -> None:
    (one,) = read("codex-session", made.codex_session())
    actions = of("action", one)
    assert [a.payload.get("command") for a in actions] == [
        'weigh the anvil\nview_image {"path": "a picture of the anvil.png"}',
        "apply_patch *** Begin Patch\n*** End Patch",
        None,
    ]
    assert usages(one, "tokens_in", "tokens_out", "cache_read", "reasoning") == [
        (60, 7, 5, 2),
        (None,) * 4,
        (80, 7, 5, 2),
    ]
    assert [o.payload.get("exit_code") for o in of("observation", one)] == [0, 3, None]
    assert of("observation", one)[0].payload["raw"] == "a thousand pounds, roughly"
    (end,) = of("end", one)
    assert (end.payload["tokens_in"], end.payload["tokens_out"]) == (140, 14)
    assert made.SECRET not in json.dumps([e.extra for e in one.events])
    assert sha256(made.SECRET) in json.dumps([e.extra for e in one.events])


def test_pi_sessions_keep_costs_aborted_replies_and_lines() -> None:
    main, fork = read("pi-session", made.pi_session())
    assert usages(main, "tokens_in", "cost_usd", "finish") == [
        (60, 0.002, "toolUse"),
        (60, 0.002, "aborted"),
        (60, 0.002, "stop"),
    ]
    assert of("action", main)[1].payload["parse_error"] == "The request was aborted here"
    assert shown(main, 1) == [("human", "anvil  hammer  tongs  scales"), ("human", "Are you sure about that, smith?")]
    assert of("start", fork)[0].payload["fork_step"] == 1


# --- the recorded files beside the project

FOLDERS = (
    "openhands-sdk-events",
    "inspect-log",
    "otlp-genai",
    "claude-code-session",
    "codex-session",
    "agent-sessions",
)
DIFFERENT = {
    "sample_session.json": (1, 15, "RECORDS counts no steps in `loglines`"),
    "codex-rollout.sample.jsonl": (1, 3, "RECORDS counts calls, not the last word"),
    "codex/tool-calls/input.jsonl": (1, 4, "RECORDS counts two kinds of calls, not the third and not the last word"),
    "openhands/tool-calls/input.json": (1, 3, "RECORDS has no steps of it: its events leave `source` out"),
    "openai_agents_0.24.0_oi_2.5.3.jsonl": (1, 3, "RECORDS counts spans"),
    "pydantic_ai_2.58.0.json": (2, 3, "RECORDS counts spans, and a file as one record"),
    "no-samples.json": (0, 0, "a log without samples is rejected"),
}
"""End of a path -> trajectories, steps, and why they are not those of RECORDS.tsv."""
OTHERS = ("copilot-cli", "cursor", "letta-code", "hermes", "opencode", "base_state.json")
"""Formats of the same folders that FORMATS.md does not name."""


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is absent")
def test_recorded_files_have_the_steps_of_records(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    paths = [SHARED / "data" / folder for folder in FOLDERS]
    report = import_paths(lake, paths)
    refresh(lake)
    rows = {r["trajectory_id"]: r for r in lake.read("trajectories").to_pylist()}
    got: dict[str, tuple[int, int]] = {}
    for source in lake.read("sources").to_pylist():
        ids = source["trajectory_ids"] or []
        got[str(Path(source["path"]).relative_to(SHARED))] = (len(ids), sum(rows[i]["n_steps"] for i in ids))
    with (SHARED / "data" / "RECORDS.tsv").open() as file:
        records = [r for r in csv.DictReader(file, delimiter="\t") if r["path"].split("/")[1] in FOLDERS]
    want: dict[str, tuple[int, int]] = {}
    for record in records:
        n, steps = want.get(record["path"], (0, 0))
        want[record["path"]] = (n + 1, steps + int(record["n_steps"]))
    named = {p: w for p, w in want.items() if not any(o in p for o in OTHERS)}
    for path, counted in named.items():
        told = next((d[:2] for end, d in DIFFERENT.items() if path.endswith(end)), counted)
        assert got.get(path, (0, 0)) == told, path
    assert report.steps == sum(steps for _, steps in got.values())
    graded = [r for r in rows.values() if r["corpus"] == "inspect-log"]
    assert Counter(r["resolved"] for r in graded) == {True: 19, False: 10, None: 10}


def test_a_session_of_forty_steps_takes_milliseconds() -> None:
    records = [made.sdk_action(i % 60, "cat anvil.py", {"score": 0.5}) | {"id": f"a{i}"} for i in range(40)]
    started = time.process_time()
    for _ in range(5):
        read("openhands-sdk-events", records)
    assert (time.process_time() - started) / 5 < 0.05


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(made.EXAMPLES), st.randoms(use_true_random=False))
def test_any_part_of_a_stream_can_be_missing(example: tuple[str, Any, int | None], random: Any) -> None:
    name, data, _ = example
    if IMPORTERS[name].unit != "records":
        return
    left = [r for r in data if random.random() < 0.7]
    found = list(IMPORTERS[name].read(left, SourceFile("p", "s", "f", "c", "", "i")))
    kept = {
        str(k) for one in found if isinstance(one, Imported) for k in leaves([[e.payload, e.extra] for e in one.events])
    }
    assert found or not left
    if all(isinstance(one, Imported) for one in found) and name == "claude-code-session":
        said = [b["text"] for r in left for b in made_blocks(r) if isinstance(b, dict) and "text" in b]
        assert not [t for t in said if t not in kept]


def made_blocks(record: Obj) -> list[Any]:
    content = record.get("message", {}).get("content")
    return content if isinstance(content, list) else []


def test_what_claude_code_says_in_a_reply_s_place_is_no_step() -> None:
    def record(n: int, type: str, content: Any, model: str | None = None, **more: Any) -> Obj:
        message = {"role": type, "content": content, **({"id": f"m{n}", "model": model} if model else {})}
        before = f"r{n - 1}" if n else None
        return {"type": type, "uuid": f"r{n}", "parentUuid": before, "sessionId": "s", "message": message, **more}

    (one,) = read(
        "claude-code-session",
        [
            record(0, "user", "Fix it."),
            record(1, "assistant", [{"type": "text", "text": "Overloaded."}], "<synthetic>", isApiErrorMessage=True),
            record(2, "user", "continue"),
            record(3, "assistant", [{"type": "text", "text": "Done."}], "lab/big"),
            record(4, "assistant", [{"type": "text", "text": "No response requested."}], "<synthetic>"),
        ],
    )
    assert [(e.payload["text"], e.policy) for e in of("action", one)] == [("Done.", "lab/big")]
    assert of("start", one)[0].payload["model"] == "lab/big"
    assert [r["uuid"] for r in extra(of("end", one)[0])["records"]] == ["r1", "r4"]


def test_a_step_without_a_model_call_is_none_of_the_agent() -> None:
    steps = [
        {"step_id": n + 1, "source": "agent", "message": m, **more}
        for n, (m, more) in enumerate(
            [("set up", {"llm_call_count": 0}), ("said", {"llm_call_count": 1}), ("told", {})]
        )
    ]
    agent = {"name": "a", "version": "1", "model_name": "lab/big"}
    (one,) = read("atif", {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": agent, "steps": steps})
    assert [(e.actor, e.policy) for e in of("action", one)] == [
        ("system", None), ("agent", "lab/big"), ("agent", "lab/big"),
    ]  # fmt: skip


def test_an_inspect_call_that_failed_shows_the_message_of_its_error() -> None:
    call = {"id": "c", "function": "bash", "arguments": {"cmd": "sleep 9"}, "type": "function"}
    failed = {"role": "tool", "content": "", "tool_call_id": "c", "error": {"type": "timeout", "message": "Timed out."}}
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}, failed]
    log = {
        "version": 2,
        "status": "success",
        "eval": {"task": "t"},
        "samples": [{"id": 1, "epoch": 1, "messages": said}],
    }
    (one,) = read("inspect-log", log)
    (seen,) = of("observation", one)
    assert (seen.payload["rendered"], seen.payload["timed_out"]) == ("Timed out.", True)
    assert extra(seen)["error"] == failed["error"]


def test_what_graders_used_is_not_the_agents() -> None:
    log = made.inspect_log()
    sample = log["samples"][0]
    (call,) = (e for e in sample["events"] if e["event"] == "model" and e["span_id"] == "span-scorer")
    used = {"input_tokens": 300, "output_tokens": 9, "total_tokens": 309}
    call["output"]["usage"] = used
    whole = sample["model_usage"]["lab/small-1"] = {
        "input_tokens": 314,
        "output_tokens": 49,
        "total_tokens": 563,
        "total_cost": 0.5,
    }

    def totals() -> tuple[Any, ...]:
        (end,) = of("end", read("inspect-log", log)[0])
        return tuple(end.payload.get(name) for name in ("tokens_in", "tokens_out", "cost_usd"))

    assert totals() == (214, 40, None), "what the grader's call cost is not said"
    used["total_cost"] = 0.125
    assert totals() == (214, 40, 0.375)
    call["model"], sample["model_usage"]["lab/judge-1"] = "lab/judge-1", dict(used)
    assert totals() == (514, 49, 0.5)
    call["cache"], call["model"] = "read", "lab/small-1"
    del sample["model_usage"]["lab/judge-1"]
    assert totals() == (514, 49, 0.5)
    call["cache"], call["output"]["usage"] = None, None
    assert totals() == (None, None, None)
    call["error"] = "overloaded"
    assert totals() == (514, 49, 0.5)
    assert whole["total_tokens"] == 563


def test_of_several_inspect_scorers_the_first_that_decides_stands() -> None:
    for number in range(6):
        scores = {"details": {"value": {"a": number}}, "first": {"value": "C"}, "second": {"value": "I"}}
        said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
        sample = {"id": number, "epoch": 1, "input": "q", "target": "t", "messages": said, "scores": scores}
        log = {"version": 2, "status": "success", "eval": {"task": "t", "model": "m"}, "samples": [sample]}
        (one,) = read("inspect-log", log)
        assert [(e.payload["grader"], e.payload["rerun"]) for e in of("outcome", one)] == [
            ("details", 0), ("first", 2), ("second", 1),
        ]  # fmt: skip
        (row,) = fold_trajectories(to_table(one.events, "b", datetime.now(UTC))).to_pylist()
        assert (row["resolved"], row["grader"]) == (True, "first")


def test_what_openhands_recalls_or_notes_of_its_state_was_said_to_no_model() -> None:
    def noted(n: int, kind: str, content: str) -> Obj:
        return {"id": n, "source": "environment", "cause": n - 1, "observation": kind, "content": content, "extras": {}}

    history = [
        {"id": 1, "source": "user", "action": "message", "args": {"content": "Fix it."}},
        {"id": 2, "source": "user", "action": "recall", "args": {"query": "Fix it."}},
        noted(3, "recall", "Added workspace context"),
        {"id": 4, "source": "agent", "action": "run", "args": {"command": "ls"}},
        noted(5, "run", "a.py"),
        noted(7, "agent_state_changed", ""),
    ]
    (one,) = read("openhands-output", {"instance_id": "a__b-1", "instruction": "Fix it.", "history": history})
    assert [e.payload["content"] for e in of("instruction", one)] == ["Fix it."]
    assert shown(one, 0) == [("environment", "a.py")]
    assert [r["id"] for r in extra(of("end", one)[0])["records"]] == [2, 3, 7]


def test_a_command_that_had_no_exit_code_yet_did_not_fail() -> None:
    def run(n: int, code: int) -> list[Obj]:
        seen = {"observation": "run", "content": "", "extras": {"command": "ls", "metadata": {"exit_code": code}}}
        return [
            {"id": n, "source": "agent", "action": "run", "args": {"command": "ls"}},
            {"id": n + 1, "source": "agent", "cause": n, **seen},
        ]

    history = [*run(1, -1), *run(3, 2), *run(5, 0)]
    (one,) = read("openhands-output", {"instance_id": "a__b-1", "instruction": "Fix it.", "history": history})
    assert [e.payload.get("exit_code") for e in of("observation", one)] == [None, 2, 0]
