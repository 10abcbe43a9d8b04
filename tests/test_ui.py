"""`make ui` for real: the server starts, its asset graph loads, everything it writes is in .dagster/, it stops when told."""

from __future__ import annotations

import json
import os
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
from typing import Any

import pytest

from assets.definitions import build_defs
from assets.resources import Experiments

ROOT = Path(__file__).parent.parent
QUERY = """{
  shouldShowNux
  assetNodes { assetKey { path } }
  workspaceOrError { ... on Workspace { locationEntries {
    loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } }
}"""


@contextmanager
def ui(folder: Path) -> Iterator[str]:
    """Run the project's `make ui` in a copy of the project made of links; yields its address and ends every process of it."""
    for name in ("assets", "jobs", "schemas", "sql", "stepwell", "pyproject.toml", "dagster.yaml", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What is started in the background of a script ignores the interrupt that `dagster dev` makes of a termination.
    command = ["env", "--default-signal=INT,TERM", "make", "ui", "-o", ".venv/.ready"]
    command += [f"PORT={port}", f"BIN={Path(sys.executable).parent}"]
    log = (folder.parent / "ui.log").open("wb")
    settings = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder.parent / "home")}
    process = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        ends = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (folder.parent / "ui.log").read_text()[-3000:]
                assert time.monotonic() < ends
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        ends = time.monotonic() + 40
        while _alive(process) and time.monotonic() < ends:
            time.sleep(0.2)
        left = _alive(process)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
    assert not left, "still running 40 s after it was told to end"


def _alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(url: str, query: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        data: dict[str, Any] = json.loads(reply.read())["data"]
    return data


@pytest.mark.slow
def test_the_ui_shows_the_whole_graph_and_writes_only_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    with ui(folder) as url:
        found = ask(url, QUERY)
        assert b"<html" in urllib.request.urlopen(f"{url}/asset-groups", timeout=30).read()
    assert found["shouldShowNux"] is False, "no dialogue of the makers in the way"
    entries = found["workspaceOrError"]["locationEntries"]
    assert [(e["loadStatus"], e["locationOrLoadError"]["__typename"]) for e in entries] == [
        ("LOADED", "RepositoryLocation")
    ]
    shown = {"/".join(node["assetKey"]["path"]) for node in found["assetNodes"]}
    graph = build_defs(Experiments.load()).resolve_asset_graph()
    assert shown == {key.to_user_string() for key in graph.get_all_asset_keys()}
    written = {p.name for p in folder.iterdir() if not p.is_symlink()}
    assert written == {".dagster"}
    assert not (tmp_path / "home" / ".dagster").exists(), "nothing in the person's own folder"
