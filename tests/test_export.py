"""Export: what a target can hold comes back, nothing retracted goes out, files are whole, hostile text stays valid JSON."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from format_examples import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from lakes import Step, actions, good_repair, looping, trajectory, verdict
from test_importers_records import SHARED
from typer.testing import CliRunner

from jobs.tokenizer import train_tokenizer
from schemas.kinds import UNFINISHED
from stepwell.carried import KEY, REFERENCES
from stepwell.cli import build_app
from stepwell.datasets.build import Built, build, content_hash
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event, to_table
from stepwell.exporters import page, reading
from stepwell.exporters.base import LeftOut, Options
from stepwell.exporters.base import Trajectory as Read
from stepwell.exporters.reading import columns_of, listed, trajectories
from stepwell.exporters.registry import EXPORTERS
from stepwell.exporters.run import Request, export
from stepwell.exporters.writing import checksum, whole
from stepwell.ids import canonical
from stepwell.importers.base import Imported, SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.files import File
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.importers.sniff import recognise
from stepwell.importers.units import units
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer

ROOT = Path(__file__).parent.parent
RULE = "srft@1(critic=judge@1,mask=mistake,resolved=full)"
Obj = dict[str, Any]
ROUND_TRIPS = [
    ("atif", ".jsonl"),
    ("chat", ".jsonl"),
    ("chat", ".parquet"),
    ("sharegpt", ".jsonl"),
    ("sharegpt", ".parquet"),
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with what every importer makes of its examples."""
    lake = Lake(tmp_path_factory.mktemp("examples") / "lake")
    events: list[Event] = []
    for i, (name, data, _) in enumerate(EXAMPLES):
        importer = IMPORTERS[name]
        told = recognise(data) if importer.unit == "document" else None
        version = told.version if told and told.format == name else importer.versions[0]
        where = SourceFile(f"t/{i}", str(i), "t", name, version, str(i))
        found = [one for one in importer.read(data, where) if isinstance(one, Imported)]
        events += [e for one in found for e in one.events]
    EventLog(lake).append(events, "examples")
    return lake


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, Read]]:
    """A lake with the recorded files, and what is in it."""
    lake = Lake(tmp_path_factory.mktemp("recorded") / "lake")
    import_paths(lake, [SHARED], corpus="recorded")
    return lake, everything(lake)


def everything(lake: Lake) -> dict[str, Read]:
    """The trajectories of a lake by id."""
    log = EventLog(lake)
    assert log.version is not None
    wanted = listed(log, log.version, log.corpora(log.version))
    found = trajectories(log, log.version, wanted, EXPORTERS["atif"].kinds, "true")
    return {t.trajectory_id: t for t in found if isinstance(t, Read)}


def back(path: Path, format: str, lake: Lake) -> Iterator[Read]:
    """The trajectories of an exported file, imported, in the order of the file."""
    opened = open_blob(File(path))
    assert opened.told.format == format
    ids, events = [], list[Event]()
    for read in units(opened, IMPORTERS[format], SourceFile("f", "f", "d", "c", "", "")):
        assert not read.rejected, read.rejected
        (one,) = read.imported
        ids.append(one.trajectory_id)
        events += one.events
    EventLog(lake).append(events, "back")
    found = everything(lake)
    return iter([found[one] for one in ids])


def rows_of(path: Path) -> list[Obj]:
    """The rows of an exported file, without the nulls that Parquet pads with."""
    if path.suffix == ".parquet":
        return [orjson.loads(canonical(row)) for row in pq.read_table(path).to_pylist()]
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def events_of(t: Read) -> list[Any]:
    """All of a trajectory but its ids: references are said as the kind and step of what they name."""
    place = {r["event_id"]: f"{r['kind']}@{r['step']}" for rows in t.events.values() for r in rows}
    made = []
    for kind, columns in EXPORTERS["atif"].holds.items():
        for row in t.of(kind):
            payload = {c: row["payload"][c] for c in columns}
            for name in REFERENCES.get(kind, ()):
                ids = payload[name]
                payload[name] = [place.get(i, i) for i in ids] if isinstance(ids, list) else place.get(ids, ids)
            envelope = [row[k] for k in ("step", "actor", "policy", "occurred_at", "extra", "usage")]
            made.append([kind, *envelope, place.get(row["caused_by"], row["caused_by"]), payload])
    return sorted(canonical(one).decode() for one in made)


def chat_of(t: Read) -> list[Any]:
    """The conversation in its order and the facts; absent and empty text are the same, an absent role is `user`."""
    hidden = [r for r in t.of("action") if '"not_in_prompt":true' in (r["extra"] or "")]
    order = ("instruction", "action", "observation")
    rows = [r for kind in order for r in t.of(kind) if r not in hidden]
    rows.sort(key=lambda r: (-1 if r["step"] is None else r["step"], r["kind"], r["payload"].get("position") or 0))
    said: list[Any] = []
    for row in rows:
        p, kind = row["payload"], row["kind"]
        if kind == "action":
            calls = json.loads(p["tool_calls"] or "[]")
            named = [(c.get("id"), c["function"]["name"], c["function"].get("arguments")) for c in calls]
            said.append((kind, p["text"] or "", p["thought"], p["reasoning"], named))
        elif kind == "observation":
            shown = p["raw"] if p["rendered"] is None else p["rendered"]
            said.append((kind, shown or "", p["role"] or "user", p["tool_call_id"]))
        elif p["content"]:
            said.append((kind, p["content"], p["role"] or "user", bool(p["is_demo"])))
    return [facts_of(t), tools_of(t), said]


