"""Judging small lakes through a real local server: what the tests of judging share."""

from __future__ import annotations

from typing import Any

import lakes
from chat_server import ChatServer
from lakes import Step

from stepwell.chat import OpenAIBackend
from stepwell.critics import prompts
from stepwell.critics.judging import Report, judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.spending import Prices

STEER = prompts.load("steer-concise")
PRICES = Prices(1.0, 0.1, 4.0)
N, STEPS = 4, 23
CALLS = N * (STEPS // 5)


def filled(lake: Lake) -> Lake:
    """The lake with N trajectories of STEPS steps that differ from their first step on."""
    EventLog(lake).append([e for i in range(N) for e in steps(f"t{i}")], "b")
    return lake


def steps(name: str, n: int = STEPS) -> list[Event]:
    return lakes.trajectory(name, [Step(f"view {name} {j}", f"line {j} " * 30) for j in range(n)])


def critic(**options: Any) -> ModelCritic:
    chosen: dict[str, Any] = {"prompt": STEER, "model": "instant", "prices": PRICES}
    return ModelCritic(**(chosen | options))


def run(lake: Lake, server: ChatServer, options: dict[str, Any] | None = None, **rest: Any) -> Report:
    asked = OpenAIBackend("instant", server.url, pause=0.01, tries=2)
    return judge(lake, critic(**(options or {})), asked, **rest)


def made(lake: Lake, policy: str | None = None) -> list[dict[str, Any]]:
    rows = live(EventLog(lake).read()).to_pylist()
    return [r for r in rows if r["kind"] == "verdict" and r["policy"] == (policy or critic().id)]
