"""Judging with a model: every point is judged once, and only what is missing or changed is asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lakes
import pytest
from chat_server import ChatServer, critique
from judged import CALLS, PRICES, STEER, STEPS, N, critic, filled, made, run, steps
from lakes import Step

from stepwell.critics.cache import place
from stepwell.critics.planning import plan
from stepwell.curation.masks import MaskRule
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def full(lake: Lake) -> Lake:
    return filled(lake)


def test_every_window_is_judged_once_and_a_second_run_asks_nothing(full: Lake, server: ChatServer) -> None:
    report = run(full, server)
    assert report.complete
    assert (report.n_verdicts, report.n_calls, len(server.bodies)) == (CALLS, CALLS, CALLS)
    rows = made(full)
    assert sorted((r["trajectory_id"], r["step"]) for r in rows) == [
        (f"t{i}", 5 * j + 4) for i in range(N) for j in range(4)
    ]
    row = rows[1]
    verdict, usage = row["verdict"], row["usage"]
    assert (verdict["scope"], verdict["window_from"], verdict["window_to"]) == ("window", 5, 9)
    assert (verdict["severity"], verdict["parse_status"], verdict["candidate"]) == (0, "ok", 0)
    assert (verdict["guidance"], verdict["raw"]) == ("Keep going.", critique())
    assert verdict["prompt_id"] == STEER.id
    assert verdict["taxonomy_id"].startswith("steer-12@")
    assert row["caused_by"] in {e.event_id for e in lakes.actions(steps(row["trajectory_id"]))}
    assert row["occurred_at"] is not None
    expected = PRICES.cost(usage["tokens_in"], usage["cache_read"], usage["tokens_out"])
    assert usage["cost_usd"] == pytest.approx(expected)
    assert usage["price_policy"] == "usd-per-mtok:1/0.1/4"
    assert report.cost_usd == pytest.approx(sum(r["usage"]["cost_usd"] for r in rows))
    again = run(full, server)
    assert (again.n_verdicts, again.n_calls, again.complete) == (0, 0, True)
    assert len(server.bodies) == CALLS


def test_a_critics_id_can_be_part_of_a_mask_rule() -> None:
    odd = critic(model="/models/My (best) model, v=2", temperature=0.7, samples=2, revision="main")
    assert odd.id == "steer-concise@1/My_best_model_v_2:main/k5/t0.7"
    rule = MaskRule(critic=odd.id)
    assert MaskRule.parse(rule.id) == rule


def test_a_reply_kept_is_not_asked_for_again_and_gives_the_same_verdicts(
    full: Lake, server: ChatServer, tmp_path: Path
) -> None:
    run(full, server)
    other = Lake(tmp_path / "other")
    EventLog(other).append([e for i in range(N) for e in steps(f"t{i}")], "b")
    report = run(other, server, cache=place(full))
    assert (report.n_calls, report.n_cached) == (0, CALLS)
    assert len(server.bodies) == CALLS
    assert {r["event_id"] for r in made(other)} == {r["event_id"] for r in made(full)}


def test_without_the_cache_the_log_alone_says_what_is_judged(full: Lake, server: ChatServer) -> None:
    run(full, server)
    shutil.rmtree(place(full).parent)
    report = run(full, server)
    assert (report.n_calls, report.n_verdicts, report.n_known) == (0, 0, CALLS)
    assert len(server.bodies) == CALLS


def test_a_trajectory_that_grew_is_asked_about_only_where_it_is_new(full: Lake, server: ChatServer) -> None:
    run(full, server)
    EventLog(full).append([e for e in steps("t2", 25) if (e.step or 0) >= STEPS], "more")
    report = run(full, server)
    assert (report.n_trajectories, report.n_calls, report.n_superseded) == (1, 1, 0)
    assert len(made(full)) == CALLS + 1


def test_a_trajectory_that_changed_is_judged_again_from_there_on(full: Lake, server: ChatServer) -> None:
    run(full, server)
    before = [r["verdict"] for r in made(full)]
    (old,) = [e for e in steps("t2") if e.kind == "observation" and e.step == 12]
    gone = {"target_event": old.event_id, "action": "supersede", "reason": "was read wrongly"}
    new = Event("observation", "t2", "demo", "environment", {"raw": "something else", "role": "user"}, step=12)
    EventLog(full).append([new, Event("retraction", "t2", "demo", "system", gone)], "fix")
    report = run(full, server)
    assert report.n_trajectories == 1
    assert (report.n_known, report.n_calls, report.n_superseded) == (2, 2, 2)
    rows = made(full)
    assert len(rows) == CALLS
    ids = {r["event_id"] for r in rows}
    retractions = [
        r["retraction"] for r in EventLog(full).read(kinds=["retraction"]).to_pylist() if r["policy"] == critic().id
    ]
    assert {r["replacement"] for r in retractions} <= ids
    assert not {r["target_event"] for r in retractions} & ids
    assert run(full, server).n_calls == 0

    back = replace(old, discriminator="again")
    gone = {"target_event": new.event_id, "action": "supersede", "reason": "it was right"}
    EventLog(full).append([back, Event("retraction", "t2", "demo", "system", gone)], "back")
    report = run(full, server)
    assert (report.n_calls, report.n_cached, report.n_superseded) == (0, 2, 2)
    again = made(full)
    assert [r["verdict"] for r in again] == before
    assert len({r["event_id"] for r in again} - ids) == 2
    assert run(full, server).n_verdicts == 0


def test_a_point_that_is_gone_loses_its_verdict(full: Lake, server: ChatServer) -> None:
    run(full, server)
    last = [e for e in steps("t2") if e.kind == "action" and (e.step or 0) >= 18]
    retractions = [
        Event("retraction", "t2", "demo", "system", {"target_event": e.event_id, "action": "redact"}, step=e.step)
        for e in last
    ]
    EventLog(full).append(retractions, "fix")
    report = run(full, server)
    assert (report.n_calls, report.n_superseded) == (0, 1)
    assert len(made(full)) == CALLS - 1


def test_other_settings_under_the_same_id_supersede(full: Lake, server: ChatServer) -> None:
    run(full, server)
    report = run(full, server, {"max_tokens": 100})
    assert (report.n_calls, report.n_superseded) == (CALLS, CALLS)
    assert len(made(full)) == CALLS


def test_a_plan_counts_what_judging_then_does(full: Lake, server: ChatServer) -> None:
    told = plan(full, critic(history="none"))
    assert (told.n_calls, told.n_trajectories) == (CALLS, N)
    assert told.cost_prompts_usd is not None
    assert told.cost_most_usd is not None
    assert told.cost_prompts_usd < told.cost_most_usd
    assert not server.bodies
    run(full, server, {"history": "none"})
    sent = sum(sum(-(-len(m["content"]) // 4) + 8 for m in b["messages"]) for b in server.bodies)
    assert told.prompt_tokens == sent
    after = plan(full, critic(history="none"))
    assert (after.n_calls, after.n_trajectories) == (0, 0)


def test_computed_prompt_tokens_grow_with_the_steps_and_not_with_their_square(lake: Lake) -> None:
    EventLog(lake).append([*steps("short", 40)], "b")
    small = plan(lake, critic(history="none"))
    EventLog(lake).append([*steps("long", 160)], "b")
    both = plan(lake, critic(history="none"))
    fixed = small.computed_tokens / 8
    assert both.computed_tokens - small.computed_tokens < 4.2 * small.computed_tokens + fixed
    assert both.prompt_tokens - small.prompt_tokens > 10 * small.prompt_tokens


def test_corpora_are_judged_apart(full: Lake, server: ChatServer) -> None:
    EventLog(full).append(lakes.trajectory("other", [Step(f"o {i}") for i in range(5)], corpus="more/two"), "b")
    report = run(full, server, corpora=["more/two"])
    assert (report.n_trajectories, report.n_verdicts) == (1, 1)
    assert run(full, server).n_calls == CALLS
