"""Hostile programs, what holds each of them, and the table of both in docs/sandbox.md.

`test_hostile.py` runs every one in every mode this machine has; `python -m tests.hostile_programs` runs them too and
writes the table. No program does damage where a wall is missing: it opens for writing without writing, and stops at
about a gigabyte; it then prints ESCAPED. Their common ground is `PRELUDE` in `hostile_world.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hostile_world import LIMITS, Check, Hostile, World, attack, available

from stepwell.errors import SandboxError
from stepwell.rollout.sandbox import Jail, Sandbox

BEGIN, END = "<!-- begin: python -m tests.hostile_programs -->", "<!-- end -->"


def _says(*words: str) -> Check:
    """Return a check that the output holds every one of these words."""
    return lambda result, jail: all(word in result.output for word in words)


def _written(jail: Jail, name: str) -> bool:
    """Whether the platform can put a file where a program left something else."""
    jail.write(name, b"new")
    return jail.read(name) == b"new"


def _write_refused(jail: Jail, name: str) -> bool:
    """Whether the platform is refused to write through a name."""
    try:
        jail.write(name, b"x")
    except SandboxError:
        return True
    return False


HOSTILE = [
    # --- processes
    Hostile(
        "fork bomb of the shell", "RLIMIT_NPROC in a user namespace", ":(){ :|:& };:; sleep 9", "times out", "bash", 0.7
    ),
    Hostile(
        "fork bomb that ignores signals",
        "RLIMIT_NPROC, kill(-1)",
        """
