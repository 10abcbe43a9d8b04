"""The recorded files beside the project: what is imported from them is what RECORDS.tsv counts, with nothing lost."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest
from test_importers import leaves, of, rebuilt_prompts, sha256_of

from stepwell.fold import refresh
from stepwell.importers.base import Imported, SourceFile
from stepwell.importers.outcome import stem
from stepwell.importers.run import IMPORTERS, ImportReport, import_paths
from stepwell.importers.sniff import inspect
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
