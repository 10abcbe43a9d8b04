"""The recorded files beside the project: what is imported from them is what RECORDS.tsv counts, with nothing lost."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest
from test_import_contract import missing
from test_importers import inspect, leaves, of, rebuilt_prompts, sha256_of

from stepwell.fold import refresh
from stepwell.importers.base import Imported, SourceFile
from stepwell.importers.containers import open_blob
from stepwell.importers.files import File
from stepwell.importers.outcome import stem
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import ImportReport, import_paths
from stepwell.importers.units import units
from stepwell.lake import Lake
from stepwell.log import EventLog

SHARED = Path(__file__).parent.parent.parent / "shared"
FOLDERS = [SHARED / "data" / name for name in ("mini-swe-agent-1", "swe-agent-traj")]
pytestmark = [pytest.mark.shared, pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="../shared/data is absent")]
FILES = sorted(p for folder in FOLDERS for p in folder.rglob("*.traj*")) if (SHARED / "data").is_dir() else []


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, ImportReport]:
    lake = Lake(tmp_path_factory.mktemp("shared"))
    report = import_paths(lake, FOLDERS)
    refresh(lake)
    return lake, report


def records() -> list[dict[str, str]]:
    with (SHARED / "data" / "RECORDS.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [r for r in rows if r["path"].startswith(("data/mini-swe-agent-1/", "data/swe-agent-traj/"))]


def test_every_record_is_imported_with_its_steps_and_outcome(imported: tuple[Lake, ImportReport]) -> None:
    lake, report = imported
    by_id = {r["trajectory_id"]: r for r in lake.read("trajectories").to_pylist()}
    by_path = {
        s["path"]: by_id[s["trajectory_ids"][0]] for s in lake.read("sources").to_pylist() if s["trajectory_ids"]
    }
    assert report.trajectories == len(by_id) == len(by_path) == len(records())
    assert report.rejected == 0
    for record in records():
        row = by_path[str(SHARED / record["path"])]
        assert row["n_steps"] == int(record["n_steps"]), record
        told = record["outcome"] == "True" if record["outcome_kind"] == "resolved" else None
        assert row["resolved"] is told, record
        bare = record["agent"] == "mini-swe-agent(test)"
        assert row["task_id"] == (None if bare else record["instance_id"]), record
        if record["model"]:
            assert row["model"] == record["model"]


def test_costs_are_as_the_source_states_them(imported: tuple[Lake, ImportReport]) -> None:
    lake, _ = imported
    actions = EventLog(lake).read(kinds=["action"], corpora=["mini-swe-agent-1"]).to_pylist()
    assert len(actions) == 1816
    without = {a["trajectory_id"] for a in actions if (a["usage"] or {}).get("cost_usd") is None}
    assert len(without) == 2, "only the bare test files state no cost"
    for row in lake.read("trajectories").to_pylist():
        if row["corpus"] == "mini-swe-agent-1" and row["trajectory_id"] not in without:
            assert row["step_cost_usd"] == pytest.approx(row["cost_usd"])
    assert sum(a["action"]["parse_error"] is not None for a in actions) == 36
    assert sum(a["action"]["command"] is None for a in actions) == 36


def test_commands_that_timed_out_have_no_exit_code(imported: tuple[Lake, ImportReport]) -> None:
    lake, _ = imported
    rows = EventLog(lake).read(kinds=["observation"], corpora=["mini-swe-agent-1"]).to_pylist()
    late = [r["observation"] for r in rows if r["observation"]["timed_out"]]
    assert len(late) == 4
    assert all(o["exit_code"] is None for o in late)


def read(path: Path) -> tuple[Any, Imported]:
    told, document = inspect(path.read_bytes())
    source = SourceFile(str(path), stem(path), path.parent.name, "c", told.version, "i")
    (one,) = IMPORTERS[told.format].read(document, source)
    assert isinstance(one, Imported)
    return document, one


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name[:40]}-{p.name}")
def test_nothing_is_lost_and_prompts_can_be_rebuilt(path: Path) -> None:
    document, one = read(path)
    kept = set(leaves([[e.payload, e.usage, e.extra, e.occurred_at] for e in one.events]))
    kept |= {"assistant", *of("start", one)[0].payload["agent"].split()}
    steps = document.get("trajectory", []) if isinstance(document, dict) else []
    prompts = [s.get("messages", s.get("query")) for s in steps]
    for step in steps:
        step.pop("messages", None), step.pop("query", None)
    assert {v for v in leaves(document) if v not in kept} == set()
    if not any(prompts):
        return
    actions = of("action", one)
    for prompt, action, rebuilt in zip(prompts, actions, rebuilt_prompts(document, actions), strict=True):
        assert rebuilt == prompt
        told = orjson.loads(action.extra or "")["prompt"]
        assert (action.usage or {})["prompt_hash"] == sha256_of(prompt[: told["length"]])
    untouched = [m for a in actions for m in orjson.loads(a.extra or "")["prompt"].get("changes", [])]
    assert prompts[-1] == document["history"] or untouched, "a prompt that is not the history is told in full"


def test_the_second_import_knows_everything(imported: tuple[Lake, ImportReport]) -> None:
    lake, first = imported
    version = lake.version("events")
    again = import_paths(lake, FOLDERS)
    assert (again.known, again.events, again.outcome) == (first.imported, 0, first.outcome)
    assert lake.version("events") == version


OF_ROWS = ("adp-sft", "adp-std", "atif", "hf-chat", "openhands-output", "openhands-llm-completion-log")
DIFFERENT = {
    "fncall-llm-message.json": (1, 6, "a bare list of messages with 6 replies, counted as one call there"),
    "v17_embedded_subagents.json": (2, 3, "the embedded subagent is a trajectory of its own"),
}
"""File -> trajectories and steps here, and why they are not those of RECORDS.tsv."""
NOT_READ = {
    "workflow_output_atif.json": "lfs_pointer", "base_state.json": "unknown_format", "tools.json": "unknown_format",
    "copilot-cli/tool-calls/input.jsonl": "unknown_format", "cursor/tool-calls/input.jsonl": "unknown_format",
    "letta-code/tool-calls/input.jsonl": "unknown_format", "_no-samples.json": "malformed",
}  # fmt: skip
"""End of a path -> why the file is rejected: a pointer, a state file, tool schemas, fixtures without a known mark."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, ImportReport]:
    lake = Lake(tmp_path_factory.mktemp("everything"))
    return lake, import_paths(lake, [SHARED / "data"])