for number in set(signal.valid_signals()) - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
        "times out",
        timeout_s=0.7,
    ),
    Hostile(
        "sleeping grandchildren",
        "kill(-1) of the namespace",
        "sleep 60 & (sleep 61 &); nohup setsid sleep 62 &",
        "runs",
        "bash",
    ),
    Hostile(
        "daemons forked twice, in sessions of their own",
        "kill(-1) of the namespace",
        """
for number in range(8):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.closerange(0, 3)
        os.chdir("/")
        time.sleep(60)
""",
    ),
    Hostile(
        "SIGTERM and all others ignored",
        "SIGKILL at the timeout",
        "trap '' 1 2 3 13 14 15; while :; do :; done",
        "times out",
        "bash",
        0.4,
    ),
    Hostile(
        "stopped processes",
        "SIGKILL at the timeout",
        "sleep 60 & kill -STOP $!; kill -STOP $$",
        "times out",
        "bash",
        0.4,
    ),
    Hostile(
        "the output pipe held open",
        "end of the shell, not of the pipe",
        "exec 5>&1; (setsid sleep 60 >&5 2>&5 &)",
        "runs",
        "bash",
    ),
    Hostile(
        "all descriptors closed",
        "the leader's pidfd",
        "os.closerange(0, 1024); time.sleep(60)",
        "times out",
        timeout_s=0.4,
    ),
    Hostile(
        "descriptors without end",
        "RLIMIT_NOFILE",
        """
def fill():
    while True:
        os.dup(1)
attempt("dup", fill)
os.closerange(3, 1024)
""",
        check=_says("EMFILE"),
    ),
    Hostile(
        "threads without end",
        "RLIMIT_NPROC",
        """
def fill():
    for _ in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
attempt("thread", fill)
say("tried")
os._exit(0)
""",
        check=_says("RuntimeError"),
    ),
    Hostile(
        "signals to the server, the parent and the host",
        "pid namespace; process 1 takes none",
        """
for number in sorted(set(signal.valid_signals()) - {signal.SIGCONT}):
    os.kill(1, number)
attempt("host", lambda: os.kill(WORLD["pid"], 0) if WORLD["pid"] > 100 else os.kill(10**6, 0))
attempt("group of the server", lambda: os.killpg(1, 9))
""",
    ),
    Hostile("kill -9 -1", "pid namespace", "sleep 60 & kill -9 -1; wait", "runs", "bash"),
    Hostile(
        "CPU burnt by many threads",
        "RLIMIT_CPU of a process",
        """
import hashlib
def burn():
    while True:
        hashlib.sha256(bytes(1 << 20))
for number in range(3):
    threading.Thread(target=burn).start()
""",
        "killed",
        timeout_s=15.0,
    ),
    Hostile(
        "priority raised",
        "RLIMIT_NICE, RLIMIT_RTPRIO",
        """
attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
attempt("lower nice", lambda: os.setpriority(os.PRIO_PROCESS, 0, 0))
attempt("fifo", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
""",
    ),
    Hostile(
        "the server starved through its limits and priority",
        "seccomp",
        """
import resource
for name in ("AS", "CPU", "NOFILE", "NPROC", "FSIZE"):
    attempt("prlimit " + name, lambda: resource.prlimit(1, getattr(resource, "RLIMIT_" + name), (1, 1)))
attempt("renice", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
attempt("renice user", lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt("affinity", lambda: os.sched_setaffinity(1, {0}))
attempt("idle", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
attempt("ioprio", lambda: system_call(251, 30, 1, 1, 3 << 13))
""",
    ),
    Hostile(
        "limits raised",
        "hard limits, no capability",
        """
import resource
for name in ("AS", "CPU", "NOFILE", "NPROC", "FSIZE", "MEMLOCK", "MSGQUEUE", "NICE", "RTPRIO"):
    limit = getattr(resource, "RLIMIT_" + name)
    attempt(name, lambda: resource.setrlimit(limit, (resource.getrlimit(limit)[1] + 1,) * 2))
""",
    ),
    Hostile(
        "ptrace, the server's memory and descriptors",
        "not dumpable, seccomp",
        """
attempt("ptrace attach", lambda: system_call(101, 117, 16, 1, 0, 0))
attempt("ptrace me", lambda: system_call(101, 117, 0, 0, 0, 0))
attempt("process_vm_readv", lambda: system_call(310, 270, 1, 0, 0, 0, 0, 0))
attempt("kcmp", lambda: system_call(312, 272, 1, os.getpid(), 0, 0, 0))
attempt("pidfd_getfd", lambda: system_call(438, 438, os.pidfd_open(1), 0, 0))
for name in ("mem", "environ", "maps", "fd/0", "fd/1", "root/etc/shadow", "cwd/etc", "exe", "auxv", "syscall", "stack"):
    attempt(name, lambda: os.open("/proc/1/" + name, os.O_RDONLY))
attempt("fd", lambda: os.listdir("/proc/1/fd"))
attempt("oom", lambda: write_to("/proc/1/oom_score_adj"))
""",
    ),
    Hostile(
        "frames forged on the server's pipes",
        "descriptors closed",
        """
fds = {int(name) for name in os.listdir("/proc/self/fd")}
open_now = {fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")}
if open_now != {0, 1, 2}:
    say("ESCAPED descriptors", open_now)
frame = b'{"ready": true}'
for fd in range(256):
    try:
        os.write(fd, struct.pack(">I", len(frame)) + frame)
    except OSError:
        pass
say()
""",
        check=_says("ready"),
    ),
    # --- memory
    Hostile(
        "one process takes memory",
        "RLIMIT_AS",
        "x = []\nattempt('bytes', lambda: [x.append(bytes(1 << 20)) for _ in range(1000)])\nx = 0",
        check=_says("MemoryError"),
    ),
    Hostile(
        "many processes take memory",
        "sum of memory, polled",
        """
for number in range(8):
    if os.fork() == 0:
        x = bytearray(b"1") * (120 << 20)
        time.sleep(9)
time.sleep(9)
""",
        "killed",
    ),
    Hostile(
        "memory that belongs to no process",
        "seccomp; /dev/zero has no mmap",
        """
import mmap
def hide():
    for number in range(4):
        hidden = mmap.mmap(-1, 100 << 20)
        hidden[:: 4096] = b"1" * (len(hidden) // 4096)
        hidden.resize(4096)
attempt("shared anonymous", hide)
attempt("/dev/zero", lambda: mmap.mmap(os.open("/dev/zero", os.O_RDWR), 100 << 20))
attempt("memfd_create", lambda: os.memfd_create("x"))
attempt("memfd_secret", lambda: system_call(447, 447, 0))
attempt("shmget", lambda: system_call(29, 194, 0, 100 << 20, 0o1600))
attempt("msgget", lambda: system_call(68, 186, 0, 0o1600))
attempt("semget", lambda: system_call(64, 190, 0, 100, 0o1600))
attempt("mq_open", lambda: system_call(240, 180, b"x", 0o102, 0o600, 0))
reader, writer = os.pipe()
attempt("vmsplice", lambda: system_call(278, 75, writer, 0, 0, 0))
""",
    ),
    Hostile(
        "memory as page tables",
        "VmPTE in the polled sum",
        """
libc.mmap.restype = ctypes.c_void_p
for number in range(8):
    if os.fork() == 0:
        for place in range(12000):
            at = libc.mmap(ctypes.c_void_p((1 << 44) + (place << 30)), ctypes.c_size_t(4096), 1, 0x22, -1, 0)
            ctypes.c_char.from_address(at).value
        time.sleep(9)
time.sleep(9)
""",
        "killed",
    ),
    Hostile(
        "memory as unread data in sockets",
        "sockets in the polled sum",
        """
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/s")
server.listen(4096)
for number in range(4000):
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    client.connect("/tmp/s")
    try:
        while True:
            client.send(bytes(65536))
    except BlockingIOError:
        client.close()
say("ESCAPED", number)
""",
        "killed",
    ),
    Hostile(
        "memory as locks on files",
        "CPU time",
        """
import fcntl
number = 0
handle = os.open("/tmp/lock", os.O_RDWR | os.O_CREAT)
while True:
    fcntl.lockf(handle, fcntl.LOCK_EX, 1, 2 * number)
    number += 1
""",
        "killed",
        timeout_s=15.0,
    ),
    Hostile(
        "huge arguments",
        "ARG_MAX of the kernel",
        "attempt('exec', lambda: os.execv('/bin/true', ['x' * 100_000] * 1000))",
        check=_says("E2BIG"),
    ),
    # --- disk
    *(
        Hostile(
            f"{folder} filled",
            "size of its memory file system",
            f"""
def fill():
    for number in range(200):
        with open("{folder}/f%d" % number, "wb") as file:
            file.write(bytes(1 << 20))
attempt("fill", fill)
""",
            check=_says("ENOSPC"),
        )
        for folder in ("/work", "/tmp", "/dev/shm")
    ),
    Hostile(
        "many files",
        "nr_inodes, or polled in bubblewrap",
        """
def fill():
    for folder in ("/tmp", "/work", "/dev/shm"):
        try:
            for number in range(300_000):
                os.close(os.open(f"{folder}/f{number}", os.O_CREAT))
            return number
        except OSError as error:
            full = error
    raise full
attempt("fill", fill)
""",
        "runs or killed",
        check=lambda result, jail: "ENOSPC" in result.output or result.exit_code == 137,
    ),
    Hostile(
        "a sparse file of 1 TB",
        "RLIMIT_FSIZE",
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
handle = os.open("big", os.O_RDWR | os.O_CREAT)
attempt("truncate", lambda: os.ftruncate(handle, 1 << 40))
attempt("pwrite", lambda: os.pwrite(handle, b"x", 1 << 40))
attempt("fallocate", lambda: os.posix_fallocate(handle, 0, 1 << 40))
""",
    ),
    Hostile(
        "folders very deep",
        "size of the memory file system",
        """
try:
    while True:
        os.mkdir("d")
        os.chdir("d")
except OSError as error:
    say(errno.errorcode[error.errno])
""",
        "runs or killed",
        check=lambda result, jail: jail.read("d") is None and _written(jail, "d"),
    ),
    Hostile(
        "names with newlines, pipes, sockets",
        "Jail.read takes regular files only",
        """
open("a\\nb", "w").close()
os.mkfifo("pipe")
socket.socket(socket.AF_UNIX).bind("socket")
os.symlink("mod.py", "link")
open("big", "wb").write(bytes(2 << 20))
""",
        check=lambda result, jail: (
            [jail.read(n) for n in ("pipe", "socket", "link", "big", "a\nb", "a\0b")] == [None] * 4 + [b"", None]
        ),
    ),
    # --- output
    Hostile(
        "endless output",
        "output_bytes",
        "yes",
        "times out",
        "bash",
        0.4,
        lambda result, jail: result.truncated_bytes > 0,
    ),
    Hostile(
        "endless errors",
        "output_bytes",
        "yes >&2",
        "times out",
        "bash",
        0.4,
        lambda result, jail: result.truncated_bytes > 0,
    ),
    Hostile(
        "endless output of one line",
        "output_bytes",
        "cat /dev/zero",
        "times out",
        "bash",
        0.4,
        lambda result, jail: result.truncated_bytes > 0,
    ),
    Hostile(
        "binary output",
        "replacement of what is not UTF-8",
        "head -c 1000000 /dev/urandom",
        "runs",
        "bash",
        check=lambda result, jail: result.truncated_bytes == 990_006,
    ),
    # --- files
    Hostile(
        "mod.py made a link out",
        "openat2 without links",
        """
os.unlink("mod.py")
os.symlink("/etc/passwd", "mod.py")
os.symlink("/proc/self", "self")
os.symlink("/etc", "dir")
os.symlink(WORLD["folder"], "canary")
""",
        check=lambda result, jail: (
            [
                jail.read(n)
                for n in (
                    "mod.py",
                    "self/environ",
                    "self/fd/0",
                    "dir/passwd",
                    "canary/file",
                    "../etc/passwd",
                    "/etc/passwd",
                )
            ]
            == [None] * 7
            and all(_write_refused(jail, n) for n in ("dir/x", "canary/x", "self/comm", "../tmp/x", "/tmp/x"))
        ),
    ),
    Hostile(
        "mod.py made a folder without rights",
        "removed by its owner",
        """
os.unlink("mod.py")
os.makedirs("mod.py/a/b")
os.chmod("mod.py/a", 0)
os.chmod("mod.py", 0)
""",
        check=lambda result, jail: _written(jail, "mod.py"),
    ),
    Hostile(
        "the working directory without rights",
        "only this jail's own loss",
        "os.chmod('/work', 0)",
        check=lambda result, jail: jail.read("mod.py") is None,
    ),
    Hostile(
        "writing outside",
        "read-only mounts, private root",
        """
for path in ("/", "/usr", "/usr/bin", "/opt", "/opt/tools", "/opt/python", "/opt/python/bin", "/etc", "/dev", "/bin",
             "/lib", "/proc", "/var", "/var/tmp", "/root", "/home", "/run", WORLD["home"], WORLD["folder"], WORLD["here"]):
    if path != "/tmp":
        attempt(path, lambda: os.open(path + "/" + WORLD["token"], os.O_CREAT | os.O_WRONLY))
for path in ("/etc/passwd", "/bin/bash", "/usr/bin/env", WORLD["folder"] + "/file"):
    attempt(path, lambda: write_to(path))
attempt("chmod", lambda: os.chmod("/usr/bin/env", 0o777))
attempt("unlink", lambda: os.unlink("/usr/bin/env"))
attempt("link", lambda: os.link("/usr/bin/env", "/usr/bin/x"))
""",
    ),
    Hostile(
        "reading the host's secrets",
        "private root, clean environment",
        """
for path in ("/root", "/home", "/var", "/run", "/mnt", "/srv", "/boot", "/sys", "/etc/shadow", "/etc/hostname",
             "/etc/ssh", "/old", "/.oldroot", WORLD["folder"], WORLD["home"] + "/.ssh", WORLD["here"]):
    attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            say(open(f"/proc/{pid}/{name}").read()[:200])
        except OSError as error:
            say(errno.errorcode[error.errno])
say(os.environ, os.listdir("/"), os.uname().nodename)
for name in ("cmdline", "keys", "key-users"):
    if os.path.exists("/proc/" + name) and open("/proc/" + name).read():
        say("ESCAPED /proc/" + name)
""",
        check=_says("ENOENT", "jail"),
    ),
    Hostile(
        "tricks with /proc",
        "owned by a user that is not mapped, read-only mounts",
        """
for path in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sys/kernel/modprobe", "sys/vm/drop_caches",
             "sys/net/ipv4/ip_forward", "sys/user/max_user_namespaces", "sys/fs/binfmt_misc/register", "sysrq-trigger",
             "self/exe", "1/exe",
             "1/uid_map", "1/comm", "1/oom_score_adj", "kcore", "kmsg", "irq/default_smp_affinity", "mtrr", "timer_list"):
    attempt(path, lambda: write_to("/proc/" + path))
