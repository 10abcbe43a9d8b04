"""Lineage: from a model to its files and rollouts, through models that made rollouts, without running in circles."""

from __future__ import annotations

import io
import json
import re
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import lakes
import pyarrow as pa
import pytest
from rich.console import Console
from test_query import dataset_row
from trajectory_files import mini_1
from typer import Typer
from typer.testing import CliRunner

from schemas.comparisons import COMPARISONS
from schemas.evaluations import EVALUATIONS
from schemas.models import MODELS
from schemas.sources import SOURCES
from stepwell import query
from stepwell.cli import tracing
from stepwell.cli.locating import locator
from stepwell.critics.run import judge_new
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.lineage import Tree, impact, render_trace, trace
from stepwell.lineage.openlineage import openlineage
from stepwell.lineage.picture import picture
from stepwell.log import EventLog
from stepwell.models import ancestors, named
from stepwell.redaction.run import redact
from stepwell.redaction.target import Target


def model(name: str, dataset: str | None, version: int | None, age: int = 0, base: str = "jobs/base") -> dict[str, Any]:
    return {
        "model_id": f"{name}-{age:012d}", "name": name, "path": f"models/{name}-{age}", "recipe": name,
        "recipe_hash": "r" * 64, "dataset": dataset, "dataset_version": version, "dataset_hash": "d" * 64,
        "events_version": 1, "base_model": base, "code_version": "0.1.0", "seed": 0, "n_parameters": 10, "n_rows": 2,
        "n_trained_tokens": 3, "metrics": "{}", "environment": "{}", "wall_s": 1.0,
        "recorded_at": lakes.EPOCH - timedelta(days=age),
    }  # fmt: skip


def source(path: str, corpus: str, ids: list[str]) -> dict[str, Any]:
    return {
        "content_hash": "c" * 64, "path": path, "format": "mini", "corpus": corpus, "n_bytes": 1,
        "n_trajectories": len(ids), "n_steps": 1, "n_events": 1, "n_rejected": 0, "outcome_path": None,
        "trajectory_ids": ids, "batch_id": "b", "recorded_at": lakes.EPOCH,
    }  # fmt: skip


@pytest.fixture
def traced(lake: Lake) -> Lake:
    lakes.build(lake)
    rows = [dataset_row("r1", "srft", "t-good-a"), dataset_row("r2", "srft", "t-good-b", "rollouts/one two")]
    version = lake.replace("datasets/srft", pa.concat_tables(rows), {})
    lake.replace("datasets/srft", dataset_row("r3", "srft", "t-loop-a"), {})
    first = lake.replace("datasets/first", dataset_row("r1", "first", "t-good-a"), {})
    models = [
        model("srft", "datasets/srft", version),
        model("srft", "datasets/srft", version, age=5),
        model("model-b", "datasets/first", first, age=3),
    ]
    lake.add("models", pa.Table.from_pylist(models, schema=MODELS.schema))
    files = [source("a.traj.json", "demo", ["t-good-a", "t-loop-a"]), source("unused.json", "demo", ["t-other"])]
    lake.add("sources", pa.Table.from_pylist(files, schema=SOURCES.schema))
    return lake


def test_a_model_leads_to_its_files_and_to_the_model_that_rolled_out(traced: Lake) -> None:
    tree = trace(traced, "srft").as_dict()
    assert tree["model_id"] == "srft-000000000000", "the newest of the name"
    dataset = tree["made_from"][0]["made_from"][0]
    assert (dataset["name"], dataset["rows"], dataset["masked_steps"]) == ("datasets/srft", 2, 2)
    imported, rolled_out = dataset["made_from"]
    assert (imported["trajectories"], imported["first"]) == (1, ["t-good-a"])
    assert [child["name"] for child in imported["made_from"]] == ["a.traj.json"]
    (rollout,) = rolled_out["made_from"]
    assert (rollout["kind"], rollout["name"], rollout["policy"]) == ("rollout", "run-1", "model-b")
    assert rollout["made_from"][0]["kind"] == "model"
    assert rollout["made_from"][0]["made_from"][0]["made_from"][0]["name"] == "datasets/first"
    assert tree["made_from"][1] == {"kind": "base model", "name": "jobs/base", "made_from": []}


