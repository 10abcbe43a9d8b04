"""Small real models as critics: vLLM's server over recorded trajectories, its offline engine over rollouts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from vllm_server import serving

from jobs.vllm_policy import vllm_python
from stepwell.critics.rerendering import rerender
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World

ROOT = Path(__file__).parent.parent
BASE = ROOT / "jobs" / "base"
SHARED = ROOT.parent / "shared" / "data"


def judged(lake: Lake) -> list[dict[str, object]]:
    """Verdicts of models in the log."""
    where = (pc.field("kind") == "verdict") & (pc.field("actor") == "critic")
    return [r for r in lake.read("events", filters=where).to_pylist() if r["usage"]]


@pytest.mark.vllm
@pytest.mark.slow
def test_the_offline_engine_judges_rollouts_once(lake: Lake) -> None:
    world = World(functions=1, bugs_max=1)
    collect_pool(lake, Collect(corpus="rollouts/few", policies=(Policy(kind="oracle", n_tasks=3),)), world)
    command = [sys.executable, "-m", "jobs.judge", "--prompt", "verifier", "--model", str(BASE), "--lake", lake.uri]
    command += ["--max-tokens", "12", "--context", "2048"]
    for run in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        verdicts = judged(lake)
        assert len(verdicts) == 3, run
        assert f"'calls': {0 if run else 3}" in done.stdout + done.stderr
    for row in verdicts:
        assert row["verdict"]["scope"] == "trajectory"  # type: ignore[index]
        assert row["usage"]["tokens_in"] > 100  # type: ignore[index]
        assert rerender(EventLog(lake), row)


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_a_small_real_model_judges_recorded_trajectories(lake: Lake, smollm2: Path) -> None:
    files = sorted(SHARED.rglob("*.traj.json"), key=lambda p: (p.stat().st_size, p))[:2]
    import_paths(lake, files, corpus="recorded")
    python = vllm_python()
    assert python
    with serving(python, smollm2, name="SmolLM2-135M", max_model_len=8192) as server:
        command = [
            sys.executable,
            "-c",
            "from stepwell.cli import main; main()",
            "judge",
            "--lake",
            lake.uri,
            "--json",
            "--prompt",
            "steer-concise",
        ]
        command += ["--model", server.model, "--base-url", server.url + "/v1", "--tokenizer", str(smollm2)]
        command += ["--every", "10", "--max-tokens", "64", "--context", "3000", "--concurrency", "2"]
        told = []
        for _ in range(2):
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
                env={**os.environ, "OPENAI_API_KEY": "none"},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            told.append(json.loads(done.stdout))
    assert told[0]["n_calls"] == told[0]["n_verdicts"] > 0
    assert told[0]["n_trajectories"] == len(files)
    assert told[1]["n_calls"] == told[1]["n_verdicts"] == 0
    for row in judged(lake):
        assert row["verdict"]["raw"]  # type: ignore[index]
        assert row["verdict"]["parse_status"] in ("ok", "repaired", "unparseable")  # type: ignore[index]
        assert row["usage"]["tokens_in"] <= 3000 - 64  # type: ignore[index]
