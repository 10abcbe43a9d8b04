"""A watch and harnesses that write their whole file anew after every step: one trajectory, when the run is over."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_importers import inspect
from trajectory_files import SAMPLES

from stepwell.importers.base import Unfinished
from stepwell.importers.registry import IMPORTERS
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.live.following import SILENCE, Folder
from stepwell.live.watching import Watch

Obj = dict[str, Any]


def mini(n_steps: int, status: str) -> bytes:
    """A run as mini-swe-agent 2 saves it after every step; the last message of one that is over says so."""
    messages: list[Obj] = [{"role": "system", "content": "Act."}, {"role": "user", "content": "Make it heavy."}]
    for i in range(n_steps):
        messages.append({"role": "assistant", "content": f"make {i}", "extra": {"actions": [{"command": f"make {i}"}]}})
        messages.append({"role": "user", "content": "done", "extra": {"raw_output": "done", "returncode": 0}})
    messages += [{"role": "exit", "content": "", "extra": {"exit_status": status}}] if status else []
    info = {"exit_status": status, "submission": "", "model_stats": {"api_calls": n_steps}}
    return json.dumps({"info": info, "messages": messages, "trajectory_format": "mini-swe-agent-1.1"}).encode()


def swe(status: str | None) -> bytes:
    """A run as SWE-agent saves it."""
    step = {"action": "ls", "observation": "anvil.py", "response": "Look.", "thought": "Look.", "state": "{}"}
    told = {"trajectory": [step], "history": [], "info": {"exit_status": status} if status else {}, "environment": "e"}
    return json.dumps(told).encode()


@pytest.mark.parametrize(("suffix", "states"), [
    (".traj.json", [mini(1, ""), mini(2, ""), mini(3, "Submitted")]),
    (".traj", [swe(None), swe("submitted")]),
])  # fmt: skip
def test_a_run_is_read_when_it_is_over(tmp_path: Path, suffix: str, states: list[bytes]) -> None:
    path, folder = tmp_path / f"run{suffix}", Folder(tmp_path, settle=1.0)
    now = 0.0
    for state in states:
        path.write_bytes(state)
        assert not folder.due(now).whole
        now += 5.0
        assert folder.due(now).whole == ([path] if state is states[-1] else [])


def test_a_run_that_was_killed_is_read_when_it_has_been_silent_for_long_or_the_watch_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.traj.json"
    path.write_bytes(mini(2, ""))
    folder = Folder(tmp_path, settle=1.0)
    assert not folder.due(0.0).whole
    assert not folder.due(SILENCE - 1.0).whole
    assert folder.unread == [path]
    assert folder.due(SILENCE + 1.0).whole == folder.due(1.0, last=True).whole == [path]


SDK = [
    {"id": f"e{i}", "timestamp": f"2026-01-01T00:00:0{i}", "source": "agent", "kind": "MessageEvent",
     "llm_message": {"role": "assistant", "content": [{"type": "text", "text": f"Said {i}."}]}}
    for i in range(4)
]  # fmt: skip
LIGHTNING = [
    {"rollout_id": "ro-1", "attempt_id": "at-1", "event_type": "reward", "timestamp": i, "data": {"value": float(i)}}
    for i in range(4)
]


@pytest.mark.parametrize("records", [SDK, LIGHTNING])
def test_lines_that_name_no_session_are_read_when_they_fall_silent(
    lake: Lake, tmp_path: Path, records: list[Obj]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    told, watch = [json.dumps(r) + "\n" for r in records], Watch(lake, folder, settle=0.02)
    for n in range(len(told)):
        (folder / "events.jsonl").write_text("".join(told[: n + 1]) + told[n][:9] * (n < 3))
        watch._pass()
        time.sleep(0.05)
        watch._pass()
    assert lake.version("events") is None
    watch.once()
    assert len(lake.read("trajectories")) == 1
    assert import_paths(lake, [folder]).events == 0


def test_a_watch_makes_one_trajectory_of_all_states(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    watch = Watch(lake, folder, settle=0.02)
    for state in (mini(1, ""), mini(2, ""), mini(3, "Submitted")):
        (folder / "run.traj.json").write_bytes(state)
        watch._pass()
        time.sleep(0.05)
        watch._pass()
    watch.once()
    (row,) = lake.read("trajectories").to_pylist()
    assert (row["n_steps"], row["exit_status"]) == (3, "Submitted")
    assert import_paths(lake, [folder]).events == 0


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if isinstance(s[1], dict)])
def test_recorded_shapes_are_of_runs_that_are_over(name: str) -> None:
    told, document = inspect(json.dumps(SAMPLES[name][1]).encode())
    importer = IMPORTERS[told.format]
    assert isinstance(importer, Unfinished)
    assert not importer.goes_on(document)
