"""DAgger in Dagster: iterations as partitions, in order, with checks; and nothing of it in the plain graph."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from assets.dagger import KINDS, apart, iteration_checks
from assets.definitions import build_defs
from assets.resources import Experiments, Settings
from jobs.make_base import start_from_scratch
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import load
from stepwell.rollout.mixing import Schedule

RECIPE = {
    "world": {"functions": 1, "bugs_max": 1, "max_turns": 5},
    "dataset": {"method": "dagger", "held_out": 0.0},
    "dagger": {"iterations": 2, "n_tasks": 4, "student": {"kind": "model", "temperature": 0.7, "max_new_tokens": 8}},
    "architecture": {"vocab_size": 400, "hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 64},
    "train": {"epochs": 2, "batch_size": 2, "learning_rate": 1e-3},
    "evaluation": {"n_tasks": 2, "max_new_tokens": 8},
}


def definitions(folder: Path, lake: Lake) -> dg.Definitions:
    """One iterated recipe and one plain one."""
    recipes = folder / "recipes"
    recipes.mkdir(exist_ok=True)
    (recipes / "loop.yaml").write_text(json.dumps({**RECIPE, "base_model": str(folder / "base")}))
    (recipes / "plain.yaml").write_text(json.dumps({"source": {"corpora": ["c"]}, "dataset": {"method": "all"}}))
    return build_defs(Experiments.load(recipes), {"settings": Settings(lake_uri=lake.uri)})


def test_an_iterated_recipe_is_four_partitioned_assets_and_no_branch(tmp_path: Path, lake: Lake) -> None:
    graph = definitions(tmp_path, lake).resolve_asset_graph()
    ours = {k.to_user_string() for k in graph.get_all_asset_keys() if graph.get(k).partitions_def is not None}
    assert ours == {f"{kind}/loop" for kind in (*KINDS, "shifts")}
    for key in ours:
        parts = graph.get(dg.AssetKey.from_user_string(key)).partitions_def
        assert parts is not None
        assert list(parts.get_partition_keys()) == ["1", "2"]
    compared = graph.get(dg.AssetKey("comparisons")).parent_keys
    assert {k.to_user_string() for k in compared} == {"evaluations/base", "evaluations/plain"}
    assert dg.AssetKey(["masks", "loop"]) not in graph.get_all_asset_keys()
    plain, iterated = apart(Experiments.load(tmp_path / "recipes"))
    assert (list(plain.recipes), [r.name for r in iterated]) == (["plain"], ["loop"])
    checks = {c.name for c in graph.asset_check_keys if c.asset_key.path[-1] == "loop"}
    assert checks == {
        "draws_follow_beta", "turns_say_who_acts", "labels_cover_turns", "labels_fit_states", "trains_what_was_chosen",
        "repeats_no_evaluation",
    }  # fmt: skip


def run(defs: dg.Definitions, partition: str, kinds: tuple[str, ...] = KINDS) -> dg.ExecuteInProcessResult:
    keys = [dg.AssetKey([kind, "loop"]) for kind in kinds]
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=keys, partition_key=partition, raise_on_error=False
        )


def evaluated(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        e.asset_check_evaluation_data.check_name: e.asset_check_evaluation_data.passed
        for e in result.all_events
        if e.event_type_value == "ASSET_CHECK_EVALUATION"
    }


def test_a_partition_whose_predecessor_is_missing_says_what_to_do(tmp_path: Path, lake: Lake) -> None:
    defs = definitions(tmp_path, lake)
    recipe = load(tmp_path / "recipes" / "loop.yaml")
    start_from_scratch(recipe, ["THOUGHT: Look at the code.\n\n```bash\nview\n```"] * 20, tmp_path / "base")
    result = run(defs, "2")
    assert not result.success
    said = str(result.failure_data_for_node("rollouts__loop").error)
    assert "begins with the model of iteration 1" in said
    assert "partition 1 of models/loop" in said
    assert not lake.version("events"), "nothing was collected"


def test_the_checks_of_rollouts_fail_on_a_log_that_lacks_a_label(tmp_path: Path, lake: Lake) -> None:
    decision = Schedule("constant", start=0.5).decide("t", 0, 1)
    turn = Event("turn", "t", "rollouts/loop-1", "system", {**decision.payload(), "state_hash": "s"}, 0)
    action = Event("action", "t", "rollouts/loop-1", decision.chosen, {"text": "x", "state_hash": "s"}, 0)
    EventLog(lake).append([turn, action], "w")
    definitions(tmp_path, lake)
    found = {}
    for check in iteration_checks(load(tmp_path / "recipes" / "loop.yaml")):
        result = check(settings=Settings(lake_uri=lake.uri))
        assert isinstance(result, dg.AssetCheckResult)
        found[check.check_key.name] = result.passed
    assert found.pop("trains_what_was_chosen"), "no dataset is there yet"
    assert found.pop("repeats_no_evaluation"), "no dataset is there yet"
    assert found == {
        "draws_follow_beta": True, "turns_say_who_acts": True, "labels_cover_turns": False, "labels_fit_states": True,
    }  # fmt: skip


@pytest.mark.slow
def test_two_iterations_are_materialised_in_order(tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    defs = definitions(tmp_path, lake)
    recipe = load(tmp_path / "recipes" / "loop.yaml")
    start_from_scratch(recipe, ["THOUGHT: Look at the code.\n\n```bash\nview\n```"] * 20, tmp_path / "base")
    for partition in ("1", "2"):
        result = run(defs, partition)
        assert result.success
        assert len(evaluated(result)) == 6
        assert all(evaluated(result).values()), evaluated(result)
    made = {
        e.asset_key.to_user_string(): e.step_materialization_data.materialization.metadata
        for e in result.all_events
        if e.is_step_materialization and e.asset_key
    }
    assert made["rollouts/loop"]["beta"].value == 0.8
    assert abs(float(str(made["rollouts/loop"]["z"].value))) < 3
    assert str(made["rollouts/loop"]["labelled"].value).startswith("100.0%")
    assert "data:image/png" in str(made["rollouts/loop"]["disagreement"].value)
    assert made["datasets/loop"]["table"].value == "datasets/loop-2"
    assert "loop-1" in str(made["models/loop"]["base_model"].value)
    assert made["models/loop"]["evaluated in"].value == dg.AssetKey(["evaluations", "loop"])
    assert str(made["models/loop"]["card of loop-2"].value).endswith("/README.md")
    assert "data:image/svg" in str(made["models/loop"]["trace of loop-2"].value)
    assert "data:image/png" in str(made["evaluations/loop"]["rates"].value)
    shifted = run(defs, "2", ("shifts",))
    assert shifted.success
    (shown,) = [
        e.step_materialization_data.materialization.metadata for e in shifted.all_events if e.is_step_materialization
    ]
    assert shown["states trained on"].value > 0
    assert shown["states evaluated"].value > 0
    assert "data:image/png" in str(shown["coverage"].value)
    version = lake.version("events")
    assert run(defs, "2").success
    assert lake.version("events") == version, "what is done is not done again"
