"""The import run: each trajectory once, whatever its path, however often, and whoever is stopped in the middle."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer
from format_examples import atif
from trajectory_files import CREATED, instance_report, mini_1, swe_0, swe_1, write, write_run
from typer.testing import CliRunner

from stepwell.affected import trajectories_of
from stepwell.cli import data
from stepwell.cli.common import output
from stepwell.errors import UnknownName, UsageError
from stepwell.fold import fold_trajectories
from stepwell.importers import outcome
from stepwell.importers.base import CAPABILITIES, REASONS
from stepwell.importers.companions import read_companion
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import ImportReport, import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog

ROOT = Path(__file__).parent.parent
IMPORT = "import sys; from stepwell.lake import Lake; from stepwell.importers.run import import_paths; "
IMPORT += "import_paths(Lake(sys.argv[1]), [sys.argv[2]], batch_events=int(sys.argv[3]))"


def accounted(report: ImportReport) -> ImportReport:
    assert report.files == report.imported + report.known + report.rejected + report.outcome + report.ignored
    return report


def outcomes(lake: Lake) -> dict[str, list[tuple[bool | None, str]]]:
    """Task -> its outcomes in canonical order."""
    log = EventLog(lake)
    tasks = {r["trajectory_id"]: r["start"]["task_id"] for r in log.read(kinds=["start"]).to_pylist()}
    rows = log.read(kinds=["outcome"]).to_pylist()
    rows.sort(key=lambda r: r["outcome"]["rerun"])
    found: dict[str, list[tuple[bool | None, str]]] = {t: [] for t in tasks.values()}
    for row in rows:
        found[tasks[row["trajectory_id"]]].append((row["outcome"]["resolved"], row["outcome"]["grader"]))
    return found


def whole_and_once(lake: Lake, n: int, n_steps: int = 5) -> None:
    rows = EventLog(lake).read(columns=["event_id", "trajectory_id", "kind"]).to_pylist()
    assert len({r["event_id"] for r in rows}) == len(rows)
    kinds = Counter((r["trajectory_id"], r["kind"]) for r in rows)
    assert len({r["trajectory_id"] for r in rows}) == n
    for trajectory_id in {r["trajectory_id"] for r in rows}:
        told = [kinds[trajectory_id, k] for k in ("task", "start", "action", "observation", "end")]
        assert told == [1, 1, n_steps, n_steps, 1]


def test_a_folder_is_imported_and_every_file_counted(lake: Lake, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = accounted(
        import_paths(
            lake, [write_run(tmp_path / "nightly")], progress=lambda done, total, n: seen.append((done, total))
        )
    )
    assert report.counts() | {"n_bytes": 0} == {
        "files": 13, "imported": 6, "known": 0, "rejected": 1, "outcome": 5, "ignored": 1, "records": 6,
        "taken": 6, "rejected_records": 0, "trajectories": 6, "steps": 30,
        "events": 90 + 4, "known_events": 0, "resolved": 2, "unresolved": 2, "n_bytes": 0, "rejected: not_json": 1,
    }  # fmt: skip
    assert seen == [(i + 1, 13) for i in range(13)]
    whole_and_once(lake, 6)
    found = outcomes(lake)
    assert {t: [r for r, _ in o] for t, o in found.items()} == {
        "acme__anvil-0": [], "acme__anvil-1": [False], "acme__anvil-2": [True], "acme__anvil-3": [],
        "acme__anvil-4": [True], "acme__anvil-5": [False],
    }  # fmt: skip
    assert set(lake.read("events", columns=["corpus"]).column(0).to_pylist()) == {"nightly"}
    sources = lake.read("sources").to_pylist()
    assert Counter(s["format"] for s in sources) == {"mini-swe-agent-1": 6, "instance-report": 4, "predictions": 1}
    assert sum(s["n_steps"] for s in sources) == 30
    (reject,) = lake.read("rejects").to_pylist()
    assert (reject["reason"], reject["raw"]) == ("not_json", b'{"messages": [')


def test_the_second_import_knows_everything(lake: Lake, tmp_path: Path) -> None:
    root = write_run(tmp_path / "run")
    import_paths(lake, [root])
    versions = {name: lake.version(name) for name in ("events", "sources", "rejects")}
    again = accounted(import_paths(lake, [root]))
    assert (again.imported, again.known, again.rejected, again.events) == (0, 6, 1, 0)
    assert {name: lake.version(name) for name in versions} == versions


def test_the_second_import_does_a_fraction_of_the_work(lake: Lake, tmp_path: Path) -> None:
    for i in range(60):
        write(tmp_path / "run" / f"acme__anvil-{i}.traj.json", mini_1(f"acme__anvil-{i}", "x" * 20_000 + str(i)))
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        import_paths(lake, [tmp_path / "run"])
        times.append(time.perf_counter() - begun)
    assert times[1] < times[0] / 2


def test_the_same_content_under_another_name_adds_nothing(lake: Lake, tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "one.traj", swe_0())
    import_paths(lake, [first])
    version = lake.version("events")
    moved = write(tmp_path / "b" / "two.traj", first.read_bytes())
    report = accounted(import_paths(lake, [moved], corpus="other"))
    assert (report.known, report.events, lake.version("events")) == (1, 0, version)
    assert sorted(Path(p).name for p in lake.read("sources").column("path").to_pylist()) == ["one.traj", "two.traj"]
    laid_out = write(tmp_path / "c" / "three.traj", first.read_bytes().replace(b"\n", b"\n "))
    report = accounted(import_paths(lake, [laid_out], corpus="third"))
    assert (report.imported, report.events, lake.version("events")) == (1, 0, version)


def test_copies_in_one_run_are_one_trajectory(lake: Lake, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "run" / name / "x.traj.json", mini_1(None))
    report = accounted(import_paths(lake, [tmp_path / "run"]))
    assert (report.imported, report.known) == (1, 1)
    assert len(lake.read("sources")) == 2


def test_a_source_is_named_so_that_it_is_found_from_any_folder(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "work" / "run" / "x.traj.json", mini_1("acme__anvil-1"))
    monkeypatch.chdir(tmp_path / "work")
    import_paths(lake, ["run"])
    assert accounted(import_paths(lake, ["run/x.traj.json"])).known == 1
    assert lake.read("sources").column("path").to_pylist() == [str(file)]
    monkeypatch.chdir(tmp_path / "work" / "run")
    assert trajectories_of(lake, "source", "x.traj.json") == trajectories_of(lake, "source", str(file)) != set()


def test_files_given_by_name_are_looked_at_once_for_all_of_their_folder(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [f"acme__anvil-{i}" for i in range(6)]
    files = [write(tmp_path / "run" / f"{name}.json", mini_1(name)) for name in named]
    write(tmp_path / "run" / "results.json", {"resolved_ids": named[:2]})
    elsewhere = write(tmp_path / "other" / "x.json", mini_1("acme__anvil-9"))
    looked_at: Counter[Path] = Counter()

    def counted(path: Path, digests: Any = None) -> tuple[str, Any]:
        looked_at[path] += 1
        return read_companion(path, digests)

    monkeypatch.setattr(outcome, "read_companion", counted)
    report = accounted(import_paths(lake, [files[0], elsewhere, *files[1:], files[0]]))
    assert (report.files, report.imported, report.known, report.resolved) == (8, 7, 1, 2)
    assert looked_at == Counter([*files, elsewhere, tmp_path / "run" / "results.json"])
    assert set(lake.read("events", columns=["corpus"]).column(0).to_pylist()) == {"run", "other"}


def test_a_report_that_comes_later_adds_the_outcome_only(lake: Lake, tmp_path: Path) -> None:
    name = "acme__anvil-7"
    write(tmp_path / "run" / "trajs" / f"{name}.traj.json", mini_1(name))
    import_paths(lake, [tmp_path / "run"])
    write(tmp_path / "run" / "logs" / name / "report.json", {name: instance_report(True)})
    report = accounted(import_paths(lake, [tmp_path / "run"], corpus="elsewhere"))
    assert (report.imported, report.events, report.resolved) == (1, 1, 1)
    assert outcomes(lake)[name] == [(True, "swe-bench-harness report")]
    assert set(lake.read("events", columns=["corpus"]).column(0).to_pylist()) == {"run"}
    (row,) = EventLog(lake).read(kinds=["outcome"]).to_pylist()
    assert [(t["name"], t["group"], t["passed"]) for t in row["outcome"]["tests"]] == [
        ("t::a", "FAIL_TO_PASS", True), ("t::b", "PASS_TO_PASS", True),
    ]  # fmt: skip
    assert accounted(import_paths(lake, [tmp_path / "run"])).known == 1


@pytest.mark.parametrize("harness", ["harbor", "stem"])
def test_a_report_that_comes_later_is_joined_to_a_document_that_names_no_task(
    harness: str, lake: Lake, tmp_path: Path
) -> None:
    trial = {"task_name": "anvil", "trial_name": "anvil__1", "verifier_result": {"rewards": {"reward": 1.0}}}
    mini = {k: v for k, v in mini_1("a__b-1").items() if k != "instance_id"}
    written: dict[str, list[tuple[str, Any]]] = {
        "harbor": [("anvil__1/agent/trajectory.json", atif()), ("anvil__1/result.json", trial)],
        "stem": [("a__b-1/a__b-1.traj.json", mini), ("logs/a__b-1/report.json", {"a__b-1": instance_report(True)})],
    }
    for path, document in written[harness]:
        write(tmp_path / "run" / path, document)
        report = accounted(import_paths(lake, [tmp_path / "run"]))
    assert (report.imported, report.known, report.resolved) == (1, 0, 1)
    assert [r["outcome"]["resolved"] for r in EventLog(lake).read(kinds=["outcome"]).to_pylist()] == [True]


A = "acme__anvil-1"
AGGREGATES: list[tuple[str, Any, list[bool | None]]] = [
    ("results/results.json", {"resolved": [A], "no_logs": []}, [True]),
    ("results.json", {"resolved": ["other__x-1"]}, []),
    ("trajs/sb-cli-reports/r.json", {"resolved_ids": [], "unresolved_ids": [A]}, [False]),
    ("run_evaluation/report.json", {"resolved": 1, "ids_resolved": [A], "ids_unresolved": []}, [True]),
    ("model.run.json", {"resolved_ids": [], "unresolved_ids": [], "error_ids": [A]}, [None]),
    ("somewhere/else.json", {"resolved_ids": [A]}, []),
    ("run_evaluation/run1/model/acme__anvil-1/report.json", instance_report(False), [False]),
    ("trajs/acme__anvil-1/report.json", instance_report(True), [True]),
    ("other/acme__anvil-1/report.json", instance_report(True), []),
]


@pytest.mark.parametrize(("path", "document", "expected"), AGGREGATES)
def test_reports_are_found_by_the_rule(
    path: str, document: Any, expected: list[bool | None], lake: Lake, tmp_path: Path
) -> None:
    write(tmp_path / "run" / "trajs" / f"{A}.traj.json", mini_1(A))
    write(tmp_path / "run" / path, document)
    report = accounted(import_paths(lake, [tmp_path / "run"]))
    assert [r for r, _ in outcomes(lake)[A]] == expected
    assert report.outcome == 1
    assert import_paths(lake, [tmp_path / "run"]).known == 1


def test_rows_take_the_report_of_their_own_run(lake: Lake, tmp_path: Path) -> None:
    for model, resolved in (("one", True), ("two", False)):
        row = {"instance_id": A, "run_id": model, "messages": [{"role": "assistant", "content": model}]}
        write(
            tmp_path / "all" / model / "output.jsonl",
            orjson.dumps(row) + b"\n" + orjson.dumps({**row, "instance_id": "b__c-1"}),
        )
        write(tmp_path / "all" / model / "eval_outputs" / A / "report.json", instance_report(resolved))
    write(tmp_path / "all" / "results.json", {"resolved_ids": [A]})
    report = accounted(import_paths(lake, [tmp_path / "all"]))
    assert (report.trajectories, report.resolved, report.unresolved) == (4, 1, 1)
    assert accounted(import_paths(lake, [tmp_path / "all"])).known == 2


@pytest.mark.parametrize(
    ("rewards", "exception", "resolved", "score"),
    [({"reward": 1.0}, None, True, 1.0), ({"reward": 0}, None, False, 0.0), ({"a": 0.5}, None, None, 0.5),
     ({"reward": 1.0}, {"exception_type": "AgentTimeoutError"}, None, 1.0), ({}, None, None, None),
     (None, {"exception_type": "AgentSetupTimeoutError"}, None, None)],
)  # fmt: skip
def test_a_trial_of_harbor_grades_its_trajectory_alone(
    rewards: Any, exception: Any, resolved: bool | None, score: float | None, lake: Lake, tmp_path: Path
) -> None:
    verified = None if rewards is None else {"rewards": rewards}
    told_by_trial = {"task_name": "anvil", "trial_name": "anvil__1", "verifier_result": verified}
    write(tmp_path / "job" / "anvil__1" / "result.json", {**told_by_trial, "exception_info": exception})
    write(tmp_path / "job" / "anvil__1" / "agent" / "trajectory.json", atif())
    write(tmp_path / "job" / "anvil__2" / "agent" / "trajectory.json", {**atif(), "trajectory_id": "other"})
    report = accounted(import_paths(lake, [tmp_path / "job"]))
    assert (report.trajectories, report.outcome) == (4, 1)
    (outcome,) = EventLog(lake).read(kinds=["outcome"]).to_pylist()
    assert (outcome["outcome"]["resolved"], outcome["outcome"]["score"]) == (resolved, score)
    told = {r["trajectory_id"]: r["task_id"] for r in fold_trajectories(EventLog(lake).read()).to_pylist()}
    assert [task for name, task in told.items() if task or name == outcome["trajectory_id"]] == ["anvil"]
    assert accounted(import_paths(lake, [tmp_path / "job"])).known == 2
    (tmp_path / "job" / "anvil__1" / "result.json").unlink()
    again = Lake(tmp_path / "again")
    import_paths(again, [tmp_path / "job"])
    write(tmp_path / "job" / "anvil__1" / "result.json", {**told_by_trial, "exception_info": exception})
    assert import_paths(again, [tmp_path / "job"]).events == 2, "the task and the outcome, when the trial ends later"


def test_exit_status_is_never_success(lake: Lake, tmp_path: Path) -> None:
    import_paths(lake, [write(tmp_path / "run" / f"{A}.traj.json", mini_1(A))])
    assert outcomes(lake)[A] == []


def test_reports_that_disagree_all_stay_and_the_own_report_is_last(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "run" / "trajs" / f"{A}.traj.json", mini_1(A))
    write(tmp_path / "run" / "results.json", {"resolved_ids": [A]})
    write(tmp_path / "run" / "logs" / A / "report.json", instance_report(False))
    import_paths(lake, [tmp_path / "run"])
    assert outcomes(lake)[A] == [(True, "aggregated results"), (False, "swe-bench-harness report")]


def test_two_reports_of_a_kind_that_disagree_leave_it_undecided(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "run" / "trajs" / f"{A}.traj.json", mini_1(A))
    for run, resolved in (("one", True), ("two", False)):
        write(tmp_path / "run" / "run_evaluation" / run / "m" / A / "report.json", instance_report(resolved))
    import_paths(lake, [tmp_path / "run"])
    assert [r for r, _ in outcomes(lake)[A]] == [True, False, None]


STATES = [
    pytest.param([{"a": False, "own": True}, {"a": False, "own": False}], id="the last that said otherwise changed"),
    pytest.param([{"a": False, "b": True}, {"b": True}], id="the one that was in conflict is gone"),
    pytest.param([{"own": True}, {"own": False}, {"own": True}], id="as it was at first"),
    pytest.param([{"own": True}, {"a": False, "own": False}, {"a": False, "own": True}], id="some as they were"),
]


@pytest.mark.parametrize("states", STATES)
def test_what_reports_say_now_stands(states: list[dict[str, bool]], lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "run" / "trajs" / f"{A}.traj.json", mini_1(A))
    paths = {"a": Path("results", "a.json"), "b": Path("results", "b.json"), "own": Path("logs", A, "report.json")}
    for state in states:
        for name, path in paths.items():
            (tmp_path / "run" / path).unlink(missing_ok=True)
            if name in state:
                listed = {"resolved_ids": [A] if state[name] else [], "unresolved_ids": [] if state[name] else [A]}
                write(tmp_path / "run" / path, instance_report(state[name]) if name == "own" else listed)
        report = accounted(import_paths(lake, [tmp_path / "run"]))
        last = state.get("own", state.get("b"))
        told = None if set(state.values()) == {True, False} and "own" not in state else last
        assert (report.resolved, report.unresolved) == (told is True, told is False)
        (row,) = fold_trajectories(EventLog(lake).read()).to_pylist()
        assert row["resolved"] is told
        assert accounted(import_paths(lake, [tmp_path / "run"])).events == 0


@pytest.mark.parametrize("resolved", [True, False])
def test_a_report_beside_a_row_that_says_otherwise_stands(resolved: bool, lake: Lake, tmp_path: Path) -> None:
    rows = [{"instance_id": f"a__b-{i}", "resolved": not resolved, "messages": [{"role": "assistant", "content": "x"}]}
            for i in range(5)]  # fmt: skip
    write(tmp_path / "run" / "output.jsonl", b"\n".join(map(orjson.dumps, rows)))
    for row in rows:
        write(tmp_path / "run" / "eval_outputs" / row["instance_id"] / "report.json", instance_report(resolved))
    import_paths(lake, [tmp_path / "run"])
    assert {row["resolved"] for row in fold_trajectories(EventLog(lake).read()).to_pylist()} == {resolved}


def test_a_report_of_another_run_says_nothing(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "all" / "one" / "trajs" / f"{A}.traj.json", mini_1(A, "one"))
    write(tmp_path / "all" / "two" / "trajs" / f"{A}.traj.json", mini_1(A, "two"))
    write(tmp_path / "all" / "one" / "logs" / A / "report.json", instance_report(True))
    write(tmp_path / "all" / "results.json", {"resolved_ids": [A]})
    report = import_paths(lake, [tmp_path / "all"])
    assert (report.trajectories, report.resolved) == (2, 1)


def test_broken_files_are_kept_with_their_reason(lake: Lake, tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "a.json": b"", "b.traj": b"version https://git-lfs.github.com/spec/v1\n", "c.json": [], "d.json": {"items": [None]},
        "e.json": {"messages": [3]}, "f.traj.json": b'\xff{"a"',
        "g.traj.json": {**mini_1(), "trajectory_format": "mini-swe-agent-9"},
        "h.traj.json": {**mini_1(), "messages": "no"}, "i.parquet": b"PAR1", "j.traj": {"history": []},
        "k.json": b'{"a": Nan}', "l.json": b"[" * 5000 + b"]" * 5000, "m.jsonl": b'{"a": 1}\n{"b"\n',
    }  # fmt: skip
    for name, document in files.items():
        write(tmp_path / "bad" / name, document)
    (tmp_path / "bad" / "n.json").symlink_to("nowhere")
    os.mkfifo(tmp_path / "bad" / "o.json")
    write(tmp_path / "bad" / "notes.md", b"# notes")
    write(tmp_path / "bad" / ".git" / "x.json", b"{}")
    report = accounted(import_paths(lake, [tmp_path / "bad"]))
    assert (report.files, report.rejected, report.ignored) == (16, 15, 1)
    rejects = {Path(r["path"]).name: r for r in lake.read("rejects").to_pylist()}
    assert {n: r["reason"] for n, r in rejects.items()} == {
        "a.json": "empty", "b.traj": "lfs_pointer", "c.json": "unknown_format", "d.json": "unknown_format",
        "e.json": "malformed", "f.traj.json": "not_json", "g.traj.json": "unsupported_version",
        "h.traj.json": "malformed", "i.parquet": "bad_archive", "j.traj": "unknown_format", "k.json": "not_json",
        "l.json": "too_deep", "m.jsonl": "unknown_format", "n.json": "unreadable", "o.json": "unreadable",
    }  # fmt: skip
    assert all(r["raw"] == (tmp_path / "bad" / n).read_bytes() for n, r in rejects.items() if n[0] not in "no")
    assert rejects["e.json"]["format"] == "chat"
    assert "`messages[0]` is a number" in rejects["e.json"]["detail"]
    assert set(REASONS) >= {r["reason"] for r in rejects.values()}


def test_a_file_named_is_never_ignored(lake: Lake, tmp_path: Path) -> None:
    report = accounted(import_paths(lake, [write(tmp_path / "notes.md", b"# notes")]))
    assert report.reasons == {"not_json": 1}


def test_wrong_requests_raise(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file or folder"):
        import_paths(lake, [tmp_path / "nothing"])
    with pytest.raises(UnknownName, match="mini-swe-agent"):
        import_paths(lake, [tmp_path], format="word")


def test_a_corpus_is_bounded_by_what_names_a_folder(lake: Lake, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / ("r" * 241)).mkdir()
    for corpus, path in (("\u6587" * 27, "run"), (None, "r" * 241)):
        with pytest.raises(UsageError, match="at most 240"):
            import_paths(lake, [tmp_path / path], corpus)
    assert lake.version("events") is None
    assert import_paths(lake, [tmp_path / "run"], "\u6587" * 26).events


def test_a_format_asked_for_takes_no_other(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "run" / "a.traj.json", mini_1())
    write(tmp_path / "run" / "b.traj", swe_1())
    write(tmp_path / "run" / "c.traj.json", [{"role": "assistant", "content": "```bash\nls\n```"}])
    report = accounted(import_paths(lake, [tmp_path / "run"], format="mini-swe-agent"))
    assert (report.imported, report.reasons) == (2, {"other_format": 1})


def test_a_file_given_by_name_is_read_as_the_format_asked_for(lake: Lake, tmp_path: Path) -> None:
    path = write(tmp_path / "run" / "a.traj.json", mini_1())
    assert accounted(import_paths(lake, [path], format="chat")).steps == 5
    assert list(import_paths(lake, [tmp_path / "run"], format="chat").reasons) == []
    assert lake.read("sources").column("format").to_pylist() == ["chat"]


def test_fidelity_says_where_every_value_went(lake: Lake, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "ls", "mood": "good"}]
    rows = [
        {"instance_id": A, "resolved": True, "messages": chat},
        {"messages": 3, "instance_id": "b__c-1"},
    ]
    write(tmp_path / "run" / "rows.jsonl", b"\n".join(map(orjson.dumps, rows)) + b"\n{")
    report = accounted(import_paths(lake, [tmp_path / "run"]))
    told = report.fidelity["chat"].row()
    assert (told["records"], told["taken"], told["rejected"]) == (3, 1, 2)
    said = {"messages[].role": 2, "messages[].content": 2, "messages[].mood": 1}
    assert told["source"] == {**said, "instance_id": 1, "resolved": 1}
    assert told["extra"] == {"action.mood": 1}
    assert [told["columns"][c] for c in ("action.text", "instruction.content", "outcome.resolved")] == [1, 1, 1]
    assert dict(report.reasons) == {"malformed": 1, "bad_line": 1}
    assert {r["raw"] for r in lake.read("rejects").to_pylist()} == {orjson.dumps(rows[1]), b"{"}


def test_a_value_no_column_holds_rejects_its_file_alone(lake: Lake, tmp_path: Path) -> None:
    document = mini_1()
    document["messages"][2]["extra"]["response"]["usage"]["prompt_tokens"] = 2**63
    document["messages"][2]["extra"]["response"]["created"] = 10**18
    write(tmp_path / "run" / "a.traj.json", document)
    report = accounted(import_paths(lake, [tmp_path / "run"]))
    assert report.imported == 1
    (first, *_) = EventLog(lake).read(kinds=["action"]).to_pylist()
    assert first["usage"]["tokens_in"] is None
    assert first["occurred_at"] is None
    assert str(2**63) in first["extra"]
    assert str(10**18) in first["extra"]
    assert first["usage"]["call_id"] == f"gen-{CREATED}"


def test_undecodable_names_survive(lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "run" / "x", b"")
    for content, name in ((b"{", b"\xff.json"), (write(tmp_path / "t", swe_0()).read_bytes(), b"\xfe.traj")):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "run"), name))).write_bytes(content)
    report = accounted(import_paths(lake, [tmp_path / "run"]))
    assert (report.imported, report.rejected) == (1, 1)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_width", 250)
    monkeypatch.setattr(output, "_height", 50)
    app = typer.Typer()
    data.register(app)
    root, lake = write_run(tmp_path / "nightly"), str(tmp_path / "lake")
    told = CliRunner().invoke(app, ["import", str(root), "--lake", lake, "--json"])
    assert told.exit_code == 0, told.output
    assert (orjson.loads(told.stdout)["trajectories"], orjson.loads(told.stdout)["rejected"]) == (6, 1)
    assert len(Lake(lake).read("trajectories")) == 6, "the folds are brought up to date"
    told = CliRunner().invoke(app, ["import", str(root), "--lake", lake])
    assert "not_json" in told.stdout
    told = CliRunner().invoke(app, ["sniff", str(root / "trajs" / "acme__anvil-0.traj.json"), "--json"])
    assert orjson.loads(told.stdout)["format"] == "mini-swe-agent"
    told = CliRunner().invoke(app, ["sniff", str(root / "trajs" / "broken.traj.json"), "--json"])
    assert orjson.loads(told.stdout)["format"] == "not_json"
    told = CliRunner().invoke(app, ["formats"])
    assert all(capability in told.stdout for capability in CAPABILITIES)
    assert set(orjson.loads(CliRunner().invoke(app, ["formats", "--json"]).stdout)["formats"]) == set(IMPORTERS)


def test_no_control_sequence_of_a_file_reaches_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_width", 250)
    app = typer.Typer()
    data.register(app)
    said = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "ls", "mood\x1b[2J[red]": "good"}]
    path = write(tmp_path / "rows.jsonl", orjson.dumps({"instance_id": A, "messages": said}))
    told = CliRunner().invoke(app, ["import", str(path), "--lake", str(tmp_path / "lake")])
    assert "action.mood⟨U+001B⟩[2J[red]" in told.stdout
    assert "\x1b" not in told.stdout


def test_small_batches_are_whole_trajectories(lake: Lake, tmp_path: Path) -> None:
    import_paths(lake, [write_run(tmp_path / "run", 9)], batch_events=1)
    whole_and_once(lake, 9)
    batches = lake.read("events", columns=["trajectory_id", "recorded_at"]).to_pylist()
    assert len({(r["trajectory_id"], r["recorded_at"]) for r in batches}) == 9


def test_two_processes_import_the_same_folder(lake: Lake, tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 24)
    command = [sys.executable, "-W", "error", "-c", IMPORT, lake.uri, str(root), "60"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    whole_and_once(lake, 24)
    assert len(lake.read("sources", columns=["path"])) == 24 + 16 + 1
    assert len(lake.read("rejects", columns=["path"])) == 1


def test_a_killed_import_is_finished_by_the_next(lake: Lake, tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 40)
    pick = random.Random(7)
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", IMPORT, lake.uri, str(root), "30"], cwd=ROOT)
        before = lake.version("events") or 0
        deadline = time.monotonic() + 60
        while process.poll() is None and (lake.version("events") or 0) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(pick.random() / 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if lake.version("events") is not None:
            n = len(set(lake.read("events", columns=["trajectory_id"]).column(0).to_pylist()))
            whole_and_once(lake, n)
    accounted(import_paths(lake, [root]))
    whole_and_once(lake, 40)
    assert import_paths(lake, [root]).known == 40
    assert len([r for r in outcomes(lake).values() if len(r) == 1]) == 26
