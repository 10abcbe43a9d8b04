"""Evaluation jobs, for real: seeds of sampling, resuming after a kill, task files, patches for the harness, contamination."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import ChatServer, Fault
from evaluated import evaluated, once
from lakes import good_repair
from typer.testing import CliRunner

from jobs import harness, registry
from jobs.evaluate import engine_of, evaluate, require_sense, run
from jobs.make_base import make
from jobs.model_policy import TransformersPolicy
from jobs.replicas import Replicas, require_devices
from jobs.report import Reporter
from jobs.train_policy import train
from jobs.training.card import CARD
from stepwell.cli import build_app
from stepwell.contamination.gate import gate
from stepwell.contamination.planned import planned
from stepwell.contamination.suites import DETECTORS
from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.errors import BadInput, RecipeError, StepwellError, UsageError
from stepwell.evaluation.arms import arms, known
from stepwell.evaluation.compare import compare
from stepwell.evaluation.rows import evaluation_id, misgraded, record_rows, summarise
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Evaluation, Recipe, load
from stepwell.rendering import Renderer
from stepwell.rollout.collect import collect
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Scripted, View
from stepwell.rollout.policies.scripted import OraclePolicy
from stepwell.rollout.runs import collect_pool, repairs
from stepwell.rollout.scaffolds.bash import format_action

ROOT = Path(__file__).parent.parent
SMALL = """
collect: {corpus: rollouts/small, seed: 3, policies: [{kind: noisy, n_tasks: 10, mistake_rate: 0.4, recover_rate: 0.5}]}
source: {corpora: [rollouts/small]}
world: {functions: 1, bugs_max: 1, max_turns: 4}
mask: {rule: srft}
dataset: {method: srft, max_length: 1024, held_out: 0.1}
architecture: {vocab_size: 500, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64}
train: {max_steps: 2, learning_rate: 1.0e-3, batch_size: 4}
evaluation: {n_tasks: 4, batch_size: 4, max_new_tokens: 12}
"""
TASKS = [
    {
        "instance_id": f"someone__thing-{n}",
        "repo": "someone/thing",
        "base_commit": "abc",
        "problem_statement": f"Wrong: {n}.",
    }
    for n in (1, 2, 3)
]
PATCH = "diff --git a/number.py b/number.py"
SUBMIT = f"echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo '{PATCH}'"


@dataclass(frozen=True)
class Made:
    """A lake with a dataset that holds two of the four held-out tasks, a base, and the recipe."""

    lake: Lake
    base: Path
    recipe: Recipe

    @property
    def identity(self) -> str:
        """Id of the base."""
        return registry.model_id("base", self.base)

    def with_(self, **changes: Any) -> Recipe:
        """The recipe with another evaluation."""
        return changed(self.recipe, **changes)


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe with another evaluation."""
    evaluation = Evaluation.model_validate({**recipe.evaluation.model_dump(), **changes})
    return recipe.model_copy(update={"evaluation": evaluation})


def options(**given: Any) -> argparse.Namespace:
    """What the command line says."""
    return argparse.Namespace(**{"predictions": None, "report": None, **given})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evaluate")
    torch.set_num_threads(1)
    (folder / "small.yaml").write_text(SMALL)
    recipe, lake = load(folder / "small.yaml"), Lake(folder / "lake")
    assert recipe.collect
    make(recipe, Lake(folder / "other"), folder / "base", Reporter(None))
    collect_pool(lake, recipe.collect, recipe.world)
    leaked = repairs(recipe.world, "eval", 2, recipe.evaluation.seed, corpus="rollouts/small", policy="o", run_id="r")
    collect(lake, "rollouts/small", leaked, lambda _: Setting(Scripted(OraclePolicy()), 4))
    judge_new(lake)
    mask_new(lake, rule_of(recipe.mask))
    build(lake, recipe, Renderer.load(folder / "base"), str(rule_of(recipe.mask)))
    return Made(lake, folder / "base", recipe)