def texts_of(t: Read) -> list[Any]:
    """The texts of a conversation in their order, of a reply with calls with all that they are called with."""
    said = []
    for kind, text, *more in chat_of(t)[2]:
        calls = more[2] if kind == "action" else []
        values = [v if isinstance(v, str) else orjson.dumps(v).decode() for c in calls for v in _given(c[2])]
        if text or calls:
            said.append((text, [c[1] for c in calls], values))
    return said


def _given(arguments: str | None) -> list[Any]:
    try:
        return list(json.loads(arguments or "{}").values())
    except (ValueError, AttributeError):
        return [arguments]


def facts_of(t: Read) -> Obj:
    holds = {k: EXPORTERS["chat"].holds[k] for k in ("task", "start", "end")}
    facts = {f"{k}.{c}": (t.last(k) if k == "end" else t.first(k)).get(c) for k, cols in holds.items() for c in cols}
    facts["start.task_id"] = t.facts["task_id"]
    return {**facts, "resolved": t.facts["resolved"]}


def tools_of(t: Read) -> str | None:
    return next((r["payload"]["tools"] for r in t.of("instruction") if r["payload"]["tools"] is not None), None)


def differing(format: str, before: Read, after: Read) -> str:
    """What is not as it was, of what the target holds; nothing when all of it is."""
    if format == "atif":
        return "" if events_of(before) == events_of(after) else str((events_of(before), events_of(after)))
    old, new = chat_of(before), chat_of(after)
    if format == "chat":
        ids = [name for one in old[2] if one[0] == "action" for name, _, _ in one[4] if name is not None]
        if len(set(ids)) < len(ids):  # whose answer is whose cannot be told by the id
            old[2], new[2] = sorted(map(str, old[2])), sorted(map(str, new[2]))
        return "" if old == new else str((old, new))
    if old[:2] != new[:2]:
        return str((old[:2], new[:2]))
    was, now = texts_of(before), [text for text, _, _ in texts_of(after)]
    same = len(was) == len(now) and all(
        said == text if not names else said.startswith(text) and all(part in said for part in (*names, *values))
        for (text, names, values), said in zip(was, now, strict=True)
    )
    return "" if same else str((was, now))


