"""The program that runs inside the jail: it goes behind its walls, then forks one fresh shell per command.

`sandbox.py` starts a bare interpreter that reads `walls.py` and this text from stdin, then talks to it over stdin and
stdout in frames (four bytes of big-endian length, then JSON). It is never imported by the platform, uses the standard library
only, and is the first process (pid 1) of its process namespace: one `kill(-1)` ends everything a command left behind.
Commands run under the same unprivileged user; the server is not dumpable, so they can neither trace it nor read its
descriptors, and a system call filter keeps them from its limits and its priority.

What does not belong here: policy about modes, defaults or messages for people (`sandbox.py`), the walls themselves
(`walls.py`, `bubblewrap.py`), and which system calls are refused (`seccomp.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import shlex
import signal
import stat
import struct
import sys
import time

from stepwell.rollout.walls import INODES, PR_SET_DUMPABLE, PRIVATE, Config, call, enter, libc

SYS_OPENAT2, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 437, 4, 8
NICE = 5  # below the server, which must be able to stop them, and below the platform
READ_BYTES = 1 << 20  # the largest file handed to the platform
POLL_S = 0.05  # how often the memory of all processes together is looked at


def kill_everything(config: Config, leader: int) -> int:
    """Kill and reap every process a command started; returns the leader's wait status."""
    status = 0
    while True:
        if config["mode"] != "rlimits" and os.getpid() == 1:  # -1 means "all" only inside our own namespace
            victims = [-1]
        else:
            with open("/proc/thread-self/children") as file:
                victims = [-leader, *(int(word) for word in file.read().split())]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(victim, signal.SIGKILL)
        try:
            while True:
                pid, found = os.waitpid(-1, 0)
                if pid == leader:
                    status = found
                if victims != [-1]:
                    break
        except ChildProcessError:
            return status


def most_files() -> int:
    """Return how many files, folders and links the fullest private folder holds."""
    return max(disk.f_files - disk.f_ffree for disk in map(os.statvfs, PRIVATE))


def holds_too_much(config: Config) -> bool:
    """Whether all processes but the server together hold more memory than they may.

    Counted are resident and swapped pages, page tables (which a process can make many of without being resident) and a
    full send buffer for each socket; other kinds of memory are limited by their own size or refused by the filter.
    """
    held = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/status", "rb") as file:
                    fields = dict(line.split(b":", 1) for line in file.read().splitlines() if line.startswith(b"Vm"))
                held += sum(int(fields[key].split()[0]) << 10 for key in (b"VmRSS", b"VmPTE", b"VmSwap"))
            except (OSError, KeyError):  # gone, or a zombie
                continue
    with open("/proc/self/net/sockstat") as sockets:
        held += int(sockets.readline().split()[2]) * int(config["socket_bytes"])
    return held > int(config["total_memory_bytes"])


