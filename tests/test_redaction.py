"""Redaction of what is stored: a value planted in every kind of file is gone from every byte, and nothing else is."""

from __future__ import annotations

import base64
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from lakes import actions, build, good_repair, verdict

import stepwell.lake
from schemas.models import MODELS
from schemas.rejects import REJECTS
from stepwell.chat import Completion
from stepwell.cli import main
from stepwell.critics.cache import Completions, place
from stepwell.errors import LakeError, UnknownName
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.ids import sha256
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.query import connect, run
from stepwell.redaction.finding import matching, taken_down
from stepwell.redaction.report import unfinished
from stepwell.redaction.run import redact
from stepwell.redaction.scan import scan
from stepwell.redaction.target import Target
from stepwell.seals import seal_of
from stepwell.upkeep import undisturbed

VALUE = 'kQ7/"zP\\2m=Wx 9'
OTHER = "correct-horse-battery"
AT = datetime(2026, 1, 1, tzinfo=UTC)
JSON = orjson.dumps(VALUE).decode()[1:-1]
FORMS = [
    VALUE,
    JSON,
    orjson.dumps(JSON).decode()[1:-1],
    base64.b64encode(VALUE.encode()).decode()[:-4],
    VALUE.encode().hex(),
]


def planted(lake: Lake) -> None:
    """A lake with VALUE in an action, its verdict, an extra, a statement, and in all that is derived or kept beside."""
    build(lake)
    good = good_repair("t-secret", task_id="task-9")
    events = [e for e in good if e.kind not in ("task", "action", "verdict")]
    statement = f"Use {VALUE} to log in."
    events.append(
        Event("task", "t-secret", "demo", "system",
              {"task_id": "task-9", "statement": statement, "statement_hash": sha256(statement)})
    )  # fmt: skip
    said_as = {}
    for action in actions(good):
        text = f"login {VALUE}" if action.step == 1 else action.payload["text"]
        usage = {**(action.usage or {}), "prompt_hash": "00"}
        said = replace(action, payload={**action.payload, "text": text, "command": text}, usage=usage)
        said_as[action.event_id] = said.event_id
        judged = verdict(said, "mistake", raw=f"it typed {VALUE}!", guidance="no")
        mask = {"mask_rule": "r@1", "weight": 0.0, "reason": "critic_label", "evidence": [judged.event_id]}
        events += [
            said,
            judged,
            Event("mask", "t-secret", "demo", "system", mask, said.step, caused_by=judged.event_id),
        ]
    events = [replace(e, caused_by=said_as.get(e.caused_by or "", e.caused_by)) for e in events]
    extra = orjson.dumps({"auth": base64.b64encode(b"user:" + VALUE.encode()).decode()}).decode()
    events.append(Event("notice", "t-secret", "demo", "system", {"text": "mind"}, 2, extra=extra))
    EventLog(lake).append(events, "more")
    refresh(lake)
    rows = [_row(t, said) for t, said in (("t-secret", f"say {JSON}"), ("t-good-a", "fine"))]
    schema = lake.spec("datasets/sft").schema
    lake.replace("datasets/sft", pa.Table.from_pylist(rows, schema), {"dataset_hash": "one", "settings": OTHER})
    lake.replace("datasets/sft", pa.Table.from_pylist(rows[1:], schema), {"dataset_hash": "two"})
    lake.add("models", pa.Table.from_pylist([_model("m1", 1), _model("m2", 2)], MODELS.schema))
    for i in range(3):  # the detail is what statistics and checkpoints keep
        row = {"reject_id": str(i), "path": "x.json", "offset": i, "reason": "bad_line", "detail": f"{VALUE} {i}",
               "format": None, "raw": JSON.encode() + bytes([255, i]), "batch_id": "b", "recorded_at": AT}  # fmt: skip
        lake.add("rejects", pa.Table.from_pylist([row], REJECTS.schema))
    for name in ("rejects", "events", "steps"):
        handle = lake.table(name)
        assert handle is not None
        handle.create_checkpoint()
    with Completions(place(lake)) as cache:
        cache.put("secret", Completion(text=f"it typed {VALUE}!"))
        cache.put("long", Completion(text="x" * 9000 + VALUE + "y" * 9000))
        cache.put("fine", Completion(text="well"))
    journal = Path(lake.uri, ".proxy", "journal-00000001.jsonl")
    journal.parent.mkdir()
    journal.write_bytes(orjson.dumps({"t": "p1", "n": 0, "said": VALUE}) + b"\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "lake"
    planted(Lake(folder))
    return folder


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Lake:
    return Lake(shutil.copytree(made, tmp_path / "lake"))


def _row(trajectory: str, said: str) -> dict[str, object]:
    return {
        "row_id": trajectory, "recipe": "sft", "method": "sft", "split": "train", "trajectory_id": trajectory,
        "corpus": "demo", "task_id": "t", "messages": said, "steps": [0], "weights": [1.0], "event_ids": ["e"],
        "mask_event_ids": [], "input_ids": [1], "labels": [1], "n_tokens": 1, "n_trained_tokens": 1, "n_masked_steps": 0,
    }  # fmt: skip


def _model(name: str, version: int) -> dict[str, object]:
    return {
        "model_id": name, "name": name, "path": name, "recipe": "sft", "recipe_hash": "h", "dataset": "datasets/sft",
        "dataset_version": version, "dataset_hash": "x", "events_version": 1, "base_model": "b", "code_version": "c",
        "seed": 0, "n_parameters": 1, "n_rows": 1, "n_trained_tokens": 1, "metrics": "{}", "environment": "{}",
        "wall_s": 1.0, "recorded_at": AT,
    }  # fmt: skip


def everything(lake: Lake) -> dict[str, str]:
    """Every file as text, raw and decoded, by a reader that shares nothing with the scan."""
    found = {}
    for path in sorted(Path(lake.uri).rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += str(pq.read_table(path).to_pylist()) + "".join(_plain(pq.read_table(path).to_pylist()))
            if path.suffix == ".sqlite":
                with closing(sqlite3.connect(path)) as db:
                    text += "".join(db.iterdump()) + str(db.execute("SELECT * FROM completions").fetchall())
            found[str(path.relative_to(lake.uri))] = text
    return found


def _plain(value: object) -> list[str]:
    if isinstance(value, dict | list):
        return [t for v in (value.values() if isinstance(value, dict) else value) for t in _plain(v)]
    return [value.decode("latin-1")] if isinstance(value, bytes) else [str(value)]


def leaks(lake: Lake) -> set[str]:
    return {path for path, text in everything(lake).items() for form in FORMS if form in text}


def test_value_is_gone_from_every_byte(lake: Lake) -> None:
    before = {e["event_id"]: e for e in EventLog(lake).read().to_pylist()}
    rows = lake.read("events").num_rows
    dirty = leaks(lake)
    kinds = ("events/corpus", "steps/", "datasets/", "rejects/part", "rejects/_delta_log/00000000000000000001.json",
             "rejects/_delta_log/00000000000000000003.checkpoint", ".cache/", ".proxy/")  # fmt: skip
    assert all(any(path.startswith(kind) for path in dirty) for kind in kinds), dirty
    target = Target((VALUE,))
    assert {hit.path for hit in scan(lake, target)} >= dirty

    report = redact(lake, target, "leaked")

    assert leaks(lake) == set()
    assert list(scan(lake, target)) == []
    assert report.done
    assert report.trajectories == ["t-secret"]
    assert [m["model_id"] for m in report.models] == ["m1"]
    assert report.rows_dropped == {"datasets/sft": 0}
    kept = lake.store.get(f"redactions/{report.name}.json")
    assert kept is not None
    assert orjson.loads(kept)["models"][0]["rows"] == 1
    after = EventLog(lake).read().to_pylist()
    untouched = [e for e in after if e["trajectory_id"] != "t-secret"]
    assert untouched == [before[e["event_id"]] for e in untouched]
    mine = [e for e in after if e["trajectory_id"] == "t-secret" and e["kind"] != "retraction"]
    ids = {e["event_id"] for e in after}
    assert all(e["caused_by"] in ids for e in mine if e["caused_by"])
    assert all(set(e["mask"]["evidence"]) <= ids for e in mine if e["mask"])
    told = [e["retraction"] for e in after if e["kind"] == "retraction"]
    assert len(told) == 8
    assert len(after) == rows + 8
    assert {t["replacement"] for t in told} <= ids
    assert not {t["target_event"] for t in told} & before.keys()
    (task,) = (e["task"] for e in mine if e["kind"] == "task")
    assert task["statement"].startswith("Use [REDACTED:value:")
    assert task["statement_hash"] == sha256(task["statement"])
    assert {e["usage"]["prompt_hash"] for e in mine if e["kind"] == "action"} == {None}
    said = {e["step"]: e["action"]["text"] for e in mine if e["kind"] == "action"}
    assert said[0] == "view"
    assert lake.read("steps").num_rows == 5 + 5 + 6 + 6 + 8 + 5
    with Completions(place(lake)) as cache:
        assert (cache.get("secret"), cache.get("long")) == (None, None)
        assert cache.get("fine") is not None
    handle = lake.table("events")
    assert handle is not None
    assert handle.metadata().configuration["delta.appendOnly"] == "true"


def test_old_versions_say_why_they_cannot_be_read(lake: Lake) -> None:
    version = lake.version("events")
    assert version is not None
    redact(lake, Target((VALUE,)), "leaked")
    with pytest.raises(LakeError, match=rf"'events' at version {version} is from before a redaction"):
        EventLog(lake).read(version)
    with pytest.raises(LakeError, match="before a redaction"):
        connect(lake, {"events": version})
    with pytest.raises(LakeError, match="before a redaction"):
        lake.read("datasets/sft", 1)
    assert EventLog(lake).changed(version) == ["t-secret"]
    answer = run(connect(lake), "SELECT count(*) FROM events WHERE kind = 'retraction'")
    assert answer.column(0).to_pylist() == [8]
    assert EventLog(lake).append(good_repair("t-new"), "later").new > 0


def test_a_value_is_seen_in_every_type_and_an_unknown_type_is_no_proof() -> None:
    target, said = Target((VALUE,)), [None, "x", f"a{VALUE}b"]
    texts = pa.array(said)
    for array in (
        texts, texts.cast(pa.large_string()), texts.cast(pa.string_view()), texts.cast(pa.binary_view()),
        texts.dictionary_encode(), texts.cast(pa.binary()), pa.array([[], ["x", None], ["y", said[2]]]),
        pa.array([None, {"k": ["x"]}, {"k": [said[2]]}]),
        pa.array([[], [("a", "b")], [(said[2], "c")]], pa.map_(pa.string(), pa.string())),
        pa.array([["a", "b"], None, ["c", said[2]]], pa.list_(pa.string(), 2)),
    ):  # fmt: skip
        parts = ((array, [False, False, True]), (array.slice(1), [False, True]), (array.slice(0, 2), [False, False]))
        for sliced, expected in parts:
            assert target.rows(pa.table({"n": range(len(sliced)), "t": sliced})).to_pylist() == expected, array.type
    odd = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([VALUE])])
    with pytest.raises(pa.ArrowNotImplementedError):
        target.rows(pa.table({"t": odd}))


