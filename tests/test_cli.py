"""What every command of the program keeps: help with an example, `--json`, exit statuses, completion in the shell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import lakes
import pytest
import typer
from evaluated import evaluated, once

from stepwell import cli
from stepwell.cli.common import launch
from stepwell.cli.reference import commands
from stepwell.errors import UsageError
from stepwell.fold import refresh
from stepwell.health import access
from stepwell.importers.files import walk
from stepwell.lake import Lake
from stepwell.log import EventLog

COMMANDS = commands()
WITHOUT_JSON: dict[str, str] = {}
"""Commands without --json, each with the reason; none now."""
STEPWELL = [str(Path(sys.executable).with_name("stepwell"))]
ODD = "b\udcffd"
"""A name whose bytes are not UTF-8."""
Ends = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ends:
    """The program with these words, in this process: its status, standard output and standard error."""

    def end(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stepwell", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return end


@pytest.fixture
def filled(lake: Lake) -> Lake:
    lakes.build(lake)
    refresh(lake)
    return lake


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment}
    return subprocess.run([*STEPWELL, *words], env=settings, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_a_command_has_an_example_and_json(name: str, command: Any) -> None:
    assert f"Example: `stepwell {name}" in command.help, "an example of this very command"
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--json" in options) != (name in WITHOUT_JSON)
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} is not explained"


def test_a_command_is_found_without_loading_the_others() -> None:
    for module, names in cli.COMMANDS.items():
        alone = typer.Typer()
        import_module(f"stepwell.cli.{module}").register(alone)
        found = [c.name for c in alone.registered_commands] + [g.name for g in alone.registered_groups]
        assert tuple(found) == names, module
    code = "import sys; from stepwell import cli; cli.build_app('import'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "stepwell.cli.data" in loaded
    assert not {"transformers", "sklearn", "scipy.stats", "aiohttp", "stepwell.cli.viewing"} & set(loaded)


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    out = str(tmp_path / "missing" / "x.csv")
    done = run("sql", "SELECT 1 AS a", "--format", "csv", "-o", out, "--lake", str(tmp_path / "lake"))
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert out in done.stderr.replace("\n", "")


def test_exit_statuses(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    done = run("status", "--lake", lake, "--json")
    assert (done.returncode, done.stdout[0]) == (0, "{")
    wrong = run("sql", "DELETE FROM events", "--lake", lake)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "allowed: one SELECT" in wrong.stderr
    assert run("sql", "--nonsense").returncode == 2
    broken = run("status", "--lake", "ftp://nowhere/lake")
    assert broken.returncode == 1
    assert "allowed: a folder or file, s3" in broken.stderr


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_an_interrupt_ends_with_130(tmp_path: Path) -> None:
    endless = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE (a.range * b.range) % 7 = 3"
    command = [*STEPWELL, "sql", endless, "--lake", str(tmp_path / "lake")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while _cpu_seconds(process.pid) < 6:  # imports take two or three, the rest is the query
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell: str) -> None:
    def complete(typed: str) -> str:
        given = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1), "_TYPER_COMPLETE_ARGS": typed}
        return run(
            **{**given, "_STEPWELL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        ).stdout

    script = run(_STEPWELL_COMPLETE=f"source_{shell}").stdout
    assert "stepwell" in script
    assert "trace" in complete("stepwell tr")
    assert "--fallback" in complete("stepwell compare --fa")


def _a_damaged_log(lake: Lake) -> None:
    sorted(Path(lake.uri, "events", "_delta_log").glob("*.json"))[-1].write_text("{bad")


def _a_cut_file(lake: Lake) -> None:
    os.truncate(min(Path(lake.uri, "events").rglob("*.parquet")), 100)


def _a_lost_file(lake: Lake) -> None:
    min(Path(lake.uri, "events").rglob("*.parquet")).unlink()


def _a_file_for_a_table(lake: Lake) -> None:
    Path(lake.uri, "models").write_text("x")


@pytest.mark.parametrize("harm", [_a_damaged_log, _a_cut_file, _a_lost_file, _a_file_for_a_table])
@pytest.mark.parametrize("words", [("status",), ("sql", "SELECT count(*) FROM events"), ("impact", "demo")], ids=str)
def test_a_broken_lake_is_told_with_what_to_do(
    filled: Lake, ends: Ends, harm: Callable[[Lake], None], words: tuple[str, ...]
) -> None:
    harm(filled)
    status, _, told = ends(*words, "--lake", filled.uri)
    assert (status, "`stepwell doctor` with the same --lake says" in told) == (1, True), told
    status, found, _ = ends("doctor", "--lake", filled.uri, "--json")
    areas = [f["area"] for f in json.loads(found)["findings"] if f["level"] == "problem"]
    assert (status, areas) == (1, ["models" if harm is _a_file_for_a_table else "events"])


def test_a_lake_that_is_a_file_is_refused(tmp_path: Path, ends: Ends) -> None:
    (tmp_path / "file").write_text("x")
    for words in (("doctor",), ("status",), ("sql", "SELECT 1")):
        status, _, told = ends(*words, "--lake", str(tmp_path / "file"))
        assert (status, "is a file; a lake is a folder" in told) == (1, True), words


@pytest.mark.parametrize(
    "words",
    [("sql", f"SELECT '{ODD}'"), ("trace", ODD), ("impact", ODD), ("view", ODD, "-o", "v.html"), ("takedown", "--corpus", ODD)],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_name_that_is_no_unicode_is_wrong_usage(filled: Lake, ends: Ends, words: tuple[str, ...]) -> None:
    status, _, told = ends(*words, "--lake", filled.uri)
    assert (status, "b\\udcffd" in told and "is not. Give another." in told) == (2, True), told


def test_a_file_name_that_is_no_unicode_is_in_json(filled: Lake, tmp_path: Path, ends: Ends) -> None:
    (tmp_path / ODD).write_text("{}")
    status, out, _ = ends("sniff", str(tmp_path / ODD), "--json")
    assert (status, json.loads(out)["path"]) == (0, str(tmp_path / "b\\udcffd"))
    status, out, _ = ends("export", "chat", "-o", str(tmp_path / f"{ODD}.jsonl"), "--json", "--lake", filled.uri)
    assert (status, json.loads(out)["path"]) == (0, str(tmp_path / "b\\udcffd.jsonl"))
    status, out, _ = ends("watch", str(tmp_path), "--once", "--json", "--lake", filled.uri)
    read, end = map(json.loads, out.splitlines())
    assert (status, end["event"]) == (0, "end")
    assert str(tmp_path / "b\\udcffd.jsonl") in read["whole"]


NOWHERE = str(Path("no-such-folder", "out"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("contamination", "nope"), "unknown dataset 'datasets/nope'"),
        (("audit", "rules@1", "--at", "99"), "'events' has no version 99; allowed: 0 to 3"),
        (("build", "rft", "--at", "99", "--dry-run"), "'events' has no version 99"),
        (("export", "chat", "--at", "99", "--dry-run"), "'events' has no version 99"),
        (("trace", "t-good-b", "-o", f"{NOWHERE}.svg"), "cannot be written"),
        (("trace", "t-good-b", "--openlineage", NOWHERE), "cannot be written"),
        (("view", "t-good-b", "-o", f"{NOWHERE}.html"), "cannot be written"),
        (("annotate", "export", "--out", f"{NOWHERE}.html"), "cannot be written"),
        (("compare", "one", "two", "-o", f"{NOWHERE}.md"), "cannot be written"),
        (("sql", "SELECT 1", "-o", f"{NOWHERE}.parquet"), "cannot be written"),
        (("judge", "--history", "foo"), "--history without --prompt"),
        (("judge", "--max-cost", "2", "--dry-run"), "--max-cost, --dry-run without --prompt"),
        (("vote", "rules@1", "nope"), "unknown critic 'rules@1'"),
    ],
    ids=lambda case: " ".join(case[:2]) if isinstance(case, tuple) else "",
)
def test_wrong_usage_ends_with_2(filled: Lake, ends: Ends, words: tuple[str, ...], told: str) -> None:
    for model in ("one", "two"):
        evaluated(filled, model, once(True, False))
    status, out, err = ends(*words, "--lake", filled.uri)
    assert (status, out, told in err) == (2, "", True), err


def test_a_price_list_that_is_no_text_is_wrong_usage(filled: Lake, tmp_path: Path, ends: Ends) -> None:
    for model in ("one", "two"):
        evaluated(filled, model, once(True, False))
    (tmp_path / "prices.yaml").write_bytes(b"\xff\xfe")
    status, _, told = ends("compare", "one", "two", "--prices", str(tmp_path / "prices.yaml"), "--lake", filled.uri)
    assert (status, "can't decode byte 0xff" in told) == (2, True), told


def test_comparing_in_a_lake_without_evaluations_says_so(filled: Lake, ends: Ends) -> None:
    status, _, told = ends("compare", "--lake", filled.uri)
    assert (status, "nothing is evaluated in" in told) == (2, True)


def test_a_dry_run_of_training_names_the_seed_asked_for(lake: Lake, ends: Ends) -> None:
    assert json.loads(ends("train", "srft", "--seed", "99", "--dry-run", "--lake", lake.uri)[1])["seeds"] == [99]
    assert json.loads(ends("train", "srft", "--dry-run", "--lake", lake.uri)[1])["seeds"] == [0]


def test_bytes_of_an_answer_are_text(lake: Lake, ends: Ends) -> None:
    ask = ("sql", "SELECT 'abc'::BLOB AS a, '\\xFF'::BLOB AS b, {'c': 'x'::BLOB} AS s", "--lake", lake.uri)
    assert json.loads(ends(*ask, "--json")[1]) == [{"a": "abc", "b": "\\xff", "s": {"c": "x"}}]
    assert ends(*ask, "--format", "csv")[1].splitlines()[1].startswith("abc,\\xff,")


def test_asking_makes_no_lake(tmp_path: Path, ends: Ends) -> None:
    for words in (("trace", "x"), ("impact", "x"), ("doctor",), ("vote", "a", "b")):
        ends(*words, "--lake", str(tmp_path / "none"))
        assert not (tmp_path / "none").exists(), words
    (tmp_path / "none").mkdir()
    assert ends("impact", "x", "--lake", str(tmp_path / "none"))[0] == 2
    assert not list((tmp_path / "none").iterdir())


def test_who_may_only_read_a_lake_asks_it(filled: Lake, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("one", "two"):
        evaluated(filled, model, once(True, False))
    refresh(filled)
    EventLog(filled).append(lakes.good_repair("t-more"), "more")
    for lock in Path(filled.uri).glob(".*.lock"):
        lock.unlink()
    before = sorted(Path(filled.uri).rglob("*"))
    monkeypatch.setattr(access.os, "access", lambda *_: False)  # root may write everywhere
    for words in (("impact", "demo", "--kind", "corpus"), ("sql", "SELECT count(*) FROM trajectories")):
        status, _, told = ends(*words, "--lake", filled.uri)
        assert (status, "trajectories is read as of events version" in told) == (0, True), told
    status, _, told = ends("compare", "one", "two", "--lake", filled.uri)
    assert (status, "not kept in `comparisons`" in told) == (0, True), told
    assert ends("trace", "t-good-b", "--lake", filled.uri)[0] == 0
    status, out, _ = ends("doctor", "--lake", filled.uri, "--json")
    notes = {f["what"] for f in json.loads(out)["findings"] if f["level"] == "note"}
    assert (status, f"{filled.uri} can be read by this user, and not be written" in notes) == (0, True), out
    assert sorted(Path(filled.uri).rglob("*")) == before


@pytest.mark.parametrize("first", [(), ("maintain",)])
def test_what_is_not_folded_yet_is_folded_when_it_is_asked_for(
    tmp_path: Path, ends: Ends, first: tuple[str, ...]
) -> None:
    lake = Lake(tmp_path / "lake")
    for n in (1, 2):
        EventLog(lake).append(lakes.good_repair(f"t{n}"), "b")
        if first:
            assert ends(*first, "--lake", lake.uri)[0] == 0
            assert len(lake.read("trajectories")) == n
        out = ends("sql", "SELECT count(*) AS n FROM trajectories", "--json", "--lake", lake.uri)[1]
        assert json.loads(out) == [{"n": n}]


def test_an_import_leaves_out_a_lake_in_its_folder(filled: Lake, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(filled.uri, tmp_path / "runs" / "lake")
    (tmp_path / "runs" / "lake" / "checkpoints").mkdir()
    (tmp_path / "runs" / "lake" / "checkpoints" / "config.json").write_text("{}")
    (tmp_path / "runs" / "one.json").write_text("{}")
    assert [p.name for p in walk(tmp_path / "runs")] == ["one.json"]


def test_what_a_job_says_cannot_be_done_is_wrong_usage_here_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"python -m jobs\.train_policy ended with status 2; its messages are above"):
        launch("jobs.train_policy", "--recipe", "no-such-recipe", "--lake", str(tmp_path))
