"""The graph: its keys, one branch a recipe, and all of it materialised for real on a small experiment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import lakes
import pytest

from assets.branch import bases
from assets.definitions import build_defs
from assets.log_assets import rollouts_asset
from assets.materialize import closing_table, main, whole
from assets.resources import Experiments, Settings
from jobs.make_base import make
from jobs.report import Reporter
from stepwell.errors import RecipeError, UsageError
from stepwell.lake import Lake
from stepwell.lineage import trace
from stepwell.recipe import load
from stepwell.settings import Collect, World

SMALL = """
title: small
collect: {corpus: rollouts/small, seed: 5, policies: [{kind: noisy, n_tasks: 12, mistake_rate: 0.4, recover_rate: 0.5}]}
source: {corpora: [rollouts/small]}
world: {functions: 2, bugs_max: 1, max_turns: 6}
mask: {rule: srft}
dataset: {method: srft, max_length: 1024, held_out: 0.0}
architecture: {vocab_size: 400, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}
train: {epochs: 1, learning_rate: 1.0e-3, batch_size: 4}
evaluation: {n_tasks: 4, batch_size: 4, max_new_tokens: 8}
"""


def keys(experiments: Experiments) -> set[str]:
    return {k.to_user_string() for k in build_defs(experiments).resolve_asset_graph().get_all_asset_keys()}


def test_the_keys_of_the_graph() -> None:
    shared = {
        "sources",
        "rollouts/pool",
        "events",
        "trajectories",
        "steps",
        "verdicts",
        "maintenance",
        "audits/rules_1",
        "evaluations/base",
        "comparisons",
        "likeness",
    }
    policies = ("all", "rft", "srft", "srft_dropped", "srft_human")
    critics = ("critic_dpo", "critic_sft", "ctrl_rl", "ctrl_sft", "verifier")
    kinds = ("masks", "datasets", "models", "evaluations")
    branch = {f"{kind}/{name}" for kind in kinds for name in (*policies, *critics)}
    branch |= {f"overlaps/{name}" for name in policies}
    iterated = {
        f"{kind}/{name}"
        for kind in ("rollouts", "datasets", "models", "evaluations", "shifts")
        for name in ("dagger", "oec")
    }
    assert keys(Experiments.load()) == shared | branch | iterated


def test_a_demo_materialises_the_branches_it_names_and_no_other() -> None:
    experiments = Experiments.load()
    graph = build_defs(experiments).resolve_asset_graph()
    chosen = {key.to_user_string() for key in whole(graph, experiments.recipes, ["all", "srft"])}
    kinds = ("masks", "datasets", "models", "evaluations", "overlaps")
    assert {k for k in chosen if k.split("/")[0] in kinds} == {
        "evaluations/base", *(f"{kind}/{name}" for kind in kinds for name in ("all", "srft"))
    }  # fmt: skip
    assert {"rollouts/pool", "events", "verdicts", "comparisons"} <= chosen
    assert not any(graph.get(key).partitions_def for key in whole(graph, experiments.recipes))
    with pytest.raises(UsageError, match="nosuch; there are: all, critic_dpo"):
        whole(graph, experiments.recipes, ["nosuch"])


def test_what_is_made_without_the_model_of_the_demo_is_told_all_the_same(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakes.build(lake)
    monkeypatch.setenv("STEPWELL_LAKE", lake.uri)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    monkeypatch.setattr(sys, "argv", ["materialize", "--select", "key:trajectories"])
    main()
    assert len(lake.read("trajectories")) == 5


def test_a_yaml_file_adds_a_branch(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SMALL)
    before = keys(Experiments.load(tmp_path))
    (tmp_path / "two.yaml").write_text(SMALL)
    added = keys(Experiments.load(tmp_path)) - before
    assert added == {"masks/two", "datasets/two", "models/two", "evaluations/two", "overlaps/two"}


def test_every_base_and_suite_is_measured(tmp_path: Path) -> None:
    other = SMALL.replace("n_tasks: 4", "n_tasks: 4, suite: hard")
    for name, text in {"a": other, "b": SMALL, "c": SMALL, "d": other.replace("small", "tiny"), "e": SMALL}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    experiments = Experiments.load(tmp_path)
    graph = build_defs(experiments).resolve_asset_graph()
    measured = {"/".join(key.path): [r.name for r in of] for key, of in bases(experiments.recipes).items()}
    assert measured == {"evaluations/base": ["b", "c", "e"], "evaluations/a/base": ["a", "d"]}
    above = {key.to_user_string() for key in graph.get(dg.AssetKey("comparisons")).parent_keys}
    named = {key.to_user_string() for key in whole(graph, experiments.recipes, ["d"]) if key.path[0] == "evaluations"}
    assert named == {"evaluations/a/base", "evaluations/d"}
    assert above == {*measured, *(f"evaluations/{name}" for name in "abcde")}


def test_recipes_that_the_graph_cannot_have_are_named(tmp_path: Path) -> None:
    def graph(**files: str) -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        return keys(Experiments.load(folder))

    assert {"masks/small-lr.3", "datasets/small-lr.3", "overlaps/small-lr.3"} < graph(**{"small-lr.3": SMALL})
    for files in ({"base": SMALL}, {"one": f"name: other\n{SMALL}"}):
        with pytest.raises(RecipeError, match="Rename the file"):
            graph(**files)
    assert "rollouts/small" in graph(one=SMALL, two=SMALL.replace("title: small", "title: other"))
    for old, new in (("seed: 5", "seed: 6"), ("max_turns: 6", "max_turns: 7")):
        with pytest.raises(RecipeError, match="'one' and 'two' collect 'rollouts/small'"):
            graph(one=SMALL, two=SMALL.replace(old, new))


def collected(lake: Lake, **collect: Any) -> dg.ExecuteInProcessResult:
    """The asset of rollouts/x materialised: two of the oracle."""
    policies = [{"kind": "oracle", "n_tasks": 2}]
    collecting = Collect.model_validate({"corpus": "rollouts/x", "policies": policies, **collect})
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [rollouts_asset("x", collecting, World(functions=1, bugs_max=1, max_turns=4))], instance=instance,
            resources={"settings": Settings(lake_uri=lake.uri)}, raise_on_error=False,
        )  # fmt: skip


def test_other_rollouts_are_another_version_though_they_are_as_many(lake: Lake) -> None:
    made = [collected(lake, seed=seed).asset_materializations_for_node("rollouts__x")[0] for seed in (1, 1, 7)]
    first, again, other = ((m.tags or {})["dagster/data_version"] for m in made)
    assert first == again != other


def test_rollouts_that_did_not_end_are_no_success(lake: Lake, tmp_path: Path) -> None:
    pytest.importorskip("minisweagent")
    task = {"instance_id": "a__b-1", "repo": "a/b", "base_commit": "c", "problem_statement": "Repair it."}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task))
    engine = {"environment_class": "docker", "executable": "no-such-engine"}
    tasks = {"path": str(tmp_path / "tasks.jsonl"), "suite": "s", "split": "train", "environment": engine}
    result = collected(lake, tasks=tasks)
    assert not result.success
    assert "0 of 1 rollouts of rollouts/x are finished" in str(result.failure_data_for_node("rollouts__x").error)


@pytest.mark.slow
def test_everything_is_materialised_and_every_check_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "small.yaml").write_text(SMALL + f"base_model: {tmp_path / 'base'}\n")
    lake = Lake(tmp_path / "lake")
    make(load(recipes / "small.yaml").model_copy(update={"name": "seedling"}), lake, tmp_path / "base", Reporter(None))
    definitions = build_defs(Experiments.load(recipes), {"settings": Settings(lake_uri=lake.uri)})
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
        assert result.success
        evaluations = [
            e.asset_check_evaluation_data for e in result.all_events if e.event_type_value == "ASSET_CHECK_EVALUATION"
        ]
        assert len(evaluations) == len(definitions.resolve_asset_graph().asset_check_keys)
        assert [e.check_name for e in evaluations if not e.passed] == []
        made = {
            e.asset_key.to_user_string(): e.step_materialization_data.materialization.metadata
            for e in result.all_events
            if e.is_step_materialization and e.asset_key
        }
    assert made["datasets/small"]["dagster/row_count"].value > 0
    assert "data:image/png" in str(made["models/small"]["loss"].value)
    assert "data:image/png" in str(made["datasets/small"]["funnel"].value)
    assert 0 <= float(str(made["evaluations/small"]["rate"].value)) <= 1
    assert made["overlaps/small"]["trajectories evaluated"].value == 8  # of the base and of the model
    assert "data:image/png" in str(made["overlaps/small"]["nearest"].value)
    assert "likeness" in made
    monkeypatch.setenv("STEPWELL_LAKE", lake.uri)
    assert closing_table().row_count == 2
    tree = str(trace(lake, "small").as_dict())
    assert str(made["datasets/small"]["hash"].value) in tree
    assert "rollouts/small" in tree
