"""The world around a jail under attack: canaries on the host, one attack, and what it left behind.

Belongs here: what every hostile program has in common. The programs themselves are in `hostile_programs.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from stepwell.errors import SandboxError
from stepwell.rollout.sandbox import JAILED_MODES, CommandResult, Jail, Limits, Mode, Sandbox

LIMITS = Limits(
    wall_s=5.0,
    cpu_s=1,
    memory_bytes=256 << 20,
    total_memory_bytes=300 << 20,
    processes=24,
    disk_bytes=8 << 20,
    output_bytes=10_000,
)
PRELUDE = """
import ctypes, errno, os, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
WORLD = @WORLD@
X86 = os.uname().machine == "x86_64"

def say(*words):
    print(*words, flush=True)

def attempt(what, action):
    try:
        result = action()
    except BaseException as error:
        say(what + ":", errno.errorcode.get(getattr(error, "errno", None)) or type(error).__name__)
    else:
        say("ESCAPED", what, repr(result)[:100])

def system_call(x86, arm, *args):
    ctypes.set_errno(0)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in args]
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def write_to(path):
    os.close(os.open(path, os.O_WRONLY))
    return path
"""

Check = Callable[[CommandResult, Jail], bool]


@dataclass(frozen=True)
class Hostile:
    """One program: `ends` is how it must end: to its own end, killed by a limit, or at its timeout."""

    name: str
    wall: str  # what holds it
    program: str  # Python after PRELUDE, or for bash
    ends: Literal["runs", "killed", "times out", "runs or killed", "refused"] = "runs"
    language: Literal["python", "bash"] = "python"
    timeout_s: float = 4.0
    check: Check = lambda result, jail: True


@dataclass(frozen=True)
class Outcome:
    """How one attack went: `problems` is empty when it was contained; `how` says what it ran into."""

    problems: list[str]
    how: str
    seconds: float


class World:
    """Canaries on the host, and what hostile programs changed around them; a context manager."""

    def __enter__(self) -> Self:
        self.token, self.secret = "hostile" + secrets.token_hex(6), "secret" + secrets.token_hex(12)
        self.folder = Path(tempfile.mkdtemp(prefix="canary-"))
        (self.folder / "file").write_text(self.secret)
        (self.folder / "scratch").mkdir()
        self._tempdir, tempfile.tempdir = tempfile.tempdir, str(self.folder / "scratch")
        os.environ["CANARY_SECRET"] = self.secret
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.abstract, self.path = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + self.token)
        self.path.bind(str(self.folder / "socket"))
        for server in (self.abstract, self.path):
            server.listen()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        for server in (self.tcp, self.abstract, self.path, self.udp):
            server.setblocking(False)
        self.inherited = os.open(self.folder / "file", os.O_RDWR)
        os.set_inheritable(self.inherited, True)
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whatever is left behind becomes our child
        self._before = self._state()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
        tempfile.tempdir = self._tempdir
        del os.environ["CANARY_SECRET"]
        os.close(self.inherited)
        for server in (self.tcp, self.abstract, self.path, self.udp):
            server.close()
        shutil.rmtree(self.folder)

    @property
    def facts(self) -> dict[str, object]:
        """What a program is told about the host, so that it aims well; never the secret."""
        return {
            "token": self.token,
            "folder": str(self.folder),
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "pid": os.getpid(),
            "home": str(Path.home()),
            "here": str(Path(__file__).parent),
        }

    def _state(self) -> dict[str, Any]:
        """Return what must not change: our processes, the canary folder, and names with our token in shared places."""
        places = {Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.home(), Path.cwd(), Path("/etc")}
        return {
            "processes": {pid for task in Path("/proc/self/task").iterdir() for pid in _children(task)},
            "canary folder": sorted((str(path), path.stat().st_mode, _digest(path)) for path in self.folder.rglob("*")),
            "files": [str(path) for place in places for path in place.glob(f"*{self.token}*")],
            "limits": Path("/proc/self/limits").read_text(),
            "priority": os.nice(0),
        }

    def changes(self, wait_s: float = 1.0) -> list[str]:
        """Return what differs from the beginning; processes just killed get a moment to vanish."""
        end = time.monotonic() + wait_s
        while (now := self._state())["processes"] != self._before["processes"] and time.monotonic() < end:
            for pid in now["processes"] - self._before["processes"]:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(pid), os.WNOHANG)  # an orphan that has ended is ours to bury
            time.sleep(0.01)
        found = [f"{key} changed: {now[key]}" for key in now if now[key] != self._before[key]]
        for name, server in (("TCP", self.tcp), ("abstract", self.abstract), ("unix", self.path)):
            try:
                server.accept()[0].close()
                found.append(f"the {name} canary was reached")
            except BlockingIOError:
                pass
        try:
            self.udp.recv(100)
            found.append("the UDP canary was reached")
        except BlockingIOError:
            pass
        return found


def _children(task: Path) -> list[str]:
    """Return the processes that a thread started and that are still there."""
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


def _digest(path: Path) -> str:
    """Return what a file holds, in short; sockets have nothing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def inhabitants(jail: Jail) -> list[str]:
    """Return the host's numbers of the processes in a jail's process namespace, its server among them."""
    queue, found = [str(jail._process.pid)], []
    spaces = {os.readlink("/proc/self/ns/pid")}
    while queue:
        pid = queue.pop()
        try:
            queue += [child for task in Path("/proc", pid, "task").iterdir() for child in _children(task)]
            if os.readlink(f"/proc/{pid}/ns/pid") not in spaces:
                found.append(pid)
        except OSError:  # gone, or not ours to look at
            continue
    return found


