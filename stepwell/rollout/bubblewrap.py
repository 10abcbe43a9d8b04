"""The command line of bubblewrap: the same walls as `walls.py` builds, where only `bwrap` may build them.

What does not belong here: what the server does once it is inside (`jail.py`). Bubblewrap has no limit on the number of
files in a folder and adds a loopback interface; the server's own checks and the system call filter close both.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from stepwell.errors import SandboxError
from stepwell.rollout.walls import DEVICES, INNER_ID, LINKS, MASKED, PRIVATE, SETTINGS, SYSTEM, USERS


def library_path(prefix: str, inner: str | None = None) -> dict[str, str]:
    """Return where a shared libpython is found, for interpreters built with one outside the system directories."""
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and prefix != "/usr":
        return {"LD_LIBRARY_PATH": f"{inner or prefix}/lib"}
    return {}


@functools.cache
def _help(program: str) -> bytes:
    """Return bubblewrap's own list of options: they differ between its versions."""
    return subprocess.run([program, "--help"], capture_output=True, check=False, timeout=10).stdout


def bubblewrap(config: dict[str, Any], server: list[str]) -> list[str]:
    """Return the whole command line that runs `server` (an interpreter and its arguments) as process 1 of a jail."""
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("bwrap is not on PATH")
    args = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    args += ["--as-pid-1", "--new-session", "--hostname", "jail"]
    if os.geteuid() == 0:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN"):
            args += ["--cap-add", capability]
    else:
        args += ["--unshare-user", "--uid", str(INNER_ID), "--gid", str(INNER_ID)]
        args += ["--disable-userns"] if b"--disable-userns" in _help(program) else []
    for name in ("/opt", "/opt/tools", "/etc", "/dev"):
        args += ["--perms", "0755", "--dir", name]
    for name in SYSTEM:
        if os.path.islink(f"/{name}"):
            args += ["--symlink", os.readlink(f"/{name}"), f"/{name}"]
        elif os.path.isdir(f"/{name}"):
            args += ["--ro-bind", f"/{name}", f"/{name}"]
    for path in SETTINGS:
        args += ["--ro-bind-try", path, path]
    for name, text in USERS.items():
        Path(config["scratch"], name).write_text(text, "utf-8")
        args += ["--ro-bind", f"{config['scratch']}/{name}", f"/etc/{name}"]
    args += ["--ro-bind", config["python_prefix"], "/opt/python"]
    for name in config["tools"]:  # one by one: a file that is shown stays when its folder on the host goes
        args += ["--ro-bind", f"{config['scratch']}/tools/{name}", f"/opt/tools/{name}"]
    args += ["--proc", "/proc"]
    for path in filter(os.path.exists, MASKED):
        args += ["--dev-bind", "/dev/null", path]
    for name, source in DEVICES.items():
        args += ["--dev-bind", f"/dev/{source}", f"/dev/{name}"]
    for name, target in LINKS.items():
        args += ["--symlink", target, f"/dev/{name}"]
    for path in PRIVATE:
        args += ["--perms", "1777", "--size", str(config["disk_bytes"]), "--tmpfs", path]
    args += ["--chdir", "/", "--setenv", "LC_ALL", "C.UTF-8"]
    for name, value in library_path(config["python_prefix"], "/opt/python").items():
        args += ["--setenv", name, value]
    inner = "/opt/python/bin/" + os.path.basename(server[0])
    return [*args, "--remount-ro", "/", "--", inner, *server[1:]]
