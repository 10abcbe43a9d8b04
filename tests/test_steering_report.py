"""What steering did is counted from the log: figures of the arms, and of each against the unsteered one."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stepwell import query
from stepwell.cli import build_app
from stepwell.critics.run import judge_new
from stepwell.errors import UsageError
from stepwell.evaluation.intervals import minimum_detectable
from stepwell.evaluation.steering import steering_report
from stepwell.event import Event
from stepwell.fold import refresh
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
    attempt = more.get("attempt", 0)
    where = (f"{arm}-{task}-{attempt}", f"rollouts/s/{arm}")

    def event(kind: str, actor: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
        return Event(kind, *where, actor, payload, step=step, **rest)

    events = [event("start", "system", {"task_id": f"t{task}", "attempt": attempt, "arm": arm})]
    for step, command in enumerate(commands):
        events.append(event("action", "agent", {"text": command, "command": command}, step, usage={"cost_usd": 0.5}))
        for named in more.get("named", {}).get(step, [None]):
            if named is not None:
                payload = {"scope": "window", "parse_status": "ok", "detections": [{"category": c} for c in named]}
                usage = {"cost_usd": 0.1, "tokens_in": 10, "tokens_out": 1}
                verdict = event("verdict", "critic", payload, step, policy="c", usage=usage)
                told = {"mode": "delivered", "text": "x", "role": "user", "verdict_id": verdict.event_id}
                events += [verdict, event("feedback", "critic", told, step, policy="c")]
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


def test_critics_that_judge_afterwards_steered_nothing(steered: Lake) -> None:
    """Rules and a paid critic judge every step of what was played; what the arms come to stays as it was."""
    log = EventLog(steered)
    refresh(steered)
    question = query.question("steering_arms")
    before = steering_report(steered, "rollouts/s"), query.run(query.connect(steered), question)
    assert judge_new(steered).n_verdicts
    actions = [r for r in log.read().to_pylist() if r["kind"] == "action"]
    said = {"scope": "step", "parse_status": "unparseable", "label": "mistake", "detections": [{"category": "x"}]}
    paid = {"cost_usd": 9.0, "tokens_in": 9, "tokens_out": 9}
    where = [(r["trajectory_id"], r["corpus"], "critic", said, r["step"], "paid") for r in actions]
    log.append([Event("verdict", *w, usage=paid) for w in where], "later")
    refresh(steered)
    assert steering_report(steered, "rollouts/s") == before[0]
    assert query.run(query.connect(steered), question).equals(before[1])
    live = next(r for r in before[1].to_pylist() if r["arm"] == "live")
    assert (live["critic_tokens"], live["critic_cost_usd"]) == (22, pytest.approx(0.2))


@pytest.mark.parametrize("mode", ["delivered", "shadow", "placebo", "suppressed"])
def test_what_was_asked_at_the_wheel_counts_whether_or_not_it_was_shown(lake: Lake, mode: str) -> None:
    """Of two candidates the second is named; of a review that gave nothing readable, nothing is, and it cost all the same."""
    events, usage = run("live", 0, ["a"] * 4, True), {"cost_usd": 0.1, "tokens_in": 10, "tokens_out": 1}

    def review(step: int, statuses: list[str], named: int | None) -> None:
        made = []
        for n, status in enumerate(statuses):
            said = {"scope": "window", "parse_status": status, "candidate": n, "detections": [{"category": f"c{n}"}]}
            made.append(Event("verdict", "live-0-0", "rollouts/s/live", "critic", said, step, "c", usage=usage))
        told = {"mode": mode if named is not None else "suppressed", "role": "user"}
        told |= {"verdict_id": None if named is None else made[named].event_id}
        events.extend([*made, Event("feedback", "live-0-0", "rollouts/s/live", "critic", told, step, "c")])

    review(1, ["unparseable", "ok"], 1)
    review(3, ["unparseable", "unparseable"], None)
    EventLog(lake).append(events, "b")
    (found,) = steering_report(lake, "rollouts/s")
    assert (found.critiques, found.unparseable, found.critic_tokens) == (1, 3, 44)
    assert found.critic_usd == pytest.approx(0.4)


def test_attempts_at_a_task_are_not_taken_for_tasks(lake: Lake) -> None:
    """The same hundred tasks attempted once or three times, each time with the same results."""
    reports = []
    for attempts in range(3):
        for arm in ("off", "live"):
            won = [(n % 2 == 0) != (arm == "live" and n < 20) for n in range(100)]
            events = [e for n in range(100) for e in run(arm, n, ["a"], won[n], attempt=attempts)]
            EventLog(lake).append(events, f"{arm} {attempts}")
        reports.append(steering_report(lake, "rollouts/s")[1])
    assert [r.detectable for r in reports] == [minimum_detectable(0.2, 100)] * 3
    assert {r.p_value for r in reports} == {1.0}
    widths = [(r.resolved.high or 0) - (r.resolved.low or 0) for r in reports]
    assert (reports[2].n, reports[2].resolved.value) == (300, 0.5)
    assert min(widths) > 0.18, "as many attempts as one likes, there are a hundred tasks"


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
    for arm in ("live", "shadow", "placebo"):
        assert arms[arm]["critiques"] == sum(arms[arm]["modes"].values()) > 0
    again = runner.invoke(app, ["steer", str(recipe), "--lake", lake.uri, "--report"])
    assert "placebo" in again.stdout