def attack(sandbox: Sandbox, hostile: Hostile, world: World) -> Outcome:
    """Run one program in a jail of its own and compare the jail and the host with what they were."""
    prelude = PRELUDE.replace("@WORLD@", repr(world.facts))
    program = hostile.program.strip("\n") + ("\nsay('tried')\n" if hostile.language == "python" else "\necho tried\n")
    files = {"attack.py": f"{prelude}\n{program}".encode(), "mod.py": b"# the file the platform reads\n"}
    problems = []
    with sandbox.open(files) as jail:
        result = jail.run("exec python3 attack.py" if hostile.language == "python" else program, hostile.timeout_s)
        if len(alive := inhabitants(jail)) > 1:
            problems.append(f"processes outlived the command: {alive}")
        try:
            if not hostile.check(result, jail):
                problems.append("the check failed")
            if jail.run("chmod u+rwx .; echo alive").output != "alive\n":
                problems.append("the jail no longer works")
        except SandboxError as error:
            problems.append(f"the jail broke: {error}")
    if (ended := _end(result)) not in hostile.ends:
        problems.append(f"it {ended}, not {hostile.ends}")
    if "ESCAPED" in result.output:
        problems.append("it escaped")
    if world.secret in result.output:
        problems.append("it read the secret")
    if len(result.output) > sandbox.limits.output_bytes:
        problems.append(f"{len(result.output)} characters of output")
    if problems:
        problems.append(result.output[-1500:])
    return Outcome(problems + world.changes(), _how(result), result.duration_s)


def _end(result: CommandResult) -> str:
    """Return how a command ended, in the words of `Hostile.ends`."""
    if result.timed_out:
        return "times out"
    if result.exit_code is not None and result.exit_code > 128:
        return "killed"
    return "runs" if result.output.endswith("tried\n") or result.truncated_bytes else "refused"


def _how(result: CommandResult) -> str:
    """Return what a program ran into: the distinct error names it printed, its exit code and what was cut off."""
    names = sorted(set(re.findall(r"\b(E[A-Z0-9]{3,}|[A-Z][A-Za-z]+Error)\b", result.output)) - {"ESCAPED"})
    parts = [", ".join(names[:6])] if names else []
    parts += ["timeout" if result.timed_out else f"exit {result.exit_code}"]
    parts += [f"{result.truncated_bytes:,} bytes cut"] if result.truncated_bytes else []
    return "; ".join(parts)


def available() -> list[Mode]:
    """Return the jailed modes that work on this machine."""
    modes = []
    for mode in JAILED_MODES:
        with contextlib.suppress(SandboxError), Sandbox(mode).open():
            modes.append(mode)
    return modes