for path in ("self/uid_map", "self/gid_map", "self/setgroups", "1/attr/current", "1/timerslack_ns"):
    attempt(path, lambda: os.write(os.open("/proc/" + path, os.O_WRONLY), b"0 0 1"))
for path in ("kcore", "kmsg", "kpageflags", "slabinfo"):
    attempt(path, lambda: os.open("/proc/" + path, os.O_RDONLY))
""",
    ),
    Hostile(
        "the interpreter overwritten as in CVE-2019-5736",
        "read-only mounts",
        """
handle = os.open("/proc/self/exe", os.O_PATH)
attempt("reopened", lambda: write_to(f"/proc/self/fd/{handle}"))
attempt("shell", lambda: write_to("/bin/bash"))
attempt("python", lambda: write_to(os.path.realpath(sys.executable)))
os.symlink("/proc/self/exe", "again")
attempt("run again", lambda: write_to("again"))
attempt("server", lambda: write_to("/proc/1/exe"))
""",
    ),
    Hostile(
        "escape by chroot and open folders",
        "pivot_root, seccomp",
        """
root = os.open("/", os.O_RDONLY)
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("pivot_root", lambda: system_call(155, 41, b"/tmp", b"/tmp"))
os.fchdir(root)
for number in range(50):
    os.chdir("..")
