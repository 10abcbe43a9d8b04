"""The sandbox: runs hostile shell commands, one at a time, in a jail with a private working directory.

A `Sandbox` is a mode and limits; `Sandbox.open(files)` starts one `Jail`, a long-lived jailed server (`jail.py`) that
forks a fresh `bash -c` per command, so that the walls are paid for once per task. State between commands lives only in
the working directory, a size-limited memory file system that the host never touches: `Jail.read` asks the server.

Modes, strongest first: `bubblewrap` (when `bwrap` works), `namespaces` (unshare(2) from the server itself), both with
own user, pid, network, ipc, uts and mount namespaces; `rlimits` is weaker (process group, limits and a clean
environment; no network isolation, no read-only system) and is used only when asked for by name.
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
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from stepwell.errors import SandboxError

Mode = Literal["bubblewrap", "namespaces", "rlimits"]
JAILED_MODES: tuple[Mode, ...] = ("bubblewrap", "namespaces")
GRACE_S = 10.0  # how long after a command's own timeout the server itself may be silent
SERVER = Path(__file__).with_name("jail.py")
BOOT = "import sys; f = sys.stdin.buffer; exec(f.read(int.from_bytes(f.read(4), 'big')))"

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
        "which does not isolate the network or the file system"
    )


class Sandbox:
    """A mode and limits, from which jails are opened."""

    def __init__(self, mode: Mode | None = None, limits: Limits | None = None) -> None:
        if mode is not None and mode not in get_args(Mode):
            raise SandboxError(f"sandbox mode {mode!r} is not one of {', '.join(get_args(Mode))}; choose one of those")
        self.mode: Mode = mode if mode is not None else detect()
        self.limits = limits or Limits()
        if self.mode == "rlimits":
            log.warning("sandbox mode rlimits: no network isolation, no read-only system; trusted commands only")

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
        config = self._config(files, tools)
        server = [config["python"], "-I", "-S", "-E", "-c", BOOT]
        try:
            if mode == "bubblewrap":
                server = [*_bwrap(config, limits), "/opt/python/bin/" + os.path.basename(config["python"]), *server[1:]]
            self._process = subprocess.Popen(
                server,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C.UTF-8", **_library_path(config["python_prefix"])},
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
            self._send(SERVER.read_bytes())
            self._call(config, limits.wall_s)
        except OSError as error:
            self.close()
            raise SandboxError(f"{server[0]} did not start: {error}; check that it is executable") from error
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
            for name, text in scripts.items():
                path = Path(self._scratch, name)
                path.write_text(text, "utf-8")
                path.chmod(0o755)
        return {
            "mode": self.mode,
            "python": python,
            "python_prefix": prefix,
            "tools_dir": tools_dir,
            "tools_from": self._scratch,
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
                **_library_path(prefix, inner),
            },
            "rlimits": {
                "RLIMIT_AS": limits.memory_bytes,
                "RLIMIT_CPU": limits.cpu_s,
                "RLIMIT_FSIZE": limits.file_bytes,
                "RLIMIT_NOFILE": limits.open_files,
                "RLIMIT_NPROC": limits.processes,
                "RLIMIT_CORE": 0,
            },
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
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _library_path(prefix: str, inner: str | None = None) -> dict[str, str]:
    """Return where a shared libpython is found, for interpreters built with one outside the system directories."""
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and prefix != "/usr":
        return {"LD_LIBRARY_PATH": f"{inner or prefix}/lib"}
    return {}


@functools.cache
def _bwrap_help(program: str) -> bytes:
    """Return bubblewrap's own list of options: they differ between its versions."""
    return subprocess.run([program, "--help"], capture_output=True, check=False, timeout=10).stdout


def _bwrap(config: dict[str, Any], limits: Limits) -> list[str]:
    """Return the bubblewrap command line up to the program to run."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bwrap is not on PATH")
    root = os.geteuid() == 0
    size = ["--size", str(limits.disk_bytes)]
    args = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
    args += ["--new-session", "--ro-bind", "/usr", "/usr"]
    for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN") if root else ():
        args += ["--cap-add", capability]
    if not root:
        args += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        args += ["--disable-userns"] if b"--disable-userns" in _bwrap_help(program) else []
    args += ["--perms", "0755", "--dir", "/opt", "--perms", "0755", "--dir", "/etc"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/{name}"):
            args += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            args += ["--ro-bind", f"/{name}", f"/{name}"]
    for path in ("/etc/ld.so.cache", "/etc/alternatives"):
        args += ["--ro-bind-try", path, path]
    args += ["--ro-bind", config["python_prefix"], "/opt/python", "--ro-bind", config["tools_from"], "/opt/tools"]
    args += ["--proc", "/proc", "--dev", "/dev", *size, "--perms", "1777", "--tmpfs", "/tmp"]
    args += [*size, "--tmpfs", "/work", "--chdir", "/", "--setenv", "LC_ALL", "C.UTF-8"]
    for name, value in _library_path(config["python_prefix"], "/opt/python").items():
        args += ["--setenv", name, value]
    return [*args, "--remount-ro", "/", "--"]
