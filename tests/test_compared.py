"""What is recorded of hidden tests and solutions finds the same task in two sources, and gives nothing away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepwell.contamination.suites import Suites
from stepwell.contamination.tasks import MIN_NODES, Task, compared, of_event, of_record
from stepwell.event import Event
from stepwell.importers.base import Imported, SourceFile
from stepwell.importers.problems import IMPORTER
from stepwell.recipe import Contamination
from stepwell.rollout.environments.repair import RepairEnvironment
from stepwell.rollout.environments.repository import tasks_from
from stepwell.rollout.problems import read
from stepwell.rollout.runs import tasks_of
from stepwell.rollout.sandbox import Sandbox
from stepwell.settings import World

SOLUTION = """
def widest(values):
    best = 0
    for left in range(len(values)):
        for right in range(left, len(values)):
            total = sum(values[left:right + 1])
            best = max(best, total * (right - left + 1))
    return best
"""
RENAMED = SOLUTION.replace("best", "top").replace("total", "s")
CASES = [("3\n1 2 3", "18"), ("2\n5 5", "20"), ("1\n9", "9")]
PATCH = "diff --git a/src/core.py b/src/core.py\n--- a/src/core.py\n+++ b/src/core.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"


def imported(record: dict[str, Any]) -> Event:
    (one,) = IMPORTER.read(record, SourceFile("f", "f", "", "c", "", "0"))
    assert isinstance(one, Imported)
    return next(e for e in one.events if e.kind == "task")


def hits(train: Task, *suite: Task) -> set[str]:
    return {h.detector for h in Suites(suite, Contamination()).of_task(train)}


def test_hashes_of_cases_and_trees_join_two_sources_that_hash_the_whole_apart() -> None:
    apps = {
        "question": "Print the widest.", "solutions": json.dumps([RENAMED, "print(1)"]),
        "input_output": json.dumps({"inputs": [c[0] for c in CASES], "outputs": [c[1] for c in CASES]}),
    }  # fmt: skip
    tests = [{"input": a + "  ", "output": b} for a, b in reversed(CASES)]
    suite = of_record({"task_id": "w/1", "prompt": "?", "private_tests": tests, "solution": SOLUTION}, "bench")
    event = imported(apps)
    assert suite is not None
    found = hits(of_event(event.payload, event.extra, "train"), suite)
    assert {"cases", "syntax"} <= found
    assert "tests" not in found, "their hashes as a whole differ"
    assert event.extra is not None
    for hidden in ("widest(", "1 2 3", "5 5"):
        assert hidden not in event.extra + json.dumps(event.payload)


def test_incorrect_solutions_are_no_solutions() -> None:
    record = {
        "description": "Print it.",
        "private_tests": {"input": ["1"], "output": ["2"]},
        "incorrect_solutions": [SOLUTION],
    }
    facts = json.loads(imported(record).extra or "{}")
    assert "solution_ast" not in facts
    assert len(facts["case_hashes"]) == 1


def test_gold_patches_are_known_by_their_files(tmp_path: Path) -> None:
    row = {
        "instance_id": "a__b-1", "repo": "a/b", "problem_statement": "It breaks.", "patch": PATCH, "base_commit": "c0",
        "test_patch": PATCH.replace("src", "tests"), "FAIL_TO_PASS": ["tests/core.py::test_x"], "PASS_TO_PASS": [],
    }  # fmt: skip
    assert json.loads(imported(row).extra or "{}")["gold_files"] == ["src/core.py"]
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row))
    (task,) = tasks_from(tmp_path / "tasks.jsonl", "swe", "train")
    assert task.about["extra"] == {"gold_files": ["src/core.py"]}
    other = of_record({**row, "instance_id": "a__b-2", "base_commit": "c1"}, "bench")
    assert other is not None
    event = imported(row)
    assert "files" in hits(of_event(event.payload, event.extra, "train"), other)


def test_tasks_of_a_file_without_tests_and_patch_have_no_hash_of_them(tmp_path: Path) -> None:
    row = {"instance_id": "a__b-1", "problem_statement": "It breaks.", "patch": "", "test_patch": ""}
    (tmp_path / "tasks.jsonl").write_text(json.dumps({**row, "FAIL_TO_PASS": "[]", "PASS_TO_PASS": []}))
    (task,) = tasks_from(tmp_path / "tasks.jsonl", "swe", "train")
    assert not task.about.keys() & {"tests_hash", "solution_hash"}, "every such task would have the same"


def test_embedded_tasks_and_problems_say_what_they_are_compared_by() -> None:
    (task,) = tasks_of(World(functions=3), "train", 1, 5)
    about = RepairEnvironment(task, Sandbox()).about()
    assert len(about["extra"]["case_hashes"]) == len({(c.name, c.want) for c in task.hidden})
    assert len(about["extra"]["solution_ast"]) == 1
    assert not any(c.name in json.dumps(about["extra"]) for c in task.hidden)
    given = {"inputs": [a for a, _ in CASES], "outputs": [b for _, b in CASES]}
    problem = read({"question": "Q", "input_output": given}, "eval", "q/1")
    suite = of_record({"prompt": "?", "task_id": "1", "tests": [{"input": a, "output": b} for a, b in CASES]}, "bench")
    assert suite is not None
    assert "cases" in hits(of_event(problem.about(), json.dumps(problem.facts()), "train"), suite)


def test_nothing_is_recorded_of_nothing() -> None:
    assert compared([None, "", "not python ("], [None, "x = 1"]) == {}, f"under {MIN_NODES} nodes chance alone decides"
