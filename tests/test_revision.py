"""Critique-revision loops: every decision is an event, prompts come from the log again, only what is missing is played."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Fault

from stepwell import invariants
from stepwell.chat import OpenAIBackend, prompt_hash
from stepwell.cli.reviewing import critic_of, rebuilt
from stepwell.cli.revise import endpoint_reviewer, planned
from stepwell.critics import prompts
from stepwell.critics.judging import judge
from stepwell.errors import LakeError, RecipeError, SandboxError
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.recipe import load
from stepwell.rollout import solving
from stepwell.rollout.reviewers import vote
from stepwell.rollout.revision import Done, problems_of, revise
from stepwell.settings import Critic, Policy, Prices, Problems, Revision, RevisionArm

ROOT = Path(__file__).parent.parent
ORACLE, PLACEBO = RevisionArm(name="oracle", critic="oracle"), RevisionArm(name="placebo", critic="placebo")
WRITER = Policy(kind="noisy", mistake_rate=0.6)
RIGHT = "Analysis:\nFine.\n\nImprovement suggestions:\nNone.\n\nOverall judgment: Correct"
WRONG = "Analysis:\nNo.\n\nImprovement suggestions:\nAgain.\n\nOverall judgment: Incorrect"


def loops(*arms: RevisionArm, n: int = 4, **more: Any) -> Revision:
    settings = {
        "corpus": "rollouts/r",
        "generator": WRITER,
        "samples": 2,
        "rounds": 2,
        "problems": Problems(n=n),
        **more,
    }
    return Revision(arms=arms or (ORACLE,), **settings)


def play(lake: Lake, settings: Revision, **more: Any) -> Done:
    return revise(lake, settings, endpoint_reviewer, **more)


def rows_of(lake: Lake) -> list[dict[str, Any]]:
    return list(EventLog(lake).read().to_pylist())


def by_tree(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    trees = defaultdict(list)
    for row in rows_of(lake):
        trees[row["trajectory_id"]].append(row)
    return trees


def of(rows: list[dict[str, Any]], kind: str) -> list[Any]:
    return [r[kind] for r in rows if r["kind"] == kind]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def test_a_tree_is_a_chain_of_events_and_holds_no_test(lake: Lake) -> None:
    arms = (ORACLE, PLACEBO, RevisionArm(name="execution", critic="execution"), RevisionArm(name="none", critic="none"))
    settings = loops(*arms, n=2)
    assert play(lake, settings).report.complete
    first: dict[tuple[str, int], set[str]] = defaultdict(set)
    problems = {p.task_id: p for p in problems_of(settings)[0]}
    for rows in by_tree(lake).values():
        (task,), (start,), (end,) = of(rows, "task"), of(rows, "start"), of(rows, "end")
        attempts = sorted((r for r in rows if r["kind"] == "attempt"), key=lambda r: r["attempt"]["round"])
        assert [a["attempt"]["round"] for a in attempts] == [0, 1, 2]
        for before, after in itertools.pairwise(attempts):
            assert after["attempt"]["parent_attempt"] == before["attempt"]["attempt_id"]
        outcomes = {o["subject"]: o for o in of(rows, "outcome")}
        assert outcomes.keys() == {a["attempt"]["attempt_id"] for a in attempts} | {"trajectory"}
        assert outcomes["trajectory"]["resolved"] == outcomes[attempts[-1]["attempt"]["attempt_id"]]["resolved"]
        assert (end["exit_status"], end["submission"]) == ("rounds_done", attempts[-1]["attempt"]["code"])
        first[task["task_id"], start["attempt"]].add(attempts[0]["attempt"]["code_hash"])
        feedback = {r["event_id"]: r for r in rows if r["kind"] == "feedback"}
        verdicts = {r["event_id"] for r in rows if r["kind"] == "verdict"}
        arm = start["arm"]
        assert {f["feedback"]["mode"] for f in feedback.values()} == {
            "oracle": {"delivered"}, "placebo": {"placebo"}, "execution": {"delivered"}, "none": set()
        }[arm]  # fmt: skip
        for a in attempts[1:]:
            assert (a["caused_by"] in feedback) == (arm != "none")
            assert (a["attempt"]["critique_id"] in verdicts) == (arm in ("oracle", "placebo"))
        assert len(of(rows, "reward")) == (2 if arm in ("oracle", "placebo") else 0)
        assert len(of(rows, "hint")) == (2 if arm == "execution" else 0)
        hidden = {t.want for t in problems[task["task_id"]].tests if t.want and len(t.want) > 1}
        stated = json.dumps([task, start, [r["extra"] for r in rows if r["kind"] == "task"]])
        assert not [w for w in hidden if f'"{w}"' in stated]
    assert all(len(codes) == 1 for codes in first.values()), "every arm revises the same first solutions"
    originals = [r for r in rows_of(lake) if r["kind"] == "attempt" and "same_as" not in (r["extra"] or "")]
    assert sum(r["attempt"]["round"] == 0 for r in originals) == len(first), "and they are written once"
    for rule in invariants.EVENTS.values():
        assert not list(rule(lake))


def test_an_oracle_mends_and_breaks_nothing_and_a_placebo_does_not_help(lake: Lake) -> None:
    play(lake, loops(ORACLE, PLACEBO, n=10, samples=1, rounds=3))
    passed: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for rows in by_tree(lake).values():
        resolved = {o["subject"]: o["resolved"] for o in of(rows, "outcome")}
        results = [resolved[a["attempt_id"]] for a in sorted(of(rows, "attempt"), key=lambda a: a["round"])]
        for number, result in enumerate(results):
            passed[of(rows, "start")[0]["arm"], number].append(result)
        if of(rows, "start")[0]["arm"] == "oracle":
            assert results == sorted(results), "what is right stays right"
    share = {key: sum(results) / len(results) for key, results in passed.items()}
    assert share["oracle", 0] == share["placebo", 0]
    assert share["oracle", 3] > max(share["oracle", 0], share["placebo", 3]) + 0.2


def test_another_run_plays_nothing_and_more_problems_only_what_is_new(lake: Lake) -> None:
    first = play(lake, loops(n=2))
    version = lake.version("events")
    second = play(lake, loops(n=2))
    assert (second.report.n_known, second.n_run, lake.version("events")) == (4, 0, version)
    more = play(lake, loops(ORACLE, PLACEBO, n=3))
    assert (more.report.n_known, more.report.n_done) == (4, 8)
    assert first.report.trajectories[0] in more.report.trajectories
    assert more.n_known > 0, "the placebo arm starts from solutions that were tested"


def test_prompts_of_generator_and_critic_come_from_the_log_and_judging_later_asks_nothing(
    lake: Lake, server: ChatServer
) -> None:
    def reply(body: dict[str, Any]) -> str:
        if "review" not in body["messages"][0]["content"].lower():
            return f"Here:\n```python\ndef f(): return {len(body['messages'])}\n```"
        return (RIGHT, WRONG, "I cannot say.")[(body.get("seed") or 0) % 3]

    server.reply = reply
    judging = Critic(kind="endpoint", prompt="critique", model="m", base_url=server.url, temperature=0.7, seed=1)
    model = RevisionArm(name="blind", settings=judging, critiques=3)
    arms = (model, model.model_copy(update={"name": "guided", "guided": True}), RevisionArm(name="self", critic="self"))
    prices = Prices(input=1.0, cached=0.5, output=2.0)
    writer = Policy(kind="endpoint", model="g", base_url=server.url, temperature=0.7, prices=prices)
    settings = loops(*arms, n=2, samples=1, generator=writer)
    done = play(lake, settings)
    assert done.report.complete
    events = EventLog(lake).read()
    attempts = list(solving.rebuilt(events.select(list(solving.COLUMNS))))
    assert len(attempts) == 2 * 3 * 3
    assert all(prompt_hash(messages) == recorded for _, messages, recorded in attempts)
    prompt = prompts.load("critique")
    judged = list(rebuilt(events, prompt))
    assert len(judged) == 2 * 2 * (3 + 3 + 1)
    assert all(prompt_hash(messages) == recorded for _, messages, recorded in judged)
    sent = {prompt_hash(body["messages"]) for body in server.bodies}
    assert sent == {h for *_, h in attempts} | {h for *_, h in judged}
    of_first = [r for r in events.to_pylist() if r["kind"] == "attempt" and r["attempt"]["round"] == 0]
    assert sum(r["usage"]["cost_usd"] is not None for r in of_first) == 2, "a draft is paid for once"
    hints = [text for text in (m[-1]["content"] for _, m, _ in judged) if "<hint>" in text]
    assert len(hints) == 2 * 2 * 3
    assert all("The solution" in text for text in hints)
    report = judge(lake, critic_of(model), OpenAIBackend("m", server.url))
    assert (report.n_known, report.n_superseded) == (2 * 2 * 3, 0), "what was said in the loop counts as judged"
    unread = [r for r in events.to_pylist() if r["kind"] == "verdict" and r["verdict"]["parse_status"] == "unparseable"]
    assert unread
    gated = [r["reward"] for r in events.to_pylist() if r["kind"] == "reward"]
    assert {r["format_ok"] for r in gated if r["critique_id"] in {u["event_id"] for u in unread}} <= {False}


def test_each_critique_of_a_group_is_answered_and_rewarded(lake: Lake) -> None:
    arm = RevisionArm(name="group", critic="noisy", wrong=0.5, critiques=4, answer="each")
    play(lake, loops(arm, n=2, rounds=1, rule="mean", reruns=1))
    for rows in by_tree(lake).values():
        rewards, (first, *revised) = of(rows, "reward"), sorted(of(rows, "attempt"), key=lambda a: a["round"])
        score = {o["subject"]: o["score"] for o in of(rows, "outcome")}
        assert len(rewards) == len(revised) == len({r["critique_id"] for r in rewards}) == 4
        assert {r["group_id"] for r in rewards} == {first["attempt_id"]}
        assert all(r["reward"] == score[r["attempt_id"]] for r in rewards)
        assert Counter(o["rerun"] for o in of(rows, "outcome")) == {0: 5, 1: 5}
    with pytest.raises(RecipeError, match="one only"):
        play(lake, loops(arm, rounds=2))


def test_judged_correct_is_final_where_that_is_asked_for(lake: Lake) -> None:
    play(lake, loops(ORACLE.model_copy(update={"stop": True}), n=6, samples=1, rounds=3))
    status = Counter()
    for rows in by_tree(lake).values():
        (end,), feedback = of(rows, "end"), of(rows, "feedback")
        status[end["exit_status"]] += 1
        final = [f for f in feedback if f["mode"] == "suppressed"]
        assert len(final) == (end["exit_status"] == "judged_correct")
        assert all("1 of 1 say Correct: final" in f["reason"] for f in final)
        resolved = {o["subject"]: o["resolved"] for o in of(rows, "outcome")}
        assert resolved["trajectory"] == (end["exit_status"] == "judged_correct") or len(of(rows, "attempt")) == 4
    assert status["judged_correct"] > 0


def test_votes_need_more_than_half_of_all(lake: Lake) -> None:
    def verdict(judgment: bool | None, n: int) -> Event:
        payload = {"scope": "attempt", "judgment": judgment, "candidate": n}
        return Event("verdict", "t", "c", "critic", payload, step=0, discriminator=str(n))

    def said(*judgments: bool | None) -> tuple[bool | None, bool, str]:
        chosen, correct, why = vote([verdict(j, n) for n, j in enumerate(judgments)], "key")
        return chosen.payload["judgment"], correct, why

    assert said(True, True, False) == (True, True, "2 of 3 say Correct")
    assert said(True, False, False) == (False, False, "1 of 3 say Correct")
    assert said(True, None, None)[:2] == (None, False), "what cannot be read is no vote for Correct"
    assert said(True, False)[1:] == (False, "1 of 2 say Correct (a tie counts as Incorrect)")
    drawn = {vote([verdict(False, n) for n in range(3)], str(key))[0].payload["candidate"] for key in range(40)}
    assert drawn == {0, 1, 2}


def test_a_model_that_is_away_ends_its_own_loops_and_they_are_played_again(lake: Lake, server: ChatServer) -> None:
    server.reply = lambda body: "```python\ndef f(): pass\n```"
    writer = Policy(kind="endpoint", model="g", base_url=server.url, temperature=0.0)
    settings = loops(RevisionArm(name="placebo", critic="placebo"), generator=writer, samples=1)
    refused: set[str] = set()

    def fault(body: dict[str, Any]) -> Fault | None:
        asked = body["messages"][0]["content"]
        if len(body["messages"]) > 1 and (asked in refused or not refused):
            refused.add(asked)
            return Fault(403)
        return None

    server.fault_of = fault
    first = play(lake, settings)
    assert (first.report.n_done, first.report.n_failed) == (3, 1)
    server.fault_of = lambda body: None
    second = play(lake, settings)
    assert (second.report.n_known, second.report.n_done, second.report.complete) == (3, 1, True)
    status = Counter(r["exit_status"] for rows in by_tree(lake).values() for r in of(rows, "end"))
    assert status == {"rounds_done": 4, "model_unavailable": 1}


def test_a_sandbox_that_fails_ends_its_own_loop_and_keeps_no_result(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stepwell.rollout.solutions as solutions

    real, calls = solutions.run, []

    def failing(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise SandboxError("told to fail")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(solutions, "run", failing)
        first = play(lake, loops(samples=1), parallel=1)
    assert (first.report.n_done, first.report.n_failed) == (3, 1)
    assert play(lake, loops(samples=1)).report.complete
    status = Counter(r["exit_status"] for rows in by_tree(lake).values() for r in of(rows, "end"))
    assert status == {"rounds_done": 4, "environment_error": 1}


def test_cost_stays_below_its_limit_and_the_rest_is_played_later(lake: Lake, server: ChatServer) -> None:
    server.reply = lambda body: RIGHT if "review" in body["messages"][0]["content"].lower() else "```python\nx = 1\n```"
    prices = Prices(input=1000.0, cached=1000.0, output=1000.0)
    judging = Critic(kind="endpoint", prompt="critique", model="m", base_url=server.url, prices=prices, max_tokens=100)
    writer = Policy(kind="endpoint", model="g", base_url=server.url, prices=prices, max_new_tokens=100)
    settings = loops(RevisionArm(name="m", settings=judging), generator=writer, samples=1)
    limited = play(lake, settings, max_cost=3.0)
    assert limited.report.cost_usd <= 3.0
    assert "3.0" in (limited.report.stopped or "")
    assert set(limited.report.costs) == {"agent", "critic"}
    rest = play(lake, settings)
    assert rest.report.complete
    paid = sum((r["usage"] or {}).get("cost_usd") or 0.0 for r in rows_of(lake))
    assert paid == pytest.approx(limited.report.cost_usd + rest.report.cost_usd)


SLOW = """
import sys
import stepwell.rollout.collect as collect
from stepwell.cli.revise import endpoint_reviewer
from stepwell.lake import Lake
from stepwell.settings import Revision
from stepwell.rollout.revision import revise
collect._SECONDS = 0.05
revise(Lake(sys.argv[1]), Revision.model_validate_json(sys.argv[2]), endpoint_reviewer, parallel=2)
"""


def test_loops_that_are_killed_go_on_and_nothing_counts_twice(lake: Lake) -> None:
    settings = loops(ORACLE, PLACEBO, n=12, samples=1)
    command = [sys.executable, "-c", SLOW, lake.uri, settings.model_dump_json()]
    process = subprocess.Popen(command, cwd=ROOT)
    limit = time.monotonic() + 60
    while not EventLog(lake).read(kinds=["end"], columns=["trajectory_id"]).num_rows:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    last: Done | None = None
    while last is None:  # what it had started in the sandbox dies with it, but a moment later
        assert time.monotonic() < limit
        with suppress(LakeError):
            last = play(lake, settings)
    assert last.report.complete
    assert 0 < last.report.n_done < 24
    status = Counter(r["exit_status"] for rows in by_tree(lake).values() for r in of(rows, "end"))
    assert status["rounds_done"] == 24
    assert set(status) == {"rounds_done", "aborted"}
    assert all(len(of(rows, "start")) == len(of(rows, "end")) == 1 for rows in by_tree(lake).values())
    attempts = solving.rebuilt(EventLog(lake).read(columns=list(solving.COLUMNS)))
    assert all(prompt_hash(messages) == recorded for _, messages, recorded in attempts)
    for rule in invariants.EVENTS.values():
        assert not list(rule(lake))


def test_the_shipped_recipe_is_planned_without_a_model() -> None:
    settings = load("ctrl").revision
    assert settings is not None
    said = planned(settings)
    assert said["loops"] == said["problems"] * settings.samples * len(settings.arms)
    assert said["most_critiques"] > 0
