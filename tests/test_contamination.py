"""Contamination: every detector on what it is for and on what it must leave alone, the gate, its flags and what they show."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_query import dataset_row
from typer.testing import CliRunner

from assets.checks import checks
from assets.resources import Experiments, Settings
from schemas.evaluations import EVALUATIONS
from stepwell.cli import build_app
from stepwell.contamination.effect import compared_tasks, dirty_tasks, effect
from stepwell.contamination.gate import gate
from stepwell.contamination.overlap import overlap
from stepwell.contamination.reading import of_file
from stepwell.contamination.suites import DETECTORS, Suites
from stepwell.contamination.tasks import Task, case_hashes, days, of_event, of_record, trees
from stepwell.contamination.text import jaccard, normalised, shingles, signature
from stepwell.errors import LakeError, UnknownName, UsageError
from stepwell.event import Event
from stepwell.ids import canonical, sha256
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Contamination, Recipe
from stepwell.rollout.environments.repair import BRIEF
from stepwell.syntax import ast_hash

WORDS = [
    "given",
    "an",
    "array",
    "of",
    "integers",
    "and",
    "a",
    "target",
    "return",
    "the",
    "two",
    "positions",
    "whose",
    "values",
    "add",
    "up",
    "to",
    "it",
    "each",
    "input",
    "has",
    "exactly",
    "one",
    "answer",
    "and",
    "the",
    "same",
    "element",
    "may",
    "not",
    "be",
    "used",
    "twice",
    "print",
    "both",
    "positions",
    "on",
    "one",
    "line",
    "separated",
    "by",
    "a",
    "space",
    "in",
    "rising",
    "order",
]
STATEMENT = "Given an array of integers and a target, return the two positions whose values add up to it; " + " ".join(
    WORDS[18:]
)
SOLUTION = """def positions(values, target):
    seen = {}
    for place, value in enumerate(values):
        if target - value in seen:
            return sorted((seen[target - value], place))
        seen[value] = place
    return None