def test_an_id_names_one_model_and_an_unknown_name_lists_them(traced: Lake) -> None:
    assert trace(traced, "srft-000000000005").facts["model_id"] == "srft-000000000005"
    with pytest.raises(UnknownName, match=r"unknown model 'x'; allowed: datasets/first, .*model-b, .*srft"):
        trace(traced, "x")


def test_a_directory_names_its_model_however_its_path_is_written(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {**model("first", None, None), "path": str(tmp_path / "models" / "first")}
    later = model("later", None, None, age=-1, base="models/first/")
    lake.add("models", pa.Table.from_pylist([first, later], schema=MODELS.schema))
    monkeypatch.chdir(tmp_path)
    assert trace(lake, "models/first").facts["model_id"] == first["model_id"]
    assert [child.facts["model_id"] for child in impact(lake, "models/../models/first").children] == [later["model_id"]]
    assert [row["model_id"] for row in ancestors(lake, "models/first")] == [first["model_id"]]
    assert named(lake, "models/first", first["model_id"]) == first["path"], "found again from any folder, and by SQL"
    assert named(lake, "jobs/base", "base-0") == "jobs/base"


def test_a_model_trained_on_its_own_rollouts_ends(lake: Lake) -> None:
    events = lakes.good_repair("t-self", model="loop", corpus="rollouts/self")
    EventLog(lake).append(events, "b")
    version = lake.replace("datasets/loop", dataset_row("r", "loop", "t-self", "rollouts/self"), {})
    row = model("loop", "datasets/loop", version, base="loop")
    lake.add("models", pa.Table.from_pylist([row], schema=MODELS.schema))
    assert sum(node.kind == "model" for node in trace(lake, "loop").walk()) == 1


def test_a_model_that_is_reached_by_many_ways_is_told_once(lake: Lake) -> None:
    """As DAgger makes them: every iteration is trained on what all models before it rolled out, and starts from the last."""
    n, models = 14, list[dict[str, Any]]()
    for i in range(n):
        EventLog(lake).append(lakes.good_repair(f"t-{i}", model=f"m{i}", corpus=f"rollouts/{i:02}"), f"b-{i}")
        rows = [dataset_row(f"r{k}", f"d{i}", f"t-{k}", f"rollouts/{k:02}") for k in range(i)]
        version = lake.replace(f"datasets/d{i}", pa.concat_tables(rows), {}) if rows else None
        dataset = f"datasets/d{i}" if rows else None
        made = model(f"m{i}", dataset, version, age=n - i, base=f"m{i - 1}" if i else "jobs/base")
        models.append(made | {"events_version": lake.version("events")})
    lake.add("models", pa.Table.from_pylist(models, schema=MODELS.schema))
    tree = trace(lake, f"m{n - 1}")
    assert sorted(node.name for node in nodes(tree, "model")) == sorted(m["name"] for m in models)
    rollouts = tree.children[0].children[0].children
    assert [c.children[0].facts["policy"] for c in rollouts] == [f"m{i}" for i in range(n - 1)], "named everywhere"


def test_a_base_model_has_no_dataset(lake: Lake) -> None:
    row = model("brought", None, None)
    lake.add("models", pa.Table.from_pylist([row], schema=MODELS.schema))
    assert [node.kind for node in trace(lake, "brought").walk()] == ["model", "recipe", "base model"]


def test_the_tree_escapes_what_comes_from_outside(traced: Lake) -> None:
    hostile = source("[red]x[/red].json\x1b[2J\u202e", "demo", ["t-good-a"])
    traced.add("sources", pa.Table.from_pylist([hostile], schema=SOURCES.schema))
    out = io.StringIO()
    Console(file=out, width=200).print(render_trace(trace(traced, "srft")))
    assert "[red]x[/red].json⟨U+001B⟩[2J⟨U+202E⟩" in out.getvalue()
    assert "a.traj.json" in out.getvalue()


def nodes(tree: Tree, kind: str) -> list[Tree]:
    return [node for node in tree.walk() if node.kind == kind]


def test_a_long_list_is_cut_for_people_and_whole_in_json() -> None:
    rows = [f"row-{i}" for i in range(7)]
    tree = Tree("dataset", "d", {"row_ids": rows, "few": rows[:5]})
    assert tree.told() == f"row_ids {', '.join(rows[:5])} and 2 more, few {', '.join(rows[:5])}"
    assert tree.as_dict()["row_ids"] == rows


@pytest.mark.parametrize("asked", ["datasets/srft", "datasets/first", "datasets/srft@1"])
def test_a_dataset_is_traced_at_a_version(traced: Lake, asked: str) -> None:
    name, _, version = asked.partition("@")
    tree = trace(traced, asked)
    assert (tree.kind, tree.name) == ("dataset", name)
    assert tree.facts["version"] == (int(version) if version else traced.version(name))
    assert tree.facts["rows"] == (2 if version else 1)
    with pytest.raises(UsageError, match=r"has no version '9'; it has 0 to \d"):
        trace(traced, f"{name}@9")


def test_a_row_leads_to_steps_events_and_the_bytes_of_its_file(lake: Lake, tmp_path: Path) -> None:
    files = tmp_path / "runs"
    files.mkdir()
    lines = [json.dumps(mini_1(f"acme__anvil-{n}", f"Task {n}.")) for n in range(3)]
    (files / "runs.jsonl").write_text("\n".join(lines) + "\n")
    import_paths(lake, [files])
    refresh(lake)
    judge_new(lake)
    events = EventLog(lake).read(kinds=["action", "verdict"]).to_pylist()
    chosen = next(t["trajectory_id"] for t in lake.read("trajectories").to_pylist() if t["task_id"] == "acme__anvil-1")
    mine = [e for e in events if e["trajectory_id"] == chosen]
    row = dataset_row("row-1", "srft", chosen, mine[0]["corpus"]).to_pylist()[0]
    row |= {"event_ids": [next(e["event_id"] for e in mine if e["kind"] == "action")]}
    row |= {"mask_event_ids": [next(e["event_id"] for e in mine if e["kind"] == "verdict")]}
    lake.replace("datasets/srft", pa.Table.from_pylist([row], query.DATASET.schema), {})
    tree = trace(lake, "row-1", locator(lake))
    assert (tree.kind, tree.facts["dataset"]) == ("row", f"datasets/srft@{lake.version('datasets/srft')}")
    assert [n.name for n in nodes(tree, "action")][:1] == row["event_ids"]
    (verdict,) = nodes(tree, "verdict")
    assert verdict.name == row["mask_event_ids"][0]
    assert verdict.children[0].kind == "action", "what the verdict answers"
    (source,) = nodes(tree, "source")
    assert source.name == str(files / "runs.jsonl")
    first, size = source.facts["first_byte"], source.facts["bytes"]
    assert source.facts["proven"] is True
    assert (files / "runs.jsonl").read_bytes()[first : first + size].decode().strip() == lines[1]
    assert trace(lake, f"datasets/srft@{lake.version('datasets/srft')}#row-1").name == "row-1"
    assert nodes(trace(lake, row["event_ids"][0], locator(lake)), "source")[0].facts["first_byte"] == first
    assert trace(lake, chosen).kind == "trajectory"
    (files / "runs.jsonl").write_text(lines[0])
    assert nodes(trace(lake, chosen, locator(lake)), "source")[0].facts["bytes"] == "the file no longer holds it"
    (files / "runs.jsonl").unlink()
    assert "not there to be read" in nodes(trace(lake, chosen, locator(lake)), "source")[0].facts["bytes"]


def test_a_row_is_of_the_dataset_and_version_that_is_named(traced: Lake) -> None:
    for asked in ("datasets/srft@1#r1", "srft@1#r1", "datasets/first#r1"):
        name = asked.partition("#")[0]
        named = f"datasets/{name.removeprefix('datasets/')}"
        expected = named if "@" in named else f"{named}@{traced.version(named)}"
        assert trace(traced, asked).facts["dataset"] == expected
    for asked in ("datasets/srft#r1", "nosuch#r1"):
        with pytest.raises(UnknownName):
            trace(traced, asked)


@pytest.fixture
def touched(traced: Lake) -> Lake:
    """`t-good-a` is in datasets/first, on which model-b was trained, which rolled out what srft was trained on."""
    refresh(traced)
    row = {
        "evaluation_id": "e-1", "suite": "s", "recipe": "srft", "model_id": "srft-000000000000", "task_id": "t", "attempt": 0,
        "trajectory_id": "t-elsewhere", "resolved": True, "submitted": True, "exit_status": None, "n_steps": 1, "tokens_in": 1,
        "tokens_out": 1, "seed": 0, "backend": "b", "recorded_at": lakes.EPOCH,
    }  # fmt: skip
    traced.add("evaluations", pa.Table.from_pylist([row], EVALUATIONS.schema))
    return traced


def test_impact_goes_through_models_and_what_they_said(touched: Lake) -> None:
    tree = impact(touched, "t-good-a")
    assert (tree.kind, tree.facts["trajectories"]) == ("trajectory", 1)
    assert {n.name for n in nodes(tree, "dataset")} == {"datasets/first", "datasets/srft"}
    assert {n.facts["model_id"] for n in nodes(tree, "model")} == {
        "model-b-000000000003", "srft-000000000000", "srft-000000000005",
    }  # fmt: skip
    assert [n.name for n in nodes(tree, "evaluation")] == ["e-1"]
    assert {n.name for n in nodes(tree, "rollouts")} == {"rollouts/one two"}
    model_b = impact(touched, "model-b")
    assert model_b.kind == "model"
    assert "datasets/srft" in {n.name for n in nodes(model_b, "dataset")}


@pytest.mark.parametrize(
    ("name", "kind", "datasets"),
    [("task-1", "task", {"datasets/first", "datasets/srft"}), ("task-3", "task", set()), ("a.traj.json", "source", None),
     ("demo", "repo", None), ("rollouts/one two", "corpus", {"datasets/srft"})],
)  # fmt: skip
def test_impact_of_every_kind_of_name(touched: Lake, name: str, kind: str, datasets: set[str] | None) -> None:
    tree = impact(touched, name, kind)
    assert tree.kind == kind
    found = {n.name for n in nodes(tree, "dataset")}
    assert found == (datasets if datasets is not None else {"datasets/first", "datasets/srft"})


def test_impact_of_a_name_is_of_the_newest_model_of_it(touched: Lake) -> None:
    assert impact(touched, "srft").facts["model_id"] == trace(touched, "srft").facts["model_id"] == "srft-000000000000"


def test_what_continues_a_rollout_of_a_touched_model_is_touched(touched: Lake) -> None:
    start = {"task_id": "task-9", "parent_trajectory": "t-good-b", "fork_step": 2}
    EventLog(touched).append([Event("start", "t-child", "children", "system", start)], "child")
    refresh(touched)
    touched.replace("datasets/later", dataset_row("r9", "later", "t-child", "children"), {})
    for asked in ("t-good-b", "model-b", "t-good-a"):
        assert "datasets/later" in {n.name for n in nodes(impact(touched, asked), "dataset")}, asked


def test_impact_of_what_was_taken_down(touched: Lake) -> None:
    assert redact(touched, Target(down=frozenset({"t-good-a"})), "asked for").done
    refresh(touched)
    for name in ("t-good-a", "demo"):
        tree = impact(touched, name)
        erased = {n.name for n in nodes(tree, "dataset") if n.facts.get("erased")}
        assert {"datasets/first", "datasets/srft"} <= erased
        assert {"model-b", "srft"} <= {n.name for n in nodes(tree, "model")}, name


def test_impact_of_an_event_tells_what_learns_from_it(lake: Lake) -> None:
    events = lakes.good_repair("t-1")
    first, second = lakes.actions(events)[:2]
    judged = lakes.verdict(first, "good")
    EventLog(lake).append([*events, judged], "b")
    refresh(lake)
    rows = [dataset_row(name, "srft", "t-1").to_pylist()[0] for name in ("r1", "r2")]
    rows[0] |= {"event_ids": [second.event_id], "mask_event_ids": [judged.event_id]}
    rows[1] |= {"event_ids": [second.event_id], "mask_event_ids": []}
    lake.replace("datasets/srft", pa.Table.from_pylist(rows, query.DATASET.schema), {})
    (dataset,) = nodes(impact(lake, first.event_id), "dataset")
    assert (dataset.facts["rows"], dataset.facts["learnt"]) == (2, 1), "through the verdict that answers it"


def test_impact_of_what_is_not_there(touched: Lake) -> None:
    with pytest.raises(UnknownName, match=r"unknown name 'nope'.*trajectory, event, task"):
        impact(touched, "nope")
    with pytest.raises(UnknownName, match="unknown kind 'x'; allowed: corpus, event"):
        impact(touched, "t-good-a", "x")


def test_a_picture_is_xml_that_shows_every_node_and_runs_nothing(touched: Lake) -> None:
    hostile = source("<script>alert('x')</script>&.json", "demo", ["t-good-a"])
    touched.add("sources", pa.Table.from_pylist([hostile], schema=SOURCES.schema))
    tree = trace(touched, "srft")
    root = ElementTree.fromstring(picture(tree))
    assert {element.tag.rpartition("}")[2] for element in root.iter()} == {"svg", "title", "g", "rect", "text", "path"}
    assert len(root.findall(".//{*}rect")) == len(list(tree.walk()))
    assert len(root.findall(".//{*}path")) == len(list(tree.walk())) - 1
    many = Tree("corpus", "c", {}, tuple(Tree("source", str(n)) for n in range(30)))
    assert "and 18 more" in picture(many)
    assert "and 10 more" in str(render_trace(many).children[-1].label)


URI = re.compile(r"^[a-z][a-z0-9+.-]*:\S+$")


def valid(event: dict[str, Any]) -> None:
    """What the published schema of a run event requires (OpenLineage 2-0-2)."""
    assert {"eventTime", "run", "job", "producer", "schemaURL"} <= event.keys()
    assert event.keys() <= {"eventType", "eventTime", "run", "job", "inputs", "outputs", "producer", "schemaURL"}
    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    uuid.UUID(event["run"]["runId"])
    assert URI.match(event["producer"])
    assert event["schemaURL"].endswith("OpenLineage.json#/$defs/RunEvent")
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    for part in (event["run"], event["job"], *event["inputs"], *event["outputs"]):
        for facet in part.get("facets", {}).values():
            assert URI.match(facet["_producer"])
            assert URI.match(facet["_schemaURL"])
    for dataset in (*event["inputs"], *event["outputs"]):
        assert isinstance(dataset["namespace"], str)
        assert isinstance(dataset["name"], str)
        if "version" in dataset["facets"]:
            assert isinstance(dataset["facets"]["version"]["datasetVersion"], str)


def test_openlineage_events_are_valid_and_name_dataset_versions(touched: Lake) -> None:
    tree = impact(touched, "t-good-a")
    events = openlineage(touched, tree)
    for event in events:
        valid(event)
    assert events == openlineage(touched, tree), "the same runs have the same ids"
    assert len({e["run"]["runId"] for e in events}) == len(events)
    jobs = [e["job"]["name"] for e in events]
    assert {"build.srft", "build.first", "train.srft", "train.model-b", "evaluate.s"} == set(jobs)
    trained = next(e for e in events if e["job"]["name"] == "train.model-b")
    versions = {d["name"]: d["facets"].get("version", {}).get("datasetVersion") for d in trained["inputs"]}
    assert versions == {"jobs/base": None, "datasets/first": str(touched.version("datasets/first"))}


def test_impact_names_the_comparisons_that_rest_on_what_is_touched(touched: Lake) -> None:
    nothing = dict.fromkeys(COMPARISONS.schema.names) | dict.fromkeys(("rate_a", "rate_b", "difference"), 0.5)
    nothing |= dict.fromkeys(("low", "high", "p_value"), 1.0) | dict.fromkeys(
        ("n_tasks", "only_a", "only_b", "n_seeds"), 1
    )
    nothing |= {"recorded_at": lakes.EPOCH, "suite": "s", "claimable": False, "arm_a": "base", "arm_b": "x"}
    names = ("comparison_id", "evaluation_a", "evaluation_b", "evaluations_a", "evaluations_b")
    of = [
        ("c-1", "e-0", "e-1", None, None),
        ("c-2", "e-0", "e-9", ["e-0"], ["e-9", "e-1"]),
        ("c-3", "e-0", "e-9", [], []),
    ]
    rows = [nothing | dict(zip(names, values, strict=True)) for values in of]
    touched.add("comparisons", pa.Table.from_pylist(rows, COMPARISONS.schema))
    for asked, found in (("t-good-a", ["c-1", "c-2"]), ("t-loop-b", []), ("srft-000000000000", ["c-1", "c-2"])):
        assert [n.name for n in nodes(impact(touched, asked), "comparison")] == found
    other = touched.read("evaluations").to_pylist()[0] | {"evaluation_id": "e-9", "model_id": "srft-000000000005"}
    touched.add("evaluations", pa.Table.from_pylist([other], EVALUATIONS.schema))
    tree = impact(touched, "t-good-a")
    below = [(n.name, c.name) for n in nodes(tree, "evaluation") for c in n.children]
    assert sorted(below, key=lambda pair: pair[1])[2] == ("e-9", "c-3")
    assert sorted(c for _, c in below) == ["c-1", "c-2", "c-3"], "each once, though two evaluations are in one"
    facts = {"arm_a": "base", "arm_b": "x", "n_tasks": 1, "difference": 0.5, "claimable": False}
    assert nodes(tree, "comparison")[0].facts == facts
    made = {e["outputs"][0]["name"]: e for e in openlineage(touched, tree)}
    valid(made["comparisons/c-2"])
    assert [d["name"] for d in made["comparisons/c-2"]["inputs"]] == [f"evaluations/e-{n}" for n in (0, 1, 9)]


def test_openlineage_names_a_model_alike_as_output_base_and_evaluated(touched: Lake) -> None:
    seeded = model("srft-seed1", "datasets/srft", 1, age=2) | {"recipe": "srft", "seed": 1}
    models = [seeded, *(model(n, None, None, base=b) for n, b in (("next", seeded["path"]), ("self", "self")))]
    touched.add("models", pa.Table.from_pylist(models, MODELS.schema))
    row = touched.read("evaluations").to_pylist()[0]
    rows = [row | {"evaluation_id": f"e-{m}", "model_id": m} for m in (seeded["model_id"], "elsewhere")]
    touched.add("evaluations", pa.Table.from_pylist(rows, EVALUATIONS.schema))
    parts = [Tree("model", m["name"], {"model_id": m["model_id"]}) for m in models]
    parts += [Tree("evaluation", r["evaluation_id"]) for r in rows]
    by_output = {e["outputs"][0]["name"]: e for e in openlineage(touched, Tree("x", "x", {}, tuple(parts)))}
    named = by_output["models/srft-seed1"]["outputs"][0]
    assert named["facets"]["version"]["datasetVersion"] == seeded["model_id"]
    assert by_output["models/next"]["inputs"] == [named]
    assert by_output[f"evaluations/e-{seeded['model_id']}"]["inputs"] == [named]
    assert by_output["evaluations/e-elsewhere"]["inputs"][0]["name"] == "elsewhere"
    assert by_output["models/self"]["inputs"][0]["name"] == "self", "no model is its own base"


def test_the_commands_write_what_they_tell(touched: Lake, tmp_path: Path) -> None:
    app = Typer()
    tracing.register(app)
    run = CliRunner().invoke
    svg, runs = tmp_path / "x.svg", tmp_path / "x.jsonl"
    more = ["--lake", touched.uri, "-o", str(svg), "--openlineage", str(runs), "--json"]
    told = json.loads(run(app, ["trace", "srft", *more]).stdout)
    assert told["made_from"][0]["kind"] == "recipe"
    for line in runs.read_text().splitlines():
        valid(json.loads(line))
    ElementTree.fromstring(svg.read_text())
    assert json.loads(run(app, ["impact", "t-good-a", *more]).stdout)["touched"]
    assert "model" in run(app, ["impact", "t-good-a", "--lake", touched.uri]).stdout
    assert "allowed: *.svg" in str(run(app, ["trace", "srft", "--lake", touched.uri, "-o", "x.png"]).exception)
