"""The sandbox holds: hostile commands are contained, limits bite, and nothing outlives a command."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.errors import SandboxError
from stepwell.rollout.sandbox import Jail, Limits, Sandbox, detect
from stepwell.rollout.seccomp import ARCHITECTURES, filter_program

LIMITS = Limits(wall_s=5.0, memory_bytes=256 << 20, total_memory_bytes=300 << 20, processes=24, output_bytes=10_000)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    try:
        return Sandbox(detect(), LIMITS)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture
def jail(sandbox: Sandbox) -> Iterator[Jail]:
    with sandbox.open({"a.txt": b"one\n"}, {"hello": "#!/usr/bin/env python3\nprint('hello')\n"}) as opened:
        yield opened


def test_a_command_sees_its_files_and_tools(jail: Jail) -> None:
    result = jail.run("cat a.txt; hello; echo err >&2; pwd; exit 3")
    assert (result.output, result.exit_code, result.timed_out) == ("one\nhello\nerr\n/work\n", 3, False)


def test_state_lives_on_disk_only(jail: Jail) -> None:
    jail.run("cd /tmp; export X=1; y=2; echo two > /work/b.txt")
    assert jail.run("pwd; echo [$X$y]; cat b.txt").output == "/work\n[]\ntwo\n"
    assert jail.read("b.txt") == b"two\n"
    jail.write("b.txt", b"\xff\x00")
    assert jail.read("b.txt") == b"\xff\x00"


def test_the_environment_is_fixed_and_has_no_secrets(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "hunter2")
    output = jail.run("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'").output
    assert "hunter2" not in output
    assert {"PYTHONHASHSEED=0", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/tmp"} <= set(output.splitlines())


def test_invalid_utf8_is_replaced(jail: Jail) -> None:
    assert jail.run("printf 'a\\377b'").output == "a\ufffdb"


def test_no_network(sandbox: Sandbox, jail: Jail) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        result = jail.run(f'python3 -c "{probe}"')
        assert result.exit_code == 1
        assert "Error" in result.output
        assert jail.run(f"exec 3<>/dev/tcp/127.0.0.1/{port}").exit_code != 0
    assert jail.run("ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | grep -v ' lo:'").output == ""


def test_the_host_is_not_there(jail: Jail, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    for path in {"/root", str(Path.home()), str(secret), str(Path(__file__).parent), "/etc/shadow", "/home"} - {"/tmp"}:
        assert jail.run(f"cat {path}/* {path} 2>/dev/null || ls {path}").exit_code != 0, path
    assert jail.run("ls -A /tmp /home /root /mnt 2>/dev/null | grep -v :").output.strip() == ""


def test_cannot_write_outside(jail: Jail) -> None:
    for path in (
        "/x",
        "/usr/x",
        "/opt/x",
        "/opt/tools/hello",
        "/opt/python/x",
        "/etc/passwd",
        "/proc/sys/kernel/hostname",
    ):
        assert jail.run(f"echo x >> {path}").exit_code != 0, path
    assert jail.run("mount -o remount,rw / || mount -t tmpfs none /tmp || umount /usr").exit_code != 0
    assert jail.run("hello").output == "hello\n"


def test_no_privileges(jail: Jail) -> None:
    assert "0000000000000000" in jail.run("grep CapEff /proc/self/status").output
    assert jail.run("grep NoNewPrivs /proc/self/status").output.split()[-1] == "1"
    assert jail.run("unshare --user --map-root-user true").exit_code != 0


def test_the_server_is_out_of_reach(jail: Jail) -> None:
    output = jail.run("kill -9 1; kill -9 -1; cat /proc/1/mem /proc/1/environ; ls /proc/1/fd; echo still").output
    assert output.endswith("still\n")
    assert jail.run("echo here").output == "here\n"


def test_links_are_not_followed_out(jail: Jail) -> None:
    jail.run("rm a.txt; ln -s /etc/passwd a.txt; mkfifo pipe; mkdir dir; head -c 5000000 /dev/zero > big")
    assert [jail.read(name) for name in ("a.txt", "pipe", "dir", "big", "none")] == [None] * 5


def test_a_fork_bomb_is_contained(jail: Jail) -> None:
    started = time.monotonic()
    jail.run(":(){ :|:& };:; sleep 0.5", 1.0)
    jail.run("python3 -c 'import os\nwhile True:\n  try: os.fork()\n  except OSError: pass'", 1.0)
    assert time.monotonic() - started < 8
    assert int(jail.run("ls /proc | grep -c '^[0-9]'").output) < 8
    assert jail.run("for i in $(seq 60); do sleep 2 & done", 1.0).output.count("Resource temporarily unavailable") > 0


def test_a_memory_hog_is_stopped(jail: Jail) -> None:
    result = jail.run("python3 -c 'x = bytearray(400 << 20)'")
    assert result.exit_code != 0
    assert "MemoryError" in result.output
    together = "import time; x = bytearray(b'1') * (120 << 20); time.sleep(4)"
    result = jail.run(f'for i in 1 2 3 4; do python3 -c "{together}" & done; wait; echo done')
    assert result.exit_code == 137
    assert not result.timed_out


def test_the_disk_is_limited(jail: Jail) -> None:
    assert jail.run("for i in $(seq 20); do head -c 4000000 /dev/zero > f$i || exit 9; done").exit_code == 9
    assert jail.run("rm f*; head -c 9000000 /dev/zero > f").exit_code != 0


def test_a_timeout_kills_children(jail: Jail) -> None:
    started = time.monotonic()
    result = jail.run("(setsid sleep 60 &) ; nohup sleep 61 & sleep 62", 0.3)
    assert time.monotonic() - started < 2
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "sleep" not in jail.run("cat /proc/[0-9]*/comm").output


def test_background_processes_do_not_outlive_a_command(jail: Jail) -> None:
    started = time.monotonic()
    assert jail.run("(setsid sleep 60; touch /work/late) & echo now").output == "now\n"
    assert time.monotonic() - started < 2
    assert "sleep" not in jail.run("cat /proc/[0-9]*/comm").output


def test_ignored_signals_do_not_help(jail: Jail) -> None:
    result = jail.run("trap '' TERM INT HUP; while :; do :; done", 0.3)
    assert result.timed_out


def test_huge_output_is_capped(jail: Jail) -> None:
    result = jail.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert (len(result.output), result.truncated_bytes, result.exit_code) == (10_000, 2_990_000, 0)
    assert jail.run("yes", 0.3).timed_out


def test_a_closed_jail_leaves_nothing(sandbox: Sandbox) -> None:
    before = set(os.listdir("/proc"))
    jail = sandbox.open()
    jail.run("true")
    jail.close()
    jail.close()
    with pytest.raises(SandboxError, match="closed"):
        jail.run("true")
    assert not [
        pid
        for pid in set(os.listdir("/proc")) - before
        if pid.isdigit() and b"from_bytes" in _command_line(pid) and f"PPid:\t{os.getpid()}" in _status(pid)
    ]


def _command_line(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""


def _status(pid: str) -> str:
    try:
        return Path("/proc", pid, "status").read_text()
    except OSError:
        return ""


def test_jails_side_by_side_do_not_meet(sandbox: Sandbox) -> None:
    seen: dict[int, str] = {}

    def work(number: int) -> None:
        with sandbox.open({"me": str(number).encode()}) as jail:
            jail.run("(for i in $(seq 15); do sleep 0.2 & done; wait)")
            seen[number] = jail.run("cat me; ls /proc | grep -c '^[0-9]'").output

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: output[0] for number, output in seen.items()} == {n: str(n) for n in range(4)}


def test_odd_commands(jail: Jail) -> None:
    assert jail.run("").exit_code == 0
    assert jail.run("a\0b").exit_code == 126
    assert jail.run("no-such-command").exit_code == 127
    assert jail.run("echo 'x").exit_code == 2
    assert jail.run("kill -9 $$").exit_code == 137
    assert jail.run("true " + "x" * 200_000).exit_code == 126
    assert jail.run("cat").output == ""
    assert jail.run("echo \udcff\u20ac").exit_code == 0


def test_rlimits_is_weaker_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    sandbox = Sandbox("rlimits", LIMITS)
    assert "no network isolation" in caplog.text
    with sandbox.open({"a": b"1"}, {"hello": "#!/usr/bin/env python3\nprint('hello')\n"}) as jail:
        assert jail.mode == "rlimits"
        work = jail.run("pwd").output.strip()
        assert jail.run("cat a; hello").output == "1hello\n"
        assert jail.run("sleep 60 & (setsid sleep 61 &) ; sleep 62", 0.3).timed_out
        assert "MemoryError" in jail.run("python3 -c 'x = bytearray(400 << 20)'").output
    assert not Path(work).exists()


def test_an_unknown_mode_names_the_modes() -> None:
    with pytest.raises(SandboxError, match="bubblewrap, namespaces, rlimits"):
        Sandbox("docker")  # type: ignore[arg-type]


def test_a_mode_that_cannot_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(SandboxError, match="bwrap is not on PATH"):
        Sandbox("bubblewrap").open()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["bubblewrap", "namespaces"])
def test_a_mode_isolates(mode: str) -> None:
    try:
        jail = Sandbox(mode).open()  # type: ignore[arg-type]
    except SandboxError as error:
        pytest.skip(f"{mode}: {error}")
    with jail:
        assert jail.run("id -u").output == "1000\n"
        assert jail.run("python3 -c 'print(6 * 7)'").output == "42\n"
        assert jail.run("touch /usr/x").exit_code != 0


@pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
def test_a_filter_jumps_only_forward_within_itself_and_ends_everywhere(machine: str) -> None:
    program = list(struct.iter_unpack("<HBBI", filter_program(machine)))
    for place, (code, if_true, if_false, _) in enumerate(program):
        assert place + 1 + max(if_true, if_false) < len(program) or code == 0x06
    assert program[-1] == (0x06, 0, 0, 0x7FFF0000)


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(SandboxError, match=r"'vax'.*x86_64, aarch64.*rlimits"):
        filter_program("vax")


def test_the_machine_is_not_told(jail: Jail) -> None:
    assert jail.run("uname -n").output == "jail\n"
    assert jail.run("cat /proc/cmdline /proc/keys /proc/key-users 2>/dev/null").output == ""
    assert jail.run("cat /proc/self/cgroup | cut -d: -f3 | sort -u").output == "/\n"


def test_ordinary_programs_still_work(jail: Jail) -> None:
    program = "import asyncio, multiprocessing, sqlite3, subprocess, tempfile, threading\n"
    program += "sqlite3.connect('db').execute('pragma journal_mode=wal').connection.execute('create table t (a)')\n"
    program += "value = multiprocessing.Value('i', 0)\n"
    program += "def work():\n    value.value += 1\n"
    program += "one = multiprocessing.Process(target=work); one.start(); one.join()\n"
    program += "async def main(): return (await (await asyncio.create_subprocess_exec('true')).wait())\n"
    program += (
        "print(value.value, asyncio.run(main()), subprocess.check_output(['echo', 'x']), tempfile.mkstemp()[0] > 0)"
    )
    jail.write("ordinary.py", program.encode())
    assert jail.run("python3 ordinary.py").output == "1 0 b'x\\n' True\n"


def test_orphans_that_end_do_not_fill_the_limit_on_processes(jail: Jail) -> None:
    command = "for i in 1 2 3 4 5 6; do for j in 1 2 3 4 5 6 7 8; do (true &); done; sleep 0.12; done; echo done"
    assert jail.run(command).output == "done\n"
