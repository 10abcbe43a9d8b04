"""The program that runs inside the jail: it builds its own walls, then forks one fresh shell per command.

`sandbox.py` starts a bare interpreter that reads this text from stdin, then talks to it over stdin and stdout in
frames (four bytes of big-endian length, then JSON). It is never imported by the platform, uses the standard library
only, and is the first process (pid 1) of its process namespace: one `kill(-1)` ends everything a command left behind.
Commands run under the same unprivileged user; the server is not dumpable, so they can neither trace it nor read its
descriptors.

What does not belong here: policy about modes, defaults or messages for people (`sandbox.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from typing import Any

Config = dict[str, Any]

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 2, -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
JAIL_ID = 65534  # the host user that root becomes
INNER_ID = 1000  # the user a command sees itself as
READ_BYTES = 1 << 20  # the largest file handed to the platform
POLL_S = 0.05  # how often the memory of all processes together is looked at

libc = ctypes.CDLL(None, use_errno=True)


def call(what: str, result: int) -> None:
    """Raise OSError naming `what` when a libc call returned non-zero."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Call mount(2)."""
    args = [text.encode() or None for text in (source, target, kind)]
    call(f"mount {kind or 'bind'} on {target}", libc.mount(*args, ctypes.c_ulong(flags), data.encode() or None))


def make_dir(path: str) -> None:
    """Make a directory that everyone can enter, with its parents."""
    os.makedirs(path, mode=0o755, exist_ok=True)


def bind_read_only(source: str, target: str) -> None:
    """Show `source` at `target`, with everything mounted below it, without write, set-user-id or devices."""
    if os.path.isdir(source):
        make_dir(target)
    else:
        make_dir(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT, 0o644))
    mount(source, target, "", MS_BIND | MS_REC)
    attributes = struct.pack("=QQQQ", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    path = target.encode()
    if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))):
        kept = os.statvfs(target).f_flag
        flags = (kept & (MS_NOEXEC | 1024 | 2048)) | ((1 << 21) if kept & 4096 else 0)
        mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | flags)