def exec_command(config: Config, command: str, out: int) -> None:
    """In the forked child: apply the limits and become the shell; never returns."""
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)  # nothing is left of the server's own pipes
        os.closerange(3, 1 << 20)
        os.setsid()
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root and the next line fails
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        os.nice(NICE)
        for name, value in config["rlimits"].items():
            limit = getattr(resource, name)
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
        os.chmod(config["work_dir"], 0o755)  # an earlier command may have locked everyone out
        os.chdir(config["work_dir"])
        os.execve(config["shell"], ["bash", "-c", command], config["env"])
    except BaseException as error:
        os.write(1, f"jail: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(126)  # whatever happens, a copy of the server must not go on


def reap(leader: int) -> None:
    """Collect orphans that have ended, which else count against the limit on processes; leave the leader."""
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid != leader:
        os.waitpid(found.si_pid, 0)


def run(config: Config, command: str, timeout_s: float) -> Config:
    """Run one command to its end, its timeout, its memory limit or the platform's end; leave no process behind."""
    reader, writer = os.pipe()
    started = time.monotonic()
    leader = os.fork()
    if leader == 0:
        exec_command(config, command, writer)
    os.close(writer)
    leader_end, platform = os.pidfd_open(leader), sys.stdin.fileno()
    poll = select.poll()
    for handle, event in ((reader, select.POLLIN), (leader_end, select.POLLIN), (platform, 0)):
        poll.register(handle, event)
    chunks: list[bytes] = []
    room, dropped = config["output_bytes"], 0
    deadline, next_look = started + timeout_s, started + POLL_S
    jailed, files = config["mode"] != "rlimits", INODES
    if jailed and (found := most_files()) > INODES:  # bubblewrap's folders have no limit of their own
        files = min(found, 16 * INODES)  # what is there may be removed; far too much ends every command
        next_look = started
    status: int | None = None
    timed_out, output_open = False, True
    ready: dict[int, int] = {}
    while status is None or output_open:
        now = time.monotonic()
        if status is None:
            timed_out, too_large = now >= deadline and leader_end not in ready, False
            if now >= next_look:
                next_look = now + POLL_S
                reap(leader)
                too_large = jailed and (most_files() > files or holds_too_much(config))
            if timed_out or too_large or leader_end in ready or platform in ready:
                status = kill_everything(config, leader)
                poll.unregister(leader_end)
                poll.unregister(platform)
                continue
        wait_s = 0.2 if status is not None else max(0.0, min(next_look, deadline) - now)
        ready = dict(poll.poll(wait_s * 1000 + 1))
        data = os.read(reader, 65536) if reader in ready else b""
        if output_open and not data and (reader in ready or status is not None):
            output_open = False
            poll.unregister(reader)
        if room:
            chunks.append(data[:room])
        dropped += max(0, len(data) - room)
        room -= min(room, len(data))
    os.close(reader)
    os.close(leader_end)
    code = os.waitstatus_to_exitcode(status)
    return {
        "output": b"".join(chunks).decode("utf-8", "replace"),
        "exit_code": None if timed_out else (128 - code if code < 0 else code),
        "duration_s": time.monotonic() - started,
        "timed_out": timed_out,
        "truncated_bytes": dropped,
    }


def open_beneath(config: Config, name: str, flags: int) -> int:
    """Open a path of the working directory; leaving it, or a link anywhere on the way, is an OSError."""
    if "\0" in name:
        raise OSError(errno.EINVAL, "a file name cannot contain a null byte")
    root = os.open(config["work_dir"], os.O_PATH | os.O_DIRECTORY)
    try:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
        handle = libc.syscall(SYS_OPENAT2, root, os.fsencode(name), how, ctypes.c_size_t(len(how)))
        call(f"open {name!r}", min(handle, 0))
        return int(handle)
    finally:
        os.close(root)


def read_file(config: Config, name: str) -> Config:
    """Read a regular file of the working directory; absent, special, linked or oversized files read as null."""
    try:
        handle = open_beneath(config, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return {"data": None}
    try:
        data = os.read(handle, READ_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    finally:
        os.close(handle)
    return {"data": None if data is None or len(data) > READ_BYTES else data.decode("latin-1")}


def write_file(config: Config, name: str, data: str) -> Config:
    """Put a file into the working directory, replacing whatever has its name, a folder with all it holds too."""
    folder, base = os.path.split(name)
    parent = open_beneath(config, folder or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(base, dir_fd=parent)
            except IsADirectoryError:  # maybe deeper than a recursion here could go
                path = shlex.quote(os.path.join(config["work_dir"], name))
                run(config, f"chmod -R u+rwx -- {path}; rm -rf -- {path}", config["wall_s"])
        handle = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent)
        with open(handle, "wb") as file:
            file.write(data.encode("latin-1"))
    finally:
        os.close(parent)
    return {}


def receive() -> Config | None:
    """Read one frame from the platform, or None when it has gone."""
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        return None
    frame: Config = json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
    return frame


def send(frame: Config) -> None:
    """Write one frame to the platform."""
    data = json.dumps(frame).encode()
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
    sys.stdout.buffer.flush()


def main() -> None:
    """Enter the jail, then answer requests until the platform closes the pipe."""
    config = receive()
    if config is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        enter(config)
        for name, data in config["files"].items():
            write_file(config, name, data)
    except OSError as error:
        send({"error": str(error)})
        return
    send({"ready": True})
    while (request := receive()) is not None:
        try:
            if request["op"] == "run":
                send(run(config, request["command"], request["timeout_s"]))
            elif request["op"] == "read":
                send(read_file(config, request["name"]))
            else:
                send(write_file(config, request["name"], request["data"]))
        except (OSError, ValueError) as error:
            send({"error": str(error)})


if __name__ == "__main__":
    main()
