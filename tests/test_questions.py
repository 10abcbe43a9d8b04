"""The questions: each has its golden answer over one recorded lake, reads what it needs only, and fits any lake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import golden_lake
import lakes
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from test_query import dataset_row

from schemas.contamination import CONTAMINATION
from schemas.evaluations import EVALUATIONS
from schemas.kinds import KINDS
from schemas.models import MODELS
from stepwell import query, views
from stepwell.critics.leaks import POLICY as LEAKS
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.datasets.build import build
from stepwell.errors import UnknownName, UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer

NAMES = sorted(query.questions())
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
VERDICT_QUESTIONS = [n for n in NAMES if "verdicts" in query.question(n)]
HEAVY = {
    "instruction", "observation", "action.text", "action.thought", "action.reasoning", "action.tool_calls", "attempt.code",
    "verdict.raw", "verdict.guidance", "feedback.text", "label.text", "end.submission", "hint", "task.statement", "extra",
    "messages", "input_ids", "labels", "thought", "raw",
}  # fmt: skip
"""What is large: columns and payload fields, as a scan names them."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = golden_lake.stored(Lake(tmp_path_factory.mktemp("questions") / "lake"))
    lakes.build(lake)
    peeking = [lakes.Step("git log --all -p"), lakes.Step("git show origin/main:src/f.py"), lakes.Step("submit")]
    EventLog(lake).append(lakes.trajectory("t-peek", peeking, resolved=True), "peek")
    judge_new(lake)
    judge_new(lake, LEAKS)
    for rule in (MaskRule(), MaskRule("random"), MaskRule("all")):
        mask_new(lake, rule)
    refresh(lake)
    pool = [r for r in lake.read("trajectories").sort_by("trajectory_id").to_pylist() if r["corpus"] == "rollouts/pool"]
    rows = [dataset_row(f"r{n}", "srft", t["trajectory_id"], t["corpus"]) for n, t in enumerate(pool[:6])]
    version = lake.replace("datasets/srft", pa.concat_tables(rows), {})
    settings = {"name": "rft", "source": {"corpora": ["rollouts/pool"]}, "dataset": {"method": "rft"}}
    build(lake, Recipe.model_validate(settings), Renderer.load(Path(__file__).parent.parent / "jobs" / "base"), "all@1")
    flagged = {
        "dataset": "datasets/srft",
        "dataset_version": version,
        "dataset_hash": "h",
        "gate": "g",
        "suite": "eval",
    }
    lake.add("contamination", pa.Table.from_pylist([
        flagged | {"row_id": "", "task_id": "", "detector": "looked_at", "score": 4.0, "recorded_at": lakes.EPOCH},
        flagged | {"row_id": "r1", "task_id": "t1", "detector": "exact", "score": 1.0, "recorded_at": lakes.EPOCH},
        flagged | {"row_id": "r9", "task_id": "t1", "detector": "exact", "score": 1.0, "gate": "old",
                   "recorded_at": lakes.EPOCH - timedelta(days=1)},
    ], CONTAMINATION.schema))  # fmt: skip
    model = {
        "model_id": "srft-0", "name": "srft", "path": "m", "recipe": "srft", "recipe_hash": "r", "dataset": "datasets/srft",
        "dataset_version": version, "dataset_hash": "h", "events_version": 1, "base_model": "base", "code_version": "1",
        "seed": 0, "n_parameters": 1, "n_rows": 1, "n_trained_tokens": 1, "metrics": "{}", "environment": "{}",
        "wall_s": 1.0, "recorded_at": lakes.EPOCH,
    }  # fmt: skip
    lake.add("models", pa.Table.from_pylist([model], MODELS.schema))
    evaluated = [
        {"evaluation_id": "e", "suite": "eval", "recipe": "srft", "model_id": "srft-0", "task_id": task, "attempt": 0,
         "trajectory_id": t["trajectory_id"], "resolved": bool(t["resolved"]), "submitted": True, "exit_status": "submitted",
         "n_steps": 1, "tokens_in": 1, "tokens_out": 1, "seed": 0, "backend": "b", "recorded_at": lakes.EPOCH}
        for task, t in (("task-1", pool[0]), ("elsewhere", pool[7]))
    ]  # fmt: skip
    lake.add("evaluations", pa.Table.from_pylist(evaluated, EVALUATIONS.schema))
    return lake


@pytest.fixture(scope="module")
def connection(asked: Lake) -> duckdb.DuckDBPyConnection:
    return query.connect(asked)