def write_maps(outer_uid: int, outer_gid: int) -> None:
    """Map the one inner user to the one outer user of a user namespace just entered."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INNER_ID} {outer_uid} 1"),
        ("gid_map", f"{INNER_ID} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def build_root(config: Config, owner: int) -> None:
    """Replace the root: system and interpreter read-only, tools read-only, private /work, /tmp, /dev and /proc."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    os.mkdir("/tmp/old", 0o700)
    call("pivot_root", libc.pivot_root(b"/tmp", b"/tmp/old"))
    os.chdir("/")
    for name in ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.islink(f"/old/{name}"):
            os.symlink(os.readlink(f"/old/{name}"), f"/{name}")
        elif os.path.isdir(f"/old/{name}"):
            bind_read_only(f"/old/{name}", f"/{name}")
    for path in ("/etc/ld.so.cache", "/etc/alternatives"):
        if os.path.exists("/old" + path):
            bind_read_only("/old" + path, path)
    make_dir("/dev")
    for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"):
        os.close(os.open(path, os.O_CREAT, 0o644))
        mount("/old" + path, path, "", MS_BIND)
    bind_read_only("/old" + config["python_prefix"], "/opt/python")
    make_dir("/etc")
    with open("/etc/passwd", "w") as file:
        file.write(f"agent:x:{INNER_ID}:{INNER_ID}::/tmp:/bin/bash\n")
    with open("/etc/group", "w") as file:
        file.write(f"agent:x:{INNER_ID}:\n")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    write_tools(config)
    size = f"uid={owner},gid={owner},mode=755,size={config['disk_bytes']},nr_inodes=4096"
    for path in ("/tmp", "/work", "/dev/shm"):
        make_dir(path)
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, size)
    make_dir("/proc")
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    call("umount old root", libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")
    mount("", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def write_tools(config: Config) -> None:
    """Write the tools where PATH finds them."""
    make_dir(config["tools_dir"])
    for name, text in config["tools"].items():
        path = os.path.join(config["tools_dir"], name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o755)


def become_nobody() -> None:
    """Leave the root user for good, then enter a user namespace of one user so that process limits count per jail."""
    os.setgroups([])
    os.setresgid(JAIL_ID, JAIL_ID, JAIL_ID)
    os.setresuid(JAIL_ID, JAIL_ID, JAIL_ID)
    call("prctl", libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
    call("unshare user namespace", libc.unshare(NEWUSER))
    write_maps(JAIL_ID, JAIL_ID)


def enter(config: Config) -> None:
    """Put this process (or its only child, as pid 1) behind the walls of `config["mode"]`."""
    mode, root = config["mode"], os.geteuid() == 0
    if mode == "namespaces":
        uid, gid = os.geteuid(), os.getegid()
        others = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
        call("unshare", libc.unshare(others if root else others | NEWUSER))
        if not root:
            write_maps(uid, gid)
        child = os.fork()
        if child:
            os.close(0)
            os.close(1)
            status = os.waitpid(child, 0)[1]
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
        build_root(config, JAIL_ID if root else INNER_ID)
    elif mode == "bubblewrap" and root:
        os.chown("/work", JAIL_ID, JAIL_ID)
    if mode == "rlimits":
        libc.prctl(PR_SET_SUBREAPER, 1, 0, 0, 0)
        write_tools(config)
    elif root:
        become_nobody()
    if mode != "rlimits":
        if os.getpid() != 1:
            raise OSError(f"the jail is process {os.getpid()} of its namespace, not 1")
        # no namespaces below this one (best effort): the privileges inside them are the kernel's widest door
        with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        call("capset", libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24)))
        call("prctl", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    call("prctl", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    call("prctl", libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    os.chdir(config["work_dir"])


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


def resident_bytes() -> int:
    """Sum the resident memory of every process in this namespace but the server."""
    total = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/statm") as file:
                    total += int(file.read().split()[1])
            except (OSError, IndexError):
                continue
    return total * resource.getpagesize()


def exec_command(config: Config, command: str, out: int) -> None:
    """In the forked child: apply the limits and become the shell; never returns."""
    try:
        os.setsid()
        for target in (1, 2):
            os.dup2(out, target)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.closerange(3, 256)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to root and the next line fails
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # then the kernel's own choice of victim stands
    try:
        for name, value in config["rlimits"].items():
            limit = getattr(resource, name)
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
        os.chdir(config["work_dir"])
        os.execve(config["shell"], ["bash", "-c", command], config["env"])
    except BaseException as error:
        os.write(2, f"jail: {error}\n".encode())
    os._exit(126)


def run(config: Config, command: str, timeout_s: float) -> Config:
    """Run one command to its end, its timeout or its memory limit, and leave no process behind."""
    reader, writer = os.pipe()
    started = time.monotonic()
    leader = os.fork()
    if leader == 0:
        exec_command(config, command, writer)
    os.close(writer)
    leader_end = os.pidfd_open(leader)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    poll.register(leader_end, select.POLLIN)
    chunks: list[bytes] = []
    room, dropped, timed_out = config["output_bytes"], 0, False
    next_look = started + POLL_S
    ended = False
    while True:
        now = time.monotonic()
        if not ended and now >= started + timeout_s:
            timed_out = ended = True
            status = kill_everything(config, leader)
        if not ended and now >= next_look and config["mode"] != "rlimits":
            next_look = now + POLL_S
            if resident_bytes() > config["total_memory_bytes"]:
                ended = True
                status = kill_everything(config, leader)
        wait_s = 0.2 if ended else max(0.0, min(POLL_S, started + timeout_s - now))
        ready = dict(poll.poll(wait_s * 1000 + 1))
        if leader_end in ready and not ended:
            ended = True
            status = kill_everything(config, leader)
        if ended and leader_end in ready:
            poll.unregister(leader_end)
        if reader in ready:
            data = os.read(reader, 65536)
            if not data and ended:
                break
            if not data:
                poll.unregister(reader)
            if room:
                chunks.append(data[:room])
            dropped += max(0, len(data) - room)
            room -= min(room, len(data))
        elif ended:
            break
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


def read_file(config: Config, name: str) -> Config:
    """Read a regular file of the working directory; absent, special, linked or oversized files read as null."""
    try:
        handle = os.open(os.path.join(config["work_dir"], name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {"data": None}
    try:
        data = os.read(handle, READ_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else None
    finally:
        os.close(handle)
    return {"data": None if data is None or len(data) > READ_BYTES else data.decode("latin-1")}


def write_file(config: Config, name: str, data: str) -> Config:
    """Put a file into the working directory, replacing whatever has its name."""
    path = os.path.join(config["work_dir"], name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
        file.write(data.encode("latin-1"))
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
        except OSError as error:
            send({"error": str(error)})


if __name__ == "__main__":
    main()