def test_by_pattern_and_by_event(lake: Lake) -> None:
    assert matching(lake, re.compile(r'kQ7/"zP\\2m=W\w \d')) == [VALUE]
    event = next(e for e in EventLog(lake).read().to_pylist() if e["kind"] == "observation" and e["step"] == 2)
    report = redact(lake, Target(events=frozenset({event["event_id"]})), "private")
    assert report.trajectories == [event["trajectory_id"]]
    after = EventLog(lake).replay(event["trajectory_id"]).to_pylist()
    (seen,) = (e["observation"] for e in after if e["kind"] == "observation" and e["step"] == 2)
    assert seen["raw"].startswith("[REDACTED:event:")
    assert (seen["exit_code"], seen["role"]) == (0, "user")
    assert event["event_id"] not in "".join(everything(lake).values())


def test_takedown_reaches_children_datasets_and_later_imports(lake: Lake) -> None:
    child = Event("start", "t-child", "demo", "system", {"task_id": "other", "parent_trajectory": "t-secret"})
    EventLog(lake).append([child], "child")
    refresh(lake)
    with pytest.raises(UnknownName, match="unknown task 'task-x'"):
        taken_down(lake, {"task_id": ["task-x"]})
    down = taken_down(lake, {"task_id": ["task-9"]})
    assert down == {"t-secret", "t-child"}
    report = redact(lake, Target(down=frozenset(down)), "asked for")
    assert report.done
    left = [e for e in EventLog(lake).read().to_pylist() if e["trajectory_id"] in down]
    assert [(e["kind"], e["retraction"]["action"]) for e in left] == [("retraction", "takedown")] * 2
    assert not any("t-secret" in lake.read(n).column("trajectory_id").to_pylist() for n in ("trajectories", "steps"))
    assert "events/corpus=demo" not in {p[:18] for p in leaks(lake)}
    with Completions(place(lake)) as cache:
        assert cache.get("secret") is None
    assert [m["model_id"] for m in report.models] == ["m1"]