def test_declared_or_not_the_files_give_the_same_answers(asked: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    sides, made = [], []
    for few in (0, 10_000):
        monkeypatch.setattr(views, "_FEW", few)
        sides.append(query.connect(asked))
        made.append(
            sides[-1].sql("SELECT count(*) FROM duckdb_variables() WHERE name LIKE '_schema_%'").fetchall()[0][0]
        )
    assert made[0] > made[1] == 0, "with few files nothing is declared"
    for name in NAMES:
        declared, found = (side.sql(query.question(name)).to_arrow_table() for side in sides)
        assert declared.equals(found), name


@pytest.mark.parametrize("name", NAMES)
def test_a_question_has_its_golden_answer(
    connection: duckdb.DuckDBPyConnection, golden: Callable[[str, Any], None], name: str
) -> None:
    answer = query.run(connection, query.question(name)).to_pylist()
    golden(name, answer)
    assert answer, "the recorded lake has something to say to every question"


def test_what_a_model_began_from_was_trained_on_is_learnt_from(lake: Lake) -> None:
    lake.replace("datasets/first", dataset_row("r0", "first", "t0"), {})
    of = {"recipe_hash": "r", "dataset_hash": "h", "dataset_version": 1, "events_version": 1, "code_version": "1", "seed": 0,
          "n_parameters": 1, "n_rows": 1, "n_trained_tokens": 1, "metrics": "{}", "environment": "{}", "wall_s": 1.0,
          "recorded_at": lakes.EPOCH}  # fmt: skip
    models = [
        of | {"model_id": "first-0", "name": "first", "path": "models/first", "recipe": "first", "dataset": "datasets/first",
              "base_model": "second-0"},
        of | {"model_id": "second-0", "name": "second", "path": "models/second", "recipe": "second",
              "dataset": "datasets/second", "base_model": "models/first"},
    ]  # fmt: skip
    lake.add("models", pa.Table.from_pylist(models, MODELS.schema))
    task = dataset_row("r0", "first", "t0").to_pylist()[0]["task_id"]
    evaluated = {"evaluation_id": "e", "suite": "eval", "recipe": "second", "model_id": "second-0", "task_id": task,
                 "attempt": 0, "trajectory_id": "t9", "resolved": True, "submitted": True, "exit_status": "submitted",
                 "n_steps": 1, "tokens_in": 1, "tokens_out": 1, "seed": 0, "backend": "b",
                 "recorded_at": lakes.EPOCH}  # fmt: skip
    lake.add("evaluations", pa.Table.from_pylist([evaluated], EVALUATIONS.schema))
    with query.connect(lake) as connection:
        (answer,) = query.run(connection, query.question("evaluated_tasks")).to_pylist()
    assert (answer["dataset"], answer["tasks"], answer["same_task"]) == ("datasets/second", 1, 1)


def test_every_question_can_be_asked_of_an_empty_lake(lake: Lake) -> None:
    connection = query.connect(lake)
    for name in NAMES:
        assert query.run(connection, query.question(name)).to_pylist() == [], name


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no recorded files beside the project")
def test_every_question_can_be_asked_of_imported_files(lake: Lake) -> None:
    import_paths(lake, [SHARED / name for name in ("atif", "malformed")])
    judge_new(lake)
    refresh(lake)
    connection = query.connect(lake)
    sizes = {name: len(query.run(connection, query.question(name))) for name in NAMES}
    answered = (
        "failures_by_agent",
        "before_mistake",
        "tools_used",
        "sources_fidelity",
        "rejects_by_reason",
        "cost_by_role",
    )
    assert all(sizes[name] for name in answered), sizes


def scans(plan: Any) -> Iterator[list[str]]:
    """What every scan of a file in a query plan reads."""
    for node in plan if isinstance(plan, list) else [plan]:
        if "SCAN" in node["name"] or "PARQUET" in node["name"]:
            read = node["extra_info"].get("Projections", [])
            yield [read] if isinstance(read, str) else read
        yield from scans(node.get("children", []))


def heavy(read: str) -> bool:
    return read in HEAVY or any(read.startswith(f"{name}.") for name in HEAVY)


def test_the_plan_shows_what_is_read(connection: duckdb.DuckDBPyConnection) -> None:
    plan = json.loads(query.explain(connection, "SELECT observation.raw, verdict FROM events"))
    found = {c for part in scans(plan) for c in part}
    assert "observation.raw" in found
    assert heavy("observation.raw")
    assert not heavy("verdict.label")


@pytest.mark.parametrize("name", VERDICT_QUESTIONS)
def test_a_question_about_verdicts_reads_nothing_heavy(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    read = [c for part in scans(json.loads(query.explain(connection, query.question(name)))) for c in part]
    assert any(read)
    whole = {"verdict", "action", "attempt", "label", "feedback", "mask", "end", "task"}
    counted = {"action"} if name == "masked_by_reason" else set()  # the text of `steps`, whose characters it counts
    assert not [c for c in read if heavy(c) or c in whole - counted]


@pytest.fixture(scope="module")
def poisoned(asked: Lake, tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    """A copy of the lake in which every page of a heavy column is overwritten: reading one fails."""
    copy = Path(shutil.copytree(asked.uri, tmp_path_factory.mktemp("poisoned") / "lake"))
    for path in [*copy.glob("events/**/*.parquet"), *copy.glob("steps/*.parquet")]:
        about, skip = pq.read_metadata(path), {"action"} if path.parent.name == "steps" else set()
        with path.open("r+b") as file:
            for group in range(about.num_row_groups):
                for column in map(about.row_group(group).column, range(about.num_columns)):
                    if heavy(column.path_in_schema) and column.path_in_schema not in skip:
                        start = column.dictionary_page_offset or column.data_page_offset
                        file.seek(start)
                        file.write(b"\xff" * column.total_compressed_size)
    return query.connect(Lake(copy))


def test_reading_what_is_poisoned_fails(poisoned: duckdb.DuckDBPyConnection) -> None:
    for text in (
        "SELECT sum(length(observation.raw)) FROM events",
        "SELECT sum(length(raw)) FROM verdicts",
        "SELECT sum(length(observation)) FROM steps",
    ):
        with pytest.raises(UsageError):
            query.run(poisoned, text)


def test_no_question_about_verdicts_reads_what_is_poisoned(
    poisoned: duckdb.DuckDBPyConnection, golden: Callable[[str, Any], None]
) -> None:
    for name in VERDICT_QUESTIONS:
        golden(name, query.run(poisoned, query.question(name)).to_pylist())


COMMANDS = [
    "ls", "ls -la", "  ls", "ls\n", "ls\npwd", "ls\t-la", "[ -f a ]", "./run.sh x", "/usr/bin/sed -i", "a/b c", "X=1 ls",
    "X=1", "cd", "cd ", "cd /x", "cd /x && ls", "cd /x; X=1 time sudo ls", "cd\t/x && ls", "cdx y", "sudo", "sudo ", "time",
    "sudo git log", "env A=b python -m t", "environment x", "", " ", None, "(ls)", "é x", "x'y z", "g++ -o a", "a=b/c d",
    "python3.11 -V", "-x", "ls&&pwd", "ls; pwd", "ls | wc", "sudo\nls", "env ", "time ./x", "git",
]  # fmt: skip


def test_the_short_way_to_a_tool_gives_what_the_long_way_gives(connection: duckdb.DuckDBPyConnection) -> None:
    long = r"""nullif(regexp_extract(regexp_replace(c, '^\s*(cd\s+[^;&|]*(&&|;)\s*)?((\w+=\S*|sudo|time|env)\s+)*', ''),
        '^(?:\S*/)?([\w.+\[-]+)', 1), '')"""
    told = query.run(
        connection, f"SELECT c, tool(c) AS short, {long} AS long FROM (SELECT unnest($c) AS c)", {"c": COMMANDS}
    )
    assert len(told) == len(COMMANDS)
    assert [r for r in told.to_pylist() if r["short"] != r["long"]] == []
    assert {r["c"]: r["short"] for r in told.to_pylist()}["cd /x; X=1 time sudo ls"] == "ls"


@pytest.mark.parametrize("name", NAMES)
def test_a_question_says_what_it_asks_and_orders_its_answer(name: str) -> None:
    text = (files("sql") / f"{name}.sql").read_text()
    assert query.questions()[name].endswith("?")
    assert text.rstrip().endswith(";")
    assert "ORDER BY" in text[text.rindex("FROM ") :]


def test_there_are_questions_and_unknown_ones_list_them() -> None:
    assert len(NAMES) >= 25
    with pytest.raises(UnknownName, match="resolve_rate"):
        query.question("nonsense")


@pytest.mark.parametrize("few", [16, 1])
@pytest.mark.parametrize(
    ("kind", "missing"), [("reward", None), ("verdict", "candidate"), ("verdict", "label"), ("action", "command")]
)
def test_what_was_declared_later_is_null_in_older_rows(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, few: int, kind: str, missing: str | None
) -> None:
    monkeypatch.setattr(views, "_FEW", few)
    own = Lake(f"{lake.uri}-whole")
    lakes.build(own)
    judge_new(own)
    EventLog(own).append([Event("reward", "t-good-a", "demo", "grader", {"reward": 0.5, "rule": "r"})], "b")
    rows = own.read("events")
    older = rows
    if missing is None:
        older = rows.drop_columns([kind])
    else:
        column = pa.concat_arrays(rows.column(kind).chunks)
        fields = [f for f in column.type if f.name != missing]
        left = pa.StructArray.from_arrays([column.field(f.name) for f in fields], fields=fields, mask=column.is_null())
        older = rows.set_column(rows.schema.get_field_index(kind), pa.field(kind, left.type), left)
    is_old = pc.equal(rows.column("trajectory_id"), "t-loop-a")
    write_deltalake(lake.path("events"), older.filter(is_old), partition_by=["corpus"])
    handle = lake.table("events")
    assert handle is not None
    lake.append(handle, "events", rows.filter(pc.invert(is_old)))
    connection = query.connect(lake)
    for name in [f.name for f in KINDS[kind].type]:
        found = query.run(connection, f"SELECT event_id, {name} AS told FROM {kind}s ORDER BY event_id").to_pylist()
        told = rows.filter(pc.equal(rows.column("kind"), kind)).sort_by("event_id").to_pylist()
        assert found == [
            {"event_id": e["event_id"], "told": None if e["trajectory_id"] == "t-loop-a" and name == missing else e[kind][name]}
            for e in told
        ]  # fmt: skip
    for name in NAMES:
        query.run(connection, query.question(name))
