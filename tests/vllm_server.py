"""A real vLLM server on loopback for tests and benchmarks: started, waited for, stopped by its process id.

The interpreter is the one `jobs.vllm_policy.vllm_python` finds, so the environment of the tests need not hold vLLM.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Server:
    """A running server: its address, the name it serves the model under, its process id."""

    url: str
    model: str
    pid: int

    def get(self, path: str) -> str:
        """Body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return str(reply.read().decode())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON of a POST; the model's name is filled in."""
        request = urllib.request.Request(
            self.url + path, json.dumps({"model": self.model, **body}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as reply:
            parsed: dict[str, Any] = json.loads(reply.read())
            return parsed

    def metric(self, name: str) -> float:
        """A counter of the engine, such as `vllm:prompt_tokens_total`, summed over its labels."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith((name + "{", name + " "))]
        if not lines:
            raise KeyError(name)
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextmanager
def serving(
    python: str,
    model: str | Path,
    *,
    name: str = "model",
    prefix_caching: bool = True,
    deadline_s: float = 400,
    **extra: Any,
) -> Iterator[Server]:
    """Serve a model directory until the block ends; `extra` are further options, as `max_model_len=8192`.

    Raises RuntimeError with the end of the server's log when it stops or is not ready before the deadline.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"model": model, "served-model-name": name, "host": "127.0.0.1", "port": port, "dtype": "float32"}
    options |= {k.replace("_", "-"): v for k, v in extra.items()}
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    command += [part for k, v in options.items() for part in (f"--{k}", str(v))]
    caching = "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"
    command += [caching, "--enforce-eager", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    offline = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    with tempfile.TemporaryFile() as log:
        # A session of its own: should it have to be killed, its engine and workers go with it.
        process = subprocess.Popen(
            command,
            env={**offline, **os.environ},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait(process, port, deadline_s, log)
            yield Server(f"http://127.0.0.1:{port}", name, process.pid)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, deadline_s: float, log: Any) -> None:
    ends = time.monotonic() + deadline_s
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    why = f"not ready after {deadline_s:.0f} s" if process.poll() is None else f"ended with status {process.returncode}"
    log.seek(0)
    raise RuntimeError(f"vLLM server {why}:\n{log.read().decode(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
