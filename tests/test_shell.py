"""The SQL shell and its one-line sisters: what they print, write, complete and survive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lakes
import pyarrow.parquet as pq
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from typer import Typer
from typer.testing import CliRunner

from stepwell import query
from stepwell.cli import asking
from stepwell.cli.shell import Shell, Words, _statements
from stepwell.fold import refresh
from stepwell.health.status import tables
from stepwell.lake import Lake

ENDLESS = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3;"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(tmp_path_factory.mktemp("shell") / "lake")
    lakes.build(lake)
    refresh(lake)
    return lake


@pytest.fixture(scope="module")
def program() -> Typer:
    app = Typer()
    asking.register(app)
    return app


@pytest.fixture
def shell(asked: Lake) -> Shell:
    limits = query.Limits()
    return Shell(query.connect(asked, limits=limits), limits)


def test_one_answer_in_every_format(asked: Lake, program: Typer, tmp_path: Path) -> None:
    ask = ["sql", "SELECT trajectory_id, resolved FROM trajectories ORDER BY 1 LIMIT 2", "--lake", asked.uri]
    run = CliRunner().invoke
    assert "t-good-a" in run(program, ask).stdout
    assert run(program, [*ask, "--format", "csv"]).stdout == "trajectory_id,resolved\nt-good-a,True\nt-good-b,True\n"
    assert '"trajectory_id": "t-good-b"' in run(program, [*ask, "--json"]).stdout
    markdown = run(program, [*ask, "--format", "markdown"]).stdout
    assert markdown == "| trajectory_id | resolved |\n| --- | --- |\n| t-good-a | True |\n| t-good-b | True |\n"
    for name in ("x.parquet", "x.json", "x.md", "x.csv"):
        assert run(program, [*ask, "-o", str(tmp_path / name)]).exit_code == 0
    assert pq.read_table(tmp_path / "x.parquet").column("resolved").to_pylist() == [True, True]
    assert json.loads((tmp_path / "x.json").read_text())[0]["trajectory_id"] == "t-good-a"
    assert (tmp_path / "x.md").read_text() == markdown
    for wrong, said in (
        (["--format", "parquet"], "not for a terminal"), (["-o", "x.doc"], "allowed: .json, .csv"),
        (["--question", "loops"], "either one SELECT or --question"), (["--at", "x"], "neither a version nor TABLE=VERSION"),
        (["--at", "²"], "neither a version nor TABLE=VERSION"),
    ):  # fmt: skip
        assert said in str(run(program, [*ask, *wrong]).exception)


def test_a_version_is_asked_for(asked: Lake, program: Typer) -> None:
    last = asked.version("events")
    ask = ["sql", "SELECT count(*) AS n FROM events", "--json", "--lake", asked.uri, "--at"]
    n = json.loads(CliRunner().invoke(program, [*ask, str(last)]).stdout)[0]["n"]
    assert n == json.loads(CliRunner().invoke(program, [*ask, f"events={last}"]).stdout)[0]["n"] > 0
    assert "has no version 99" in str(CliRunner().invoke(program, [*ask, "99"]).exception)


def test_a_question_is_explained(asked: Lake, program: Typer) -> None:
    run = CliRunner().invoke
    told = json.loads(run(program, ["questions", "loops", "--json", "--lake", asked.uri]).stdout)
    assert told["question"].endswith("?")
    assert {"name": "times", "type": "BIGINT"} in told["columns"]
    shown = run(program, ["questions", "loops", "--lake", asked.uri]).stdout
    assert "FROM loops(3)" in shown
    assert "times BIGINT" in shown
    assert "resolve_rate" in run(program, ["questions"]).stdout


def test_the_shell_takes_statements_and_dot_commands(shell: Shell, capsys: Any, tmp_path: Path) -> None:
    def said(text: str) -> str:
        shell.take(text)
        out = capsys.readouterr()
        return str(out.out + out.err)

    assert "Training rows" in said(".tables") or "verdicts" in said(".tables")
    assert "_dataset_rows" not in said(".tables")
    shell.names = [*shell.names, "choices_mine"]
    assert "choices_mine         One row a trajectory of a recipe's corpora" in said(".tables")
    assert "n_format_errors" in said(".schema trajectories")
    assert "unknown table 'nope'" in said(".schema nope").replace("\n", " ")
    assert "resolve_rate" in said(".questions")
    shell.take(".format csv")
    assert "model-a" in said(".ask resolve_rate")
    assert said("SELECT 1 AS a;") == "a\n1\n"
    shell.take(f".output {tmp_path}/x.csv")
    assert "1 rows in" in said("SELECT 2 AS b")
    assert (tmp_path / "x.csv").read_text() == "b\n2\n"
    assert said("SELECT 3 AS c") == "c\n3\n", "only the next answer goes to the file"
    assert "allowed: one SELECT" in said("DROP VIEW events;").replace("\n", " ")
    assert "unknown command '.nope'" in said(".nope")
    assert ".schema NAME" in said(".help")
    assert said("  ;") == ""


def test_an_interrupt_ends_the_query_and_not_the_shell(shell: Shell, capsys: Any) -> None:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    shell.take(ENDLESS)
    assert "stopped" in capsys.readouterr().err
    shell.take("SELECT 41 + 1 AS n;")
    assert "42" in capsys.readouterr().out


def test_lines_are_typed_completed_and_remembered(shell: Shell, capsys: Any, tmp_path: Path) -> None:
    with create_pipe_input() as typed:
        typed.send_text("SELECT count(*)\rFROM trajectories;\r.nope\rab\x03SELECT 7 AS n;\r.quit\r")
        shell.run(FileHistory(str(tmp_path / "history")), typed, DummyOutput())
    out = capsys.readouterr()
    assert "5" in out.out
    assert "7" in out.out
    assert "unknown command" in out.err
    assert "+FROM trajectories;" in (tmp_path / "history").read_text()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("SELECT * FROM traj", "trajectories"), ("SELECT count(resol", "resolved"), (".sch", ".schema"), (".ask los", None),
     (".ask loo", "loops"), (".schema verd", "verdicts"), ("SELECT a,exit_c", "exit_code")],
)  # fmt: skip
def test_completion(shell: Shell, typed: str, expected: str | None) -> None:
    found = [c.text for c in Words(shell).get_completions(Document(typed), CompleteEvent())]
    assert found[:1] == ([expected] if expected else [])


def test_statements_come_from_a_pipe(asked: Lake) -> None:
    command = [
        sys.executable,
        "-c",
        "from stepwell.cli import main; main()",
        "sql",
        "--format",
        "csv",
        "--lake",
        asked.uri,
    ]
    text = "SELECT count(*) AS n\nFROM trajectories;\n.ask nope\nSELECT 9 AS m;\n.quit\nSELECT 10 AS m"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.stdout == "n\n5\nm\n9\n"
    assert "unknown question 'nope'" in done.stderr
    assert "1 of 3 statements failed" in done.stderr
    assert done.returncode == 1
    done = subprocess.run(command, input="SELECT 1 AS n;\n.exit\n.nope", capture_output=True, text=True, check=True)
    assert done.stdout == "n\n1\n"


def test_comments_and_semicolons_inside_are_no_statements_and_end_none() -> None:
    text = (
        "-- first;\n.tables\nSELECT 1; -- one\nSELECT ';' || $$;$$ /* a;\n.b; */,\n .5;; SELECT 'é'; SELEC 2\n;;\n"
        "/* last;\n*/ -- one"
    )
    assert [each.strip() for each in _statements(text)] == [
        ".tables",
        "-- first;\nSELECT 1;",
        "-- one\nSELECT ';' || $$;$$ /* a;\n.b; */,\n .5;",
        "SELECT 'é';",
        "SELEC 2\n;",
    ]
    assert [*_statements("/* open; SELECT 1;")] == ["/* open; SELECT 1;"], "it is asked, and refused"


def test_typed_comments_are_no_statements(shell: Shell, capsys: Any, tmp_path: Path) -> None:
    with create_pipe_input() as typed:
        typed.send_text("SELECT 5 AS n; -- five\r-- nothing\rSELECT 7 AS n -- ;\r;\r.quit\r")
        shell.run(FileHistory(str(tmp_path / "history")), typed, DummyOutput())
    out = capsys.readouterr()
    assert ("5" in out.out, "7" in out.out, out.err) == (True, True, "")


def test_the_shell_goes_on_after_a_file_or_a_value_that_cannot_be(shell: Shell, capsys: Any, tmp_path: Path) -> None:
    def said(text: str) -> str:
        shell.take(text)
        return str(capsys.readouterr().err)

    for name in ("x.csv", "x.parquet"):
        assert said(f".output {tmp_path}/nowhere/{name}") == ""
        assert "cannot be written" in said("SELECT 1")
    for value in ("DATE '290000-01-01'", "TIMESTAMP 'infinity'", "[TIMESTAMP_S 'infinity']"):
        for shape in ("table", "json", "csv", "markdown"):
            shell.take(f".format {shape}")
            told = said(f"SELECT 1 AS one, {value} AS late")
            assert "column 'late'" in told
            assert "CAST(x AS VARCHAR)" in told
    said(f".output {tmp_path}/x.parquet")
    assert "CAST(x AS VARCHAR)" in said("SELECT TIMESTAMP_S 'infinity' AS late")
    said(f".output {tmp_path}/x.parquet")
    assert "1 rows in" in said("SELECT INTERVAL 1 DAY AS d")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"d": "1 day"}]


def test_numbers_are_numbers_in_json_however_wide(asked: Lake, program: Typer, tmp_path: Path) -> None:
    large = 2**127 - 1
    sql = f"SELECT sum(n_steps) AS n, {large}::HUGEINT AS h, 5::DECIMAL(4, 0) AS w, [1.25] AS l, 2.00 AS f FROM trajectories"
    for extra in (["--json"], ["-o", str(tmp_path / "x.json")]):
        shown = CliRunner().invoke(program, ["sql", sql, "--lake", asked.uri, *extra]).stdout
        text = shown if extra == ["--json"] else (tmp_path / "x.json").read_text()
        (row,) = json.loads(text)
        assert row == {"n": 30, "h": large, "w": 5, "l": [1.25], "f": 2.0}
        assert [type(row[k]) for k in "nhwf"] == [int, int, int, float]
    shown = CliRunner().invoke(program, ["sql", "SELECT 2.50 AS f", "--format", "csv", "--lake", asked.uri]).stdout
    assert shown == "f\n2.50\n"


def test_columns_of_one_name_stand_under_their_own(asked: Lake, program: Typer) -> None:
    ask = ["sql", "SELECT 'x' AS a, 'y' AS a, 'last' AS z", "--lake", asked.uri]
    assert "│ x │ y   │ last │" in CliRunner().invoke(program, ask).stdout
    assert json.loads(CliRunner().invoke(program, [*ask, "--json"]).stdout) == [{"a": "x", "a_1": "y", "z": "last"}]


def test_a_file_for_the_answer_needs_a_statement(asked: Lake, program: Typer) -> None:
    told = CliRunner().invoke(program, ["sql", "-o", "x.csv", "--lake", asked.uri], input="SELECT 1;")
    assert "`.output x.csv`" in str(told.exception)


def test_no_control_sequence_reaches_a_terminal(asked: Lake, program: Typer, shell: Shell, capsys: Any) -> None:
    statement = "SELECT 'a[red]' || chr(27) || '[2J' || chr(8238) AS \"x\x1b[2J\""
    shown = CliRunner().invoke(program, ["sql", statement, "--lake", asked.uri]).stdout
    assert "a[red]⟨U+001B⟩[2J⟨U+202E⟩" in shown
    shell.take("SELECT error('\x1b[2J')")
    out = capsys.readouterr()
    assert "⟨U+001B⟩[2J" in out.err
    assert "\x1b[2J" not in shown + out.out + out.err


@pytest.mark.parametrize("shape", ["csv", "markdown", "json"])
def test_an_answer_that_could_steer_a_terminal_is_itself_in_a_pipe_only(asked: Lake, shape: str) -> None:
    statement = "SELECT chr(155) || '2J' || chr(8238) AS x"
    program = "from stepwell.cli import main; main()"
    command = [sys.executable, "-c", program, "sql", statement, "--format", shape, "--lake", asked.uri]
    assert "\x9b2J\u202e" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    reading, writing = os.openpty()
    done = subprocess.run(command, stdout=writing, stderr=subprocess.DEVNULL, check=True)
    os.close(writing)
    shown = os.read(reading, 1 << 16).decode()
    os.close(reading)
    assert done.returncode == 0
    assert "⟨U+009B⟩2J⟨U+202E⟩" in shown


def test_status_counts_rows_and_the_lag_of_the_folds(asked: Lake, lake: Lake) -> None:
    rows = {r["table"]: r for r in tables(asked)}
    assert rows["trajectories"]["rows"] == 5
    assert rows["trajectories"]["behind"] == 0
    lakes.build(lake)
    assert {r["table"]: r["behind"] for r in tables(lake)}["steps"] == 2
