"""What steering did is counted from the log: figures of the arms, and of each against the unsteered one."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stepwell.cli import build_app
from stepwell.errors import UsageError
from stepwell.evaluation.intervals import minimum_detectable
from stepwell.evaluation.steering import steering_report
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog


@pytest.mark.parametrize(("discordant", "points"), [(0.10, 4.0), (0.15, 4.9), (0.20, 5.6), (0.25, 6.3)])
def test_the_smallest_difference_that_shows(discordant: float, points: float) -> None:
    found = minimum_detectable(discordant, 500)
    assert found is not None
    assert math.ceil(1000 * found) / 10 == points
    assert minimum_detectable(0.0, 500) is None
    assert minimum_detectable(0.01, 10) is None


def run(arm: str, task: int, commands: list[str], resolved: bool, **more: Any) -> list[Event]:
    where = (f"{arm}-{task}", f"rollouts/s/{arm}")

    def event(kind: str, actor: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
        return Event(kind, *where, actor, payload, step=step, **rest)

    events = [event("start", "system", {"task_id": f"t{task}", "attempt": 0})]
    for step, command in enumerate(commands):
        events.append(event("action", "agent", {"text": command, "command": command}, step, usage={"cost_usd": 0.5}))
        for named in more.get("named", {}).get(step, [None]):
            if named is not None:
                payload = {"scope": "window", "parse_status": "ok", "detections": [{"category": c} for c in named]}
                usage = {"cost_usd": 0.1, "tokens_in": 10, "tokens_out": 1}
                events.append(event("verdict", "critic", payload, step, policy="c", usage=usage))
                events.append(event("feedback", "critic", {"mode": "delivered", "text": "x", "role": "user"}, step))
    same = more.get("same")
    extra = None if same is None else orjson.dumps({"replayed_same": same}).decode()
    end = more.get("end", "submitted")
    events.append(event("end", "environment", {"exit_status": end}, extra=extra))
    if end != "aborted":
        events.append(event("outcome", "grader", {"subject": "trajectory", "resolved": resolved}))
    return events


@pytest.fixture
def steered(lake: Lake) -> Lake:
    events = [e for n in range(4) for e in run("off", n, ["a", "b"], n == 0)]
    events += run("live", 0, ["a", "a", "a", "b"], True, named={1: [["x", "y"]], 3: [["y"]]}, same=[True, False])
    events += run("live", 1, ["a", "b"], True, same=[True, True])
    events += run("live", 2, ["a", "b"], False)
    events += run("live", 3, ["a", "b"], True, end="turn_limit")
    events += run("live", 4, ["a"], False, end="aborted")
    EventLog(lake).append(events, "b")
    return lake


def test_arms_are_counted(steered: Lake) -> None:
    off, live = steering_report(steered, "rollouts/s")
    assert (off.arm, off.n, off.difference, off.p_value, off.resolved.value) == ("off", 4, None, None, 0.25)
    assert (live.n, live.resolved.value, live.submitted, live.steps.value) == (4, 0.75, 0.75, 2.5)
    assert live.difference is not None
    assert live.difference.value == 0.5
    assert live.p_value == 0.5, "two tasks, both better"
    assert live.stuck.value == 0.25
    assert (live.compliance.value, live.compliance.n) == (0.5, 2), "x is gone, y is not"
    assert (live.critiques, live.modes) == (2, {"delivered": 2})
    assert (live.agent_usd, live.critic_usd, live.critic_tokens) == (5.0, pytest.approx(0.2), 22)
    assert (live.replay_same, live.first_divergence) == (0.75, 1.0)


def test_nothing_steered_is_said(lake: Lake) -> None:
    with pytest.raises(UsageError, match="stepwell steer"):
        steering_report(lake, "rollouts/s")


def test_the_command_runs_every_arm_and_reports(lake: Lake, tmp_path: Any) -> None:
    app = build_app()
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "world: {functions: 1, bugs_max: 1, max_turns: 6}\n"
        "steer: {corpus: rollouts/s, agent: {kind: noisy, mistake_rate: 0.5}, n_tasks: 4, k: 2, prefix: 2, split: train}\n"
    )
    runner = CliRunner()
    planned = runner.invoke(app, ["steer", str(recipe), "--lake", lake.uri, "--dry-run"])
    assert orjson.loads(planned.stdout)["rollouts_per_arm"] == 4
    assert lake.version("events") is None
    done = runner.invoke(app, ["steer", str(recipe), "--lake", lake.uri, "--json"])
    assert done.exit_code == 0, done.output
    arms = {a["arm"]: a for a in orjson.loads(done.stdout)}
    assert set(arms) == {"off", "live", "shadow", "placebo", "notice"}
    assert all(a["n"] == 4 for a in arms.values())
    assert arms["shadow"]["difference"]["value"] == 0, "what is not shown changes nothing"
    assert arms["live"]["replay_same"] == 1.0
    again = runner.invoke(app, ["steer", str(recipe), "--lake", lake.uri, "--report"])
    assert "placebo" in again.stdout
