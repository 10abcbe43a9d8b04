"""The sandbox: runs hostile shell commands, one at a time, in a jail with a private working directory.

A `Sandbox` is a mode and limits; `Sandbox.open(files)` starts one `Jail`, a long-lived jailed server (`jail.py`) that
forks a fresh `bash -c` per command, so that the walls are paid for once per task. State between commands lives only in
the working directory, a size-limited memory file system that the host never touches: `Jail.read` asks the server.

Modes, strongest first: `namespaces` (unshare(2) from the server itself) and `bubblewrap` (for machines where only `bwrap`
may do that), both with own user, pid, network, ipc, uts, cgroup and mount namespaces and a filter on system calls;
`rlimits` is weaker (limits, a clean environment and the filter; no private view of the file system) and is used only
when asked for by name or by `unsafe=True`. docs/sandbox.md says what each wall holds against.

What does not belong here: what happens inside the jail (`jail.py`, `walls.py`), the command line of bubblewrap
(`bubblewrap.py`), and which system calls are refused (`seccomp.py`).
"""

from __future__ import annotations

import functools
import json
import logging
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from stepwell.errors import SandboxError
from stepwell.rollout.bubblewrap import bubblewrap, library_path
from stepwell.rollout.seccomp import filter_program

Mode = Literal["bubblewrap", "namespaces", "rlimits"]
JAILED_MODES: tuple[Mode, ...] = ("namespaces", "bubblewrap")
GRACE_S = 10.0  # how long after a command's own timeout the server itself may be silent
ANSWER_BYTES = 16 << 20  # no answer is longer, so a longer one is not from a sound server
WALLS, SERVER = (Path(__file__).with_name(name) for name in ("walls.py", "jail.py"))
# reads both texts, the first as the module that the second imports
BOOT = """
import sys, types
def text(): return sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(4), "big"))
walls = sys.modules["stepwell.rollout.walls"] = types.ModuleType("walls")
exec(text(), walls.__dict__)
exec(text())
"""
JAIL_USERS, NOBODY = 1_900_000_000, 65534  # the host users that root becomes: one a jail where there are so many

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one command may use: seconds, bytes and counts."""

    wall_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 512 << 20  # address space of one process
    total_memory_bytes: int = 768 << 20  # resident memory of all its processes (not in mode rlimits)
    processes: int = 32
    file_bytes: int = 4 << 20
    open_files: int = 128
    disk_bytes: int = 16 << 20  # each of the working directory, /tmp and /dev/shm (not in mode rlimits)
    output_bytes: int = 256 << 10


@dataclass(frozen=True)
class CommandResult:
    """What a command did: stdout and stderr merged; `exit_code` is None when it was killed at its timeout."""

    output: str
    exit_code: int | None
    duration_s: float
    timed_out: bool
    truncated_bytes: int


class SandboxBroken(SandboxError):
    """A jail that had started no longer answers."""


@functools.cache
def detect() -> Mode:
    """Return the strongest mode that works on this machine, found by trying; raises SandboxError when none does."""
    tried: list[str] = []
    for mode in JAILED_MODES:
        try:
            with Sandbox(mode).open() as jail:
                result = jail.run("test $$ -gt 1 && /opt/python/bin/python3 -I -S -E -c 'print(6 * 7)'")
            if result.output == "42\n":
                return mode
            tried.append(f"{mode}: a test command printed {result.output.strip()[:200]!r}")
        except (SandboxError, OSError) as error:
            tried.append(f"{mode}: {error}")
    raise SandboxError(
        "no jail works on this machine; tried " + "; ".join(tried) + ". Install bubblewrap or allow user namespaces "
        "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), or choose mode='rlimits', "
        "(on the command line --unsafe), which does not isolate the file system"
    )


class Sandbox:
    """A mode and limits, from which jails are opened.

    Without a mode, the strongest that works here; where none does, SandboxError, or mode rlimits when `unsafe`
    or in the environment of `stepwell --unsafe`.
    """

    def __init__(self, mode: Mode | None = None, limits: Limits | None = None, *, unsafe: bool = False) -> None:
        if mode is not None and mode not in get_args(Mode):
            raise SandboxError(f"sandbox mode {mode!r} is not one of {', '.join(get_args(Mode))}; choose one of those")
        try:
            self.mode: Mode = mode if mode is not None else detect()
        except SandboxError as error:
            if not unsafe and os.environ.get("STEPWELL_UNSAFE") != "1":
                raise
            log.warning("unsafe was asked for: %s", error)
            self.mode = "rlimits"
        self.limits = limits or Limits()
        if self.mode == "rlimits":
            log.warning(
                "sandbox mode rlimits: no network isolation, no read-only system; trusted commands only%s",
                ", which run as root" if os.geteuid() == 0 else "",
            )

    def open(self, files: Mapping[str, bytes] | None = None, tools: Mapping[str, str] | None = None) -> Jail:
        """Start a jail whose working directory holds `files` and whose PATH begins with `tools` (name to script)."""
        return Jail(self.mode, self.limits, files or {}, tools or {})


class Jail:
    """One private working directory and the server that runs commands in it; a context manager, not thread-safe."""

    def __init__(self, mode: Mode, limits: Limits, files: Mapping[str, bytes], tools: Mapping[str, str]) -> None:
        self.mode: Mode = mode
        self.limits = limits
        self._scratch: str | None = None
        self._closed = False
        try:
            config = self._config(files, tools)
            server = [config["python"], "-I", "-S", "-E", "-c", BOOT]
            if mode == "bubblewrap":
                server = bubblewrap(config, server)
            self._process = subprocess.Popen(
                server,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C.UTF-8", **library_path(config["python_prefix"])},
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
            self._send(WALLS.read_bytes())
            self._send(SERVER.read_bytes())
            config["user"] = None if mode == "rlimits" else _user(self._process.pid)
            self._call(config, limits.wall_s)
            if mode == "bubblewrap":
                self._remove_scratch()  # now, so that a platform that is killed leaves none behind
        except OSError as error:
            self.close()
            raise SandboxError(
                f"the {mode} jail did not start: {error}; check that its program is executable"
            ) from error
        except BaseException:
            self.close()
            raise

    def _config(self, files: Mapping[str, bytes], tools: Mapping[str, str]) -> dict[str, Any]:
        """Say everything the server needs to know, and make its scratch folder where the mode needs one."""
        prefix, limits = os.path.realpath(sys.base_prefix), self.limits
        python = os.path.join(prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        inner, tools_dir, work_dir, home = "/opt/python", "/opt/tools", "/work", "/tmp"
        if self.mode != "namespaces":
            self._scratch = tempfile.mkdtemp(prefix="stepwell-jail-")
        if self.mode == "rlimits" and self._scratch:
            inner, tools_dir, work_dir = prefix, self._scratch + "/tools", self._scratch + "/work"
            home = work_dir
            os.mkdir(work_dir)
        shebang = f"#!{inner}/bin/{os.path.basename(python)} -ISE"
        scripts = {
            name: text.replace("#!/usr/bin/env python3", shebang, 1).replace("TOOLS_DIR", tools_dir)
            for name, text in tools.items()
        }
        if self.mode == "bubblewrap" and self._scratch:
            os.chmod(self._scratch, 0o755)
            os.mkdir(self._scratch + "/tools")
            for name, text in scripts.items():
                path = Path(self._scratch, "tools", name)
                path.write_text(text, "utf-8")
                path.chmod(0o755)
        return {
            "mode": self.mode,
            "python": python,
            "python_prefix": prefix,
            "tools_dir": tools_dir,
            "scratch": self._scratch,
            "work_dir": work_dir,
            "shell": shutil.which("bash", path="/bin:/usr/bin") or "/bin/bash",
            "tools": scripts,
            "files": {name: data.decode("latin-1") for name, data in files.items()},
            "env": {
                "PATH": f"{tools_dir}:{inner}/bin:/usr/local/bin:/usr/bin:/bin",
                "HOME": home,
                "TMPDIR": home,
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "TERM": "dumb",
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                **library_path(prefix, inner),
            },
            "rlimits": {
                "RLIMIT_AS": limits.memory_bytes,
                "RLIMIT_CPU": limits.cpu_s,
                "RLIMIT_FSIZE": limits.file_bytes,
                "RLIMIT_NOFILE": limits.open_files,
                "RLIMIT_NPROC": limits.processes,
                "RLIMIT_MEMLOCK": 64 << 10,
                "RLIMIT_MSGQUEUE": 0,
                "RLIMIT_SIGPENDING": 1024,
                "RLIMIT_NICE": 0,
                "RLIMIT_RTPRIO": 0,
            },
            "filter": _filter(self.mode),
            "socket_bytes": int(Path("/proc/sys/net/core/wmem_default").read_text()),
            **asdict(limits),
        }

    def run(self, command: str, timeout_s: float | None = None) -> CommandResult:
        """Run `bash -c command` in the working directory; nothing it started outlives the call.

        Raises SandboxBroken when the jail itself is gone.
        """
        if "\0" in command:
            return CommandResult("jail: a command cannot contain a null byte\n", 126, 0.0, False, 0)
        limit = self.limits.wall_s if timeout_s is None else timeout_s
        return CommandResult(**self._call({"op": "run", "command": command, "timeout_s": limit}, limit))

    def read(self, name: str) -> bytes | None:
        """Return a regular file of the working directory, or None when it is absent, special, linked or too large."""
        data = self._call({"op": "read", "name": name}, 1.0)["data"]
        return None if data is None else str(data).encode("latin-1")

    def write(self, name: str, data: bytes) -> None:
        """Put a file into the working directory in place of whatever has its name."""
        self._call({"op": "write", "name": name, "data": data.decode("latin-1")}, 1.0)

    def _call(self, frame: dict[str, Any], wait_s: float) -> dict[str, Any]:
        """Send one frame and return the answer; a silent or failed server is closed and raises SandboxBroken."""
        if self._closed:
            raise SandboxBroken("the jail is closed; open another with Sandbox.open()")
        deadline = time.monotonic() + wait_s + GRACE_S
        try:
            self._send(json.dumps(frame).encode())
            size = struct.unpack(">I", self._receive(4, deadline))[0]
            if size > ANSWER_BYTES:
                raise ValueError(f"an answer of {size} bytes")
            answer: dict[str, Any] = json.loads(self._receive(size, deadline))
        except (BrokenPipeError, TimeoutError, EOFError, ValueError) as error:
            said = self._last_words()
            self.close()
            raise SandboxBroken(f"the {self.mode} jail stopped answering ({error}) {said}; open another") from error
        if "error" in answer:
            raise SandboxError(f"{answer['error']}")
        return answer

    def _send(self, data: bytes) -> None:
        """Write one frame."""
        assert self._process.stdin is not None
        payload = memoryview(struct.pack(">I", len(data)) + data)
        while payload:
            payload = payload[self._process.stdin.write(payload) or 0 :]

    def _receive(self, count: int, deadline: float) -> bytes:
        """Read exactly `count` bytes before the deadline (monotonic seconds)."""
        assert self._process.stdout is not None
        data = b""
        while len(data) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TimeoutError("no answer in time")
            part = self._process.stdout.read(count - len(data))
            if not part:
                raise EOFError("it ended")
            data += part
        return data

    def _last_words(self) -> str:
        """Kill the server and return the end of what it wrote to standard error."""
        self._process.kill()
        assert self._process.stderr is not None
        ready = select.select([self._process.stderr], [], [], 0.5)[0]
        return (os.read(self._process.stderr.fileno(), 4096).decode("utf-8", "replace") if ready else "").strip()[-300:]

    def close(self) -> None:
        """End the server, everything it started and its working directory; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        process = getattr(self, "_process", None)
        if process is not None:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        """Remove the folder on the host, if there is one."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _filter(mode: Mode) -> str:
    """Return the system call filter as text for a frame; mode rlimits does without on an unknown machine."""
    try:
        return filter_program().decode("latin-1")
    except SandboxError:
        if mode != "rlimits":
            raise
        return ""


def _user(server: int) -> int | None:
    """Return the host user that a server started by root becomes, or None where this process can be no other user.

    One a jail, so that no jail can use up what the kernel counts per user; `nobody` where only so few users are mapped.
    Raises SandboxError for the machine's own root without other users: it owns the kernel's settings.
    """
    spans = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    for user in (JAIL_USERS + server, NOBODY) if os.geteuid() == 0 else ():
        if any(first <= user < first + count for first, _, count in spans):
            return user
    if os.stat("/proc/sys/kernel").st_uid == os.geteuid():
        raise SandboxError(
            "this process is the machine's root in a user namespace that maps no other user, so a jail could write the "
            "kernel's settings; run as an ordinary user, or with more users mapped"
        )
    return None
