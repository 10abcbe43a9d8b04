"""vLLM for real: its engine plays the same episodes as transformers, its server is asked as any OpenAI-style one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from vllm_server import Server, serving

from jobs import registry
from jobs.evaluate import continue_where_vllm_is, evaluate
from jobs.report import Reporter
from jobs.vllm_policy import vllm_python
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.recipe import load
from stepwell.rendering import Renderer

ROOT = Path(__file__).parent.parent
BASE = ROOT / "jobs" / "base"
RECIPE = """
world: {functions: 1, bugs_max: 1, max_turns: 5}
evaluation: {n_tasks: 8, batch_size: 8, backend: %s}
"""


SAME = ("torch", "transformers", "tokenizers", "pyarrow", "polars", "deltalake", "duckdb", "dagster-pipes")


def replies(lake: Lake) -> dict[tuple[str, int], tuple[str, int, int]]:
    """(trajectory, step) -> what was said, prompt tokens, reply tokens."""
    rows = lake.read("events", filters=pc.field("kind") == "action").to_pylist()
    return {
        (r["trajectory_id"], r["step"]): (r["action"]["text"], r["usage"]["tokens_in"], r["usage"]["tokens_out"])
        for r in rows
    }


@pytest.mark.vllm
@pytest.mark.slow
def test_both_engines_play_the_same_episodes(tmp_path: Path) -> None:
    recipes, lakes = {}, {}
    for backend in ("vllm", "transformers"):
        recipes[backend], lakes[backend] = tmp_path / f"{backend}.yaml", Lake(tmp_path / backend)
        recipes[backend].write_text(RECIPE % backend)
    command = ["-m", "jobs.evaluate", "--recipe", str(recipes["vllm"]), "--lake", lakes["vllm"].uri]
    # The interpreter of the tests has no vLLM as a rule; the job then goes on in the one that has.
    done = subprocess.run(
        [sys.executable, *command, "--model", str(BASE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    evaluate(
        load(recipes["transformers"]), lakes["transformers"], str(BASE), registry.model_id("base", BASE), Reporter(None)
    )
    assert len(replies(lakes["vllm"])) > 8
    assert replies(lakes["vllm"]) == replies(lakes["transformers"])
    assert {b.split("-")[0].split()[0] for b in lakes["vllm"].read("evaluations").column("backend").to_pylist()} == {
        "vllm"
    }


@pytest.mark.vllm
@pytest.mark.slow
def test_the_server_reads_the_prompt_we_render_and_keeps_its_prefix(vllm_server: Server) -> None:
    chat = [
        {"role": "system", "content": "Repair mod.py. " * 60},
        {"role": "user", "content": "FAIL f(4, 3) at line 2"},
    ]
    asked = {"messages": chat, "temperature": 0, "max_tokens": 8, "return_token_ids": True}
    first, second = (vllm_server.post("/v1/chat/completions", asked) for _ in range(2))
    assert first["prompt_token_ids"] == Renderer.load(BASE).prompt_ids(chat)
    assert first["choices"][0]["message"]["content"] == second["choices"][0]["message"]["content"] != ""
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= 256
    assert vllm_server.metric("vllm:prompt_tokens_cached_total") >= 256


@pytest.mark.vllm
@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    python = vllm_python()
    assert python
    with pytest.raises(RuntimeError, match="ended with status"), serving(python, tmp_path / "no-model"):
        pass


def test_a_recipe_that_needs_vllm_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPWELL_VLLM_PYTHON", raising=False)
    (tmp_path / "r.yaml").write_text(RECIPE % "vllm")
    if vllm_python() is None:
        with pytest.raises(UsageError, match="make vllm"):
            continue_where_vllm_is(load(tmp_path / "r.yaml"))
    monkeypatch.setenv("STEPWELL_VLLM_PYTHON", os.devnull)
    with pytest.raises(UsageError, match="is no file"):
        vllm_python()


def test_its_lock_names_no_host_and_agrees_with_ours() -> None:
    vllm, ours = (
        dict(line.split("==") for line in (ROOT / name).read_text().split())
        for name in ("requirements-vllm.lock", "requirements.lock")
    )
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for pair in vllm.items() for part in pair)
    assert {name: vllm[name] for name in SAME} == {name: ours[name] for name in SAME}