@pytest.mark.slow
def test_every_file_is_taken_in_or_rejected_for_a_known_reason(everything: tuple[Lake, ImportReport]) -> None:
    lake, report = everything
    rejects = {r["path"]: r["reason"] for r in lake.read("rejects").to_pylist()}
    ends = {p: next((end for end in NOT_READ if p.endswith(end)), p) for p in rejects}
    assert {ends[p]: reason for p, reason in rejects.items()} == NOT_READ
    assert report.records == report.taken + report.rejected_records
    assert report.files == report.imported + report.known + report.rejected + report.outcome + report.ignored
    with (SHARED / "data" / "MANIFEST.tsv").open() as file:
        paths = {str(SHARED / r["path"]) for r in csv.DictReader(file, delimiter="\t")}
    assert paths <= {s["path"] for s in lake.read("sources").to_pylist()} | set(rejects)


@pytest.mark.slow
def test_rows_are_counted_as_the_records_say(everything: tuple[Lake, ImportReport]) -> None:
    lake, _ = everything
    by_path = {s["path"]: (s["n_trajectories"], s["n_steps"]) for s in lake.read("sources").to_pylist()}
    expected: dict[str, tuple[int, int]] = {}
    with (SHARED / "data" / "RECORDS.tsv").open() as file:
        for r in csv.DictReader(file, delimiter="\t"):
            if r["path"].split("/")[1] in OF_ROWS:
                n, steps = expected.get(r["path"], (0, 0))
                expected[r["path"]] = (n + 1, steps + int(r["n_steps"]))
    assert len(expected) > 30
    for path, counts in expected.items():
        assert by_path[str(SHARED / path)] == DIFFERENT.get(Path(path).name, counts)[:2], path


@pytest.mark.slow
def test_no_text_of_a_row_is_lost() -> None:
    read = 0
    for name in (*OF_ROWS, "hf-parquet-schema"):
        for path in sorted((SHARED / "data" / name).rglob("*.*")):
            if not path.is_file() or path.name in ("tools.json", "example_model_output.json"):
                continue
            opened = open_blob(File(path))
            source = SourceFile(str(path), stem(path), path.parent.name, "c", opened.told.version, "")
            for unit in units(opened, IMPORTERS[opened.told.format], source):
                assert missing(unit.data, [e for one in unit.imported for e in one.events]) == set(), path
                read += 1
    assert read > 90


@pytest.mark.slow
def test_the_second_import_of_everything_writes_nothing(everything: tuple[Lake, ImportReport]) -> None:
    lake, first = everything
    versions = {name: lake.version(name) for name in ("events", "sources", "rejects")}
    again = import_paths(lake, [SHARED / "data"])
    assert (again.known, again.imported, again.events, again.rejected) == (first.imported, 0, 0, first.rejected)
    assert {name: lake.version(name) for name in versions} == versions