if os.stat(".").st_ino != os.stat("/").st_ino or os.path.exists(WORLD["folder"]):
    say("ESCAPED by ..")
attempt("open_by_handle_at", lambda: system_call(304, 265, root, bytes(32), 0))
attempt("name_to_handle_at", lambda: system_call(303, 264, root, b"/", bytes(200), bytes(8), 0))
attempt("setns", lambda: system_call(308, 268, os.open("/proc/self/ns/mnt", os.O_RDONLY), 0))
attempt("the server's namespace", lambda: os.open("/proc/1/ns/mnt", os.O_RDONLY))
""",
    ),
    Hostile(
        "mounts and new namespaces",
        "no capability, seccomp, max_user_namespaces",
        """
attempt("mount tmpfs", lambda: system_call(165, 40, b"x", b"/tmp", b"tmpfs", 0, 0))
attempt("remount", lambda: system_call(165, 40, b"", b"/usr", b"", 32 | 4096, 0))
attempt("umount", lambda: system_call(166, 39, b"/proc", 2))
attempt("fsopen", lambda: system_call(430, 430, b"tmpfs", 0))
attempt("open_tree", lambda: system_call(428, 428, -100, b"/", 1))
attempt("mount_setattr", lambda: system_call(442, 442, -100, b"/usr", 0, bytes(32), 32))
for bit in (17, 25, 26, 27, 28, 29, 30):
    attempt(f"unshare {bit}", lambda: system_call(272, 97, 1 << bit))
    attempt(f"clone {bit}", lambda: system_call(56, 220, 1 << bit | 17, 0, 0, 0, 0) or os._exit(0))
