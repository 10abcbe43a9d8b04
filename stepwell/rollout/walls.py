"""How a process goes behind walls: namespaces, a root of its own, another user, no privileges, a filter on calls.

Belongs here: everything that `jail.py` does once, before its first command. Its text is sent to the bare interpreter
ahead of `jail.py`, so it uses the standard library only; the platform imports nothing of it but the constants that
`bubblewrap.py` shares.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from typing import Any

Config = dict[str, Any]

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 2, -100, 0x8000, 442
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
INNER_ID = 1000  # the user a command sees itself as
INODES = 4096  # the most files, folders and links in each of PRIVATE
PRIVATE = ("/work", "/tmp", "/dev/shm")
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives")
USERS = {"passwd": f"agent:x:{INNER_ID}:{INNER_ID}::/tmp:/bin/bash\n", "group": f"agent:x:{INNER_ID}:\n"}
# name and the host's device; full reads as zeros too, and unlike zero gives no shared memory when it is mapped
DEVICES = {"null": "null", "zero": "full", "full": "full", "random": "urandom", "urandom": "urandom"}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
# of the files in /proc that are not about processes, those that may tell secrets: boot options and keyrings
MASKED = ("/proc/cmdline", "/proc/keys", "/proc/key-users")

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
    for name in SYSTEM:
        if os.path.islink(f"/old/{name}"):
            os.symlink(os.readlink(f"/old/{name}"), f"/{name}")
        elif os.path.isdir(f"/old/{name}"):
            bind_read_only(f"/old/{name}", f"/{name}")
    for path in SETTINGS:
        if os.path.exists("/old" + path):
            bind_read_only("/old" + path, path)
    bind_read_only("/old" + config["python_prefix"], "/opt/python")
    make_dir("/etc")
    for name, text in USERS.items():
        with open(f"/etc/{name}", "w") as file:
            file.write(text)
    make_dir("/dev")
    for name, source in DEVICES.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT, 0o644))
        mount(f"/old/dev/{source}", f"/dev/{name}", "", MS_BIND)
    for name, target in LINKS.items():
        os.symlink(target, f"/dev/{name}")
    write_tools(config)
    size = f"uid={owner},gid={owner},mode=755,size={config['disk_bytes']},nr_inodes={INODES}"
    for path in PRIVATE:
        make_dir(path)
        mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, size)
    make_dir("/proc")
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for path in MASKED:
        if os.path.exists(path):
            mount("/dev/null", path, "", MS_BIND)
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


def leave_root(user: int) -> None:
    """Become `user` for good, then enter a user namespace of one user so that process limits count per jail."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    call("prctl", libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
    call("unshare user namespace", libc.unshare(NEWUSER))
    write_maps(user, user)


def install_filter(program: bytes) -> None:
    """Refuse system calls by this seccomp filter, here and in everything started from here."""
    call("prctl no_new_privs", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    text = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(text)))
    call("prctl seccomp", libc.prctl(PR_SET_SECCOMP, 2, ctypes.c_ulong(ctypes.addressof(header)), 0, 0))


def enter(config: Config) -> None:
    """Put this process (or its only child, as pid 1) behind the walls of `config["mode"]`."""
    mode, user = config["mode"], config["user"]
    with contextlib.suppress(
        ValueError
    ):  # 1 and not 0: that also stops a core_pattern that starts a program of the host
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    if mode == "rlimits":
        libc.prctl(PR_SET_SUBREAPER, 1, 0, 0, 0)
        write_tools(config)
        with contextlib.suppress(OSError):  # this mode promises no more than the kernel gives
            install_filter(config["filter"].encode("latin-1"))
    else:
        if mode == "namespaces":
            enter_namespaces(config)
        elif user is not None:
            os.chown("/work", user, user)
        if user is not None:
            leave_root(user)
        if os.getpid() != 1:
            raise OSError(f"the jail is process {os.getpid()} of its namespace, not 1")
        # no namespaces below this one, should the filter have a gap: their privileges are the kernel's widest door
        with contextlib.suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
        call("capset", libc.capset(struct.pack("=II", 0x20080522, 0), bytes(24)))
        call("prctl", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        install_filter(config["filter"].encode("latin-1"))
    call("prctl", libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
    os.chdir(config["work_dir"])


def enter_namespaces(config: Config) -> None:
    """Unshare every namespace; the child, process 1 of the new ones, returns behind the new root."""
    user, uid, gid = config["user"], os.geteuid(), os.getegid()
    others = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET
    call("unshare", libc.unshare(others | NEWUSER if user is None else others))
    if user is None:
        write_maps(uid, gid)
    child = os.fork()
    if child:
        os.close(0)
        os.close(1)
        status = os.waitpid(child, 0)[1]
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    call("sethostname", libc.sethostname(b"jail", 4))
    build_root(config, INNER_ID if user is None else user)
