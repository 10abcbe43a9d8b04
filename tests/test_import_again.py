"""What is told twice counts once: spans sent again, records written again, the files of one conversation."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import format_examples_i2 as made
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_importers_streams import of, read, usages
from test_lineage import nodes

from stepwell.cli.locating import locator
from stepwell.fold import refresh
from stepwell.importers.outcome import OutcomeIndex
from stepwell.importers.run import ImportReport, import_paths
from stepwell.lake import Lake
from stepwell.lineage import trace
from stepwell.live.snapshot import goes_on
from stepwell.live.traces import Traces
from stepwell.log import EventLog

Obj = dict[str, Any]


def held(lake: Lake) -> dict[str, set[str]]:
    """Trajectory -> what holds of it, without ids."""
    rows = EventLog(lake).read().to_pylist()
    gone = {r["retraction"]["target_event"] for r in rows if r["retraction"]}
    found: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] != "retraction" and row["event_id"] not in gone:
            said = {k: row[k] for k in ("kind", "step", "action", "observation", "instruction", "usage")}
            found.setdefault(row["trajectory_id"], set()).add(json.dumps(said, sort_keys=True, default=str))
    return found


# --- spans


def called(number: int, text: str, tokens: int = 10) -> Obj:
    """A span of a model call."""
    said = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": text}]}])
    told = {"gen_ai.operation.name": "chat", "gen_ai.output.messages": said, "gen_ai.usage.input_tokens": tokens}
    return made.span(number, "chat", told)


def test_a_span_sent_again_is_one_step_and_the_later_one_counts() -> None:
    batches = [made.batch(called(3, "three")), made.batch(called(1, "one")), made.batch(called(2, "two"))]
    (one,) = read("otlp-genai", [*batches, made.batch(called(1, "one", 15))])
    assert [a.payload["text"] for a in of("action", one)] == ["one", "two", "three"]
    assert usages(one, "tokens_in") == [(15,), (10,), (10,)]
    bare = [{k: v for k, v in called(1, "one").items() if k != "spanId"} for _ in range(2)]
    (two,) = read("otlp-genai", made.batch(*bare))
    assert two.n_steps == 2, "spans without an id are not known to be the same"


def test_a_span_received_again_is_one_step_also_when_it_says_more(lake: Lake) -> None:
    traces = Traces(lake, "traces")
    sent = [[called(1, "one")], [called(1, "one"), called(2, "two")], [called(3, "three")], [called(3, "three!", 20)]]
    for number, spans in enumerate(sent):
        traces.add(str(number), made.batch(*spans), 1)
        traces.write(f"batch-{number}")
    (one,) = held(lake).values()
    actions = [a for a in map(json.loads, one) if a["kind"] == "action"]
    assert {(a["action"]["text"], a["usage"]["tokens_in"]) for a in actions} == {
        ("one", 10),
        ("two", 10),
        ("three!", 20),
    }


# --- sessions


def test_a_record_of_a_session_that_is_repeated_says_nothing_more(tmp_path: Path) -> None:
    lines = [orjson.dumps(r) for r in made.claude_session()]
    for repeated in range(len(lines)):
        again = [*lines, lines[repeated]] if b'"uuid"' in lines[repeated] else lines
        plain, twice = (read("claude-code-session", [orjson.loads(x) for x in told]) for told in (lines, again))
        assert [[e.event_id for e in one.events] for one in plain] == [
            [e.event_id for e in one.events] for one in twice
        ]
    grown = Lake(tmp_path / "grown")
    for n, told in enumerate((lines[:6], [*lines[:6], lines[3]], [*lines[:6], lines[3], *lines[6:]])):
        path = tmp_path / "session" / "one.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\n".join(told) + b"\n")
        assert import_paths(grown, [path], corpus="c").rejected == 0, n
    fresh = Lake(tmp_path / "fresh")
    import_paths(fresh, [path], corpus="c")
    assert held(grown) == held(fresh)
    path.write_bytes(b"\n".join(lines) + b"\n")
    once = Lake(tmp_path / "once")
    import_paths(once, [path], corpus="c")
    assert held(once) == held(fresh)


# --- conversations kept as one file an event


def kept_apart(folder: Path, events: list[Obj]) -> Path:
    folder.mkdir(parents=True)
    for number, event in enumerate(events):
        (folder / f"event-{number:05d}-{event.get('id', number)}.json").write_text(json.dumps(event, indent=number % 2))
    return folder


def counted(report: ImportReport) -> tuple[int, ...]:
    assert report.files == report.imported + report.known + report.rejected + report.outcome + report.ignored
    return report.files, report.imported, report.known, report.rejected, report.trajectories, report.steps


def test_event_files_of_a_folder_are_one_trajectory(tmp_path: Path) -> None:
    events = made.openhands_sdk()
    one = tmp_path / "one.json"
    one.write_text(json.dumps(events))
    whole, apart = Lake(tmp_path / "whole"), Lake(tmp_path / "apart")
    import_paths(whole, [one], corpus="c")
    folder = kept_apart(tmp_path / "in" / "conv-1" / "events", events)
    (tmp_path / "in" / "conv-1" / "base_state.json").write_text('{"id": "conv-1", "agent": {}}')
    report = import_paths(apart, [tmp_path / "in"], corpus="c")
    assert counted(report) == (len(events) + 1, len(events), 0, 1, 1, 4), report.counts()
    assert held(apart) == held(whole)
    assert len(apart.read("sources")) == 1
    assert counted(import_paths(apart, [tmp_path / "in"]))[:4] == (len(events) + 1, 0, len(events), 1)
    folder.rename(tmp_path / "in" / "another name")
    assert counted(import_paths(apart, [tmp_path / "in"]))[:4] == (len(events) + 1, 0, len(events), 1)
    named = sorted((tmp_path / "in" / "another name").iterdir())
    assert counted(import_paths(apart, named))[:4] == (len(events), 0, len(events), 0), "a file named stands for all"
    twice = counted(import_paths(Lake(tmp_path / "twice"), [named[2], named[0].parent, named[2]]))
    assert twice == (len(events) + 2, len(events) + 2, 0, 0, 1, 4)
    assert held(apart) == held(whole)


def test_event_files_are_found_again(lake: Lake, tmp_path: Path) -> None:
    kept_apart(tmp_path / "conv-1", made.openhands_sdk())
    import_paths(lake, [tmp_path])
    refresh(lake)
    action = EventLog(lake).read(kinds=["action"]).column("event_id")[0].as_py()
    (source,) = nodes(trace(lake, action, locator(lake)), "source")
    assert source.facts["proven"] is True
    assert source.facts["of"] == "the event files of its folder, joined"


def test_event_files_are_read_in_the_order_of_their_numbers(lake: Lake, tmp_path: Path) -> None:
    for number in (100000, 9, 99999):
        event = made.sdk_action(number % 60, f"echo {number}")
        (tmp_path / f"event-{number:05d}-{event['id']}.json").write_text(json.dumps(event))
    assert counted(import_paths(lake, [tmp_path]))[-2:] == (1, 3)
    rows = EventLog(lake).read(kinds=["action"]).to_pylist()
    assert [r["action"]["command"] for r in sorted(rows, key=lambda r: int(r["step"]))] == [
        "echo 9",
        "echo 99999",
        "echo 100000",
    ]


def test_only_events_are_read_together(lake: Lake, tmp_path: Path) -> None:
    folder = kept_apart(tmp_path / "in" / "conv-1", made.openhands_sdk()[:4])
    kept_apart(tmp_path / "in" / "conv-2", made.openhands_sdk()[:3])
    (folder / "event-00002-broken.json").write_text('{"kind": "Mess')
    (folder / "event-00003-empty.json").write_text("")
    (folder / "event-00004-session.json").write_text(json.dumps(made.openhands_sdk()))
    (tmp_path / "elsewhere.json").write_text(json.dumps(made.sdk_action(7, "elsewhere")))
    (folder / "event-00005-elsewhere.json").symlink_to(tmp_path / "elsewhere.json")
    report = import_paths(lake, [tmp_path / "in"])
    assert counted(report)[:5] == (11, 8, 0, 3, 3)
    assert report.reasons == {"not_json": 1, "empty": 1, "unreadable": 1}
    assert import_paths(lake, [tmp_path / "in"], format="atif").reasons["other_format"] == 7
    assert goes_on(tmp_path / "elsewhere.json", lines=False), "a watch waits for the rest of the conversation"
    assert not goes_on(folder / "event-00004-session.json", lines=False)


# --- outcomes

A = "acme__anvil-1"


def row(text: str, **more: Any) -> Obj:
    said = [{"role": "user", "content": "Weigh it."}, {"role": "assistant", "content": text}]
    return {"instance_id": A, "instance": {"instance_id": A}, "messages": said, **more}


def lines(*rows: Obj) -> bytes:
    return b"".join(orjson.dumps(r) + b"\n" for r in rows)


def resolved(folder: Path, files: dict[str, bytes]) -> tuple[int, int]:
    """Trajectories, and how many of them are resolved by a report at the top."""
    for name, data in {**files, "report.json": orjson.dumps({"resolved_ids": [A], "unresolved_ids": []})}.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    report = import_paths(Lake(folder / "lake"), [folder / "in"])
    return report.trajectories, report.resolved


def parquet(*rows: Obj) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


TWO = (row("one"), row("two"))
OTHER = row("three", instance_id="b__c-1", instance={})
RUNS: list[tuple[dict[str, bytes], tuple[int, int]]] = [
    ({"output.jsonl": lines(TWO[0], OTHER)}, (2, 1)),
    ({"output.jsonl": lines(*TWO)}, (2, 0)),
    ({"output.jsonl": lines(TWO[0], TWO[0])}, (2, 2)),  # a copy is the same trajectory
    ({"output.json": orjson.dumps(TWO)}, (2, 0)),
    ({"output.json": orjson.dumps(TWO, option=orjson.OPT_INDENT_2)}, (2, 0)),
    ({"output.json": orjson.dumps(TWO[0], option=orjson.OPT_INDENT_2)}, (1, 1)),
    ({"output.ndjson": lines(*TWO)}, (2, 0)),
    ({"output.jsonl.gz": gzip.compress(lines(*TWO))}, (2, 0)),
    ({"output.parquet": parquet(*TWO)}, (2, 0)),
    ({"x/output.jsonl.gz": gzip.compress(lines(TWO[0])), "y/output.jsonl.gz": gzip.compress(lines(TWO[1]))}, (2, 0)),
    ({"x/output.parquet": parquet(TWO[0]), "y/output.jsonl": lines(TWO[1])}, (2, 0)),
    ({"output.jsonl": lines(TWO[0]), "tasks.parquet": parquet({"instance_id": A, "base_commit": "c"})}, (1, 1)),
    (
        {"output.jsonl": lines(TWO[0]), "p.jsonl.gz": gzip.compress(lines({"instance_id": A, "model_patch": "p"}))},
        (1, 1),
    ),
    ({"output.jsonl": lines(TWO[0]), "broken.jsonl.gz": gzip.compress(lines(*TWO))[:60]}, (1, 1)),
    ({"output.jsonl": lines(TWO[0]), "broken.parquet": b"PAR1" + b"\0" * 60}, (1, 1)),
]


@pytest.mark.parametrize(("files", "expected"), RUNS)
def test_a_report_grades_one_run_of_an_instance(
    files: dict[str, bytes], expected: tuple[int, int], tmp_path: Path
) -> None:
    assert resolved(tmp_path, files) == expected


def test_a_session_names_its_instance_in_every_record(tmp_path: Path) -> None:
    spans = [made.batch(called(n, str(n))) | {"instance_id": A} for n in range(3)]
    index = {"session.jsonl": lines(*spans), "output.jsonl": lines(TWO[0])}
    assert resolved(tmp_path / "beside", index)[1] == 0, "two files of one folder tell runs of it"
    folder = tmp_path / "alone"
    resolved(folder, {"session.jsonl": lines(*spans)})
    found = OutcomeIndex.build(folder / "in", sorted((folder / "in").iterdir()))
    assert [f.resolved for f in found.lookup(folder / "in" / "session.jsonl", A)] == [True]
