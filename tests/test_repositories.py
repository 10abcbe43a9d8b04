"""SWE-bench-style tasks in mini-swe-agent's environments: what is handed in is the patch, what is secret stays out."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stepwell.errors import BadInput, UnknownName, UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.collect import Report, collect
from stepwell.rollout.environments.repository import RepositoryEnvironment, tasks_from
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Listed
from stepwell.rollout.runs import collect_pool, repositories
from stepwell.rollout.scaffolds.bash import format_action
from stepwell.settings import Collect, Policy, Tasks, World

ROWS = [
    {
        "instance_id": f"someone__thing-{n}", "repo": "someone/thing", "base_commit": "abc", "created_at": "2024-01-02",
        "problem_statement": "The number is wrong.", "patch": "SECRET SOLUTION", "test_patch": "SECRET TESTS",
        "FAIL_TO_PASS": '["t"]', **({"image_name": "its/image"} if n == 1 else {}),
    }
    for n in (1, 2)
]  # fmt: skip
SUBMIT = "git diff > patch.txt && echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt"


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return path


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "number.py").write_text("NUMBER = 41\n")
    for command in ("git init -q", "git add .", "git -c user.name=t -c user.email=t@example.org commit -qm one"):
        subprocess.run(command.split(), cwd=folder, check=True)
    return folder


def test_tasks_of_both_formats_are_the_same(tasks: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "tasks.parquet")
    ours, theirs = (list(tasks_from(p, "bench", "test")) for p in (tasks, tmp_path / "tasks.parquet"))
    assert ours == theirs
    assert [t.image for t in ours] == ["its/image", "docker.io/swebench/sweb.eval.x86_64.someone_1776_thing-2:latest"]
    assert "SECRET" not in str(ours)
    assert {"tests_hash", "solution_hash", "base_commit", "repo"} <= ours[0].about.keys()


@pytest.mark.parametrize("line", ["[1]", '{"instance_id": 3, "problem_statement": "x"}', "{"])
def test_a_row_that_is_no_task_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(BadInput, match=r"(row|line) 1"):
        list(tasks_from(tmp_path / "t.jsonl", "bench", "test"))
    with pytest.raises(UsageError):
        list(tasks_from(tmp_path / "none.jsonl", "bench", "test"))


def test_a_task_twice_in_a_file_is_refused_where_it_is_played(tasks: Path) -> None:
    tasks.write_text("\n".join(json.dumps(ROWS[i]) for i in (0, 1, 0)))
    whose = Tasks(path=str(tasks), suite="bench")
    with pytest.raises(BadInput, match="several rows of someone__thing-1;"):
        repositories(whose, 0, 0, corpus="rollouts/x", policy="p", run_id="x")
    assert len(repositories(whose, 2, 0, corpus="rollouts/x", policy="p", run_id="x")) == 2


def test_policies_of_one_name_on_the_same_tasks_are_refused(lake: Lake, tasks: Path) -> None:
    policies = tuple(Policy(kind="endpoint", model="m", temperature=t) for t in (0.0, 1.0))
    whose = Tasks(path=str(tasks), suite="bench")
    with pytest.raises(UsageError, match="a `name` of its own"):
        collect_pool(lake, Collect(corpus="rollouts/x", policies=policies, tasks=whose), World())
    assert EventLog(lake).version is None


def test_this_machine_is_no_sandbox(tasks: Path) -> None:
    task = next(tasks_from(tasks, "bench", "test"))
    with pytest.raises(UsageError, match="unsafe"):
        RepositoryEnvironment(task, {"environment_class": "local"})
    with pytest.raises(UnknownName):
        RepositoryEnvironment(task, {"environment_class": "moon"})
    assert RepositoryEnvironment(task, {}).name == "docker/its/image"
    assert RepositoryEnvironment(task, {"environment_class": "singularity"}).name == "singularity/docker://its/image"


def play(lake: Lake, tasks: Path, config: dict[str, Any], **options: Any) -> Report:
    pytest.importorskip("minisweagent")
    settings = Tasks(path=str(tasks), suite="bench", environment=config, **options)
    wanted = repositories(settings, 1, 0, corpus="rollouts/bench", policy="listed", run_id="r")
    commands = ("cat number.py", "sed -i s/41/42/ number.py", "exit 3", SUBMIT)
    said = [format_action("So.", command) for command in commands]
    return collect(lake, "rollouts/bench", wanted, lambda _: Setting(Listed(said), 10))


def check(lake: Lake) -> None:
    rows = EventLog(lake).read(columns=["kind", "step", "task", "action", "observation", "end", "outcome"]).to_pylist()
    observed = [r["observation"] for r in rows if r["kind"] == "observation"]
    assert [o["exit_code"] for o in observed] == [0, 0, 3, 0]
    assert observed[0]["raw"] == "NUMBER = 41\n"
    (end,) = (r["end"] for r in rows if r["kind"] == "end")
    assert end["exit_status"] == "submitted"
    assert "+NUMBER = 42" in end["submission"]
    assert not [r for r in rows if r["kind"] == "outcome"], "grading happens elsewhere"
    assert "SECRET" not in str(rows)


def test_a_patch_is_handed_in(lake: Lake, tasks: Path, repository: Path) -> None:
    config = {"environment_class": "local", "cwd": str(repository)}
    assert play(lake, tasks, config, unsafe=True, state_command="git diff HEAD").complete
    check(lake)
    states = [
        r["action"]["state_hash"]
        for r in EventLog(lake)
        .read(kinds=["action"], columns=["action", "step", "trajectory_id", "kind", "event_id"])
        .to_pylist()
    ]
    assert states[0] == states[1] != states[2] == states[3], "the state is what the state command prints"


@pytest.mark.parametrize("n_tasks", [0, 1, 5])
def test_a_pool_is_complete_when_the_tasks_of_its_file_are(
    lake: Lake, tasks: Path, repository: Path, n_tasks: int
) -> None:
    pytest.importorskip("minisweagent")
    tasks.write_text(json.dumps(ROWS[0]))
    given = {"environment_class": "local", "cwd": str(repository)}
    whose = {"path": str(tasks), "suite": "bench", "environment": given, "unsafe": True}
    policies = [{"kind": "oracle", "n_tasks": n_tasks}]
    pool = Collect.model_validate({"corpus": "rollouts/x", "policies": policies, "tasks": whose})
    report = collect_pool(lake, pool, World(), make=lambda *_: Listed([format_action("", SUBMIT)]))
    assert (report.n_wanted, report.n_done, report.complete) == (1, 1, True)
    assert report.line().startswith("1/1 rollouts")


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not here")
def test_bubblewrap_does_it_too(lake: Lake, tasks: Path, repository: Path) -> None:
    assert play(lake, tasks, {"environment_class": "bubblewrap", "cwd": str(repository)}).complete
    check(lake)


def test_an_engine_that_is_not_there_ends_the_trajectory_alone(lake: Lake, tasks: Path) -> None:
    report = play(lake, tasks, {"environment_class": "docker", "executable": "no-such-engine"})
    assert (report.n_done, report.n_failed, report.complete) == (0, 1, False)
    (end,) = (r["end"] for r in EventLog(lake).read(kinds=["end"], columns=["end", "kind"]).to_pylist())
    assert end["exit_status"] == "environment_error"
