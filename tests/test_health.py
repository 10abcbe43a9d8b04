"""What `stepwell status` and `stepwell doctor` find, in sound and in broken lakes and environments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import lakes
import pytest
from doc_pages import DOCS, blocks
from filelock import FileLock
from typer.testing import CliRunner

from stepwell.cli import build_app
from stepwell.errors import StepwellError
from stepwell.fold import FOLDS, refresh
from stepwell.health import lakes as checks
from stepwell.health import machine
from stepwell.health.finding import Finding
from stepwell.health.lakes import check_lake
from stepwell.health.machine import check_machine
from stepwell.health.status import history, status
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target


@pytest.fixture
def filled(lake: Lake) -> Lake:
    lakes.build(lake)
    refresh(lake)
    return lake


def of(found: list[Finding], *levels: str) -> list[tuple[str, str]]:
    return [(f.area, f.what) for f in found if f.level in levels]


def data_files(lake: Lake, table: str) -> Iterator[Path]:
    yield from sorted(Path(lake.uri, table).rglob("*.parquet"))


def test_a_sound_lake_has_no_problem(filled: Lake) -> None:
    before = [p for p in sorted(Path(filled.uri).rglob("*")) if p.suffix != ".lock"]
    found = check_lake(filled)
    assert of(found, "problem") == []
    assert ("locks", "nobody is writing") in of(found, "ok")
    assert [p for p in sorted(Path(filled.uri).rglob("*")) if p.suffix != ".lock"] == before, "doctor changes nothing"


def test_a_lake_that_is_not_there_is_a_note(tmp_path: Path) -> None:
    assert [(f.level, f.area) for f in check_lake(Lake(tmp_path / "none"))] == [("note", "lake")]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_files_that_are_gone_or_cut_short_are_found(filled: Lake, harm: str) -> None:
    file = next(data_files(filled, "trajectories"))
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    problems = of(check_lake(filled), "problem")
    assert [area for area, _ in problems] == ["trajectories"]
    assert file.name in problems[0][1]


def test_a_broken_log_of_a_table_is_found(filled: Lake) -> None:
    log = Path(filled.uri, "events", "_delta_log", f"{0:020}.json")
    log.write_text("{ not JSON")
    assert of(check_lake(filled), "problem")


@pytest.mark.parametrize("table", ["events", "trajectories"])
def test_data_without_a_log_is_found(filled: Lake, table: str) -> None:
    shutil.rmtree(Path(filled.uri, table, "_delta_log"))
    (wrong,) = [f for f in check_lake(filled) if f.level == "problem"]
    assert (wrong.area, "data files and no log that names them" in wrong.what) == (table, True)
    assert ("or delete" in wrong.act) == (table in FOLDS)


def test_a_backup_whose_events_are_older_than_its_sources_is_found(lake: Lake, tmp_path: Path) -> None:
    for i in range(2):
        said = [{"role": "user", "content": f"task {i}"}, {"role": "assistant", "content": "a"}]
        (tmp_path / f"{i}.jsonl").write_text(json.dumps({"messages": said}) + "\n")
        import_paths(lake, [str(tmp_path / f"{i}.jsonl")], "c")
    assert of(check_lake(lake), "problem") == []
    log = sorted(Path(lake.uri, "events", "_delta_log").glob("*.json"))
    log[-1].unlink()
    (wrong,) = [f for f in check_lake(lake) if f.level == "problem"]
    assert (wrong.area, wrong.what.startswith("1 files are there whose trajectories")) == ("sources", True)
    assert str(tmp_path / "1.jsonl") in wrong.what
    again = import_paths(lake, [str(tmp_path / "1.jsonl")], "c")
    assert again.counts()["events"] == 0, "it is taken for known"
    shutil.rmtree(lake.path("sources"))  # the next act
    import_paths(lake, [str(tmp_path / f"{i}.jsonl") for i in range(2)], "c")
    assert of(check_lake(lake), "problem") == []


def test_what_is_taken_down_is_not_missing(lake: Lake, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "task"}, {"role": "assistant", "content": "a"}]
    (tmp_path / "one.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    import_paths(lake, [str(tmp_path / "one.jsonl")], "c")
    down = frozenset(lake.read("events").column("trajectory_id").to_pylist())
    redact(lake, Target(down=down), "asked")
    assert of(check_lake(lake), "problem") == []


def test_the_backup_on_the_page_copies_the_log_of_events_last_of_all_logs(filled: Lake, tmp_path: Path) -> None:
    copies = next(b.text for b in blocks(DOCS / "operations.md") if "cp --parents" in b.text)
    seen = tmp_path / "bin" / "cp"
    seen.parent.mkdir()
    seen.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> "$SEEN"\nexec "$REAL" "$@"\n')
    seen.chmod(0o755)
    told = {"SEEN": str(tmp_path / "copied"), "REAL": shutil.which("cp") or "", "STEPWELL_LAKE": filled.uri}
    script = copies.replace("stepwell doctor", "true")
    path = f"{seen.parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, env={**os.environ, **told, "PATH": path}, check=True)
    files = [line for line in (tmp_path / "copied").read_text().splitlines() if line.startswith("./")]
    ranks = [("_delta_log" not in f and 2) or int(f.startswith("./events/")) for f in files]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3
    assert sorted(files) == sorted(f"./{p.relative_to(filled.uri)}" for p in Path(filled.uri).rglob("*") if p.is_file())
    assert of(check_lake(Lake(tmp_path / "backup")), "problem") == []


def test_what_a_newer_program_wrote_is_found(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    older = {**checks.KINDS, "action": replace(checks.KINDS["action"], version=0)}
    monkeypatch.setattr(checks, "KINDS", older)
    assert any("written by a newer Stepwell: action version" in what for _, what in of(check_lake(filled), "problem"))


def test_folds_behind_are_a_note_and_folds_ahead_a_problem(filled: Lake) -> None:
    from stepwell.log import EventLog

    EventLog(filled).append(lakes.good_repair("t-more"), "more")
    notes = dict(of(check_lake(filled), "note"))
    assert notes["steps"] == "folded from events version 1 of 2"
    refresh(filled)
    for file in Path(filled.uri, "events", "_delta_log").glob(f"{2:020}*"):  # a backup of `events` that is older
        file.unlink()
    assert {area for area, _ in of(check_lake(filled), "problem")} >= {"trajectories", "steps"}


def test_a_held_lock_is_named(filled: Lake) -> None:
    with FileLock(f"{filled.uri}/.events.lock"):
        assert ("locks", "held now: events") in of(check_lake(filled), "note")


def test_a_redaction_killed_half_way_is_a_problem(filled: Lake) -> None:
    filled.store.put("redactions/r1.json", b'{"name": "r1", "reason": "secret"}')
    handle = filled.table("events")
    assert handle is not None
    handle.alter.set_table_properties({"delta.appendOnly": "false"})
    problems = of(check_lake(filled), "problem")
    assert ("redaction", "begun and not finished: r1") in problems
    assert any("open to deletion" in what for _, what in problems)
    assert status(filled)["unfinished_redactions"] == ["r1"]


def test_little_room_is_told(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LEAST_FREE", 1 << 62)
    assert [area for area, _ in of(check_lake(filled), "problem")] == ["disk"]


def test_this_machine(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("")
    found = check_machine({"DAGSTER_HOME": str(home)})
    assert ("dagster", f"home {home}") in of(found, "ok")
    assert "packages" in {area for area, _ in of(found, "ok")}
    assert of(found, "problem") == []


def test_wrong_settings_are_problems_with_a_next_act(tmp_path: Path) -> None:
    wrong = {"DAGSTER_HOME": "relative", "STEPWELL_IMPORT": str(tmp_path / "gone"), "STEPWELL_UNSAFE": "1"}
    found = check_machine(wrong)
    assert {area for area, _ in of(found, "problem")} == {"dagster", "environment"}
    assert any("STEPWELL_UNSAFE" in what for _, what in of(found, "note"))
    assert all(f.act for f in found if f.level != "ok")
    (tmp_path / "bare").mkdir()
    assert of(check_machine({"DAGSTER_HOME": str(tmp_path / "bare")}), "problem")[0][0] == "dagster"


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("typer==0.0.1\nno-such-package-here==1.0\n")
    notes = dict(of(check_machine({}, lock), "note"))
    assert notes["lock"].startswith("2 of 2 differ from the lock: no-such-package-here none (lock: 1.0), typer ")


def test_a_missing_dependency_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, "requires", lambda name: ["typer>=99", "no-such-package-here", 'nor-this; extra == "mini"']
    )
    found = check_machine({})
    assert any("typer>=99 (here: " in what and "no-such-package-here" in what for _, what in of(found, "problem"))
    assert any("nor-this" in what for _, what in of(found, "note"))


def test_no_jail_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepwell.errors import SandboxError

    def none() -> str:
        raise SandboxError("no jail works on this machine")

    monkeypatch.setattr(machine, "detect", none)
    assert ("sandbox", "no jail works on this machine") in of(check_machine({}), "note")


def test_status_tells_all(filled: Lake) -> None:
    told = status(filled)
    assert told["corpora"] == [
        {"corpus": "demo", "trajectories": 2, "steps": 11, "graded": 2, "resolved": 1},
        {"corpus": "rollouts/one two", "trajectories": 3, "steps": 19, "graded": 3, "resolved": 2},
    ]
    events = told["tables"][0]
    assert (events["table"], events["version"], events["seen"]) == ("events", 1, None)
    assert events["rows"] > 0
    assert events["bytes"] == sum(p.stat().st_size for p in data_files(filled, "events"))
    assert history(filled, "events")[0]["version"] == 1


def test_the_commands_print_json_and_exit_as_they_should(filled: Lake) -> None:
    run = CliRunner().invoke
    shown = run(build_app(), ["status", "--lake", filled.uri, "--json"])
    assert json.loads(shown.stdout)["lake"] == filled.uri
    assert "trajectories" in run(build_app(), ["status", "--lake", filled.uri]).stdout
    good = run(build_app(), ["doctor", "--lake", filled.uri, "--json"])
    assert good.exit_code == 0, good.stdout
    assert json.loads(good.stdout)["ok"] is True
    next(data_files(filled, "steps")).unlink()
    bad = run(build_app(), ["doctor", "--lake", filled.uri, "--json"])
    assert json.loads(bad.stdout)["ok"] is False
    assert isinstance(bad.exception, StepwellError), "main() makes exit status 1 of it"
    assert "next: restore the lake" in run(build_app(), ["doctor", "--lake", filled.uri]).stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_lake_that_cannot_be_written_is_a_note(filled: Lake) -> None:
    os.chmod(filled.uri, 0o555)
    try:
        found = check_lake(filled)
        assert of(found, "problem") == []
        assert ("lake", f"{filled.uri} can be read by this user, and not be written") in of(found, "note")
    finally:
        os.chmod(filled.uri, 0o755)