@pytest.mark.parametrize(("format", "suffix"), ROUND_TRIPS)
def test_what_a_target_holds_comes_back(format: str, suffix: str, examples: Lake, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    report = export(examples, Request(format), path)
    before = everything(examples)
    rows = rows_of(path)
    assert len(rows) == report.written > 40
    after = list(back(path, format, Lake(tmp_path / "back")))
    for row, again in zip(rows, after, strict=True):
        name = row["trajectory_id"] if format == "atif" else row["stepwell_trajectory"]
        assert not differing(format, before[name], again)


def judged(name: str = "t1", **rest: Any) -> list[Event]:
    """A trajectory with an event of every kind that has no place in the formats, each about another."""
    events = good_repair(name, **rest)
    acts = actions(events)
    corpus = events[0].corpus

    def add(kind: str, actor: str, payload: Obj, step: int | None = None, **more: Any) -> Event:
        events.append(Event(kind, name, corpus, actor, payload, step=step, **more))
        return events[-1]

    for act, label in zip(acts, ("good", "mistake", "good", "good", "good"), strict=True):
        found = [{"category": "loop", "evidence": "twice | the same", "recovery": "stop"}] if label == "mistake" else []
        events.append(verdict(act, label, severity=1, detections=found, raw="it said so"))
        where = {"policy": RULE, "caused_by": events[-1].event_id}
        weight = {"mask_rule": RULE, "weight": float(label == "good"), "reason": "critic_label"}
        add("mask", "system", {**weight, "evidence": [events[-1].event_id]}, act.step, **where)
    told = next(e for e in events if e.kind == "verdict" and e.policy == "judge@1")
    outcome = next(e for e in events if e.kind == "outcome")
    add("feedback", "critic", {"verdict_id": told.event_id, "mode": "shadow", "text": "hm"}, 1, policy="judge@1")
    add("label", "teacher", {"text": "check", "command": "check", "source": "queried"}, 2, policy="teacher-x")
    add("turn", "system", {"rule": "bernoulli", "beta": 0.5, "draw": 0.25, "chosen": "agent"}, 0)
    add("notice", "system", {"target": "critic", "text": "3 left", "current_step": 3}, 3)
    add(
        "mask", "system", {"mask_rule": "mine@1", "weight": 1.0, "reason": "outcome", "evidence": [outcome.event_id]}, 0
    )
    attempt = add("attempt", "agent", {"attempt_id": "a0", "round": 0, "code": "x", "critique_id": told.event_id}, 9)
    add("hint", "system", {"attempt_id": "a0", "hint_kind": "pass", "text": "ok"}, 9, caused_by=attempt.event_id)
    add("reward", "system", {"group_id": "g", "reward": 0.5, "critique_id": told.event_id})
    return events


def test_verdicts_masks_and_everything_else_come_back_from_atif(lake: Lake, tmp_path: Path) -> None:
    events = judged()
    EventLog(lake).append(events, "b")
    path = tmp_path / "out.jsonl"
    export(lake, Request("atif"), path)
    (row,) = rows_of(path)
    step = row["steps"][2]["extra"][KEY]
    assert [(m["mask_rule"], m["weight"]) for m in step["events"]["mask"]] == [(RULE, 0.0)]
    assert {v["label"] for v in step["events"]["verdict"]} == {"mistake"}
    assert row["extra"][KEY]["events"]["outcome"][0]["resolved"] is True
    export(lake, Request("atif", mask_rule="mine@1"), tmp_path / "one.jsonl")
    (one,) = rows_of(tmp_path / "one.jsonl")
    masks = [m for s in one["steps"] for m in s["extra"][KEY].get("events", {}).get("mask", ())]
    assert [m["mask_rule"] for m in masks] == ["mine@1"]
    other = Lake(tmp_path / "other")
    (again,) = back(path, "atif", other)
    (before,) = everything(lake).values()
    assert events_of(again) == events_of(before)
    assert set(again.events) == {e.kind for e in events} >= set(REFERENCES)
    ids = {r["event_id"] for rows in again.events.values() for r in rows}
    assert {i for r in again.of("mask") for i in r["payload"]["evidence"]} <= ids
    assert ids.isdisjoint(e.event_id for e in events), "a new trajectory has its own events"
    export(other, Request("atif"), tmp_path / "again.jsonl")
    (twice,) = back(tmp_path / "again.jsonl", "atif", Lake(tmp_path / "third"))
    assert events_of(twice) == events_of(before)


@pytest.mark.parametrize("spoilt", ["severity", "evidence", "extra", "step", "kind", "row", "actor"])
def test_what_is_carried_wrongly_is_kept_and_stops_nothing(spoilt: str, lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append(judged(), "b")
    export(lake, Request("atif"), tmp_path / "out.jsonl")
    (row,) = rows_of(tmp_path / "out.jsonl")
    mine = row["steps"][2]["extra"][KEY]
    wrong: dict[str, Any] = {
        "severity": lambda: mine["events"]["verdict"][0].update(severity="SPOILT"),
        "evidence": lambda: mine["events"]["mask"][0].update(evidence=[{"SPOILT": 1}]),
        "extra": lambda: mine.update(extra="SPOILT"),
        "step": lambda: row["extra"][KEY]["events"]["attempt"][0].update(step="SPOILT"),
        "kind": lambda: mine["events"].update(SPOILT=[{"event_id": "x"}]),
        "row": lambda: mine["events"]["verdict"].append("SPOILT"),
        "actor": lambda: mine.update(actor=["SPOILT"]),
    }
    wrong[spoilt]()
    found = list(IMPORTERS["atif"].read(row, SourceFile("f", "f", "d", "c", "1.7", "i")))
    assert [type(one) for one in found] == [Imported]
    assert isinstance(found[0], Imported)
    assert "SPOILT" in "".join(e.extra or "" for e in found[0].events)
    EventLog(Lake(tmp_path / "back")).append(found[0].events, "b")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def has(value: Any, key: Any) -> bool:
    return key in value if isinstance(value, dict) else isinstance(value, list) and key in range(len(value))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Obj, list[tuple[Any, ...]]]:
    """An exported document, and the way to every value in it."""
    folder = tmp_path_factory.mktemp("exported")
    EventLog(Lake(folder / "lake")).append(judged(), "b")
    export(Lake(folder / "lake"), Request("atif"), folder / "out.jsonl")
    (row,) = rows_of(folder / "out.jsonl")
    return row, list(places(row))


ODD = st.sampled_from(
    [None, True, -1, 2**63, 1.5, "", "x" * 50, "[]", [], [None], [[{}]], {}, {"a": 1}, {KEY: {"kind": 1}}]
).map(copy.deepcopy)


@settings(max_examples=150)
@given(data=st.data())
def test_no_damage_to_an_exported_file_stops_an_import(
    exported: tuple[Obj, list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    document, paths = json.loads(json.dumps(exported[0])), exported[1]
    damage = st.lists(st.tuples(st.sampled_from(paths), ODD), min_size=1, max_size=3)
    for path, odd in data.draw(damage):
        at: Any = document
        for key in path[:-1]:
            at = at[key] if has(at, key) else None
        if has(at, path[-1]):
            at[path[-1]] = odd
    found = list(IMPORTERS["atif"].read(document, SourceFile("f", "f", "d", "c", "1.7", "i")))
    for one in found:
        if isinstance(one, Imported):
            assert to_table(one.events, "b", datetime.now(UTC)).num_rows == len(one.events)


STEP = {"step_id", "timestamp", "source", "message", "extra", "observation"}
AGENT = {"model_name", "reasoning_content", "tool_calls", "metrics", "is_copied_context", "llm_call_count"}
ATIF_PYTHON = Path(os.environ.get("STEPWELL_ATIF_PYTHON") or ROOT / ".atif" / "bin" / "python")
VALIDATE = (
    "import sys, atif; rows = [atif.Trajectory.model_validate_json(line) for line in open(sys.argv[1], 'rb')]; "
    "print(len(rows), sum(len(r.steps) for r in rows))"
)


def test_atif_documents_are_as_the_specification_says(examples: Lake, tmp_path: Path) -> None:
    EventLog(examples).append(judged("t-judged"), "judged")
    path = tmp_path / "all.jsonl"
    report = export(examples, Request("atif"), path)
    n_steps = 0
    for row in rows_of(path):
        top = {"schema_version", "session_id", "trajectory_id", "agent", "steps", "final_metrics", "extra"}
        assert row.keys() <= top
        assert row["schema_version"] == "ATIF-v1.7"
        assert isinstance(row["agent"]["name"], str)
        assert isinstance(row["agent"]["version"], str)
        assert row["steps"]
        n_steps += len(row["steps"])
        for number, step in enumerate(row["steps"], 1):
            assert step["step_id"] == number
            assert isinstance(step["message"], str)
            assert step["source"] in ("system", "user", "agent")
            assert step.keys() <= (STEP | AGENT if step["source"] == "agent" else STEP)
            calls = step.get("tool_calls", [])
            assert all(isinstance(c["arguments"], dict) for c in calls)
            answered = {r.get("source_call_id") for r in step.get("observation", {"results": []})["results"]}
            assert answered <= {c["tool_call_id"] for c in calls} | {None}
            assert "llm_call_count" not in step or not step.keys() & {"metrics", "reasoning_content"}
    if ATIF_PYTHON.exists():
        done = subprocess.run([ATIF_PYTHON, "-c", VALIDATE, path], capture_output=True, text=True, check=False)
        assert done.stdout.split() == [str(report.written), str(n_steps)], done.stderr[-2000:]


def test_a_folder_has_one_file_a_trajectory(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*judged("../../escape"), *judged("t2"), *judged(".hidden")], "b")
    report = export(lake, Request("atif"), tmp_path / "runs")
    files = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert len(files) == report.written == 3
    assert "t2.trajectory.json" in files
    assert not any(name.startswith(".") for name in files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lake", "runs", "runs.manifest.json"]
    found = import_paths(Lake(tmp_path / "back"), [tmp_path / "runs"])
    assert (found.trajectories, found.rejected, found.resolved) == (3, 0, 3)


def flags(lake: Lake, tmp_path: Path, **request: Any) -> dict[str, list[bool]]:
    path = tmp_path / f"flags-{len(list(tmp_path.iterdir()))}.jsonl"
    export(lake, Request("chat", **request), path)
    return {
        row["stepwell_trajectory"]: [m["train"] for m in row["messages"] if m["role"] == "assistant"]
        for row in rows_of(path)
    }


def test_train_flags_are_the_masks_of_the_rule_named(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*judged("t1"), *looping("undecided")], "b")
    assert flags(lake, tmp_path) == {"t1": [True] * 5, "undecided": [True] * 6}
    report = export(lake, Request("chat", mask_rule=RULE), None)
    assert report.left_out == {"not decided by the mask rule": 1}
    assert flags(lake, tmp_path, mask_rule=RULE) == {"t1": [True, False, True, True, True]}
    with pytest.raises(UnknownName, match="mine@1"):
        export(lake, Request("chat", mask_rule="nobody@1"), None)
    rows = rows_of(tmp_path / "flags-1.jsonl")
    assert not any(m["train"] for r in rows for m in r["messages"] if m["role"] != "assistant")


def test_nothing_is_trained_on_that_was_said_to_a_prompt_the_row_has_not(lake: Lake, tmp_path: Path) -> None:
    advised = judged("advised")
    shown = {"mode": "delivered", "text": "Look again.", "active_from": 3, "active_to": 9}
    advised.append(Event("feedback", "advised", "demo", "critic", shown, step=2, policy="judge@1"))
    copied = [
        replace(e, extra='{"is_copied_context":true}') if e.kind == "action" and e.step == 0 else e
        for e in good_repair("copied")
    ]
    own = {"mask_rule": "nemo-gym mask_sample", "weight": 0.0, "reason": "mask_sample"}
    masked = [*good_repair("masked"), Event("mask", "masked", "demo", "system", own, step=2)]
    headless = [
        replace(e, extra='{"without_prefix":true}') if e.kind == "start" else e for e in good_repair("headless")
    ]
    EventLog(lake).append([*advised, *copied, *masked, *headless], "b")
    assert flags(lake, tmp_path) == {
        "advised": [True, True, True, False, False],
        "copied": [False, True, True, True, True],
        "masked": [True, True, False, True, True],
    }


def test_other_readers_are_told_which_steps_no_model_made(lake: Lake, tmp_path: Path) -> None:
    typed = {"actor": "human", "policy": "ann", "usage": {"tokens_out": 7, "cost_usd": 0.5}}
    events = []
    for e in good_repair("typed"):
        change = {1: typed, 2: {"actor": "system", "extra": '{"is_copied_context":true}'}}.get(e.step or 0, {})
        payload = {**e.payload, "reasoning": "so"} if change else e.payload
        events.append(replace(e, payload=payload, **change) if e.kind == "action" else e)
    EventLog(lake).append(events, "b")
    (before,) = everything(lake).values()
    export(lake, Request("atif"), path := tmp_path / "out.jsonl")
    steps = [s for s in rows_of(path)[0]["steps"] if s["source"] == "agent"]
    assert [s.get("llm_call_count") for s in steps] == [None, 0, None, None, None]
    assert [s.get("is_copied_context") for s in steps] == [None, None, True, None, None]
    assert steps[1].keys() & {"metrics", "reasoning_content", "model_name"} == set(), "0 forbids them"
    assert steps[2]["reasoning_content"] == "so"
    (after,) = back(path, "atif", Lake(tmp_path / "again"))
    assert events_of(after) == events_of(before)


def test_masks_of_the_source_go_with_those_of_the_rule_named(lake: Lake, tmp_path: Path) -> None:
    own = {"mask_rule": "nemo-gym mask_sample", "weight": 0.0, "reason": "mask_sample"}
    EventLog(lake).append([*judged("t1"), Event("mask", "t1", "demo", "system", own, step=3)], "b")
    export(lake, Request("atif", mask_rule=RULE), path := tmp_path / "out.jsonl")
    (again,) = back(path, "atif", Lake(tmp_path / "again"))
    assert {m["payload"]["mask_rule"] for m in again.of("mask")} == {RULE, "nemo-gym mask_sample"}


@pytest.mark.parametrize("format", ["chat", "sharegpt"])
def test_what_is_in_no_loss_comes_back_as_such(format: str, lake: Lake, tmp_path: Path) -> None:
    events = [replace(e, actor="human") if e.kind == "action" and e.step == 1 else e for e in good_repair("typed")]
    EventLog(lake).append(events, "b")
    told = []
    for turn, where in enumerate((lake, Lake(tmp_path / "again"))):
        if turn:
            import_paths(where, [tmp_path / "rows0.jsonl"], "demo")
        export(where, Request(format), path := tmp_path / f"rows{turn}.jsonl")
        (row,) = rows_of(path)
        told.append([m["train"] for m in row.get("messages", row.get("conversations"))])
    assert told[0] == told[1]
    assert sum(told[0]) == 4


def retraction(trajectory_id: str, target: str | None, action: str) -> Event:
    payload = {"target_event": target, "action": action, "reason": "asked for"}
    return Event("retraction", trajectory_id, "demo", "human", payload)


@pytest.mark.parametrize("format", ["chat", "sharegpt"])
def test_parquet_of_rows_that_differ_in_columns_is_loaded_by_datasets(format: str, lake: Lake, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = [{"messages": [{"role": "user", "content": f"{i} " + "x" * 20_000}, {"role": "assistant", "content": "ok"}]}
             for i in range(600)]  # fmt: skip
    call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    calling = {"resolved": True, "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    for name, rows in (("a", plain), ("b", [calling])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
        import_paths(lake, [tmp_path / f"{name}.jsonl"], name)
    export(lake, Request(format), path := tmp_path / "out.parquet")
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert [loaded[i]["resolved"] for i in (0, 600)] == [None, True]


@pytest.mark.parametrize("format", ["atif", "chat", "sharegpt"])
def test_what_was_retracted_or_taken_down_is_not_given_out(format: str, lake: Lake, tmp_path: Path) -> None:
    log = EventLog(lake)
    events = [*judged("down"), *judged("redacted"), *judged("kept")]
    first = log.append(events, "b").version
    secret = next(e for e in events if e.trajectory_id == "redacted" and e.kind == "observation")
    stale = next(e for e in events if e.trajectory_id == "kept" and e.kind == "mask" and e.step == 1)
    log.append(
        [
            retraction("down", None, "takedown"),
            retraction("redacted", secret.event_id, "redact"),
            retraction("kept", stale.event_id, "supersede"),
        ],
        "r",
    )
    name = "trajectory_id" if format == "atif" else "stepwell_trajectory"
    now = export(lake, Request(format), tmp_path / "now.jsonl")
    rows = rows_of(tmp_path / "now.jsonl")
    assert [r[name] for r in rows] == ["kept", "redacted"]
    assert now.left_out == {"taken down": 1}
    written = (tmp_path / "now.jsonl").read_text()
    assert secret.event_id not in written
    assert stale.event_id not in written
    before = export(lake, Request(format, at=first), tmp_path / "then.jsonl")
    assert [r[name] for r in rows_of(tmp_path / "then.jsonl")] == ["kept"], "an old version gives nothing back"
    assert before.left_out == {"taken down or redacted since": 2}
    if format == "atif":
        assert stale.event_id in (tmp_path / "then.jsonl").read_text(), "then it held"


def test_evaluations_are_exported_only_when_named(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*judged("a"), *judged("b", corpus="evaluations/swe")], "b")
    assert flags(lake, tmp_path).keys() == {"a"}
    assert flags(lake, tmp_path, corpora=("evaluations/swe",)).keys() == {"b"}
    with pytest.raises(UnknownName, match="evaluations/swe"):
        export(lake, Request("chat", corpora=("nowhere",)), None)


def test_the_filter_is_sql_over_trajectories(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*judged("a"), *looping("b")], "b")
    assert flags(lake, tmp_path, where="resolved and n_steps = 6").keys() == {"a"}
    with pytest.raises(UsageError, match="n_steps"):
        export(lake, Request("chat", where="nothing_such = 1"), None)
    with pytest.raises(UsageError, match="nothing to export: of 2 looked at 0"):
        export(lake, Request("chat", where="n_steps > 99"), tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_the_filter_is_the_sql_of_questions_however_trajectories_are_grouped(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "GROUP", 1)
    EventLog(lake).append([*judged("a"), *looping("b"), *trajectory("c", [Step("view")])], "b")
    assert flags(lake, tmp_path, where="resolved IS NOT TRUE").keys() == {"b", "c"}, "one was never graded"
    for sql in ("n_steps > avg(n_steps)", "row_number() OVER () = 1", "random() < 2"):
        with pytest.raises(UsageError, match="--where"):
            export(lake, Request("chat", where=sql), None)


def test_predictions_are_one_an_instance_as_the_harness_takes_them(lake: Lake, tmp_path: Path) -> None:
    more = [*judged("a", task_id="x__y-1"), *judged("b", task_id="x__y-1"), *looping("c", task_id="x__y-2")]
    silent = trajectory("d", [Step("view")], task_id="x__y-3")
    EventLog(lake).append([*more, *silent], "b")
    report = export(lake, Request("swe-bench"), tmp_path / "preds.json")
    export(lake, Request("swe-bench"), tmp_path / "preds.jsonl")
    rows = json.loads((tmp_path / "preds.json").read_text())
    assert rows == rows_of(tmp_path / "preds.jsonl")
    assert rows == [
        {"instance_id": "x__y-1", "model_name_or_path": "model-a", "model_patch": "diff"},
        {"instance_id": "x__y-2", "model_name_or_path": "model-a", "model_patch": "diff"},
        {"instance_id": "x__y-3", "model_name_or_path": "model-a", "model_patch": ""},
    ]
    assert report.left_out == {"another trajectory of an instance that is written": 1}
    assert recognise(rows[0]).format == "predictions", "an import joins them"


@pytest.mark.parametrize("status", UNFINISHED)
def test_an_attempt_that_broke_off_takes_no_prediction_from_the_one_that_was_run_again(
    status: str, lake: Lake, tmp_path: Path
) -> None:
    broken = trajectory("a", [Step("view")], task_id="x__y-1")
    broken = [replace(e, payload={"exit_status": status}) if e.kind == "end" else e for e in broken]
    EventLog(lake).append([*broken, *judged("b", task_id="x__y-1")], "b")
    report = export(lake, Request("swe-bench"), tmp_path / "preds.jsonl")
    assert [(r["instance_id"], r["model_patch"]) for r in rows_of(tmp_path / "preds.jsonl")] == [("x__y-1", "diff")]
    assert report.left_out == {"not over": 1}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Built]:
    """A lake with a dataset of masked trajectories, some held out."""
    folder = tmp_path_factory.mktemp("sealed")
    train_tokenizer(["view the code and sub 2 '+' '-' then check and submit"] * 20, 320).save_pretrained(folder / "t")
    lake = Lake(folder / "lake")
    EventLog(lake).append([e for i in range(12) for e in judged(f"t{i}", task_id=f"task-{i}")], "b")
    settings = {"method": "srft", "held_out": 0.4}
    recipe = Recipe.model_validate({"name": "mine", "source": {"corpora": ["demo"]}, "dataset": settings})
    return lake, build(lake, recipe, Renderer.load(folder / "t"), RULE)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_token_rows_are_the_sealed_ones_under_the_trainer_s_names(
    suffix: str, sealed: tuple[Lake, Built], tmp_path: Path
) -> None:
    lake, built = sealed
    rows = {r["row_id"]: r for r in lake.read(built.table).to_pylist()}
    streams = {"tokens": ["input_ids", "labels"], "prime-rl": ["token_ids", "mask"]}
    streams |= {"loss-mask": ["input_ids", "attention_mask", "loss_mask"]}
    for name, columns in streams.items():
        path = tmp_path / f"{name}{suffix}"
        report = export(lake, Request(name, dataset="mine"), path)
        found = rows_of(path)
        assert report.written == len(found) == built.n_rows == 12
        assert [r["row_id"] for r in found] == sorted(rows)
        for row in found:
            ids, labels = rows[row["row_id"]]["input_ids"], rows[row["row_id"]]["labels"]
            trained = [label != -100 for label in labels]
            assert any(trained)
            assert row[columns[0]] == ids
            assert row[columns[-1]] == {"labels": labels, "mask": trained}.get(columns[-1], [int(t) for t in trained])
        manifest = json.loads((tmp_path / f"{path.name}.manifest.json").read_text())
        assert manifest["dataset"]["dataset_hash"] == built.hash
        assert manifest["sha256"] == checksum(path)[1]
    some = export(lake, Request("tokens", dataset="mine", where="split = 'held_out'"), None)
    assert 0 < some.written < 12


def test_a_saved_dataset_is_what_was_sealed_with_a_card(sealed: tuple[Lake, Built], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    lake, built = sealed
    report = export(lake, Request("hf", dataset="mine"), tmp_path / "one")
    assert export(lake, Request("hf", dataset="mine"), tmp_path / "two").sha256 == report.sha256
    found = datasets.load_from_disk(str(tmp_path / "one"))
    assert set(found) == {"train", "held_out"}
    table = datasets.concatenate_datasets(list(found.values())).with_format("arrow")[:]
    assert content_hash(table) == built.hash
    card = (tmp_path / "one" / "README.md").read_text()
    for told in ("license:  #", built.hash, f"| events version | {built.events_version} |", "| recipe | mine |"):
        assert told in card
    assert f"| out | 12 | 60 | {built.n_tokens:,} |" in card
    assert not list((tmp_path / "one").glob(".*"))


def test_rows_of_a_dataset_go_with_their_trajectory(tmp_path: Path, sealed: tuple[Lake, Built]) -> None:
    lake, _ = sealed
    EventLog(lake).append([retraction("t3", None, "takedown")], "r")
    report = export(lake, Request("tokens", dataset="mine"), tmp_path / "t.jsonl")
    assert report.left_out == {"taken down or redacted since": 1}
    assert "t3" not in {r["trajectory_id"] for r in rows_of(tmp_path / "t.jsonl")}


def test_the_same_lake_gives_the_same_bytes_however_it_is_grouped(
    examples: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for format, end in (("atif", ""), ("chat", ".parquet")):
        marks = []
        for size in (10_000, 30):
            monkeypatch.setattr(reading, "GROUP", size)
            monkeypatch.setattr(reading, "_SCANNED", max(size, 200))
            marks.append(export(examples, Request(format), tmp_path / f"{format}-{size}{end}").sha256)
        assert marks[0] == marks[1]


def test_a_file_is_there_whole_or_not_at_all(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EventLog(lake).append([*judged("a"), *judged("b")], "b")
    made = EXPORTERS["chat"].make(Options())

    def breaks(one: Read) -> Obj | LeftOut:
        if one.trajectory_id == "b":
            raise RuntimeError("the power fails")
        return made(one)

    monkeypatch.setattr(type(EXPORTERS["chat"]), "make", lambda self, options: breaks)
    for path in (tmp_path / "out.jsonl", tmp_path / "out.parquet"):
        with pytest.raises(RuntimeError, match="the power fails"):
            export(lake, Request("chat"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["lake"]
    monkeypatch.undo()
    first = export(lake, Request("chat"), tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="exists; name another path"):
        export(lake, Request("chat"), tmp_path / "out.jsonl")
    assert export(lake, Request("chat"), tmp_path / "out.jsonl", overwrite=True).sha256 == first.sha256
    export(lake, Request("atif"), tmp_path / "runs")
    export(lake, Request("atif", where="trajectory_id = 'a'"), tmp_path / "runs", overwrite=True)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["a.trajectory.json"]
    for request, mine in ((Request("atif"), tmp_path / "mine"), (Request("chat"), tmp_path / "mine.jsonl")):
        mine.mkdir()
        (mine / "notes.txt").write_text("kept")
        with pytest.raises(UsageError, match="holds what no export wrote"):
            export(lake, request, mine, overwrite=True)
        assert (mine / "notes.txt").read_text() == "kept"
    with pytest.raises(UsageError, match="no folder"), whole(tmp_path / "nowhere" / "x", False):
        pass


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["\x00\x1f\x7f", "\u2028\u2029", "\\ud83d", '}{"]', "\ufeff", "</script>", "<function=x>", "\U0010ffff", "null"]
)
ARGUMENTS = TEXTS | st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers(-(2**63), 2**64 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
).map(lambda v: orjson.dumps(v).decode())
CALLS = st.none() | st.lists(
    st.fixed_dictionaries(
        {"id": st.none() | TEXTS, "type": st.just("function")},
        optional={"function": st.fixed_dictionaries({"name": TEXTS | st.none(), "arguments": ARGUMENTS | st.none()})},
    )
    | TEXTS
    | st.none(),
    max_size=4,
).map(lambda v: orjson.dumps(v).decode())
EXTRA = st.dictionaries(TEXTS, TEXTS | st.booleans(), max_size=2).map(lambda v: orjson.dumps(v).decode())
MAYBE = st.none() | TEXTS


def row(kind: str, step: int | None, **payload: Any) -> Obj:
    whole = dict.fromkeys(columns_of(kind)) | payload
    empty = dict.fromkeys(("policy", "occurred_at", "caused_by", "extra", "usage"))
    return {**empty, "event_id": f"{kind}-{step}", "kind": kind, "step": step, "actor": "agent", "payload": whole}


@st.composite
def hostile(draw: st.DrawFn) -> Read:
    """A trajectory of odd texts; what Arrow cannot hold (lone surrogates) cannot be in the log."""
    events: dict[str, list[Obj]] = {"start": [row("start", None, model=draw(MAYBE), agent=draw(MAYBE))], "action": []}
    events["instruction"] = [
        row("instruction", None, position=i, role=draw(MAYBE), content=draw(MAYBE), tools=draw(st.none() | ARGUMENTS))
        for i in range(draw(st.integers(0, 2)))
    ]
    events["observation"] = []
    for i in range(draw(st.integers(1, 3))):
        action = row("action", i, text=draw(MAYBE), reasoning=draw(MAYBE), tool_calls=draw(CALLS))
        events["action"].append({**action, "extra": draw(st.none() | EXTRA), "policy": draw(MAYBE)})
        for position in range(draw(st.integers(0, 2))):
            told = {"role": draw(MAYBE | st.just("tool")), "tool_call_id": draw(MAYBE), "raw": draw(MAYBE)}
            events["observation"].append(row("observation", i, position=position, rendered=draw(MAYBE), **told))
    facts = {"task_id": draw(MAYBE), "resolved": draw(st.none() | st.booleans())}
    return Read(draw(TEXTS), "corpus", events, facts)


@settings(max_examples=150)
@given(hostile())
def test_hostile_text_stays_valid_json_in_utf_8(one: Read) -> None:
    for format in ("atif", "chat", "sharegpt"):
        made = EXPORTERS[format].make(Options())(one)
        assert not isinstance(made, LeftOut)
        written = orjson.dumps(made)
        parsed = json.loads(written.decode("utf-8"))
        assert parsed == made or format == "atif"
        assert recognise(parsed).format == format
        importer = IMPORTERS[format]
        (found,) = importer.read(parsed, SourceFile("f", "f", "d", "c", importer.versions[-2:][0], "i"))
        assert isinstance(found, Imported)
        if format == "atif":
            said = [(e.payload.get("text"), e.payload.get("tool_calls")) for e in found.events if e.kind == "action"]
            assert said == [(r["payload"]["text"], r["payload"]["tool_calls"]) for r in one.of("action")]


def test_huge_and_deep_things_are_written(lake: Lake, tmp_path: Path) -> None:
    deep = "[" * 300 + "]" * 300
    calls = [{"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in range(2000)]
    calls[0]["function"]["arguments"] = f'{{"deep": {deep}}}'
    events = good_repair("huge")
    big = {"text": "x" * 5_000_000, "tool_calls": orjson.dumps(calls).decode()}
    events.append(Event("action", "huge", "demo", "agent", big, step=5, policy="m"))
    EventLog(lake).append(events, "b")
    for format in ("atif", "chat", "sharegpt"):
        export(lake, Request(format), tmp_path / f"{format}.jsonl")
        assert len(rows_of(tmp_path / f"{format}.jsonl")) == 1
    (again,) = back(tmp_path / "atif.jsonl", "atif", Lake(tmp_path / "back"))
    assert events_of(again) == events_of(everything(lake)["huge"])


def test_the_command_writes_counts_and_refuses(lake: Lake, tmp_path: Path) -> None:
    EventLog(lake).append([*judged("a"), *looping("b")], "b")
    runner, where = CliRunner(), ["--lake", lake.uri]
    app = build_app()
    ask = ["export", "chat", "--where", "resolved", *where]
    dry = runner.invoke(app, [*ask, "--dry-run", "--json"])
    assert json.loads(dry.stdout)["counts"] == {"looked_at": 2, "chosen": 1, "written": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["lake"]
    path = tmp_path / "out.jsonl"
    done = runner.invoke(app, [*ask, "-o", str(path), "--json"])
    told = json.loads(done.stdout)
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert told == {"path": str(path), **manifest}
    assert manifest["sha256"] == checksum(path)[1]
    assert manifest["filter"]["where"] == "resolved"
    shown = runner.invoke(app, [*ask, "-o", str(path), "--overwrite"])
    assert "written to" in shown.stdout
    for wrong in (["nothing"], ["chat", "-o", "x.csv"], ["tokens", "-o", "x.jsonl"], ["swe-bench", "--mask-rule", "a"]):
        refused = runner.invoke(app, ["export", *wrong, *(["--dry-run"] if "-o" not in wrong else []), *where])
        assert isinstance(refused.exception, UsageError), wrong
    assert isinstance(runner.invoke(app, ask).exception, UsageError)


def test_the_page_is_what_the_exporters_say() -> None:
    committed = ROOT / "docs" / "export.md"
    assert committed.read_text() == page.page(), "run `python -m stepwell.exporters.page > docs/export.md`"
    for name, exporter in EXPORTERS.items():
        assert all(set(columns) <= set(columns_of(kind)) for kind, columns in exporter.holds.items()), name


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the recorded files are not here")
@pytest.mark.parametrize(("format", "suffix"), [("atif", ".jsonl"), ("chat", ".parquet"), ("sharegpt", ".jsonl")])
def test_recorded_files_come_back(
    format: str, suffix: str, recorded: tuple[Lake, dict[str, Read]], tmp_path: Path
) -> None:
    lake, before = recorded
    path = tmp_path / f"out{suffix}"
    report = export(lake, Request(format), path)
    assert report.written > 1000
    name = "trajectory_id" if format == "atif" else "stepwell_trajectory"
    for row, again in zip(rows_of(path), back(path, format, Lake(tmp_path / "back")), strict=True):
        assert not differing(format, before[row[name]], again)