"""
RENAMED = (
    SOLUTION.replace("seen", "known").replace("place", "i").replace("    return None", "    return None  # no pair")
)
CASES = case_hashes([("1 2 3\n4", "0 2"), ("5 5\n10", "0 1"), ("9 8 7\n15", "1 2"), ("0 4 3 0\n0", "0 3")])
PLACE = "src/core/solve.py"
PATCH = f"diff --git a/{PLACE} b/{PLACE}\n--- a/{PLACE}\n+++ b/{PLACE}\n@@ -1 +1 @@\n-a\n+b\n"

EVALUATED = Task(
    suite="evaluations/held",
    task_id="acme__solver-41",
    named="held",
    statement=STATEMENT,
    repo="acme/solver",
    base_commit="c0ffee",
    created=days("2024-03-10"),
    url="https://codeforces.com/contest/1234/problem/B",
    tests=frozenset({"t41"}),
    solutions=frozenset({sha256(SOLUTION)}),
    trees=frozenset(trees([SOLUTION])),
    cases=frozenset(CASES),
    files=frozenset({PLACE}),
    code=(SOLUTION,),
)
OTHER = Task(
    "", "zzz", "else", "Write a web server that answers each request with the time of day in the zone it names, please."
)


def hits(task: Task, *others: Task, **settings: Any) -> dict[str, float]:
    found = Suites([EVALUATED, *others], Contamination(**settings)).of_task(task)
    return {hit.detector: hit.score for hit in found}


CAUGHT: dict[str, tuple[Task, dict[str, Any]]] = {
    "identity": (replace(OTHER, task_id="Acme__Solver-41"), {}),
    "source": (replace(OTHER, url="http://www.codeforces.com/problemset/problem/1234/B?locale=en"), {}),
    "exact": (replace(OTHER, statement=STATEMENT), {}),
    "normalised": (replace(OTHER, statement=STATEMENT.upper().replace(",", " $").replace(" ", " \n")), {}),
    "ngram": (replace(OTHER, statement=f"{OTHER.statement} {' '.join(WORDS)} {OTHER.statement} And log it all."), {}),
    "minhash": (replace(OTHER, statement=STATEMENT.replace("rising order", "ascending order")), {}),
    "tests": (replace(OTHER, tests=frozenset({"t41"})), {}),
    "cases": (replace(OTHER, cases=frozenset([*CASES[:3], "more"])), {}),
    "solution": (replace(OTHER, solutions=frozenset({sha256(SOLUTION)})), {}),
    "syntax": (replace(OTHER, trees=frozenset(trees([RENAMED]))), {}),
    "repository": (replace(OTHER, repo="acme/solver", created=days("2024-03-25T10:00:00Z")), {}),
    "files": (replace(OTHER, repo="acme/solver", files=EVALUATED.files), {}),
    "cut": (replace(OTHER, created=days("2024-05-02")), {"before": "2024-05-01"}),
}


@pytest.mark.parametrize("detector", CAUGHT)
def test_each_detector_catches_its_own_kind(detector: str) -> None:
    task, settings = CAUGHT[detector]
    found = hits(task, **settings)
    assert detector in found
    assert 0 < found[detector] <= 1
    assert detector not in hits(task, **settings, off=(detector,))
    allowed = {"exact": {"normalised", "ngram", "minhash"}, "normalised": {"ngram", "minhash"}, "minhash": {"ngram"}}
    assert found.keys() <= {detector} | allowed.get(detector, set())


def test_every_detector_has_a_fixture() -> None:
    assert CAUGHT.keys() | {"copied"} == DETECTORS.keys()


SPARED = {
    "another issue of the repository": (
        replace(
            OTHER, repo="acme/solver", base_commit="beef", created=days("2023-01-01"), files=frozenset({"docs/x.md"})
        ),
        {},
    ),
    "the repository, its rule off": (replace(OTHER, repo="acme/solver", base_commit="c0ffee"), {"repository": "off"}),
    "the repository without dates": (replace(OTHER, repo="acme/solver"), {}),
    "a number as id": (replace(OTHER, task_id="41"), {}),
    "another problem of the contest": (replace(OTHER, url="https://codeforces.com/contest/1234/problem/C"), {}),
    "one shared case": (replace(OTHER, cases=frozenset([CASES[0], "a", "b", "c"])), {}),
    "the same words in another order": (replace(OTHER, statement=" ".join(sorted(WORDS))), {}),
    "half a sentence in common": (replace(OTHER, statement=f"{' '.join(WORDS[:16])} and then {OTHER.statement}"), {}),
    "before the cut": (replace(OTHER, created=days("2024-04-30")), {"before": "2024-05-01"}),
}


@pytest.mark.parametrize("case", SPARED)
def test_what_only_looks_alike_is_left_alone(case: str) -> None:
    task, settings = SPARED[case]
    assert hits(task, **settings) == {}


def test_an_address_names_its_problem_by_path_or_query() -> None:
    known = Suites([replace(EVALUATED, url="http://poj.org/problem?space=1&id=1000")], Contamination())
    for asked, same in (
        ("https://www.poj.org/problem?id=1000&space=1&lang=en#top", True),
        ("http://poj.org/problem?space=1&id=1001", False),
        ("http://poj.org/problem", False),
    ):
        assert bool(known.of_task(replace(OTHER, url=asked))) == same, asked


@pytest.mark.parametrize(
    "url", ["https://[REDACTED:password]@example.org/problem", "http://[broken", "//", "problem 7"]
)
def test_what_is_no_address_says_nothing(url: str) -> None:
    known = Suites([replace(EVALUATED, url=url)], Contamination())
    assert known.of_task(replace(OTHER, url=url)) == []


def test_short_statements_and_small_programs_tell_nothing() -> None:
    short = replace(
        EVALUATED, task_id="s", statement="Fix the bug.", trees=frozenset(trees(["def f(x):\n    return x"]))
    )
    assert not short.trees
    known = Suites([short], Contamination())
    assert known.of_task(replace(OTHER, statement="fix the bug")) == []
    assert known.of_code(["```python\ndef f(x):\n    return x\n```"]) == []


def test_boilerplate_of_a_suite_is_no_evidence() -> None:
    licence = (
        "This problem is part of a public archive and may be used by anyone for any purpose as long as it is named."
    )
    tasks = [
        replace(OTHER, suite="s", task_id=f"p{i}", statement=f"{licence} Now compute item {i}, {w}.")
        for i, w in enumerate(WORDS)
    ]
    known = Suites(tasks, Contamination())
    assert known.of_task(replace(OTHER, statement=f"{licence} {OTHER.statement}")) == []
    alone = Suites(tasks[:1], Contamination()).of_task(replace(OTHER, statement=f"{licence} {OTHER.statement}"))
    assert [h.detector for h in alone] == ["ngram"]


@pytest.mark.parametrize("n", [1, 10])
def test_a_task_recorded_in_several_forms_is_one(n: int) -> None:
    asked = [f"Item {i}: {STATEMENT} {w}{i} {w}" for i, w in enumerate(WORDS[:n])]
    forms = [
        replace(EVALUATED, task_id=f"p{i}", statement=text, base_commit=commit, tests=frozenset({commit}))
        for i, text in enumerate(asked)
        for commit in ("", "c1", "c2", "c3")
    ]
    known = Suites(forms, Contamination())
    assert known.sizes == {"evaluations/held": n}
    found = known.of_task(replace(OTHER, statement=asked[0]))
    assert {"exact", "normalised"} <= {h.detector for h in found if h.task and h.task.task_id == "p0"}


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_tasks_that_all_share_one_brief(n: int) -> None:
    def task(suite: str, i: int) -> Task:
        about = {"task_id": f"repair-{i}", "suite": "repair", "repo": "grid", "statement": BRIEF.task}
        return of_event({**about, "tests_hash": f"tests {i}", "solution_hash": f"solution {i}"}, None, suite)

    known = Suites([task("evaluations/repair-eval", i) for i in range(n)], Contamination())
    assert all(known.of_task(task("rollouts/pool", i)) == [] for i in range(n, n + 20))
    assert {h.detector for h in known.of_task(replace(task("x", 0), task_id="new"))} >= {"tests", "solution"}
    assert [h.detector for h in known.of_task(replace(task("x", 99), solutions=frozenset({"solution 0"})))] == [
        "solution"
    ]


def test_near_duplicates_between_the_splits_of_one_set() -> None:
    rest = [
        replace(OTHER, suite="s", named="apps", task_id=f"{i}", statement=f"{w} {OTHER.statement}")
        for i, w in enumerate("ab")
    ]
    near = replace(EVALUATED, suite="", named="apps", task_id="train-7", tests=frozenset({"other"}))
    known = Suites([replace(EVALUATED, suite="s", named="apps"), *rest], Contamination(repository="off"))
    assert {"exact", "normalised", "ngram", "minhash"} <= {h.detector for h in known.of_task(near)}


@pytest.mark.parametrize(
    ("said", "detectors"),
    [
        (f"Here it is:\n```python\n{SOLUTION}```\nDone.", {"solution", "syntax", "copied"}),
        (f"cat > a.py <<'EOF'\n{RENAMED}EOF", {"syntax"}),
        ("Some of it: " + SOLUTION.replace("return None", "pass") + " as I said", {"copied"}),
        ("```python\nfor place, value in enumerate(values):\n    print(place, value)\n```", set()),
    ],
)
def test_a_solution_the_agent_wrote(said: str, detectors: set[str]) -> None:
    known = Suites([EVALUATED], Contamination())
    assert {h.detector for h in known.of_code(["ls -la", said])} == detectors


def test_names_do_not_count_in_the_normal_form() -> None:
    assert ast_hash(SOLUTION) == ast_hash(RENAMED)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once
    assert normalised(f"  {text.swapcase().swapcase()}\n") == normalised(text.swapcase().swapcase())


@pytest.mark.parametrize(
    ("asked", "word", "other"),
    [
        ("给定一个整数数组和一个目标值，请你在该数组中找出和为目标值的那两个整数，并返回它们的下标。", "返回", "输出"),
        ("整数の配列が与えられます。合計が目標値になる二つの要素の位置を求めて昇順に出力してください。", "求めて", "探して"),
        ("กำหนดรายการของจำนวนเต็มและค่าเป้าหมายให้หาตำแหน่งของสองค่าที่รวมกันได้เท่ากับค่าเป้าหมายแล้วพิมพ์ตำแหน่งทั้งสอง", "พิมพ์", "แสดง"),
    ],
)  # fmt: skip
def test_statements_in_scripts_without_spaces(asked: str, word: str, other: str) -> None:
    held = replace(OTHER, suite="s", statement=asked)
    known = Suites([held, *(replace(OTHER, suite="s", task_id=f"{i}") for i in range(3))], Contamination())
    same = known.of_task(Task("", "t", "mine", asked))
    assert {h.detector for h in same} == {"exact", "normalised", "ngram", "minhash"}
    near = known.of_task(Task("", "t", "mine", asked.replace(word, other)))
    assert "ngram" in {h.detector for h in near}
    assert known.of_task(Task("", "t", "mine", asked[:6])) == known.of_task(Task("", "t", "mine", asked[::-1])) == []


def test_latex_case_space_and_punctuation_go() -> None:
    assert normalised(r"Find $\frac{a_{1}}{b}$, where $a_1 \leq \mathrm{Max}(n)$!") == "find a 1 b where a 1 max n"
    assert normalised("FIND a_1/b, where a_1 <= Max( n )") == "find a 1 b where a 1 max n"


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
def test_minhash_estimates_jaccard(shared: int, mine: int, theirs: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2**64, shared + mine + theirs, np.uint64)
    a, b = np.sort(drawn[: shared + mine]), np.sort(np.delete(drawn, np.s_[shared : shared + mine]))
    true = shared / (shared + mine + theirs)
    assert jaccard(a, b) == pytest.approx(true)
    assert abs((signature(a, 1024) == signature(b, 1024)).mean() - true) < 5 * (true * (1 - true) / 1024) ** 0.5 + 0.005


def test_hashes_are_the_same_everywhere() -> None:
    runs = shingles(" ".join(WORDS), 13)
    assert len(runs) == len(WORDS) - 12
    assert (int(runs[0]), int(signature(runs)[0])) == GOLDEN


GOLDEN = (1032167879831318681, 22054743)


def test_bands_find_what_is_near() -> None:
    rng = np.random.default_rng(7)
    texts = [[f"w{w}" for w in rng.integers(0, 5000, 120)] for _ in range(60)]
    known = Suites([Task("s", str(i), statement=" ".join(t)) for i, t in enumerate(texts)], Contamination())
    found = 0
    for i, words in enumerate(texts):
        near = [*words[:100], *(f"new{j}" for j in range(10))]
        true = jaccard(shingles(" ".join(words), 5), shingles(" ".join(near), 5))
        assert true > 0.7
        found += {
            h.task.task_id: h.score
            for h in known.of_task(Task("", "x", statement=" ".join(near)))
            if h.task and h.detector == "minhash"
        } == {str(i): pytest.approx(true)}
    assert found == 60


TESTED = "def check(f):\n    assert f(1) == 2\n    assert f(2)==3\n"
IN_OUT = json.dumps({"inputs": ["1\n", "2"], "outputs": ["2", "3"]})
PRIVATE, PUBLIC = {"input": ["1", "2"], "output": ["2", "3"]}, {"input": ["1"], "output": ["2"]}
LISTED = json.dumps([{"input": "1", "output": "2", "testtype": "stdin"}])
RECORDS: list[tuple[dict[str, Any], int, int, int]] = [
    ({"task_id": "HumanEval/0", "prompt": "Do it.", "canonical_solution": "    return 1\n", "test": TESTED}, 1, 2, 0),
    ({"task_id": 601, "text": "Do it.", "code": SOLUTION, "test_list": ["assert f(1) == 2", "assert f( 2 ) == 3"]}, 1, 2, 1),
    ({"question": "Do it.", "id": 3, "solutions": json.dumps([SOLUTION, RENAMED]), "input_output": IN_OUT}, 3, 2, 1),
    ({"name": "1_A", "description": "Do it.", "private_tests": PRIVATE, "public_tests": PUBLIC}, 0, 2, 0),
    ({"question_content": "Do it.", "question_id": "x", "public_test_cases": LISTED}, 0, 1, 0),
    (
        {"instance_id": "a__b-1", "problem_statement": "Do it.", "patch": PATCH, "test_patch": "+x", "FAIL_TO_PASS": ["t"],
         "PASS_TO_PASS": []},
        1, 0, 0,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "n_solutions", "n_cases", "n_trees"), RECORDS)
def test_records_of_the_fields_suites(record: dict[str, Any], n_solutions: int, n_cases: int, n_trees: int) -> None:
    task = of_record(record, "s")
    assert task is not None
    assert (task.statement, len(task.solutions), len(task.cases), len(task.trees)) == (
        "Do it.",
        n_solutions,
        n_cases,
        n_trees,
    )
    assert task.files == (frozenset({PLACE}) if "patch" in record else frozenset())
    if "test_patch" in record:
        assert {sha256("+x"), sha256(canonical(["+x", ["t"], []]))} <= task.tests
    sealed = {
        k: {"sha256": sha256(text), "n_chars": len(text)}
        for k, text in ((k, v if isinstance(v, str) else canonical(v).decode()) for k, v in record.items())
        if k in ("patch", "test", "test_list", "canonical_solution", "code")
    }
    logged = of_event({"task_id": "y"}, canonical({**record, **sealed}).decode(), "rollouts/x")
    assert {h.detector for h in Suites([task], Contamination()).of_task(logged)} & {
        "tests",
        "cases",
        "solution",
    } or not sealed


NOTHING: dict[str, Any] = {
    "PASS_TO_PASS": "[]", "input_output": json.dumps({"inputs": [], "outputs": []}), "solutions": "[]", "tests": [""],
    "hidden_tests": {"sha256": sha256("[]"), "n_chars": 2},
}  # fmt: skip


@pytest.mark.parametrize("field", NOTHING)
def test_hidden_values_that_say_nothing_make_no_two_tasks_the_same(field: str) -> None:
    one, other = (of_record({"task_id": name, field: NOTHING[field]}, "s") for name in ("django-1", "sympy-2"))
    assert one is not None
    assert other is not None
    assert not one.tests | one.solutions | one.cases
    assert Suites([one], Contamination()).of_task(other) == []


def test_a_set_of_test_names_counts_as_a_whole_only() -> None:
    one, other = (
        of_record({"task_id": name, "test_patch": f"+{name}", "FAIL_TO_PASS": ["tests/test_core.py::test_it"]}, "s")
        for name in ("a", "b")
    )
    assert one is not None
    assert other is not None
    assert not one.tests & other.tests


def test_tests_too_deep_to_write_down_give_no_cases() -> None:
    deep = of_record({"task_id": "deep", "test": "assert f() == " + "+".join("1" * 5000)}, "s")
    assert deep is not None
    assert deep.cases == frozenset()


def test_same_cases_written_by_two_suites() -> None:
    apps, contest, mbpp, human = (of_record(RECORDS[i][0], "s") for i in (2, 3, 1, 0))
    assert apps is not None and contest is not None and mbpp is not None and human is not None  # noqa: PT018
    assert apps.cases == contest.cases
    assert mbpp.cases == human.cases


def event(
    kind: str, name: str, corpus: str, payload: dict[str, Any], step: int | None = None, extra: str | None = None
) -> Event:
    return Event(kind, name, corpus, "agent" if kind == "action" else "system", payload, step=step, extra=extra)


def made(lake: Lake) -> str:
    """A lake whose dataset has five rows: two repeat an evaluation task, one copies a solution; returns its hash."""
    held = {"task_id": "e1", "suite": "held", "statement": STATEMENT, "repo": "acme/solver", "tests_hash": "t41"}
    other = {"task_id": "e2", "suite": "held", "statement": OTHER.statement, "repo": "acme/web"}
    extra = canonical({"solution_ast": trees([SOLUTION]).pop(), "case_hashes": CASES}).decode()
    commands = ["ls", "grep -n positions mod.py", "python -m pytest -q tests/test_core.py"]
    events = [
        event("task", f"ev{i}", "evaluations/held", t, extra=extra if t is held else None)
        for i, t in enumerate((held, other))
    ]
    for i, (statement, more) in enumerate(
        [(STATEMENT, None), ("Sort it.", {"case_hashes": CASES}), ("Plain.", None), ("Plain too.", None), (None, None)]
    ):
        task = {"task_id": f"train-{i}", "suite": "mine", "statement": statement, "repo": "acme/other"}
        events.append(event("task", f"t{i}", "demo", task, extra=more and canonical(more).decode()))
    events += [
        event("action", t, c, {"text": x, "command": x}, i)
        for t, c in (("ev0", "evaluations/held"), ("t2", "demo"))
        for i, x in enumerate(commands)
    ]
    EventLog(lake).append(events, "made")
    rows = []
    edits = {"path": "mod.py", "edits": [{"old": "", "new": f"```python\n{RENAMED}```"}]}
    for i in range(5):
        said: list[dict[str, Any]] = [
            {"role": "user", "content": OTHER.statement if i == 4 else "Go."},
            {"role": "assistant", "content": "ls"},
        ]
        if i == 3:
            calls = ["no call", None, {"function": 3}, {"function": {"name": "edit", "arguments": json.dumps(edits)}}]
            said[1]["tool_calls"] = calls
        row = dataset_row(f"r{i}", "mine", f"t{i}").to_pylist()[0] | {
            "messages": json.dumps(said),
            "task_id": f"train-{i}",
        }
        rows.append(row)
    table = pa.Table.from_pylist(rows, lake.spec("datasets/mine").schema)
    version = EventLog(lake).version
    lake.replace("datasets/mine", table, {"dataset_hash": "d" * 64, "events_version": str(version)})
    return "d" * 64


def test_the_gate_flags_rows_and_keeps_the_flags(lake: Lake) -> None:
    sealed = made(lake)
    report = gate(lake, "datasets/mine", Contamination())
    by_row = {r: {f.detector for f in report.flags if f.row_id == r} for r in ("r0", "r1", "r2", "r3", "r4")}
    assert by_row == {
        "r0": {"exact", "normalised", "ngram", "minhash"}, "r1": {"cases"}, "r2": set(), "r3": {"syntax"},
        "r4": {"exact", "normalised", "ngram", "minhash"},
    }  # fmt: skip
    assert (report.suites, report.n_rows, report.bare) == ({"evaluations/held": 2}, 5, 0)
    stored = lake.read("contamination")
    assert len(stored) == len(report.flags) + 1 + 2, "a suite, two tasks"
    assert compared_tasks(lake, sealed, "evaluations/held") == {"e1", "e2"}
    again = gate(lake, "datasets/mine", Contamination())
    assert (again.flags, again.gate, len(lake.read("contamination"))) == (report.flags, report.gate, len(stored))
    assert dirty_tasks(lake, sealed, "evaluations/held") == {"e1", "e2"}
    assert dirty_tasks(lake, sealed, "evaluations/held", ["cases", "syntax"]) == {"e1"}
    assert any("minhash" in p and "r0 = e1" in p for p in report.problems())
    handle = lake.table("datasets/mine")
    assert handle is not None
    handle.alter.set_table_properties({"delta.checkpointInterval": "5"})
    after = gate(lake, "datasets/mine", Contamination())
    assert (after.dataset_hash, after.version) == (sealed, report.version + 1)
    with pytest.raises(LakeError, match="never compared"):
        dirty_tasks(lake, sealed, "evaluations/new")
    loose = gate(
        lake, "datasets/mine", Contamination(off=("cases", "syntax", "exact", "normalised", "ngram", "minhash"))
    )
    assert dirty_tasks(lake, sealed, "evaluations/held") == set(), "the gate that came last"
    assert dirty_tasks(lake, sealed, "evaluations/held", gate=report.gate) == {"e1", "e2"}
    assert loose.gate != report.gate


def test_what_is_waived_passes_and_stays_flagged(lake: Lake) -> None:
    sealed = made(lake)
    names = ("exact", "normalised", "ngram", "minhash", "evaluations/held/cases", "evaluations/held/syntax")
    report = gate(lake, "datasets/mine", Contamination(waive=dict.fromkeys(names, "a control arm")))
    assert report.open == report.problems() == []
    assert len(report.flags) == 10
    assert dirty_tasks(lake, sealed, "evaluations/held", waived=False) == set()
    assert dirty_tasks(lake, sealed, "evaluations/held") == {"e1", "e2"}
    with pytest.raises(UnknownName, match="ngrams"):
        gate(lake, "datasets/mine", Contamination(waive={"ngrams": "a slip"}))
    with pytest.raises(LakeError, match="datasets/mine"):
        gate(lake, "datasets/none", Contamination())


def test_suites_in_files(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    file = tmp_path / "bench.v1.jsonl"
    file.write_text(
        json.dumps(
            {
                "instance_id": "q__q-1",
                "problem_statement": "Sort it.",
                "repo": "acme/other",
                "base_commit": "1",
                "solution": RENAMED,
            }
        )
    )
    report = gate(lake, "datasets/mine", Contamination(against=(str(file),), off=("minhash",)), store=False)
    assert report.suites == {"bench": 1, "evaluations/held": 2}
    assert {(f.row_id, f.detector) for f in report.flags if f.suite == "bench"} == {
        ("r3", "syntax"),
        ("r3", "copied"),
        ("r3", "solution"),
    }
    assert len(lake.read("contamination")) == 0
    for name, text in (("none.jsonl", "{}"), ("broken.jsonl", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=name):
            gate(lake, "datasets/mine", Contamination(against=(str(tmp_path / name),)))
    with pytest.raises(UnknownName, match="rollouts/lost"):
        gate(lake, "datasets/mine", Contamination(against=("rollouts/lost",)))
    with pytest.raises(UsageError, match="soon"):
        gate(lake, "datasets/mine", Contamination(before="soon"))


def test_one_name_is_one_suite(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    files = [tmp_path / name for name in ("a/test.jsonl", "b/test.jsonl", "demo.jsonl")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"task_id": "1", "text": str(file)}))
    a, b, demo = map(str, files)

    def compared(*against: str) -> dict[str, int]:
        return gate(lake, "datasets/mine", Contamination(against=against), store=False).suites

    assert compared(a, a, f"{tmp_path}/b/../a/test.jsonl") == {"evaluations/held": 2, "test": 1}
    assert compared(demo) == {"demo": 1, "evaluations/held": 2}
    for clash in ((a, b), ("demo", demo)):
        with pytest.raises(UsageError, match=r"both named '(test|demo)'"):
            compared(*clash)


def test_tasks_of_a_file_without_ids_are_told_apart(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    texts = ["Another task altogether.", STATEMENT, STATEMENT, OTHER.statement]
    (tmp_path / "bench.jsonl").write_text("\n".join(json.dumps({"question": text}) for text in texts))
    report = gate(lake, "datasets/mine", Contamination(against=(str(tmp_path / "bench.jsonl"),)), store=False)
    assert report.suites["bench"] == 3
    assert {(f.row_id, f.task_id) for f in report.flags if f.suite == "bench"} == {("r0", "#2"), ("r4", "#4")}


def test_suites_in_parquet_of_any_type(tmp_path: Path) -> None:
    rows = {
        "task_id": ["q-1"], "text": [STATEMENT], "created_at": [date(2024, 3, 10)], "patch": [PATCH.encode()],
        "tests": [[{"input": Decimal("1.5"), "output": b"\xff"}]], "share": [float("nan")],
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "bench.parquet")
    [task] = of_file(tmp_path / "bench.parquet")
    assert (task.created, task.files, len(task.cases)) == (days("2024-03-10"), {PLACE}, 1)
    assert task.solutions == {sha256(PATCH)}


def test_a_damaged_archive_of_tasks_is_named(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress("".join(f'{{"task_id": "{i}"}}\n' for i in range(5000)).encode()))
    packed[100:140] = bytes(40)
    (tmp_path / "bench.jsonl.gz").write_bytes(packed)
    with pytest.raises(UsageError, match=r"bench\.jsonl\.gz.*cannot be read"):
        list(of_file(tmp_path / "bench.jsonl.gz"))


def evaluation(lake: Lake, name: str, resolved: list[list[bool]]) -> None:
    rows = [
        {
            "evaluation_id": name, "suite": "held", "recipe": "mine", "model_id": "m", "task_id": f"e{i + 1}", "attempt": a,
            "trajectory_id": f"{name}-{i}-{a}", "resolved": done, "submitted": True, "n_steps": 1, "tokens_in": 1,
            "tokens_out": 1, "seed": 0, "backend": "none", "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for i, attempts in enumerate(resolved) for a, done in enumerate(attempts)
    ]  # fmt: skip
    lake.add("evaluations", pa.Table.from_pylist(rows, EVALUATIONS.schema))


def test_resolve_rates_of_repeated_and_clean_tasks(lake: Lake) -> None:
    evaluation(lake, "after", [[True]] * 8 + [[False, True]] * 2 + [[True]] * 3 + [[False]] * 12)
    evaluation(lake, "before", [[True]] * 2 + [[False]] * 8 + [[True]] * 3 + [[False]] * 12)
    dirty = {f"e{i}" for i in range(1, 11)}
    found = effect(lake, "after", dirty)
    assert (found.dirty.value, found.dirty.n, found.clean.value, found.clean.n) == (0.9, 10, 0.2, 15)
    assert found.difference.value == pytest.approx(0.7)
    assert found.difference.low is not None
    assert 0.3 < found.difference.low < 0.7
    gain = effect(lake, "after", dirty, "before")
    assert (gain.dirty.value, gain.clean.value) == (pytest.approx(0.7), 0.0)
    assert effect(lake, "after", set()).dirty.value is None
    alone = effect(lake, "after", {"e1"})
    assert [str(f) for f in (alone.dirty, alone.difference)] == ["1.000", "0.542"]
    assert alone.clean.low is not None
    with pytest.raises(UsageError, match="no task"):
        effect(lake, "lost", dirty)


def test_a_file_named_like_a_suite_does_not_stand_for_it(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    evaluation(lake, "after", [[True], [False]])
    (tmp_path / "held.jsonl").write_text(json.dumps({"task_id": "q", "text": "Nothing that anybody was trained on."}))
    ask = ["contamination", "mine", "--lake", lake.uri, "--evaluation", "after", "--json"]
    answer = CliRunner().invoke(build_app(), [*ask, "--against", str(tmp_path / "held.jsonl")])
    assert json.loads(answer.stdout)["effect"]["dirty"]["n"] == 2


def test_the_yaml_file_of_a_recipe_names_its_dataset_and_says_what_counts(lake: Lake, tmp_path: Path) -> None:
    made(lake)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("source: {corpora: [demo]}\ncontamination: {off: [cut]}\n")
    ask = ["--lake", lake.uri, "--json"]
    strict = json.loads(CliRunner().invoke(build_app(), ["contamination", str(recipe), *ask]).stdout)
    assert strict["open_rows"] == 4
    detectors = (
        "identity, source, exact, normalised, ngram, minhash, tests, cases, solution, syntax, copied, repository, files"
    )
    recipe.write_text(f"source: {{corpora: [demo]}}\ncontamination: {{off: [{detectors}]}}\n")
    answer = CliRunner().invoke(build_app(), ["contamination", str(recipe), *ask])
    assert (answer.exit_code, json.loads(answer.stdout)["flagged_rows"]) == (0, 0)


def test_the_command_and_the_overlap_report(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made(lake)
    evaluation(lake, "after", [[True], [False]])
    app = build_app()
    ask = ["contamination", "mine", "--lake", lake.uri, "--overlap", "--evaluation", "after"]
    answer = CliRunner().invoke(app, [*ask, "--json"])
    assert answer.exit_code == 1
    document = json.loads(answer.stdout)
    assert (document["n_rows"], document["flagged_rows"], document["open_rows"]) == (5, 4, 4)
    assert document["overlap"]["evaluations/held"]["nearest"] == [0] * 9 + [1]
    assert document["effect"]["dirty"]["n"] == 2
    evaluation(lake, "more", [[True], [False], [True]])
    more = CliRunner().invoke(app, ["contamination", "mine", "--lake", lake.uri, "--evaluation", "more", "--json"])
    assert json.loads(more.stdout)["effect"]["clean"]["n"] == 0, "a task that was not compared is not clean"
    shown = CliRunner().invoke(app, ask)
    assert "minhash" in shown.stdout
    assert "0.9 to 1.0" in shown.stdout
    found = overlap(lake, "datasets/mine", "evaluations/held")
    assert (found.tasks, found.repos, found.near) == (0.0, 0.0, (("ev0", "e1", "t2", 1.0),))
    assert found.tasks_above(0.9) == {"e1"}
    down = CliRunner().invoke(app, ["takedown", "--trajectory", "ev0", "--lake", lake.uri])
    assert down.exit_code == 0
    assert overlap(lake, "datasets/mine", "evaluations/held").n_evaluated == 1


@pytest.mark.parametrize("waived", [False, True])
def test_the_asset_check_blocks(lake: Lake, waived: bool) -> None:
    made(lake)
    waive = (
        dict.fromkeys(("exact", "normalised", "ngram", "minhash", "cases", "syntax"), "a control arm") if waived else {}
    )
    recipe = Recipe.model_validate({"name": "mine", "contamination": {"waive": waive}, "evaluation": {"n_tasks": 3}})
    found = [
        c
        for c in checks(Experiments(recipes={"mine": recipe}))
        if "repeats_no_evaluation" in {k.name for k in c.check_keys}
    ]
    (check,) = found
    assert next(iter(check.check_specs)).blocking

    @dg.asset(key=["datasets", "mine"])
    def rows() -> None: ...

    result = dg.materialize([rows, check], resources={"settings": Settings(lake_uri=lake.uri)}, raise_on_error=False)
    assert result.success is waived
    (said,) = result.get_asset_check_evaluations()
    assert said.passed is waived
    assert said.metadata["suites"].value == {"evaluations/held": 2, "evaluations/repair-eval": 3}
