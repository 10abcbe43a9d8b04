"""Builds that go on from the last one: the same rows, hash and funnel as from nothing, whatever happened to the log."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from lakes import good_repair, looping, wasteful

from schemas.choices import CHOICES
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import Built, build, content_hash
from stepwell.datasets.choices import frame, funnel
from stepwell.errors import LakeError, RecipeError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.seals import seal_of
from stepwell.shuffle import ids_of, whole
from stepwell.stored import require_schema

BASE = Path(__file__).parents[1] / "jobs" / "base"
CORPORA = ("demo", "rollouts/one two")
SHAPES = (good_repair, looping, wasteful)
COLUMNS = ["event_id", "trajectory_id", "corpus", "step", "kind", "action", "mask", "retraction"]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(BASE)


def recipe(method: str = "srft", **settings: Any) -> Recipe:
    dataset = {"method": method, "max_length": 4096, "held_out": 0.3} | settings.pop("dataset", {})
    known = {"name": "one", "source": {"corpora": CORPORA}, "dataset": dataset, "mask": {"rule": "srft"}}
    return Recipe.model_validate(known | settings)


def built(lake: Lake, renderer: Renderer, settings: Recipe, chosen: pl.DataFrame | None = None) -> Built:
    return build(lake, settings, renderer, str(rule_of(settings.mask)), chosen=chosen)


def anew(lake: Lake, folder: Path, renderer: Renderer, settings: Recipe, chosen: pl.DataFrame | None = None) -> Built:
    """The same build from nothing: a lake that has the same events and no dataset."""
    folder.mkdir()
    (folder / "events").symlink_to(Path(lake.uri) / "events")
    return built(Lake(folder), renderer, settings, chosen)


def rows(lake: Lake, table: str = "datasets/one") -> list[dict[str, Any]]:
    return lake.read(table).sort_by("row_id").to_pylist()


class World:
    """A log to which random things happen."""

    def __init__(self, lake: Lake, seed: int) -> None:
        self.log, self.draw, self.n = EventLog(lake), random.Random(seed), 0
        self.names: list[str] = []
        self.recipe = recipe()
        self.chosen: pl.DataFrame | None = None

    def arrive(self) -> None:
        """New trajectories, in any corpus, also one that no recipe reads."""
        for _ in range(self.draw.randint(1, 3)):
            shape, corpus = self.draw.choice(SHAPES), self.draw.choice((*CORPORA, "elsewhere"))
            name = f"t{self.draw.randrange(10**6)}-{self.n}"
            self.log.append(shape(name, corpus=corpus, task_id=f"task-{self.n % 5}"), f"import-{self.n}")
            self.names.append(name)

    def judge(self) -> None:
        """The rules judge what they have not, and masks follow."""
        judge_new(self.log.lake)
        mask_new(self.log.lake, rule_of(self.recipe.mask))

    def other_verdict(self) -> None:
        """A critic changes its mind about a step, so masks are superseded."""
        name = self.draw.choice(self.names)
        events = self.log.replay(name).to_pylist()
        acted = [e for e in events if e["kind"] == "action"]
        step = self.draw.choice(acted)
        old = [e for e in events if e["kind"] == "verdict" and e["policy"] == "rules@1" and e["step"] == step["step"]]
        where = (name, step["corpus"], "critic")
        payload = {"scope": "step", "label": self.draw.choice(["good", "mistake"]), "parse_status": "ok"}
        new = Event(
            "verdict", *where, payload, step["step"], "rules@1", caused_by=step["event_id"], discriminator=str(self.n)
        )
        gone = [
            Event("retraction", *where, {"target_event": e["event_id"], "action": "supersede"}, step["step"])
            for e in old
        ]
        self.log.append([new, *gone], f"verdict-{self.n}")
        mask_new(self.log.lake, rule_of(self.recipe.mask))

    def retract(self) -> None:
        """A whole trajectory is taken down."""
        name = self.draw.choice(self.names)
        corpus = self.log.replay(name).column("corpus")[0].as_py()
        payload = {"target_event": None, "action": "takedown", "reason": "asked for"}
        self.log.append([Event("retraction", name, corpus, "system", payload)], f"down-{self.n}")

    def setting(self) -> None:
        """The recipe changes, in a part rows depend on or in one they do not."""
        self.recipe = recipe(
            self.draw.choice(["all", "rft", "srft"]),
            dataset={"max_length": self.draw.choice([400, 4096])},
            train={"learning_rate": self.draw.choice([1e-3, 1e-4])},
        )

    def curate(self) -> None:
        """Curation leaves out others than before, and splits anew."""
        frame_ = {
            "trajectory_id": self.names,
            "dropped": [self.draw.choice([None, None, "cap: enough"]) for _ in self.names],
        }
        self.chosen = pl.DataFrame({**frame_, "split": [self.draw.choice(["train", "held_out"]) for _ in self.names]})

    def nothing(self) -> None:
        """Nothing happens."""

    def happen(self) -> str:
        """One of these."""
        self.n += 1
        kinds = (self.arrive, self.judge, self.other_verdict, self.retract, self.setting, self.curate, self.nothing)
        kind = self.draw.choice(kinds)
        kind()
        return kind.__name__


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_going_on_gives_what_building_from_nothing_gives(
    tmp_path: Path, renderer: Renderer, seed: int
) -> None:
    lake = Lake(tmp_path / "lake")
    world = World(lake, seed)
    for _ in range(3):
        world.arrive()
        world.n += 1
    EventLog(lake).append(good_repair("always", corpus="demo"), "always")
    judge_new(lake)
    mask_new(lake, rule_of(world.recipe.mask))
    for i in range(6):
        what = world.happen()
        one = built(lake, renderer, world.recipe, world.chosen)
        other = anew(lake, tmp_path / f"other-{i}", renderer, world.recipe, world.chosen)
        assert (one.hash, one.funnel, one.n_rows) == (other.hash, other.funnel, other.n_rows), what
        assert (one.n_tokens, one.masked_share) == (other.n_tokens, other.masked_share)
        stored = lake.read("datasets/one")
        assert rows(lake) == rows(Lake(tmp_path / f"other-{i}"))
        assert content_hash(stored) == one.hash
        choices = lake.read("choices/one", int(one.metadata["choices_version"]))
        require_schema(CHOICES, choices)
        assert funnel(pl.DataFrame(choices)) == one.funnel


def many(lake: Lake, n: int = 20) -> None:
    events = [e for i in range(n) for e in SHAPES[i % 3](f"t{i:02}", task_id=f"task-{i}")]
    EventLog(lake).append(events, "many")
    judge_new(lake)
    mask_new(lake, rule_of(recipe().mask))


def test_only_what_changed_is_derived_and_written(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    first = built(lake, renderer, recipe())
    assert first.n_derived == 20
    again = built(lake, renderer, recipe())
    assert (again.n_derived, again.version, again.hash) == (0, first.version, first.hash)
    before = set(DeltaTable(lake.path("datasets/one")).file_uris())
    EventLog(lake).append([*good_repair("new"), *looping("other", corpus="elsewhere")], "later")
    judge_new(lake)
    mask_new(lake, rule_of(recipe().mask))
    more = built(lake, renderer, recipe())
    assert more.n_derived == 1
    assert before < set(DeltaTable(lake.path("datasets/one")).file_uris())


def test_rows_are_found_by_any_column(lake: Lake, renderer: Renderer) -> None:
    """Statistics of a file say nothing of most columns, which must not be read as columns of nulls."""
    many(lake)
    table = built(lake, renderer, recipe()).table
    whole = lake.read(table).to_pylist()
    for column in ("row_id", "split", "corpus", "trajectory_id", "n_tokens"):
        found = lake.read(table, filters=pc.field(column) == whole[0][column])
        assert len(found) == sum(row[column] == whole[0][column] for row in whole)


def test_a_superseded_mask_changes_its_own_rows_alone(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    built(lake, renderer, recipe())
    before = {r["trajectory_id"]: r for r in rows(lake)}
    events = EventLog(lake).replay("t01").to_pylist()
    mask = next(e for e in events if e["kind"] == "mask" and e["mask"]["weight"])
    gone = Event(
        "retraction", "t01", "demo", "system", {"target_event": mask["event_id"], "action": "supersede"}, mask["step"]
    )
    new = Event("mask", "t01", "demo", "system", {**mask["mask"], "weight": 0.0}, mask["step"], mask["policy"])
    EventLog(lake).append([gone, new], "changed")
    assert built(lake, renderer, recipe()).n_derived == 1
    after = {r["trajectory_id"]: r for r in rows(lake)}
    assert {t for t in before.keys() | after.keys() if before.get(t) != after.get(t)} == {"t01"}
    EventLog(lake).append([Event("retraction", "t00", "demo", "system", {"action": "takedown"})], "down")
    built(lake, renderer, recipe())
    assert {r["trajectory_id"] for r in rows(lake)} == after.keys() - {"t00"}


def test_older_versions_are_built_from_newer_ones(lake: Lake, renderer: Renderer, tmp_path: Path) -> None:
    many(lake)
    first = built(lake, renderer, recipe())
    EventLog(lake).append(
        [*good_repair("new"), Event("retraction", "t00", "demo", "system", {"action": "takedown"})], "on"
    )
    assert built(lake, renderer, recipe()).hash != first.hash
    back = build(lake, recipe(), renderer, str(rule_of(recipe().mask)), first.events_version)
    assert (back.hash, back.funnel) == (first.hash, first.funnel)
    assert back.n_derived == 1
    assert content_hash(lake.read("datasets/one")) == first.hash


def test_settings_of_training_rebuild_nothing_and_those_of_rows_everything(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    first = built(lake, renderer, recipe())
    for unrelated in (
        {"train": {"learning_rate": 0.1}}, {"evaluation": {"n_tasks": 7}}, {"seeds": [1, 2]}, {"title": "other"},
        {"contamination": {"waive": {"ngram": "looked at by hand"}}}, {"base_model": "the same tokenizer elsewhere"},
    ):  # fmt: skip
        again = built(lake, renderer, recipe(**unrelated))
        assert (again.n_derived, again.hash, again.version) == (0, first.hash, first.version), unrelated
    for decisive in (
        {"dataset": {"held_out": 0.5}}, {"dataset": {"max_length": 900}}, {"mask": {"rule": "all"}},
        {"source": {"corpora": CORPORA, "where": "n_steps > 5"}}, {"contamination": {"ngram": 0.4}},
    ):  # fmt: skip
        assert recipe(**decisive).data_hash != recipe().data_hash, decisive
    EventLog(lake).append(good_repair("new"), "later")
    mask_new(lake, rule_of(recipe().mask))
    assert built(lake, renderer, recipe(dataset={"max_length": 900})).n_derived == 21


def test_the_seal_and_the_choices_say_what_was_made_of_what(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    made = built(lake, renderer, recipe("rft"))
    sealed = seal_of(lake, "datasets/one")
    assert sealed is not None
    for told in (
        "recipe",
        "recipe_hash",
        "data_hash",
        "events_version",
        "code_version",
        "derivation",
        "counts",
        "funnel",
    ):
        assert sealed[1][told], told
    choices = pl.DataFrame(lake.read("choices/one"))
    assert len(choices) == 20
    assert set(choices["dropped"].drop_nulls()) == {"not resolved"}
    lines = {line["line"]: line for line in made.funnel}
    assert all(
        line[unit] > 0
        for name, line in lines.items()
        for unit in ("trajectories", "steps", "tokens")
        if name != "masked"
    )
    for unit in ("trajectories", "steps", "tokens"):
        assert lines["in"][unit] == lines["dropped: not resolved"][unit] + lines["out"][unit]
    assert lines["out"]["tokens"] == sum(r["n_tokens"] for r in rows(lake))


def test_maintenance_and_redaction_are_seen(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    first = built(lake, renderer, recipe())
    DeltaTable(lake.path("datasets/one")).optimize.compact()
    sealed = seal_of(lake, "datasets/one")
    assert sealed is not None
    assert sealed[1]["dataset_hash"] == first.hash
    assert built(lake, renderer, recipe()).n_derived == 0
    left = lake.read("datasets/one").slice(1)
    lake.replace("datasets/one", left, {**sealed[1], "dataset_hash": "redacted:x"})
    again = built(lake, renderer, recipe())
    assert (again.n_derived, again.hash) == (20, first.hash)
    assert content_hash(lake.read("datasets/one")) == first.hash


def test_nothing_half_built_is_seen(lake: Lake, renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    many(lake)
    first = built(lake, renderer, recipe())
    before = rows(lake)
    with pytest.raises(RecipeError, match="leaves nothing to train on"):
        built(lake, renderer, recipe(dataset={"max_length": 2}))
    EventLog(lake).append(good_repair("new"), "later")
    mask_new(lake, rule_of(recipe().mask))
    real = Lake.replace

    def dies(self: Lake, name: str, *rest: Any, **more: Any) -> int:
        if name.startswith("datasets/"):
            raise KeyboardInterrupt
        return real(self, name, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            built(lake, renderer, recipe())
    assert (rows(lake), lake.version("datasets/one")) == (before, first.version)
    assert built(lake, renderer, recipe()).n_derived == 1


def test_a_dataset_that_another_process_wrote_meanwhile_is_not_written(lake: Lake, renderer: Renderer) -> None:
    many(lake)
    made = built(lake, renderer, recipe())
    with pytest.raises(LakeError, match="another process wrote it"):
        lake.replace("datasets/one", lake.read("datasets/one"), {}, expected=made.version - 1)


def test_buckets_hold_whole_trajectories_in_order(lake: Lake) -> None:
    many(lake, 30)
    log = EventLog(lake)
    version = log.version
    assert version is not None
    ids = ids_of(lake, version, ["demo"])
    parts = list(whole(lake, version, ids, COLUMNS, size=7))
    assert len(parts) == 5
    assert pa.concat_tables(parts) == log.read(version, trajectory_ids=ids, columns=COLUMNS)
    few = ids[3:5]
    assert pa.concat_tables(whole(lake, version, few, COLUMNS)) == log.read(
        version, trajectory_ids=few, columns=COLUMNS
    )


BUILD = """
import sys
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
built = build(Lake(sys.argv[1]), Recipe.model_validate_json(sys.argv[2]), Renderer.load(sys.argv[3]), sys.argv[4])
print(built.hash)
"""


def test_processes_of_other_folders_hash_seeds_locales_and_time_zones_agree(lake: Lake, tmp_path: Path) -> None:
    many(lake)
    EventLog(lake).append(good_repair("naïve-日本", task_id="Ünïcode"), "later")
    mask_new(lake, rule_of(recipe().mask))
    said = []
    for i, (seed, zone, locale) in enumerate([("1", "UTC", "C"), ("77", "Asia/Kathmandu", "de_DE.UTF-8")]):
        folder = tmp_path / f"place-{i}"
        folder.mkdir()
        (folder / "events").symlink_to(Path(lake.uri) / "events")
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale, "PYTHONPATH": str(BASE.parents[1])}
        command = [
            sys.executable,
            "-c",
            BUILD,
            str(folder),
            recipe().model_dump_json(),
            str(BASE),
            str(rule_of(recipe().mask)),
        ]
        said.append(subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout)
    assert said[0] == said[1]
    assert len(said[0].strip()) == 64


def test_an_empty_choice_frame_has_the_columns() -> None:
    assert frame([]).columns == CHOICES.schema.names
