"""What every command of the program keeps: help with an example, `--json`, exit statuses, completion in the shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from stepwell import cli
from stepwell.cli.reference import commands

COMMANDS = commands()
WITHOUT_JSON: dict[str, str] = {}
"""Commands without --json, each with the reason; none now."""
STEPWELL = [str(Path(sys.executable).with_name("stepwell"))]


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