def test_an_evaluation_that_says_nothing_new_has_the_identity_it_always_had(made: Made) -> None:
    names = (
        "suite", "n_tasks", "attempts", "temperature", "seed", "batch_size", "max_new_tokens", "backend"
    )  # fmt: skip
    e = made.recipe.evaluation.model_dump(mode="json")
    before = digest("m", [{name: e[name] for name in names}, made.recipe.world.model_dump(mode="json")])[:12]
    assert evaluation_id(made.recipe, "m") == f"m@repair-eval-{before}"
    assert evaluation_id(made.with_(sampling_seeds=(0, 1), base_url="http://x"), "m") == evaluation_id(made.recipe, "m")
    others = [evaluation_id(made.recipe, "m", 1), evaluation_id(made.with_(top_p=0.5), "m")]
    assert len({evaluation_id(made.recipe, "m"), *others}) == 3


def test_sampling_seeds_are_evaluations_of_their_own_on_the_same_tasks(made: Made, tmp_path: Path) -> None:
    recipe, lake = made.with_(temperature=1.0, sampling_seeds=(0, 1, 2)), Lake(tmp_path / "lake")
    run(recipe, lake, [str(made.base)], Reporter(None), options())
    rows = lake.read("evaluations").to_pylist()
    assert Counter(r["sampling_seed"] for r in rows) == {0: 4, 1: 4, 2: 4}
    assert len({r["trajectory_id"] for r in rows}) == 12
    assert len({r["task_id"] for r in rows}) == 4
    said = {
        seed: [
            r["action"]["text"]
            for r in EventLog(lake)
            .read(trajectory_ids=[x["trajectory_id"] for x in rows if x["sampling_seed"] == seed], kinds=["action"])
            .to_pylist()
        ]
        for seed in range(3)
    }
    assert said[0] != said[1] != said[2], "each draws its own"
    (found,) = known(lake)
    assert found.evaluations == tuple(evaluation_id(recipe, made.identity, s) for s in range(3))
    (arm,) = arms(lake, [found])
    assert (arm.n_seeds, arm.fixed, arm.outcomes().shape) == (3, True, (4, 3)), "a base has a run a sampling seed"
    version = lake.version("events")
    run(recipe, lake, [str(made.base)], Reporter(None), options())
    assert (lake.version("events"), lake.read("evaluations").num_rows) == (version, 12), "nothing counts twice"


