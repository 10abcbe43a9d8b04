"""The sandbox under attack: every hostile program in every mode, many at once, and where no jail is possible."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_programs import BEGIN, HOSTILE
from hostile_world import LIMITS, Hostile, World, attack, available, inhabitants

from stepwell.rollout.sandbox import JAILED_MODES, Mode, Sandbox

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def modes() -> list[Mode]:
    return available()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as found:
        yield found


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name.replace(" ", "-"))
@pytest.mark.parametrize("mode", JAILED_MODES)
def test_a_hostile_program_is_contained(mode: Mode, hostile: Hostile, modes: list[Mode], world: World) -> None:
    if mode not in modes:
        pytest.skip(f"mode {mode} does not work on this machine")
    assert attack(Sandbox(mode, LIMITS), hostile, world).problems == []


@pytest.mark.parametrize("what", ["x" * (1 << 20), "echo \0 b", "\0", "echo " + "\ud800"])
def test_odd_commands_are_refused_and_harmless(what: str, modes: list[Mode]) -> None:
    if not modes:
        pytest.skip("no jail works on this machine")
    with Sandbox(modes[0], LIMITS).open() as jail:
        assert jail.run(what).exit_code == 126
        assert jail.run("echo alive").output == "alive\n"


def test_sixteen_jails_under_attack_leave_each_other_alone(modes: list[Mode], world: World) -> None:
    if not modes:
        pytest.skip("no jail works on this machine")
    names = ("fork bomb of the shell", "many processes take memory", "endless output", "/work filled", "kill -9 -1")
    attacks = [hostile for hostile in HOSTILE if hostile.name in names] * 3
    sandbox, right, problems = Sandbox(modes[0], LIMITS), [0], list[str]()

    def work() -> None:
        with sandbox.open({"n": b"0"}) as jail:
            while attackers and any(thread.is_alive() for thread in attackers):
                right[0] += 1
                result = jail.run(
                    "n=$(($(cat n) + 1)); echo $n > n; (sleep 0.01; echo $n) & wait; ls /proc | grep -c '^[0-9]'"
                )
                words = result.output.split()
                if words[:1] != [str(right[0])] or int(words[1]) > 6 or result.duration_s > 4:
                    problems.append(f"{right[0]}: {result}")

    def assault(hostile: Hostile) -> None:
        with sandbox.open() as jail:
            program = (
                hostile.program
                if hostile.language == "bash"
                else f"python3 -c 'import os, time, errno\n{PLAIN}{hostile.program}'"
            )
            result = jail.run(program, hostile.timeout_s)
            if len(inhabitants(jail)) > 1 or jail.run("echo alive").output != "alive\n":
                problems.append(f"{hostile.name}: {result}")

    attackers = [threading.Thread(target=assault, args=(hostile,)) for hostile in attacks]
    worker = threading.Thread(target=work)
    for thread in (*attackers, worker):
        thread.start()
    for thread in (*attackers, worker):
        thread.join()
    assert len(attackers) == 15
    assert problems == []
    assert right[0] > 5
    assert world.changes() == []


PLAIN = "def attempt(what, action):\n    try: action()\n    except OSError as error: print(error)\n"

CHILD = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
NO_NAMESPACES = (
    CHILD
    + """
import ctypes, struct
from stepwell.rollout.seccomp import filter_program
from stepwell.rollout.sandbox import Sandbox
libc, program = ctypes.CDLL(None, use_errno=True), filter_program()
text = ctypes.create_string_buffer(program, len(program))
header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(text)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_ulong(ctypes.addressof(header)), 0, 0) == 0
"""
)
REFUSED = """
from stepwell.errors import SandboxError
from stepwell.rollout.sandbox import Sandbox
try:
    Sandbox()
    print("OPENED")
except SandboxError as error:
    print("REFUSED", error)
"""
UNSAFE = """
sandbox = Sandbox(unsafe=True)
with sandbox.open() as jail:
    print(sandbox.mode, jail.run("echo alive").output)
"""


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter in a child with this text, after `words` that go before it."""
    return subprocess.run(
        [*words[:-1], sys.executable, "-c", words[-1]], capture_output=True, text=True, timeout=60, check=False
    )


def test_without_namespaces_the_sandbox_refuses() -> None:
    result = _python(NO_NAMESPACES + REFUSED)
    assert result.stdout.startswith("REFUSED no jail works on this machine"), result
    for word in ("namespaces: ", "bubblewrap: ", "unshare: Operation not permitted", "mode='rlimits'", "--unsafe"):
        assert word in result.stdout


def test_unsafe_falls_back_with_a_warning() -> None:
    result = _python(NO_NAMESPACES + UNSAFE)
    assert result.stdout.split() == ["rlimits", "alive"], result
    assert "no jail works on this machine" in result.stderr
    assert "no network isolation" in result.stderr


def test_unsafe_still_takes_the_strongest_mode(modes: list[Mode]) -> None:
    if not modes:
        pytest.skip("no jail works on this machine")
    assert Sandbox(unsafe=True).mode == modes[0]


def test_where_user_namespaces_are_used_up_the_sandbox_refuses() -> None:
    command = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    result = _python("unshare", "--user", "--map-root-user", "sh", "-c", command, "sh", CHILD + REFUSED)
    if "unshare failed" in result.stderr:
        pytest.skip("this machine has no user namespaces to use up")
    assert result.stdout.startswith("REFUSED no jail works on this machine"), result


def test_a_killed_platform_leaves_no_jail(modes: list[Mode], world: World) -> None:
    if not modes:
        pytest.skip("no jail works on this machine")
    program = (
        CHILD
        + """
from stepwell.rollout.sandbox import Sandbox
jail = Sandbox(sys.argv[1]).open()
print("open", flush=True)
jail.run("sleep 60", 60)
"""
    )
    env = {**os.environ, "TMPDIR": str(world.folder / "scratch")}
    for mode in modes:
        child = subprocess.Popen([sys.executable, "-c", program, mode], stdout=subprocess.PIPE, env=env)
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        time.sleep(0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert world.changes(5.0) == []


def test_the_documents_hold_the_table() -> None:
    page = (ROOT / "docs" / "sandbox.md").read_text("utf-8").partition(BEGIN)[2]
    rows = [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| ")][1:]
    assert rows == [[f"| {hostile.name}", hostile.wall] for hostile in HOSTILE]
    assert "not contained" not in page
