"""Datasets: the three methods from one log, sealed the same when rebuilt, and proven to train what was chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from format_examples_i2 import claude_session
from lakes import Step, good_repair, looping, trajectory
from lakes import build as build_lake
from typer.testing import CliRunner

from schemas.tables import DATASET
from stepwell.cli import build_app
from stepwell.cli.common import output
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.data_settings import Mask
from stepwell.datasets.build import Built, build, content_hash
from stepwell.datasets.verify import verify
from stepwell.errors import RecipeError, UnknownName
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.importers.run import import_paths
from stepwell.invariants import dataset_rows
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target
from stepwell.rendering import Renderer
from stepwell.seals import seal_of
from stepwell.stored import require_schema


def recipe(method: str, **settings: Any) -> Recipe:
    source = {"corpora": ["demo", "rollouts/one two"], "where": settings.pop("where", "true")}
    dataset = {"method": method, "held_out": 0.0, **settings.pop("dataset", {})}
    mask = Mask(rule="srft") if method == "srft" else Mask()
    return Recipe.model_validate({"name": method, "source": source, "dataset": dataset, "mask": mask, **settings})


def made(lake: Lake, renderer: Renderer, settings: Recipe, version: int | None = None) -> Built:
    rule = rule_of(settings.mask)
    if version is None:
        judge_new(lake)
        mask_new(lake, rule)
    return build(lake, settings, renderer, str(rule), version)


def test_all_rft_and_srft_from_one_log(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    refresh(lake)
    everything, resolved, masked = (made(lake, renderer, recipe(m)) for m in ("all", "rft", "srft"))
    assert (everything.n_rows, resolved.n_rows) == (5, 3)
    assert masked.n_rows >= 3
    assert everything.masked_share == resolved.masked_share == 0
    assert 0 < masked.masked_share < 1
    for built in (everything, resolved, masked):
        rows = lake.read(built.table)
        require_schema(DATASET, rows)
        assert verify(rows, renderer).ok
        assert dataset_rows(lake, rows) == []
        funnel = {line["line"]: line["trajectories"] for line in built.funnel if line.get("trajectories")}
        dropped = sum(n for line, n in funnel.items() if line.startswith("dropped"))
        assert funnel["in"] == dropped + funnel["out"] == 5


def test_resolved_trajectories_are_trained_in_full(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    rows = lake.read(made(lake, renderer, recipe("srft")).table).to_pylist()
    by_id = {r["trajectory_id"]: r for r in rows}
    assert all(by_id["t-good-a"]["weights"])
    if "t-loop-a" in by_id:
        assert not all(by_id["t-loop-a"]["weights"])


def test_rebuilt_at_the_same_version_is_the_same_to_the_byte(lake: Lake, renderer: Renderer, tmp_path: Path) -> None:
    build_lake(lake)
    first = made(lake, renderer, recipe("srft"))
    EventLog(lake).append(looping("later"), "later")
    again = made(lake, renderer, recipe("srft"), first.events_version)
    assert (again.hash, again.version) == (first.hash, first.version)
    now = made(lake, renderer, recipe("srft"))
    assert now.hash != first.hash
    sealed = seal_of(lake, "datasets/srft", first.version)
    assert sealed
    assert sealed[1]["dataset_hash"] == content_hash(lake.read("datasets/srft", first.version)) == first.hash


def test_it_is_built_again_after_a_takedown(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    before = made(lake, renderer, recipe("srft"))
    for n, gone in enumerate(("t-good-a", "t-good-b"), 1):
        assert redact(lake, Target(down=frozenset({gone})), "asked for").done
        again = made(lake, renderer, recipe("srft"))
        assert again.n_rows == before.n_rows - n
        rows = lake.read(again.table)
        assert gone not in rows.column("trajectory_id").to_pylist()
        assert verify(rows, renderer).ok


def test_where_and_length_are_counted_not_hidden(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    built = made(lake, renderer, recipe("all", where="n_steps < 6", dataset={"max_length": 400}))
    reasons = {line["line"]: line.get("trajectories", 0) for line in built.funnel}
    assert reasons["dropped: filtered by source.where"] == 3
    told = r"leaves nothing to train on\. Trajectories: in \d+; dropped: .*longer than 5 tokens \d+; out 0"
    with pytest.raises(RecipeError, match=told):
        made(lake, renderer, recipe("all", dataset={"max_length": 5}))
    ungraded = trajectory("t-ungraded", [Step("view")])
    EventLog(lake).append(ungraded, "more")
    built = made(lake, renderer, recipe("all", where="resolved IS NOT TRUE"))
    assert "t-ungraded" in lake.read(built.table).column("trajectory_id").to_pylist()


def test_held_out_follows_the_task(lake: Lake, renderer: Renderer) -> None:
    events = [e for i in range(40) for e in good_repair(f"t{i}", task_id=f"task-{i % 20}")]
    EventLog(lake).append(events, "many")
    rows = lake.read(made(lake, renderer, recipe("all", dataset={"held_out": 0.3})).table)
    splits = (
        pa.table({"task": rows.column("task_id"), "split": rows.column("split")})
        .group_by("task")
        .aggregate([("split", "count_distinct")])
    )
    assert pc.max(splits.column("split_count_distinct")).as_py() == 1
    assert set(rows.column("split").to_pylist()) == {"train", "held_out"}


def test_verify_finds_a_wrong_label(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    row = lake.read(made(lake, renderer, recipe("all")).table).slice(0, 1).to_pylist()[0]
    first = next(i for i, label in enumerate(row["labels"]) if label != -100)
    row["labels"][first] = -100
    assert not verify(pa.Table.from_pylist([row], DATASET.schema), renderer).ok
    row["labels"][first] = row["input_ids"][first]
    row["labels"][0] = row["input_ids"][0]
    assert not verify(pa.Table.from_pylist([row], DATASET.schema), renderer).ok


def test_provenance_reaches_the_events(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    for row in lake.read(made(lake, renderer, recipe("srft")).table).to_pylist():
        replayed = {e["event_id"]: e for e in EventLog(lake).replay(row["trajectory_id"]).to_pylist()}
        said = [m["content"] for m in json.loads(row["messages"]) if m["role"] == "assistant"]
        assert [replayed[e]["action"]["text"] for e in row["event_ids"]] == said
        assert [replayed[e]["mask"]["weight"] for e in row["mask_event_ids"]] == row["weights"]


def test_an_unknown_method_lists_the_known_ones(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    with pytest.raises(UnknownName, match=r"allowed: all, critic_dpo, .*, dagger, oec, rft, srft"):
        build(lake, recipe("nothing"), renderer, "all")


def test_what_curation_chose_is_counted_and_decides_the_split(lake: Lake, renderer: Renderer) -> None:
    build_lake(lake)
    settings = recipe("all")
    names = sorted(lake.read("events", columns=["trajectory_id"]).column(0).unique().to_pylist())
    dropped = ["cap: task has 2 others" if i == 0 else None for i in range(len(names))]
    chosen = pl.DataFrame({"trajectory_id": names, "dropped": dropped, "split": ["held_out"] * len(names)})
    built = build(lake, settings, renderer, "all@1", chosen=chosen)
    lines = {line["line"]: line for line in built.funnel}
    assert lines["dropped: cap: task has 2 others"]["trajectories"] == 1
    assert lines["dropped: cap: task has 2 others"]["tokens"] > 0
    rows = lake.read(built.table)
    assert set(rows.column("split").to_pylist()) == {"held_out"}
    assert names[0] not in rows.column("trajectory_id").to_pylist()


def test_the_list_of_datasets_shows_their_seals(
    lake: Lake, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_width", 200)
    monkeypatch.setattr(output, "_height", 50)
    build_lake(lake)
    built = made(lake, renderer, recipe("rft"))
    said = CliRunner().invoke(build_app(), ["datasets", "--lake", lake.uri, "--json"])
    (told,) = json.loads(said.stdout)
    assert (told["dataset"], told["dataset_hash"], told["recipe"]) == ("datasets/rft", built.hash, "rft")
    assert (told["events_version"], told["version"]) == (built.events_version, built.version)
    assert told["counts"]["rows"] == built.n_rows
    assert told["funnel"] == built.funnel
    assert told["code_version"].startswith("0.")
    assert built.hash[:8] in CliRunner().invoke(build_app(), ["datasets", "--lake", lake.uri]).stdout


@pytest.mark.parametrize("method", ["all", "srft", "srft_dropped"])
def test_what_a_person_typed_or_another_trajectory_holds_is_context_only(
    method: str, lake: Lake, renderer: Renderer
) -> None:
    events = [
        e if e.kind != "outcome" else replace(e, payload={**e.payload, "resolved": True}) for e in looping("mixed")
    ]
    told = {0: {"actor": "human"}, 1: {"actor": "system", "extra": '{"is_copied_context":true}'}}
    EventLog(lake).append([replace(e, **told.get(e.step, {})) if e.kind == "action" else e for e in events], "b")
    refresh(lake)
    (row,) = lake.read(made(lake, renderer, recipe(method)).table).to_pylist()
    assert row["steps"][:3] == [0, 1, 2], "they stay in the context, also where rejected steps do not"
    assert row["weights"][:2] == [0.0, 0.0]
    assert row["weights"][2] == 1.0


def test_a_step_that_its_source_masks_is_learnt_under_no_rule(lake: Lake, renderer: Renderer) -> None:
    masked = [*looping("whole"), *good_repair("part")]
    of = [
        (e.trajectory_id, e.step) for e in masked if e.kind == "action" and (e.trajectory_id == "whole" or e.step == 1)
    ]
    payload = {"mask_rule": "nemo-gym mask_sample", "weight": 0.0, "reason": "mask_sample"}
    EventLog(lake).append([*masked, *(Event("mask", t, "demo", "system", payload, step) for t, step in of)], "b")
    refresh(lake)
    built = made(lake, renderer, recipe("all"))
    (row,) = lake.read(built.table).to_pylist()
    assert (row["trajectory_id"], row["weights"]) == ("part", [1.0, 0.0, 1.0, 1.0, 1.0])
    assert len(row["mask_event_ids"]) == 1
    assert "dropped: no step to learn" in str(built.funnel)


def test_a_line_without_what_came_before_it_is_no_row(lake: Lake, renderer: Renderer, tmp_path: Path) -> None:
    (tmp_path / "session.jsonl").write_bytes(b"\n".join(map(orjson.dumps, claude_session())))
    import_paths(lake, [tmp_path / "session.jsonl"], "demo")
    refresh(lake)
    starts = EventLog(lake).read(kinds=["start"], columns=["trajectory_id", "start", "extra"]).to_pylist()
    (forked,) = (s["trajectory_id"] for s in starts if "without_prefix" in (s["extra"] or ""))
    assert len(starts) == 3
    built = made(lake, renderer, recipe("all"))
    rows = lake.read(built.table).column("trajectory_id").to_pylist()
    assert rows
    assert forked not in rows
    assert "what came before it is in the trajectory it continues" in str(built.funnel)