attempt("clone3", lambda: system_call(435, 435, struct.pack("11Q", 1 << 28, *[0] * 10), 88) or os._exit(0))
""",
    ),
    # --- network
    Hostile(
        "network sockets",
        "seccomp; an empty network namespace",
        """
attempt("tcp", lambda: socket.create_connection(("127.0.0.1", WORLD["tcp"]), 1))
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", WORLD["udp"])))
attempt("tcp6", lambda: socket.create_connection(("::1", WORLD["tcp"]), 1))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
for name in ("PACKET", "NETLINK", "VSOCK", "ALG", "BLUETOOTH", "CAN", "TIPC", "RDS"):
    for kind in (socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        attempt(name, lambda: socket.socket(getattr(socket, "AF_" + name), kind))
attempt("socketpair", lambda: socket.socketpair(socket.AF_TIPC))
shell = f"exec 3<>/dev/tcp/127.0.0.1/{WORLD['tcp']} && echo ESCAPED"
say(subprocess.run(["bash", "-c", shell], capture_output=True).stdout)
""",
    ),
    Hostile(
        "unix sockets of the host",
        "network and mount namespaces",
        """
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    attempt("abstract", lambda: socket.socket(socket.AF_UNIX, kind).connect("\\0" + WORLD["token"]))
    attempt("path", lambda: socket.socket(socket.AF_UNIX, kind).connect(WORLD["folder"] + "/socket"))
say(open("/proc/net/unix").read())
if WORLD["token"] in open("/proc/net/unix").read():
    say("ESCAPED seen")
""",
        check=_says("ECONNREFUSED", "ENOENT"),
    ),
    # --- the kernel
    Hostile(
        "the kernel's wide doors",
        "seccomp",
        """
attempt("bpf", lambda: system_call(321, 280, 0, bytes(128), 128))
attempt("perf_event_open", lambda: system_call(298, 241, bytes(128), 0, -1, -1, 0))
attempt("userfaultfd", lambda: system_call(323, 282, 1))
attempt("io_uring", lambda: system_call(425, 425, 1, bytes(120)))
attempt("syslog", lambda: system_call(103, 116, 10, 0, 0))
attempt("fanotify", lambda: system_call(300, 262, 0, 0))
attempt("kexec", lambda: system_call(246, 104, 0, 0, 0, 0))
attempt("init_module", lambda: system_call(175, 105, bytes(8), 8, b""))
attempt("acct", lambda: system_call(163, 89, 0))
attempt("sethostname", lambda: system_call(170, 161, b"x", 1))
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
attempt("a call of tomorrow", lambda: system_call(600, 600))
""",
    ),
    Hostile(
        "keyrings",
        "seccomp",
        """
attempt("session", lambda: system_call(250, 219, 0, -3, 0))
attempt("add_key", lambda: system_call(248, 217, b"user", b"x", b"y", 1, -3))
attempt("request_key", lambda: system_call(249, 218, b"user", b"x", 0, -3))
""",
    ),
    Hostile(
        "calls by another convention",
        "seccomp: architecture, highest number",
        """
import mmap, platform
attempt("x32", lambda: system_call(0x40000000 + 39, 1000))
if X86:
    sys.stdout.flush()
    code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
    code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # getpid of i386 by int 0x80
    say("ESCAPED", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
""",
        "runs or killed",
    ),
    # --- privileges and devices
    Hostile(
        "set-user-id",
        "nosuid, no_new_privs, one user mapped",
        """
import shutil
shutil.copy("/bin/bash", "/tmp/bash")
os.chmod("/tmp/bash", 0o6755)
if subprocess.run(["/tmp/bash", "-p", "-c", "id -u; id -g"], capture_output=True).stdout != b"1000\\n1000\\n":
    say("ESCAPED set-user-id")
for path in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp"):
    if os.path.exists(path):
        if os.statvfs(path).f_flag & os.ST_NOSUID == 0:
            say("ESCAPED suid", path)
attempt("setuid", lambda: os.setuid(0))
attempt("setgid", lambda: os.setgid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("chown", lambda: os.chown("mod.py", 0, 0))
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
if int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapInh"], 16) | int(status["CapAmb"], 16):
    say("ESCAPED capabilities")
if (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) != ("1", "2"):
    say("ESCAPED no_new_privs or seccomp is off")
""",
    ),
    Hostile(
        "devices",
        "five devices in /dev, nodev, no capability",
        """
attempt("mknod", lambda: os.mknod("/tmp/vda", 0o60600, os.makedev(254, 0)))
attempt("mknod", lambda: os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1)))
if set(os.listdir("/dev")) != {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}:
    say("ESCAPED devices", os.listdir("/dev"))
for name in ("mem", "kmsg", "tty", "ptmx", "console", "vda", "sda", "nvidia0", "kvm", "fuse", "net/tun"):
    attempt(name, lambda: os.open("/dev/" + name, os.O_RDWR))
if open("/dev/zero", "rb").read(3) != bytes(3):
    say("ESCAPED zero")
""",
    ),
    Hostile(
        "typing into a terminal",
        "no terminal, seccomp",
        """
import fcntl
for fd in (0, 1, 2):
    attempt(f"TIOCSTI {fd}", lambda: fcntl.ioctl(fd, 0x5412, b"x"))
    attempt(f"TIOCLINUX {fd}", lambda: fcntl.ioctl(fd, 0x541C, b"x"))
attempt("setsid", lambda: os.open("/dev/tty", os.O_RDWR))
attempt("terminal", lambda: os.ttyname(0))
""",
    ),
    Hostile(
        "core dumps",
        "RLIMIT_CORE of 1, held by seccomp",
        """
import resource
before = resource.getrlimit(resource.RLIMIT_CORE)
for limits in ((0, 0), (0, 1), (9, 9)):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    except ValueError:
        pass
if before not in ((1, 1), (0, 0)) or resource.getrlimit(resource.RLIMIT_CORE) != before:
    say("ESCAPED", before, resource.getrlimit(resource.RLIMIT_CORE))
pid = os.fork()
if pid == 0:
    os.abort()
if os.WCOREDUMP(os.waitpid(pid, 0)[1]) or any("core" in name for name in os.listdir(".")):
    say("ESCAPED core")
""",
    ),
]


def table() -> tuple[str, int]:
    """Attack every mode there is; return the table for docs/sandbox.md and how many attacks were not contained."""
    modes, escaped = available(), 0
    heads = " | ".join(f"{mode}: ran into, seconds" for mode in modes)
    lines = [f"| program | wall | {heads} |", "|---|---|" + "---|" * len(modes)]
    with World() as world:
        for hostile in HOSTILE:
            cells = []
            for mode in modes:
                outcome = attack(Sandbox(mode, LIMITS), hostile, world)
                escaped += bool(outcome.problems)
                verdict = "**not contained**" if outcome.problems else "contained"
                cells.append(f"{verdict}: {outcome.how}; {outcome.seconds:.2f}")
            lines.append(f"| {hostile.name} | {hostile.wall} | " + " | ".join(cells) + " |")
    return "\n".join(lines), escaped


def main() -> int:
    """Write the table between the marks in docs/sandbox.md; the exit code says whether everything was contained."""
    text, escaped = table()
    page = Path(__file__).parent.parent / "docs" / "sandbox.md"
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", "utf-8")
    print(f"{len(HOSTILE)} programs, {escaped} not contained; the table is in {page.name}")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
