"""One whole trajectory on a page, with what every critic and person said of each step and of all of it."""

from __future__ import annotations

from pathlib import Path

import lakes
import pytest
from browser import CHROMIUM, Browser
from chat_server import ChatServer, critique
from test_annotation import HOSTILE, run

from stepwell.chat import OpenAIBackend
from stepwell.critics import prompts
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.run import judge_new
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog


@pytest.fixture
def judged(lake: Lake) -> Lake:
    """Two trajectories, judged by rules, for leaks, in windows of two steps, and as a whole; one hostile reply."""
    events = [*lakes.good_repair("t-good"), *lakes.looping("t-loop")]
    first = lakes.actions(events)[0]
    person = Event("verdict", "t-good", "demo", "human", {"scope": "step", "label": "recover", "parse_status": "ok"}, 0,
                   "human/ann", caused_by=first.event_id)  # fmt: skip
    EventLog(lake).append([*events, person], "b")
    judge_new(lake)
    judge_new(lake, "leaks@1")
    replies = {"steer-concise": critique(f"Look again. {HOSTILE[:200]}", "Needs correction"), "verifier": "maybe so"}
    for name, reply in replies.items():
        with ChatServer(lambda body, reply=reply: reply) as server:  # type: ignore[misc]
            assert judge(lake, ModelCritic(prompts.load(name), "m", k=2), OpenAIBackend("m", server.url)).complete
    return lake


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_every_verdict_stands_beside_its_step(judged: Lake, tmp_path: Path) -> None:
    told = run("show", "t-good", "--out", str(tmp_path / "a.html"), "--lake", judged.uri, "--json")
    assert told["steps"] == 5
    assert told["raters"] == [
        "ground-truth@1",
        "human/ann",
        "leaks@1",
        "rules@1",
        "steer-concise@1/m/k2",
        "verifier@1/m",
    ]
    assert "t-loop" not in (tmp_path / "a.html").read_text(encoding="utf-8")
    with Browser(tmp_path) as browser:
        browser.open(tmp_path / "a.html")
        browser.until("document.querySelectorAll('article').length === 5")
        whole = browser.value("[...document.querySelectorAll('#whole > .whole > .verdict')].map(v => v.textContent)")
        assert ["leaks@1" in v for v in whole] == ["unparseable" not in v for v in whole] == [True, False]
        browser.value("document.querySelector('#whole .verdict details').open = true")
        browser.until("document.querySelector('#whole .verdict pre') !== null")
        assert browser.value("document.querySelector('#whole .verdict pre').textContent") == "maybe so"
        steps = browser.value("[...document.querySelectorAll('article .said-of')].map(s => s.textContent)")
        assert ["human/ann" in s for s in steps] == [True, False, False, False, False]
        assert ["steps 0 to 1" in s for s in steps] == [False, True, False, False, False]
        assert ["steps 2 to 3" in s for s in steps] == [False, False, False, True, False]
        assert all("rules@1" in s and "ground-truth@1" in s for s in steps)
        assert "tool_selection" in steps[1]


def test_a_trajectory_is_named_by_the_beginning_of_its_id(judged: Lake, tmp_path: Path) -> None:
    out = str(tmp_path / "a.html")
    assert "6 steps" in run("show", "t-l", "--out", out, "--lake", judged.uri)
    for name, told in (("t-", "2 trajectories"), ("u", "0 trajectories")):
        with pytest.raises(UsageError, match=told):
            run("show", name, "--out", out, "--lake", judged.uri)
    with pytest.raises(UsageError, match=r"allowed: \.html"):
        run("show", "t-good", "--out", str(tmp_path / "a.jsonl"), "--lake", judged.uri)
