"""What a person sees of the graph: labels, columns and their lineage, plots, links, and the sensor over new files."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import lakes
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from assets import columns
from assets.checks import checks
from assets.definitions import build_defs
from assets.log_assets import sources
from assets.resources import Experiments, Settings
from assets.shown import of_evaluation, of_models
from assets.watching import MOST_S, QUIET_S, new_sources
from schemas.events import ENVELOPE
from schemas.kinds import KINDS
from schemas.tables import DATASET, TABLES
from stepwell.lake import Lake
from stepwell.recipe import Recipe

RECIPE = """
title: small
source: {corpora: [demo, rollouts/one two]}
mask: {rule: srft}
dataset: {method: srft, max_length: 1024, held_out: 0.0}
"""
SHOWN = ["events", "trajectories", "steps", "verdicts", "masks/small", "datasets/small"]


@pytest.fixture(scope="module")
def graph() -> dg.AssetGraph:
    return build_defs(Experiments.load()).resolve_asset_graph()


def test_every_asset_has_a_description_a_group_an_owner_kinds_and_tags(graph: dg.AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name[:2] in ("1_", "2_", "3_", "4_", "5_"), (
            f"{key}: {node.group_name} has no place in the order"
        )
        assert node.owners
        assert node.kinds
        assert node.tags["stage"]
    assert graph.get(dg.AssetKey(["datasets", "srft"])).tags["method"] == "srft"


def test_groups_stand_in_the_order_of_the_flow(graph: dg.AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        for parent in node.parent_keys:
            before = graph.get(parent).group_name[0]
            assert before <= node.group_name[0], f"{parent.to_user_string()} -> {key.to_user_string()}"


def test_tables_show_the_declared_columns(graph: dg.AssetGraph) -> None:
    for name in ("events", "trajectories", "steps", "sources"):
        shown = graph.get(dg.AssetKey(name)).metadata["dagster/column_schema"]
        found = {column.name: column for column in shown.columns}
        assert set(found) == set(TABLES[name].schema.names)
        assert all(column.description for column in found.values())


def test_every_column_of_a_fold_comes_from_events_and_rows_from_what_is_there() -> None:
    known = {
        "events": {*(c.name for c in ENVELOPE), *KINDS},
        "trajectories": set(TABLES["trajectories"].schema.names),
        "masks": {"weight", "event_id"},
    }
    for name in ("trajectories", "steps"):
        lineage = columns.folded(name).deps_by_column
        assert set(lineage) == set(TABLES[name].schema.names)
        assert all(deps for deps in lineage.values()), [c for c, deps in lineage.items() if not deps]
    for masked in (True, False):
        found = columns.rows("srft", masked).deps_by_column
        assert {"messages", "labels", "trajectory_id", "event_ids"} <= set(found) <= set(DATASET.schema.names)
        for dep in (d for deps in [*found.values(), *columns.folded("steps").deps_by_column.values()] for d in deps):
            assert dep.column_name in known[dep.asset_key.path[0]]
            assert masked or dep.asset_key.path[0] != "masks"


def test_what_is_materialised_shows_its_lineage_tables_and_plots(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    lake = Lake(tmp_path / "lake")
    lakes.build(lake)
    definitions = build_defs(Experiments.load(tmp_path), {"settings": Settings(lake_uri=lake.uri)})
    with dg.DagsterInstance.ephemeral() as instance:
        keys = [dg.AssetKey.from_user_string(name) for name in SHOWN]
        job = definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=keys).success
        made = {
            name: event.asset_materialization.metadata
            for name, key in zip(SHOWN, keys, strict=True)
            if (event := instance.get_latest_materialization_event(key)) and event.asset_materialization
        }
    assert set(made) == set(SHOWN)
    for name in ("trajectories", "steps", "datasets/small"):
        assert made[name]["dagster/column_lineage"].value.deps_by_column
    assert isinstance(made["verdicts"]["categories"], dg.TableMetadataValue)
    plots = (
        ("verdicts", "failures"),
        ("masks/small", "masked"),
        ("datasets/small", "funnel"),
        ("datasets/small", "left"),
    )
    for name, plot in plots:
        assert "data:image/png" in str(made[name][plot].value), (name, plot)


@pytest.mark.parametrize("columns", [["trajectory_id"], [*TABLES["steps"].schema.names, "mine"]])
def test_a_table_that_does_not_fit_fails_its_check_and_not_the_step(tmp_path: Path, columns: list[str]) -> None:
    lake = Lake(tmp_path / "lake")
    rows = TABLES["steps"].schema.empty_table()
    rows = rows.append_column("mine", pa.array([], pa.string())).select(columns)
    write_deltalake(lake.path("steps"), rows)
    key = dg.AssetCheckKey(dg.AssetKey("steps"), "fits_schema")
    (check,) = (c for c in checks(Experiments(recipes={})) if key in c.check_keys)

    @dg.asset
    def steps() -> None: ...

    result = dg.materialize([steps, check], resources={"settings": Settings(lake_uri=lake.uri)})
    (said,) = result.get_asset_check_evaluations()
    assert (result.success, said.passed) == (True, False)
    assert ("foreign column 'mine'" if "mine" in columns else "missing 'step'") in str(said.metadata["first"].value)


def test_models_and_evaluations_link_to_each_other_and_show_rates(tmp_path: Path) -> None:
    import pyarrow as pa

    lake = Lake(tmp_path / "lake")
    lakes.build(lake)
    spec = TABLES["evaluations"].schema
    nothing = {"int32": 0, "int64": 0, "bool": False, "string": "x", "timestamp[us, tz=UTC]": lakes.EPOCH}
    rows = []
    for i in range(4):
        row = {f.name: None if f.nullable else nothing[str(f.type)] for f in spec}
        rows.append({**row, "suite": "repair-eval", "recipe": "small", "model_id": "small-1", "task_id": f"t{i}",
                     "resolved": i < 3, "exit_status": "submitted"})  # fmt: skip
    lake.add("evaluations", pa.Table.from_pylist(rows, schema=spec))
    recipe = Recipe.model_validate({"name": "small", "dataset": {"method": "srft"}})
    shown = of_evaluation(dg.MaterializeResult(metadata={"rate": 0.75}), lake, recipe).metadata or {}
    assert shown["rate"] == 0.75, "what the job said stays"
    records = shown["rates"].records  # type: ignore[union-attr]
    assert [(r.data["n"], r.data["rate"]) for r in records] == [(4, 0.75)]
    assert 0 < records[0].data["low"] < 0.75 < records[0].data["high"] < 1
    assert "data:image/png" in str(shown["ends"])
    linked = of_models(dg.MaterializeResult(), lake, "small", []).metadata or {}
    assert linked["made from"].asset_key == dg.AssetKey(["datasets", "small"])  # type: ignore[union-attr]
    assert linked["evaluated in"].asset_key == dg.AssetKey(["evaluations", "small"])  # type: ignore[union-attr]


def tick(folder: Path | str | None, cursor: str | None = None) -> tuple[str | None, str | None]:
    """What the sensor asks for (the key of a run) or why it does not, and its cursor afterwards."""
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"settings": Settings(import_paths=str(folder or ""))}
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
        answer = new_sources.evaluate_tick(context)
    asked = (answer.run_requests or [None])[0]
    return (asked.run_key, answer.cursor) if asked else (answer.skip_message, answer.cursor)


def test_the_sensor_asks_for_an_import_once_for_what_is_new(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    assert "no folder to watch" in str(tick(None)[0])
    assert "missing" in str(tick(folder)[0])
    folder.mkdir()
    assert "empty" in str(tick(folder)[0])
    (folder / "one.json").write_text("{}")
    assert "may not be whole" in str(tick(folder)[0])
    os.utime(folder / "one.json", (1, 1))
    first, cursor = tick(folder)
    assert first == cursor
    assert "none new" in str(tick(folder, cursor)[0])
    (folder / "two.json").write_text("{}")
    os.utime(folder / "two.json", (1, 1))
    second, later = tick(folder, cursor)
    assert second == later != first
    os.utime(folder / "one.json", (2, 2))
    changed, last = tick(folder, later)
    assert changed == last not in (first, second), "a changed file is imported again"
    assert QUIET_S > 0


def test_a_file_from_the_future_is_imported_when_it_stays_the_same(tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text("{}")
    os.utime(file, (4e9, 4e9))
    why, cursor = tick(tmp_path)
    assert "may not be whole" in str(why)
    os.utime(file, (5e9, 5e9))
    why, cursor = tick(tmp_path, cursor)
    assert "may not be whole" in str(why), "it changes still"
    asked, cursor = tick(tmp_path, cursor)
    assert asked == cursor
    assert "none new" in str(tick(tmp_path, cursor)[0])


def test_a_file_that_is_always_written_to_keeps_no_other_from_being_imported(tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text("{}")
    cursor, asked = None, None
    for changed in range(3):
        (tmp_path / "live.jsonl").write_text("{}\n" * changed)
        why, cursor = tick(tmp_path, cursor)
        assert "may not be whole" in str(why)
    since = str(cursor).rpartition(" ")[2]
    assert cursor
    (tmp_path / "live.jsonl").write_text("{}\n" * 9)
    asked, cursor = tick(tmp_path, cursor.replace(since, str(float(since) - MOST_S)))
    assert asked == cursor


def test_an_import_that_failed_is_asked_for_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.json").write_text("{}")
    os.utime(tmp_path / "one.json", (1, 1))
    with dg.DagsterInstance.ephemeral() as instance:

        def asked(cursor: str | None) -> tuple[list[dg.RunRequest], str | None]:
            settings = {"settings": Settings(import_paths=str(tmp_path))}
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=settings)
            answer = new_sources.evaluate_tick(context)
            return list(answer.run_requests or []), answer.cursor

        (first,), cursor = asked(None)
        run = dg.DagsterRun("imports", tags=dict(first.tags), status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        assert asked(cursor) == ([], cursor), "it runs"
        instance.report_run_failed(run)
        assert asked(cursor) == ([], cursor), "it has just failed"
        monkeypatch.setattr("assets.watching.MOST_S", 0.0)
        (again,), after = asked(cursor)
        assert (again.tags, after) == (first.tags, cursor)
        assert again.run_key != first.run_key, "Dagster runs a key once"
        done = dg.DagsterRun("imports", tags=dict(again.tags), status=dg.DagsterRunStatus.SUCCESS)
        instance.add_run(done)
        assert asked(cursor) == ([], cursor), "the second went well"


def test_a_folder_that_is_missing_keeps_no_other_from_being_imported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.json").write_text("{}")
    os.utime(tmp_path / "in" / "one.json", (1, 1))
    both = f"{tmp_path / 'in'}{os.pathsep}{tmp_path / 'gone'}"
    asked, cursor = tick(both)
    assert asked == cursor
    assert "gone is missing" in str(tick(both, cursor)[0])
    settings = Settings(lake_uri=str(tmp_path / "lake"), import_paths=both)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([sources], resources={"settings": settings}, instance=instance)
    assert done.success
    assert done.asset_materializations_for_node("sources")[0].metadata["files"].value == 1


def test_the_sensor_is_in_the_code_location_and_off() -> None:
    found = build_defs(Experiments.load()).resolve_sensor_def("new_sources")
    assert found.default_status == dg.DefaultSensorStatus.STOPPED