def test_other_settings_are_played_anew(made: Made, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    first = evaluate(made.recipe, lake, str(made.base), made.identity, Reporter(None))
    hot = made.with_(temperature=1.0)
    second = evaluate(hot, lake, str(made.base), made.identity, Reporter(None))
    assert second == evaluate(hot, lake, str(made.base), made.identity, Reporter(None))
    assert first == evaluate(made.recipe, lake, str(made.base), made.identity, Reporter(None))
    rows = lake.read("evaluations").to_pylist()
    assert Counter(r["evaluation_id"] for r in rows) == {first.evaluation_id: 4, second.evaluation_id: 4}
    assert len({r["trajectory_id"] for r in rows}) == 8, "greedy attempts do not pass for sampled ones"


def test_every_row_says_what_the_gate_said_of_its_task_and_compare_shows_it(made: Made) -> None:
    row = train(made.recipe, made.lake, 0, Reporter(None), base=str(made.base))
    base = evaluate(made.recipe, made.lake, str(made.base), made.identity, Reporter(None))
    recorded = {r["contamination"] for r in made.lake.read("evaluations").to_pylist()}
    assert recorded == {"unknown"}, "nothing here trained the base"
    report = gate(made.lake, made.recipe.dataset_table, made.recipe.contamination, planned(made.recipe))
    assert report.suites == {"evaluations/repair-eval": 4}
    evaluate(made.recipe, made.lake, row["path"], row["model_id"], Reporter(None))
    told = {
        r["task_id"]: r["contamination"]
        for r in made.lake.read("evaluations").to_pylist()
        if r["model_id"] == row["model_id"]
    }
    assert Counter(c == "clean" for c in told.values()) == {True: 2, False: 2}
    flagged = {task for task, c in told.items() if c != "clean"}
    assert {d for task in flagged for d in told[task].split(",")} <= DETECTORS.keys()
    (pair,) = compare(made.lake, [base.model_id, "small"]).pairs
    assert pair.n_dirty == 2
    assert [g.n for g in pair.contamination[:2]] == [2, 2]


def test_sampling_seeds_of_a_trained_model_are_attempts_of_one_run(made: Made) -> None:
    row = train(made.recipe, made.lake, 0, Reporter(None), base=str(made.base))
    run(
        made.with_(suite="other", temperature=1.0, sampling_seeds=(0, 3)),
        made.lake,
        ["small"],
        Reporter(None),
        options(),
    )
    (found,) = (f for f in known(made.lake) if f.suite == "other")
    (arm,) = arms(made.lake, [found])
    assert {m["model_id"] for m in arm.models} == {row["model_id"]}
    assert (len(arm.evaluations), arm.n_seeds, arm.n_attempts, arm.fixed) == (2, 1, 8, False)
    card = json.loads((Path(row["path"]) / CARD).read_text())
    assert {e["evaluation_id"] for e in card["evaluations"]} >= set(arm.evaluations)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_counts_every_attempt_once(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        SMALL.replace("n_tasks: 4, batch_size: 4", "n_tasks: 12, attempts: 2, batch_size: 2, temperature: 0.7")
    )
    recipe, whole = load(file), Lake(tmp_path / "whole")
    evaluate(recipe, whole, str(made.base), made.identity, Reporter(None))
    lake = Lake(tmp_path / "killed")
    command = [
        sys.executable,
        "-m",
        "jobs.evaluate",
        "--recipe",
        str(file),
        "--lake",
        lake.uri,
        "--model",
        str(made.base),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    while kills < 2:
        began = lake.version("events") or 0
        job = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        while job.poll() is None and (lake.version("events") or 0) <= began + 1:
            time.sleep(0.05)
        if job.poll() is None:
            job.send_signal(signal.SIGKILL)
        job.wait()
        kills += 1
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    ours, theirs = (
        sorted(
            (r["task_id"], r["attempt"], r["resolved"], r["n_steps"], r["tokens_out"])
            for r in x.read("evaluations").to_pylist()
        )
        for x in (lake, whole)
    )
    assert len(ours) == 24
    assert ours == theirs, "the same replies, each attempt once"
    ends = EventLog(lake).read(kinds=["end"], columns=["trajectory_id", "end"]).to_pylist()
    assert Counter(e["end"]["exit_status"] != "aborted" for e in ends)[True] == 24


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server whose model hands in a patch at once; for task 3 nothing."""

    def reply(body: dict[str, Any]) -> str:
        nothing = "Wrong: 3." in str(body["messages"])
        return format_action("So.", SUBMIT.replace(f" && echo '{PATCH}'", "") if nothing else SUBMIT)

    with ChatServer(reply) as running:
        yield running


def test_a_task_file_an_endpoint_and_the_official_harness(made: Made, tmp_path: Path, server: ChatServer) -> None:
    pytest.importorskip("minisweagent")
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    tasks = {
        "path": str(tmp_path / "tasks.jsonl"), "suite": "bench", "unsafe": True,
        "environment": {"environment_class": "local", "cwd": str(tmp_path)},
    }  # fmt: skip
    recipe = made.with_(
        suite="bench", n_tasks=0, attempts=2, tasks=tasks, backend="endpoint", base_url=server.url, max_new_tokens=64
    )
    lake, file = Lake(tmp_path / "lake"), tmp_path / "all.jsonl"
    assert [t.task_id for t in planned(recipe)] == [t["instance_id"] for t in TASKS]
    run(recipe, lake, ["org/model"], Reporter(None), options(predictions=file))
    files = [tmp_path / f"all-{n}.jsonl" for n in (1, 2)]
    for path in files:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [set(r) for r in rows] == [{"instance_id", "model_name_or_path", "model_patch"}] * 3
        assert {r["instance_id"]: r["model_patch"].strip() for r in rows} == {
            t["instance_id"]: "" if t["instance_id"].endswith("3") else PATCH for t in TASKS
        }
        assert {r["model_name_or_path"] for r in rows} == {"org/model"}
    assert not lake.read("evaluations").num_rows, "what nobody graded is no result"
    said = len(server.bodies)
    names = [t["instance_id"] for t in TASKS]
    reports = [tmp_path / f"report-{n}.json" for n in (1, 2)]
    graded = {"resolved_ids": names[:1], "unresolved_ids": names[1:2], "empty_patch_ids": names[2:], "error_ids": []}
    reports[0].write_text(json.dumps(graded))
    reports[1].write_text(json.dumps({"resolved_ids": [], "error_ids": names[:1], "unresolved_ids": names[1:]}))
    for _ in range(2):
        run(recipe, lake, ["org/model"], Reporter(None), options(report=reports))
    rows = lake.read("evaluations").to_pylist()
    assert sorted((r["task_id"][-1], r["attempt"], r["resolved"]) for r in rows) == [
        ("1", 0, True), ("2", 0, False), ("2", 1, False), ("3", 0, False), ("3", 1, False)
    ]  # fmt: skip
    assert {r["model_id"] for r in rows} == {"org/model"}
    assert len(server.bodies) == said, "nothing is asked again"
    with pytest.raises(UsageError, match="one for each"):
        run(recipe, lake, ["org/model"], Reporter(None), options(report=reports[:1]))
    for text, problem in (("{", "report"), ("[]", "resolved_ids"), ('{"resolved_ids": ["x"]}', "no tasks of this")):
        reports[0].write_text(text)
        with pytest.raises(BadInput, match=problem):
            run(recipe, lake, ["org/model"], Reporter(None), options(report=reports))
    with pytest.raises(UsageError, match="jsonl"):
        harness.files(Path("x.csv"), 1)


def test_a_corrected_report_changes_what_it_says_otherwise_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    log, names, corpus = EventLog(lake), [f"x-{i}" for i in range(4)], "evaluations/x"
    for i, name in enumerate(names):
        made = good_repair(name, task_id=f"task-{i}", corpus=corpus)
        log.append([e for e in made if e.kind != "outcome"], "played")
    evaluated(lake, "other", once(True, False))
    others = lake.read("evaluations").to_pylist()

    def read(*resolved: int) -> tuple[int, int | None, list[dict[str, Any]]]:
        said: dict[str, list[str]] = {"resolved_ids": [], "unresolved_ids": []}
        for i in range(4):
            said["resolved_ids" if i in resolved else "unresolved_ids"].append(f"task-{i}")
        (tmp_path / "report.json").write_text(json.dumps(said))
        assert harness.record(lake, corpus, names, tmp_path / "report.json").resolved == len(resolved)
        for known_as in ("m@x", "m@x-as-before"):
            record_rows(
                lake, names, evaluation_id=known_as, suite="x", recipe="any", model_id="m", seed=3, backend="test"
            )
        outcomes = log.read(trajectory_ids=names, kinds=["outcome"]).num_rows
        return outcomes, lake.version("evaluations"), lake.read("evaluations").to_pylist()

    first = read(0)
    assert read(0) == first, "the same report adds nothing"
    assert summarise(lake, "m@x").resolved == 1
    refresh(lake)
    assert misgraded(lake) == []
    second = read(0, 1, 2)
    assert (second[0], second[1]) == (6, (first[1] or 0) + 1), "two reruns, and one commit for all rows they concern"
    assert [summarise(lake, known_as).resolved for known_as in ("m@x", "m@x-as-before")] == [3, 3]
    assert [r for r in second[2] if r["evaluation_id"] == "other@x"] == others
    was, now = ({(r["evaluation_id"], r["task_id"]): r for r in rows} for rows in (first[2], second[2]))
    changed = {key: {k for k in row if row[k] != was[key][k]} for key, row in now.items() if row != was[key]}
    assert changed == {(e, f"task-{i}"): {"resolved"} for e in ("m@x", "m@x-as-before") for i in (1, 2)}
    assert sorted(map(str, lake.read("evaluations", first[1]).to_pylist())) == sorted(map(str, first[2]))
    assert len(misgraded(lake)) == 4
    assert "task task-1, attempt 0: resolved True, its trajectory False" in misgraded(lake)[0]
    refresh(lake)
    assert misgraded(lake) == []
    assert read(0)[0] == 8, "back to the first report is said as well"
    assert summarise(lake, "m@x").resolved == 1
    refresh(lake)
    assert sum(lake.read("trajectories").column("resolved").to_pylist()) == 2
    assert misgraded(lake) == []
    stands = log.read(trajectory_ids=names[1:2], kinds=["outcome"]).to_pylist()
    last = max(stands, key=lambda r: r["outcome"]["rerun"])
    gone = {"target_event": last["event_id"], "action": "retract", "reason": "a mistake"}
    log.append([Event("retraction", names[1], corpus, "system", gone)], "taken back")
    assert read(0)[0] == 9, "what was taken back is said again"
    down = Event("retraction", names[3], corpus, "system", {"action": "takedown", "reason": "asked"})
    log.append([down], "taken down")
    assert read(0, 3)[0] == 9, "what is taken down is not graded"


def test_the_command_line_writes_predictions_and_reads_reports(
    made: Made, tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minisweagent")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))
    evaluation = {
        "suite": "bench", "n_tasks": 0, "backend": "endpoint", "base_url": server.url, "max_new_tokens": 64,
        "tasks": {
            "path": str(tmp_path / "tasks.jsonl"), "suite": "bench", "unsafe": True,
            "environment": {"environment_class": "local", "cwd": str(tmp_path)},
        },
    }  # fmt: skip
    file, report = tmp_path / "all.jsonl", tmp_path / "report.json"
    (tmp_path / "bench.yaml").write_text(json.dumps({"base_model": str(made.base), "evaluation": evaluation}))
    names = [t["instance_id"] for t in TASKS]
    report.write_text(json.dumps({"resolved_ids": names[:2], "unresolved_ids": [], "empty_patch_ids": names[2:]}))
    given = [str(tmp_path / "bench.yaml"), "--model", "org/model", "--lake", str(tmp_path / "lake")]
    asked = [*given, "--predictions", str(file), "--report", str(report)]
    done = CliRunner().invoke(build_app(), ["evaluate", *asked])
    assert done.exit_code == 0, done.output
    assert sorted(json.loads(line)["instance_id"] for line in file.read_text().splitlines()) == names
    rows = Lake(tmp_path / "lake").read("evaluations").to_pylist()
    assert {r["task_id"]: r["resolved"] for r in rows} == dict(zip(names, (True, True, False), strict=True))
    refused = CliRunner().invoke(build_app(), ["evaluate", "verifier", "--predictions", str(file)])
    assert isinstance(refused.exception, UsageError)
    assert "jobs.evaluate_judge" in str(refused.exception)


def test_a_server_that_is_away_is_said_and_the_rest_is_kept(made: Made, tmp_path: Path, server: ChatServer) -> None:
    recipe = made.with_(backend="endpoint", base_url="http://127.0.0.1:9", batch_size=2)
    engine = engine_of(recipe, "m", "m")
    assert engine.backend == "endpoint m"
    recipe = changed(recipe, base_url=server.url)
    server.fault_of = lambda body: Fault(status=401)
    with pytest.raises(StepwellError, match="Run it again"):
        evaluate(recipe, Lake(tmp_path / "lake"), "m", "m", Reporter(None))
    server.fault_of = lambda body: None
    assert evaluate(recipe, Lake(tmp_path / "lake"), "m", "m", Reporter(None)).n == 4


def test_copies_answer_as_one(made: Made) -> None:
    copies = [
        TransformersPolicy(made.base, "base", temperature=1.0, max_new_tokens=6, seed=0, device="cpu") for _ in range(2)
    ]
    both = Replicas(copies)
    views = [View([{"role": "user", "content": f"view {n}"}], key=f"{n % 7}/{n}/agent") for n in range(20)]
    assert [r.text for r in both.act_many(views)] == [r.text for r in copies[0].act_many(views)]
    assert {both.copy_of(v) for v in views} == {0, 1}
    assert both.copy_of(View([], key="3/0/agent")) == both.copy_of(View([], key="3/9/agent")), (
        "its cache has the prompt"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tensor_parallel": 64, "backend": "vllm"}, "need 64 devices, and this machine has"),
        ({"data_parallel": 64}, "need 64 devices"),
        ({"tensor_parallel": 2}, "only vllm divides"),
        ({"data_parallel": 2, "backend": "endpoint"}, "the server decides"),
    ],
)
def test_devices_that_are_not_there_are_said(made: Made, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        require_devices(made.with_(**changes).evaluation)


def test_seeds_that_draw_nothing_are_refused(made: Made) -> None:
    with pytest.raises(RecipeError, match="sampling_seeds"):
        require_sense(made.with_(sampling_seeds=(0, 1)))
