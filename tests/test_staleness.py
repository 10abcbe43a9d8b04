"""Dagster's data versions are ours: new events make a dataset stale, an equal one leaves its model fresh, a setting its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest
from lakes import good_repair, looping

from assets.branch import branches
from assets.log_assets import log_assets
from assets.resources import Experiments, Settings
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.seals import seal_of

BASE = Path(__file__).parents[1] / "jobs" / "base"
RECIPE = f"""
title: stale or not
source: {{corpora: [demo]}}
mask: {{rule: srft}}
dataset: {{method: rft, max_length: 4096, held_out: 0.0}}
base_model: {BASE}
train: {{learning_rate: 1.0e-3}}
"""
LOG = ("events", "trajectories", "steps", "verdicts", "masks/one")
DATASET, MODEL = dg.AssetKey(["datasets", "one"]), dg.AssetKey(["models", "one"])


class Graph:
    """The code location over one lake and one instance; the recipe may be written anew."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.recipes, self.lake, self.instance = folder / "recipes", Lake(folder / "lake"), instance
        self.recipes.mkdir()
        self.write(RECIPE)

    def write(self, recipe: str) -> None:
        """Set the recipe, as an editor and a reload of the code location do."""
        (self.recipes / "one.yaml").write_text(recipe)
        found = Experiments.load(self.recipes)
        resources = {"settings": Settings(lake_uri=self.lake.uri), "pipes": dg.PipesSubprocessClient()}
        self.definitions = dg.Definitions([*log_assets(found), *branches(found)], resources=resources)

    def make(self, *names: str) -> None:
        """Materialise these assets."""
        keys = [dg.AssetKey(name.split("/")) for name in names]
        job = self.definitions.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=self.instance, asset_selection=keys).success

    def trained(self, weights: str) -> None:
        """Record a checkpoint of the present dataset, as the job reports it, without training one."""
        (seen,) = self.instance.fetch_materializations(DATASET, limit=1).records
        tags = {
            "dagster/data_version": weights,
            "dagster/code_version": self.definitions.resolve_asset_graph().get(MODEL).code_version or "",
            "dagster/input_data_version/datasets/one": self.version("datasets/one"),
            "dagster/input_event_pointer/datasets/one": str(seen.storage_id),
        }
        self.instance.report_runless_asset_event(dg.AssetMaterialization(MODEL, tags=tags))

    def version(self, name: str) -> str:
        """The data version Dagster holds of an asset."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(name.split("/")))
        assert event is not None
        assert event.asset_materialization is not None
        return (event.asset_materialization.tags or {})["dagster/data_version"]

    def status(self, key: dg.AssetKey) -> StaleStatus:
        """What the Dagster UI shows of an asset."""
        graph = self.definitions.resolve_asset_graph()
        return CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance)).get_status(key)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Graph(tmp_path, instance)
        EventLog(made.lake).append([*good_repair("a"), *looping("b")], "first")
        made.make(*LOG, "datasets/one")
        made.trained("one-weights-1")
        yield made


def test_new_events_make_the_dataset_stale_and_an_equal_one_leaves_its_model_fresh(graph: Graph) -> None:
    assert graph.status(DATASET) == graph.status(MODEL) == StaleStatus.FRESH
    before = seal_of(graph.lake, "datasets/one")
    EventLog(graph.lake).append(looping("c"), "second")  # not resolved: rft learns nothing from it
    graph.make("events")
    assert graph.status(DATASET) == StaleStatus.STALE
    graph.make(*LOG[1:], "datasets/one")
    after = seal_of(graph.lake, "datasets/one")
    assert before is not None
    assert after is not None
    assert after[1]["dataset_hash"] == before[1]["dataset_hash"]
    assert int(after[1]["events_version"]) > int(before[1]["events_version"])
    assert graph.status(DATASET) == graph.status(MODEL) == StaleStatus.FRESH


def test_other_rows_make_the_model_stale(graph: Graph) -> None:
    EventLog(graph.lake).append(good_repair("d"), "third")
    graph.make(*LOG, "datasets/one")
    assert graph.status(DATASET) == StaleStatus.FRESH
    assert graph.status(MODEL) == StaleStatus.STALE
    graph.trained("one-weights-2")
    assert graph.status(MODEL) == StaleStatus.FRESH


def test_versions_are_those_of_the_lake(graph: Graph) -> None:
    sealed = seal_of(graph.lake, "datasets/one")
    assert sealed is not None
    assert graph.version("datasets/one") == sealed[1]["dataset_hash"]
    assert graph.version("events") == "events@1"
    masks = graph.version("masks/one")
    graph.make("masks/one")
    assert graph.version("masks/one") == masks
    gone = next(e for e in EventLog(graph.lake).read(kinds=["mask"]).to_pylist())
    payload = {"target_event": gone["event_id"], "action": "supersede", "reason": "test"}
    EventLog(graph.lake).append([Event("retraction", gone["trajectory_id"], "demo", "system", payload)], "gone")
    graph.make("masks/one")
    assert graph.version("masks/one") != masks


def test_a_learning_rate_concerns_the_model_and_a_mask_the_dataset(graph: Graph) -> None:
    graph.write(RECIPE.replace("1.0e-3", "2.0e-3"))
    assert graph.status(DATASET) == StaleStatus.FRESH
    assert graph.status(MODEL) == StaleStatus.STALE
    graph.write(RECIPE.replace("rule: srft", "rule: all"))
    assert graph.status(DATASET) == StaleStatus.STALE
