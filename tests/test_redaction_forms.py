"""Values in the escapes of JSON and as its numbers, sessions that are imported again, names that are none."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_redaction import command
from test_watch import Record, claude, codex, pi
from trajectory_files import instance_report, mini_1, write

from stepwell.event import Event
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.redaction.run import redact
from stepwell.redaction.scan import scan
from stepwell.redaction.target import Taking, Target
from stepwell.secrets.redact import Redactor
from stepwell.secrets.values import forms

ACCENTED, MARKED, NUMBER, PHRASE = "pässwörd-Xq9F2k", "k3y&Zp<81>qW", 4111111111111111, "Plain-Dead-Beef-77"


def escaped(value: str, chars: str, upper: bool = False) -> str:
    """A value without quotes as a writer of JSON has it that escapes these characters."""
    digits = "04X" if upper else "04x"
    return re.sub(chars, lambda m: f"\\u{ord(m[0]):{digits}}", value)


def texts(lake: Lake) -> str:
    """What every data file of the lake says, whether it counts or not."""
    found = [str(pq.read_table(p).to_pylist()) for p in Path(lake.uri).rglob("*.parquet") if "_delta_log" not in str(p)]
    return "".join(found).replace("\\\\", "\\")


def written(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    ("value", "chars"),
    [(ACCENTED, "[^ -~]"), (MARKED, "[&<>]"), (ACCENTED + MARKED, "[&<>]|[^ -~]"), ("a'b+c\u20acd", "['+]|[^ -~]")],
)
def test_escapes_of_other_writers_are_forms(value: str, chars: str, upper: bool) -> None:
    once = escaped(value, chars, upper)
    assert json.loads(f'"{once}"') == value
    assert {once, once.replace("\\", "\\\\")} <= set(forms(value))
    said = Redactor(b"k" * 32, [value]).redact({"a": once, "b": f"x {once} y"})
    assert said["b"] == f"x {said['a']} y"
    assert said["a"].startswith("[REDACTED:value:")


def test_plain_values_have_no_more_forms_than_before() -> None:
    assert len(forms("tok_3n-ABCdef123")) == len({*forms("tok_3n-ABCdef123")}) <= 10
    assert json.dumps("\U0001f600 key 1")[1:-1] in forms("\U0001f600 key 1")


@pytest.mark.parametrize(("value", "chars"), [(ACCENTED, "[^ -~]"), (MARKED, "[&<>]")])
def test_escaped_values_are_not_imported_and_are_redacted(tmp_path: Path, value: str, chars: str) -> None:
    inner = json.dumps({"command": f"echo {value}"})
    call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": escaped(inner, chars)}}
    row = {"messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                        {"role": "tool", "tool_call_id": "1", "content": "ok"}]}  # fmt: skip
    file = tmp_path / "in" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(row) + '\n{"messages": "' + escaped(value, chars) + '"\n')
    lake, kept = Lake(tmp_path / "lake"), Lake(tmp_path / "kept")
    import_paths(lake, [file], secret_values=[value])
    import_paths(kept, [file], keep_secrets=True)
    assert value in texts(kept)
    assert escaped(value, chars) in texts(kept)
    assert len([*scan(kept, Target((value,)))]) > 1
    redact(kept, Target((value,)), "leaked")
    for one in (lake, kept):
        assert one.read("rejects").num_rows == 1
        assert not re.search("Xq9F2k|qW", texts(one))
        assert [*scan(one, Target((value,)))] == []
        (action,) = EventLog(one).read(kinds=["action"]).to_pylist()
        assert "[REDACTED:value:" in action["action"]["command"]


def test_a_number_is_an_exact_value(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": f"pay {NUMBER}"}, {"role": "assistant", "content": "ok"}],
           "account": NUMBER, "more": [{"n": NUMBER + 1, "f": 1.5, "b": True}]}  # fmt: skip
    lake = Lake(tmp_path / "lake")
    report = import_paths(lake, [written(tmp_path / "a.jsonl", [row])], secret_values=[str(NUMBER)])
    assert report.redacted == {"value": 2}
    assert str(NUMBER) not in texts(lake)
    assert str(NUMBER + 1) in texts(lake)
    redactor = Redactor(b"k" * 32, [str(NUMBER)])
    assert redactor.redact(NUMBER).startswith("[REDACTED:value:")  # type: ignore[attr-defined]
    assert redactor.apart({"a": NUMBER, "b": 7, "c": True})["a"].startswith("[REDACTED:value:")  # type: ignore[attr-defined]
    kept = {"a": NUMBER, "b": f"x{NUMBER}"}
    assert Redactor(b"k" * 32, ["another value"]).redact(kept) is kept


def test_json_stays_json(tmp_path: Path) -> None:
    redactor = Redactor(b"k" * 32)
    clean = Taking(Target((str(NUMBER),)), redactor, "r").clean
    mark = redactor.marker("value", str(NUMBER))
    data = {"n": NUMBER, "list": [NUMBER, -NUMBER, 1.5, None, True], "text": f'say "{NUMBER}"', str(NUMBER): 1,
            "inner": json.dumps({"pin": NUMBER, "é": 2}), "odd": f"{{not json {NUMBER}"}  # fmt: skip
    expected = {"n": mark, "list": [mark, f"-{mark}", 1.5, None, True], "text": f'say "{mark}"', mark: 1,
                "inner": json.dumps({"pin": mark, "é": 2}), "odd": f"{{not json {mark}"}  # fmt: skip
    for text in (json.dumps(data), json.dumps(data, indent=2, ensure_ascii=False)):
        assert json.loads(clean(text)) == expected
    assert clean(f"[{NUMBER}") == f"[{mark}"
    assert redactor.counts["value"] == 2 * 7 + 1
    more: dict[str, Any] = {"extra": json.dumps({"account": NUMBER}), "usage": {"tokens_in": NUMBER}}
    event = Event("notice", "t", "c", "system", {"text": f"{NUMBER}"}, **more)
    (said,) = Redactor(b"k" * 32, [str(NUMBER)]).events([event])
    assert json.loads(said.extra or "") == {"account": mark}
    assert (said.payload, said.usage) == ({"text": mark}, {"tokens_in": NUMBER})


def test_a_session_with_a_redacted_number_goes_on(tmp_path: Path) -> None:
    lake, file, records = Lake(tmp_path / "lake"), tmp_path / "in" / "s.jsonl", claude("one", 2)
    records[0]["account"] = NUMBER
    import_paths(lake, [written(file, records[:2])])
    redact(lake, Target((str(NUMBER),)), "leaked")
    extras = [json.loads(e["extra"]) for e in EventLog(lake).read().to_pylist() if e["extra"]]
    assert any(str(extra.get("account", "")).startswith("[REDACTED:value:") for extra in extras)
    report = import_paths(lake, [written(file, records[:6])])
    assert (report.rejected, report.imported) == (0, 1)
    assert [*scan(lake, Target((str(NUMBER),)))] == []


def spoken(make: Any, at: int) -> list[Record]:
    """A session in one of whose records the phrase stands."""
    records: list[Record] = make("one", 3)
    told = json.dumps(records[at])
    for text in ("Repair", "Look 0", "cat 0", "text 0"):
        told = told.replace(text, f"{PHRASE} {text}")
    assert PHRASE in told
    records[at] = json.loads(told)
    return records


def holding(lake: Lake) -> list[tuple[str, int | None, str]]:
    """What holds of each event that a file has, without its cause and place in time."""
    rows = live(EventLog(lake).read()).to_pylist()
    return sorted((r["kind"], r["step"], str(r[r["kind"]])) for r in rows if r["kind"] != "retraction")


@pytest.mark.parametrize(("make", "at"), [(claude, 0), (claude, 1), (claude, 2), (claude, 3), (codex, 5), (pi, 2)])
def test_what_was_redacted_does_not_return_with_its_session(tmp_path: Path, make: Any, at: int) -> None:
    records, file, lake = spoken(make, at), tmp_path / "in" / "s.jsonl", Lake(tmp_path / "lake")
    half = len(records) // 2 + 1
    target = Target((PHRASE,))
    import_paths(lake, [written(file, records[:half])])
    redact(lake, target, "leaked")
    assert [*scan(lake, target)] == []
    before = {r["event_id"] for r in live(EventLog(lake).read()).to_pylist()}

    import_paths(lake, [written(tmp_path / "earlier" / "s.jsonl", records[: half - 2])])
    assert lake.read("rejects").num_rows == 0
    assert {r["event_id"] for r in live(EventLog(lake).read()).to_pylist()} == before
    for n in (half + 1, len(records)):
        import_paths(lake, [written(file, records[:n])])
        assert [*scan(lake, target)] == []
    rows = EventLog(lake).read().num_rows
    assert import_paths(lake, [written(tmp_path / "again" / "s.jsonl", records)]).events == 0
    assert EventLog(lake).read().num_rows == rows

    other = Lake(tmp_path / "other")
    import_paths(other, [file])
    redact(other, target, "leaked")
    # the same key makes the same markers
    there = re.sub(r"(REDACTED:value:)\w+", r"\1x", str(holding(other)))
    assert re.sub(r"(REDACTED:value:)\w+", r"\1x", str(holding(lake))) == there


def test_what_was_written_twice_and_redacted_does_not_return(tmp_path: Path) -> None:
    records, file, lake = spoken(claude, 0), tmp_path / "in" / "s.jsonl", Lake(tmp_path / "lake")
    import_paths(lake, [written(file, records[:2])])
    records[0]["timestamp"] = "2025-12-31T23:59:59Z"  # no part of the id: superseded, and written again
    import_paths(lake, [written(file, records[:3])])
    assert len([r for r in EventLog(lake).read().to_pylist() if PHRASE in str(r["instruction"])]) == 2
    redact(lake, Target((PHRASE,)), "leaked")
    before = {r["event_id"] for r in live(EventLog(lake).read()).to_pylist() if r["kind"] == "instruction"}
    import_paths(lake, [written(file, records[:9])])
    after = {r["event_id"] for r in live(EventLog(lake).read()).to_pylist() if r["kind"] == "instruction"}
    assert (len(before), after) == (1, before)
    assert [*scan(lake, Target((PHRASE,)))] == []


def test_a_reject_keeps_nothing_of_a_session_that_was_redacted(tmp_path: Path) -> None:
    records, lake = spoken(claude, 0), Lake(tmp_path / "lake")
    import_paths(lake, [written(tmp_path / "in" / "s.jsonl", records)])
    redact(lake, Target((PHRASE,)), "leaked")
    records[2]["message"]["content"][0]["input"]["command"] = "something else"
    report = import_paths(lake, [written(tmp_path / "in2" / "s.jsonl", records[:-1])])
    assert dict(report.reasons) == {"diverged": 1}
    assert [r["raw"] for r in lake.read("rejects").to_pylist()] == [b""]
    assert [*scan(lake, Target((PHRASE,)))] == []


def test_a_takedown_takes_the_bad_lines_of_its_session(tmp_path: Path) -> None:
    records, lake = spoken(claude, 0), Lake(tmp_path / "lake")
    path = written(tmp_path / "in" / "s.jsonl", records)
    path.write_text(path.read_text() + '{"type": "user", "message": {"content": "' + PHRASE)
    assert import_paths(lake, [path]).trajectories == 1
    assert any(PHRASE.encode() in row["raw"] for row in lake.read("rejects").to_pylist())
    down = frozenset(EventLog(lake).read().column("trajectory_id").to_pylist())
    redact(lake, Target(down=down), "asked for")
    assert [*scan(lake, Target((PHRASE,)))] == []
    left = lake.read("rejects").drop_columns(["batch_id", "recorded_at"]).to_pylist()
    assert [(row["raw"], row["path"]) for row in left] == [(b"", str(path))]
    assert "taken down" in left[0]["detail"]
    import_paths(lake, [path])
    assert lake.read("rejects").drop_columns(["batch_id", "recorded_at"]).to_pylist() == left
    assert [*scan(lake, Target((PHRASE,)))] == []


def test_a_takedown_of_one_of_many_leaves_what_is_of_others(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [
        {"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": t}]} for t in ("one", PHRASE)
    ]
    path = written(tmp_path / "in" / "rows.jsonl", rows)
    path.write_text(path.read_text() + '{"messages": broken}\n')
    assert import_paths(lake, [path]).trajectories == 2
    said = [(r["trajectory_id"], str(r)) for r in EventLog(lake).read().to_pylist()]
    first, second = ({name for name, text in said if t in text} for t in (f"'{PHRASE}'", "'one'"))
    redact(lake, Target(down=frozenset(first)), "asked for")
    assert [row["raw"] for row in lake.read("rejects").to_pylist()] == [b'{"messages": broken}']
    redact(lake, Target(down=frozenset(second)), "asked for")
    assert [row["raw"] for row in lake.read("rejects").to_pylist()] == [b""]


def test_a_takedown_of_one_of_many_takes_the_bytes_of_a_whole_file(tmp_path: Path) -> None:
    lake, path = Lake(tmp_path / "lake"), tmp_path / "rows.jsonl.gz"
    rows = [
        {"messages": [{"role": "user", "content": str(n)}, {"role": "assistant", "content": "hi"}]} for n in range(3000)
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())[:-200])
    assert 1 < import_paths(lake, [path]).trajectories < 3000
    one = EventLog(lake).read().column("trajectory_id")[0].as_py()
    assert [row["raw"] for row in lake.read("rejects").to_pylist()] == [path.read_bytes()]
    redact(lake, Target(down=frozenset([one])), "asked for")
    assert [row["raw"] for row in lake.read("rejects").to_pylist()] == [b""]
    import_paths(lake, [path])
    assert [row["raw"] for row in lake.read("rejects").to_pylist()] == [b""]


def test_an_outcome_that_was_redacted_does_not_return_with_its_report(tmp_path: Path) -> None:
    lake, name, target = Lake(tmp_path / "lake"), "acme__anvil-7", Target((PHRASE,))
    write(tmp_path / "run" / "trajs" / f"{name}.traj.json", mini_1(name))
    report = instance_report(True)
    report["tests_status"]["FAIL_TO_PASS"]["success"] = [f"t::{PHRASE}"]
    place = write(tmp_path / "run" / "logs" / name / "report.json", {name: report})
    import_paths(lake, [tmp_path / "run"])
    assert [*scan(lake, target)]
    redact(lake, target, "leaked")
    write(place, {name: {**report, "patch_applied": True}})  # other bytes, the same outcome
    assert import_paths(lake, [tmp_path / "run"]).events == 0
    assert [*scan(lake, target)] == []
    report["tests_status"]["PASS_TO_PASS"]["failure"] = ["t::c"]
    report["tests_status"]["FAIL_TO_PASS"]["success"] = []
    write(place, {name: report})
    assert import_paths(lake, [tmp_path / "run"]).events == 1


def test_a_redacted_end_is_written_again_as_it_was_left(tmp_path: Path) -> None:
    records, file, lake = claude("one", 3), tmp_path / "in" / "s.jsonl", Lake(tmp_path / "lake")
    import_paths(lake, [written(file, records[:4])])
    (end,) = EventLog(lake).read(kinds=["end"]).to_pylist()
    redact(lake, Target(events=frozenset({end["event_id"]})), "private")
    import_paths(lake, [written(file, records[:9])])
    (kept,) = [r for r in live(EventLog(lake).read()).to_pylist() if r["kind"] == "end"]
    assert kept["event_id"] != end["event_id"]
    assert json.loads(kept["extra"]) == {"n_records": 9}
    assert import_paths(lake, [written(tmp_path / "old" / "s.jsonl", records[:6])]).events == 0


def test_unknown_names_are_refused_with_some_that_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = Lake(tmp_path / "lake")
    import_paths(lake, [written(tmp_path / "in" / "s.jsonl", claude("one", 1))], corpus="kept")
    rows = EventLog(lake).read(kinds=["action"]).to_pylist()
    at = ("--lake", lake.uri)
    for what, known in (("corpus", "kept"), ("trajectory", rows[0]["trajectory_id"]), ("source", "s.jsonl")):
        status, _, err = command("takedown", f"--{what}", "nope", *at, capsys=capsys)
        assert status == 2
        assert f"unknown {what} 'nope'" in err
        assert known in err.replace("\n", "")
    name = rows[0]["event_id"]
    status, _, err = command("redact", "--event", "nope", *at, capsys=capsys)
    assert status == 2
    assert "unknown event 'nope'" in err
    assert lake.store.paths("redactions") == []
    for _ in range(2):  # again: a run that was killed is finished so
        status, _, err = command("redact", "--event", name, *at, capsys=capsys)
        assert status == 0, err
