"""The system calls a jail refuses, as a filter program for the kernel (classic BPF, seccomp mode 2).

Belongs here: which calls are refused, why, and the bytes of the filter. Installing it is the jail's (`jail.py`); it is
built on the platform's side because it depends only on the machine, not on the jail. No library is needed: a filter
is a list of eight-byte instructions and one `prctl`.

A list of what is refused, not of what is allowed: programs of every kind run in a jail. Calls newer than the newest
one reviewed here do not exist in a jail (ENOSYS), nor do other calling conventions (32-bit, x32).
"""

from __future__ import annotations

import errno
import functools
import platform
import socket
import struct

from stepwell.errors import SandboxError

NEWEST = 466  # removexattrat(2); the highest number reviewed
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # audit number, column of the tables below

# name: number on x86_64, number on aarch64 (None: that architecture has no such call)
Calls = dict[str, tuple[int | None, int | None]]

FORBIDDEN: Calls = {
    # the view of the file system, and new namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "move_mount": (429, 429),
    "open_tree": (428, 428), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "swapon": (167, 224), "swapoff": (168, 225),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "fanotify_init": (300, 262),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "move_pages": (279, 239), "migrate_pages": (256, 238),
    # the kernel itself: its widest doors, its log, its clock, and keyrings, which no namespace separates
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "syslog": (103, 116), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "acct": (163, 89), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "vhangup": (153, 58), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None),
}  # fmt: skip

ABSENT: Calls = {
    # programs fall back: clone3 hides its flags from a filter, io_uring makes calls that no filter sees
    "clone3": (435, 435), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # memory that belongs to no process and no file, so that no limit counts it, or that outlives its maker
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "vmsplice": (278, 75), "shmget": (29, 194),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
}  # fmt: skip

Test = tuple[int, int, int, bool]  # 32-bit word of the arguments, mask, value, equal (or unequal)


def _low(argument: int, value: int, mask: int = 0xFFFFFFFF, equal: bool = True) -> Test:
    """Test the low half of an argument (0 to 5), which is all of it for an int."""
    return 2 * argument, mask, value, equal


NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET
_namespace_bits = [[_low(0, 1 << bit, 1 << bit)] for bit in range(32) if NAMESPACES >> bit & 1]
_not_unix = [[_low(0, socket.AF_UNIX, equal=False)]]
_of_server = [[_low(0, 1)]]  # the server is process 1
_core_limit, _buffer_sizes = 4, (7, 8, 32, 33)  # RLIMIT_CORE; SO_SNDBUF, SO_RCVBUF and their FORCE forms

# numbers (twice: both hold), the answer (0: pretend it worked), and when: any of these lists of tests that all hold
CONDITIONAL: list[tuple[tuple[int | None, int | None], int, list[list[Test]]]] = [
    ((56, 220), errno.EPERM, _namespace_bits),  # clone
    ((41, 198), errno.EAFNOSUPPORT, _not_unix),  # socket; AF_VSOCK, for one, leaves any network namespace
    ((53, 199), errno.EAFNOSUPPORT, _not_unix),  # socketpair
    ((54, 208), 0, [[_low(1, socket.SOL_SOCKET), _low(2, name)] for name in _buffer_sizes]),  # setsockopt
    ((9, 222), errno.EPERM, [[_low(3, 0x21, 0x21)]]),  # mmap, shared and anonymous: memory that no limit counts
    ((16, 29), errno.EPERM, [[_low(1, 0x5412)], [_low(1, 0x541C)]]),  # ioctl TIOCSTI and TIOCLINUX type for a terminal
    # the limit on core dumps stays as the walls set it
    ((302, 261), errno.EPERM, _of_server),  # prlimit64
    ((302, 261), 0, [[_low(1, _core_limit), (word, 0xFFFFFFFF, 0, False)] for word in (4, 5)]),
    ((160, 164), 0, [[_low(0, _core_limit)]]),  # setrlimit
    ((141, 140), errno.EPERM, [[_low(0, 0), _low(1, 1)], [_low(0, 2)]]),  # setpriority: the server, or the user
    ((251, 30), errno.EPERM, [[_low(0, 1), _low(1, 1)], [_low(0, 3)]]),  # ioprio_set, likewise
    ((203, 122), errno.EPERM, _of_server),  # sched_setaffinity
    ((144, 119), errno.EPERM, _of_server),  # sched_setscheduler
    ((142, 118), errno.EPERM, _of_server),  # sched_setparam
    ((314, 274), errno.EPERM, _of_server),  # sched_setattr
]

LOAD, AND, IF_EQUAL, IF_GREATER, RETURN = 0x20, 0x54, 0x15, 0x25, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction; the jumps skip that many."""
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _answer(code: int) -> bytes:
    """Return the instruction that ends the call with this error number (0: success without doing it)."""
    return _op(RETURN, REFUSE | code)


def _when(alternatives: list[list[Test]], code: int) -> bytes:
    """Answer `code` when all tests of any alternative hold, and fall through otherwise."""
    program = b""
    for tests in alternatives:
        block = _answer(code)
        for word, mask, value, equal in reversed(tests):
            skip = len(block) // 8
            jump = _op(IF_EQUAL, value, 0, skip) if equal else _op(IF_EQUAL, value, skip, 0)
            block = _op(LOAD, 16 + 4 * word) + (_op(AND, mask) if mask != 0xFFFFFFFF else b"") + jump + block
        program += block
    return program


@functools.cache
def filter_program(machine: str | None = None) -> bytes:
    """Return the filter for an architecture (this machine's by default); raises SandboxError for one unknown here."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise SandboxError(
            f"no system call filter for machine {machine!r}, only for {', '.join(ARCHITECTURES)}; add its numbers to "
            "stepwell/rollout/seccomp.py, or choose mode='rlimits', which does not isolate"
        )
    audit, column = ARCHITECTURES[machine]
    program = _op(LOAD, 4) + _op(IF_EQUAL, audit, 1, 0) + _op(RETURN, KILL)
    program += _op(LOAD, 0) + _op(IF_GREATER, NEWEST, 0, 1) + _answer(errno.ENOSYS)
    for calls, code in ((FORBIDDEN, errno.EPERM), (ABSENT, errno.ENOSYS)):
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                program += _op(IF_EQUAL, number, 0, 1) + _answer(code)
    bodies: dict[int, bytes] = {}
    for numbers, code, alternatives in CONDITIONAL:
        number = numbers[column]
        assert number is not None
        bodies[number] = bodies.get(number, b"") + _when(alternatives, code)
    for number, body in bodies.items():
        body += _op(RETURN, ALLOW)
        program += _op(IF_EQUAL, number, 0, len(body) // 8) + body
    return program + _op(RETURN, ALLOW)
