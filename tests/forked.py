"""The program `stepwell`, imported once and forked for every call, for tests that call it by the dozen from a shell.

    with forked(folder) as programs: ...     (put `programs` in front of PATH)

What a call does, prints and exits with is the program's own: a child has the working directory, environment, arguments,
input and output of its caller. Only the seconds of importing are spent once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_CALLER = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as to:
    to.connect({address!r})
    said = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(to, [len(said).to_bytes(4, "big")], [0, 1, 2])
    to.sendall(said)
    sys.exit(int.from_bytes(to.recv(1) or b"\\xff", "big"))
"""


@contextlib.contextmanager
def forked(folder: Path) -> Iterator[Path]:
    """A folder with a `stepwell` that is quick to call, as long as this holds."""
    address, programs = folder / "calls", folder / "bin"
    programs.mkdir()
    program = programs / "stepwell"
    program.write_text(_CALLER.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, __file__, str(address)], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline(), "the program could not be imported"
            yield programs
        finally:
            server.kill()  # a worker of xdist ignores SIGTERM, and so do its children


def main(address: str) -> None:
    """Import the program, say so, and fork for every caller until terminated."""
    from stepwell.cli import build_app

    build_app()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: each answers its caller itself
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        print("ready", flush=True)
        while True:
            caller, _ = listening.accept()
            if not os.fork():
                listening.close()
                _answer(caller)
            caller.close()


def _answer(caller: socket.socket) -> None:
    """In the child: become the process that was called, and tell its exit status."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size, files, _, _ = socket.recv_fds(caller, 4, 3)
        said = b""
        while len(said) < int.from_bytes(size, "big"):
            said += caller.recv(1 << 16)
        arguments, folder, environment = json.loads(said)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["stepwell", *arguments]
        status = _run()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        caller.sendall(status.to_bytes(1, "big"))
        os._exit(status)


def _run() -> int:
    from stepwell.cli import main as program

    try:
        program()
    except SystemExit as left:
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
