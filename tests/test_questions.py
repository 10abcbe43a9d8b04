"""The questions: each has its golden answer over one small lake, in an order that does not depend on chance."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import lakes
import pytest
from test_query import dataset_row
from typer.testing import CliRunner

from stepwell import query
from stepwell.cli import build_app, looking
from stepwell.critics.run import judge_new
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.errors import UnknownName
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.log import EventLog

NAMES = sorted(query.questions())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("questions") / "lake")
    lakes.build(lake)
    EventLog(lake).append(lakes.trajectory("t-ungraded", [lakes.Step("view", "1 x")], task_id="task-4"), "ungraded")
    judge_new(lake)
    for rule in (MaskRule(), MaskRule("random"), MaskRule("all")):
        mask_new(lake, rule)
    refresh(lake)
    lake.replace("datasets/srft", dataset_row("r1", "srft", "t-good-a"), {})
    return lake


@pytest.mark.parametrize("name", NAMES)
def test_a_question_has_its_golden_answer(asked: Lake, golden: Callable[[str, Any], None], name: str) -> None:
    golden(name, query.run(query.connect(asked), query.question(name)).to_pylist())


@pytest.mark.parametrize("name", NAMES)
def test_a_question_can_be_asked_of_an_empty_lake(lake: Lake, name: str) -> None:
    assert query.run(query.connect(lake), query.question(name)).to_pylist() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_question_says_what_it_asks_and_orders_its_answer(name: str) -> None:
    text = (files("sql") / f"{name}.sql").read_text()
    assert query.questions()[name].endswith("?")
    assert text.rstrip().endswith(";")
    assert "ORDER BY" in text[text.rindex("FROM ") :]


def test_there_are_questions_and_unknown_ones_list_them() -> None:
    assert len(NAMES) >= 7
    with pytest.raises(UnknownName, match="resolve_rate"):
        query.question("nonsense")


@pytest.fixture(scope="module")
def program() -> Any:
    return build_app()


def test_the_command_line_answers_as_table_json_and_csv(asked: Lake, program: Any) -> None:
    ask = ["sql", "SELECT trajectory_id, resolved FROM trajectories ORDER BY 1 LIMIT 2", "--lake", asked.uri]
    runner = CliRunner()
    assert "t-good-a" in runner.invoke(program, ask).stdout
    assert runner.invoke(program, [*ask, "--format", "csv"]).stdout == (
        "trajectory_id,resolved\nt-good-a,True\nt-good-b,True\n"
    )
    assert '"trajectory_id": "t-good-b"' in runner.invoke(program, [*ask, "--json"]).stdout
    assert runner.invoke(program, ["questions"]).exit_code == 0
    wrong = runner.invoke(program, ["sql", "--lake", asked.uri])
    assert "either one SELECT or --question" in str(wrong.exception)


def test_status_counts_rows_and_the_lag_of_the_folds(asked: Lake, lake: Lake) -> None:
    rows = {r["table"]: r for r in looking.status(asked)}
    assert rows["trajectories"]["rows"] == 6
    assert rows["trajectories"]["behind"] == 0
    assert rows["datasets/srft"]["rows"] == 1
    lakes.build(lake)
    assert {r["table"]: r["behind"] for r in looking.status(lake)}["steps"] == 2