def test_rows_of_datasets_go_with_their_trajectory(lake: Lake) -> None:
    fields, zero = lake.spec("choices/sft").schema, {"int32": 0, "int64": 0, "string": "x"}
    blank = {f.name: None if f.nullable else zero[str(f.type)] for f in fields}
    chosen = [{**blank, "trajectory_id": t, "curated": f'{{"said": "{t}"}}'} for t in ("t-secret", "t-good-a")]
    lake.replace("choices/sft", pa.Table.from_pylist(chosen, fields), {"dataset_hash": "two"})
    report = redact(lake, Target(down=frozenset({"t-good-a"})), "asked for")
    assert report.rows_dropped == {"datasets/sft": 1, "choices/sft": 1}
    assert lake.read("choices/sft").column("trajectory_id").to_pylist() == ["t-secret"]
    assert [(m["model_id"], m["rows"]) for m in report.models] == [("m1", 1), ("m2", 1)]
    assert lake.read("datasets/sft").num_rows == 0
    version, seal = seal_of(lake, "datasets/sft") or (0, {})
    assert version == 3
    assert seal["dataset_hash"] == f"redacted:{report.name}"
    with pytest.raises(LakeError, match="before a redaction"):
        lake.read("datasets/sft", 2)


@pytest.mark.parametrize("at", ["events", "datasets", "erase"])
def test_killed_and_run_again(lake: Lake, tmp_path: Path, at: str) -> None:
    n = EventLog(lake).read().num_rows
    program = tmp_path / "kill.py"
    program.write_text(_KILLED)
    done = subprocess.run([sys.executable, program, lake.uri, VALUE, at], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    again = Lake(lake.uri)
    assert EventLog(again).read().num_rows in (n, n + 8)
    report = redact(again, Target((VALUE,)), "leaked")
    assert report.done
    assert leaks(again) == set()
    assert EventLog(again).read().num_rows == n + 8
    assert [m["model_id"] for m in report.models] == ["m1"]
    handle = again.table("events")
    assert handle is not None
    assert handle.metadata().configuration["delta.appendOnly"] == "true"


_KILLED = """
import os, signal, sys
from stepwell.lake import Lake
from stepwell.redaction import history, run
from stepwell.redaction.target import Target
import stepwell.lake

uri, value, at = sys.argv[1:]
where = {
    "events": (stepwell.lake.Lake, "close"), "datasets": (run, "_dataset"), "erase": (history, "_clean_log"),
}
owner, name = where[at]
setattr(owner, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
run.redact(Lake(uri), Target((value,)), "leaked")
"""


def command(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run `stepwell` in this process: exit status, standard output, standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stepwell", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_commands(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "values.txt"
    file.write_text(VALUE + "\n")
    at = ("--lake", lake.uri)
    status, out, err = command("redact", "--prove", VALUE, "--json", *at, capsys=capsys)
    assert status == 1
    assert len(orjson.loads(out)["found"]) > 8
    assert "hold a value" in err
    status, out, _ = command("redact", "--values", str(file), "--json", *at, capsys=capsys)
    assert status == 0
    assert orjson.loads(out)["models"][0]["model_id"] == "m1"
    assert VALUE not in out
    status, out, _ = command("redact", "--prove", VALUE, "--json", *at, capsys=capsys)
    assert (status, orjson.loads(out)["found"]) == (0, [])
    assert command("redact", *at, capsys=capsys)[0] == 2
    assert command("takedown", *at, capsys=capsys)[0] == 2
    status, out, _ = command("takedown", "--corpus", "demo", "--dry-run", "--json", *at, capsys=capsys)
    assert orjson.loads(out) == {"trajectories": ["t-good-a", "t-loop-a", "t-secret"]}
    status, out, err = command("takedown", "--task", "task-2", *at, capsys=capsys)
    assert status == 0
    assert "2 trajectories, 1 models concerned" in err
    assert "2 taken down" in out
    left = lake.read("trajectories").column("trajectory_id").to_pylist()
    assert sorted(left) == ["t-good-a", "t-good-b", "t-secret", "t-waste-b"]


def test_what_cannot_be_cleaned_is_named(lake: Lake) -> None:
    Path(lake.uri, "weights.bin").write_bytes(b"\xff\xfe" + VALUE.encode())
    Path(lake.uri, "torn.parquet").write_bytes(b"PAR1")
    report = redact(lake, Target((VALUE,)), "leaked")
    assert not report.done
    assert report.left == ["torn.parquet: unreadable", "weights.bin: bytes"]
    Path(lake.uri, "weights.bin").unlink()
    Path(lake.uri, "torn.parquet").unlink()
    assert redact(lake, Target((VALUE,)), "leaked").done


@pytest.mark.parametrize(
    ("folder", "who"), [(".proxy", "a proxy"), (".serve", "a server"), (".own", "a proxy or a server")]
)
def test_a_journal_that_is_written_to_is_left_and_nothing_is_begun(lake: Lake, folder: str, who: str) -> None:
    Path(lake.uri, ".proxy").rename(Path(lake.uri, folder))
    before, version = everything(lake), lake.version("events")
    with FileLock(f"{lake.uri}/{folder}/.lock"), pytest.raises(LakeError, match=f"^{who} writes to .* stop it"):
        redact(lake, Target((VALUE,)), "leaked")
    assert unfinished(lake) == []
    assert lake.version("events") == version
    assert everything(lake).items() >= before.items()
    with FileLock(f"{lake.uri}/{folder}/.lock"):
        assert redact(lake, Target((OTHER,)), "of no journal").done
    assert redact(lake, Target((VALUE,)), "leaked").done


def test_a_torn_line_of_a_journal_is_cleaned_with_the_rest(lake: Lake) -> None:
    journal = Path(lake.uri, ".proxy", "journal-00000001.jsonl")
    with journal.open("ab") as file:
        file.write(b'{"t":"p2","n":0,"said":"fine"}\n' + '{"t":"p1","n":1,"said":"\u00e9'.encode()[:-1])
    assert redact(lake, Target(down=frozenset(["p1"])), "asked").done
    assert journal.read_bytes() == b'{"t":"p2","n":0,"said":"fine"}\n'


def test_a_redaction_waits_for_maintenance(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepwell.lake, "_DYING", 0.05)
    busy, told, said = threading.Event(), threading.Event(), list[str]()

    def say(text: str) -> None:
        said.append(text)
        told.set()

    def maintaining() -> None:
        with undisturbed(lake):
            busy.set()
            told.wait(5)

    other = threading.Thread(target=maintaining)
    other.start()
    busy.wait()
    with pytest.raises(LakeError, match="another process is maintaining or redacting"):
        redact(lake, Target((VALUE,)), "leaked", patience=0)
    assert redact(lake, Target((VALUE,)), "leaked", say).done
    other.join()
    assert "maintaining or redacting" in said[0]
    assert "maintaining" not in "".join(said[1:])
