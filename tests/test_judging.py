"""Judging with a model: only what is missing is asked, nothing done is lost, and what it costs is known and bounded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lakes
import pytest
from chat_server import ChatServer, Fault, critique
from filelock import FileLock
from lakes import Step
from typer.testing import CliRunner

from stepwell.chat import BatchBackend, Call, Completion, Failure, OpenAIBackend
from stepwell.cli import critics as commands
from stepwell.cli.common import app
from stepwell.critics import prompts
from stepwell.critics.cache import Completions, place
from stepwell.critics.judging import Report, judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.planning import plan
from stepwell.curation.masks import MaskRule
from stepwell.errors import StepwellError, UsageError
from stepwell.event import Event
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog, live
from stepwell.spending import Prices

STEER = prompts.load("steer-concise")
PRICES = Prices(1.0, 0.1, 4.0)
N, STEPS = 4, 23
CALLS = N * (STEPS // 5)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def full(lake: Lake) -> Lake:
    """A lake of N trajectories of STEPS steps that differ from their first step on."""
    events = [e for i in range(N) for e in steps(f"t{i}")]
    EventLog(lake).append(events, "b")
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


def test_unparseable_replies_are_verdicts_with_their_text(full: Lake, server: ChatServer) -> None:
    server.reply = lambda body: "I would rather not say."
    report = run(full, server)
    assert report.complete
    assert report.n_unparseable == CALLS
    row = made(full)[0]
    assert (row["verdict"]["parse_status"], row["verdict"]["raw"]) == ("unparseable", "I would rather not say.")
    assert json.loads(row["extra"])["problems"]
    assert row["verdict"]["severity"] is None


def test_failures_are_counted_never_kept_and_made_good_by_the_next_run(full: Lake, server: ChatServer) -> None:
    bad = re.compile(r"view t3 9$")
    server.fault_of = lambda body: Fault(500) if bad.search(body["messages"][-3]["content"]) else None
    report = run(full, server)
    assert not report.complete
    assert dict(report.failed) == {"server": 1}
    assert report.n_verdicts == CALLS - 3, "what follows a failed call waits for it, as it is reminded of its guidance"
    assert report.n_done == N - 1
    asked = len(server.bodies)
    server.fault_of = lambda body: None
    report = run(full, server)
    assert report.complete
    assert len(server.bodies) == asked + 3
    assert len(made(full)) == CALLS


def test_a_prompt_the_server_calls_too_long_is_counted_and_the_rest_goes_on(full: Lake, server: ChatServer) -> None:
    too_long = Fault(400, b'{"error": {"message": "maximum context length is 10", "code": "context_length_exceeded"}}')
    server.fault_of = lambda body: too_long if len(body["messages"]) > 40 else None
    report = run(full, server)
    assert report.complete
    assert sum(report.not_judged.values()) == N
    assert "context" in next(iter(report.not_judged))
    assert report.n_verdicts == CALLS - N


def test_what_does_not_fit_is_not_judged_and_counted(full: Lake, server: ChatServer) -> None:
    report = run(full, server, {"context": 200, "max_tokens": 100})
    assert report.complete
    assert (report.n_calls, sum(report.not_judged.values())) == (0, CALLS)
    EventLog(full).append(steps("short", 3), "b")
    report = run(full, server)
    assert sum(report.not_judged.values()) == 1
    assert report.n_calls == CALLS


def test_what_one_server_refuses_another_is_asked(full: Lake, server: ChatServer) -> None:
    server.fault_of = lambda body: Fault(400, b'{"error": {"message": "roles must alternate"}}')
    report = run(full, server)
    assert report.complete
    assert report.n_verdicts == 0
    assert sum(report.not_judged.values()) == CALLS
    server.fault_of = lambda body: None
    assert run(full, server).n_verdicts == CALLS


def test_two_processes_do_not_pay_for_the_same_calls(full: Lake, server: ChatServer) -> None:
    Completions(place(full)).__exit__()
    other = FileLock(f"{place(full)}-{digest(critic().id)[:12]}.lock")
    with other, pytest.raises(StepwellError, match="another process"):
        run(full, server)
    assert run(full, server).complete


def test_a_refused_key_stops_the_run_and_says_so(full: Lake, server: ChatServer) -> None:
    server.fault_of = lambda body: Fault(401) if len(server.bodies) > 8 else None
    report = run(full, server)
    assert report.stopped is not None
    assert "key was refused" in report.stopped
    assert 0 < report.n_verdicts == report.n_calls == len(made(full)) <= 8


def test_a_dead_server_is_given_up_after_a_while(lake: Lake) -> None:
    EventLog(lake).append([e for i in range(40) for e in steps(f"t{i}", 5)], "b")
    with ChatServer() as gone:
        url = gone.url
    report = judge(lake, critic(), OpenAIBackend("instant", url, tries=1))
    assert report.stopped is not None
    assert "20 calls failed in a row" in report.stopped


def test_the_cost_limit_is_never_exceeded_and_the_next_run_goes_on(full: Lake, server: ChatServer) -> None:
    whole = plan(full, critic(max_tokens=300))
    assert whole.cost_most_usd is not None
    limit = 0.02
    report = run(full, server, {"max_tokens": 300}, max_cost=limit)
    assert report.stopped is not None
    assert "could exceed the limit of 0.02" in report.stopped
    assert 0 < report.cost_usd <= limit
    assert report.cost_usd == pytest.approx(sum(r["usage"]["cost_usd"] for r in made(full)))
    assert 0 < report.n_calls < CALLS
    run(full, server, {"max_tokens": 300})
    assert len(made(full)) == CALLS
    assert len(server.bodies) == CALLS
    with pytest.raises(UsageError, match="without prices"):
        run(full, server, {"prices": None}, max_cost=1.0)


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


def test_candidates_have_seeds_of_their_own_and_more_can_be_asked_for(full: Lake, server: ChatServer) -> None:
    drawn = {"temperature": 0.7, "samples": 2, "seed": 5}
    report = run(full, server, drawn)
    assert report.n_verdicts == 2 * CALLS
    assert {b["seed"] for b in server.bodies} == {5, 6}
    report = run(full, server, drawn | {"samples": 3})
    assert (report.n_calls, report.n_superseded) == (CALLS, 0)
    rows = made(full, critic(**drawn).id)
    assert sorted({r["verdict"]["candidate"] for r in rows}) == [0, 1, 2]
    with pytest.raises(UsageError, match="temperature 0"):
        critic(samples=2)


def test_steps_are_labelled_in_one_call(lake: Lake, server: ChatServer) -> None:
    EventLog(lake).append(lakes.good_repair("good"), "b")
    labels = ["good", "mistake", "recover", "good", "good"]
    form = {"labels": labels}
    server.reply = lambda body: (
        "\n".join(f"STEP {i}: {label} - because" for i, label in enumerate(labels)) if form else ""
    )
    one = prompts.load("steps-one-pass")
    report = run(lake, server, {"prompt": one})
    assert (report.n_calls, report.n_verdicts) == (1, 5)
    rows = sorted(made(lake, critic(prompt=one).id), key=lambda r: r["step"])
    assert [r["verdict"]["label"] for r in rows] == labels
    assert {r["verdict"]["scope"] for r in rows} == {"step"}
    assert [r["caused_by"] for r in rows] == [e.event_id for e in lakes.actions(lakes.good_repair("good"))]
    assert [r["usage"]["tokens_out"] is None for r in rows] == [False, True, True, True, True], "a call is counted once"
    assert [r["verdict"]["raw"] is None for r in rows] == [False, True, True, True, True]
    assert len({r["usage"]["call_id"] for r in rows}) == 1


def test_labels_missing_from_a_reply_are_unparseable_steps(lake: Lake, server: ChatServer) -> None:
    EventLog(lake).append(lakes.good_repair("good"), "b")
    server.reply = lambda body: "no labels at all"
    one = prompts.load("steps-one-pass")
    run(lake, server, {"prompt": one})
    rows = made(lake, critic(prompt=one).id)
    assert [(r["verdict"]["label"], r["verdict"]["parse_status"]) for r in rows] == [(None, "unparseable")] * 5


def test_solutions_are_criticised_attempt_by_attempt_or_as_submitted(lake: Lake, server: ChatServer) -> None:
    codes = ["x = 0", "x = 1", "x = 0"]
    attempts = [Event("attempt", "tries", "demo", "agent", {"code": c, "round": i}) for i, c in enumerate(codes)]
    EventLog(lake).append([*lakes.good_repair("good"), *lakes.looping("none"), *attempts], "b")
    server.reply = lambda body: "Analysis:\nWrong.\n\nImprovement suggestions:\nTry.\n\nOverall judgment: Incorrect"
    prompt = prompts.load("critique")
    report = run(lake, server, {"prompt": prompt})
    rows = made(lake, critic(prompt=prompt).id)
    assert {r["verdict"]["judgment"] for r in rows} == {False}
    of_attempts = {r["caused_by"] for r in rows if r["verdict"]["scope"] == "attempt"}
    assert of_attempts == {a.event_id for a in attempts}, "the same code twice has a verdict for each attempt"
    assert {r["trajectory_id"] for r in rows if r["verdict"]["scope"] == "trajectory"} == {"good", "none"}
    assert len(rows) == 5
    assert report.n_calls <= 4
    assert {b["messages"][2]["content"] for b in server.bodies} >= {"x = 0", "x = 1", "diff"}
    assert report.complete


def test_a_verifier_takes_its_confidence_from_the_logprobs(lake: Lake, server: ChatServer) -> None:
    EventLog(lake).append(lakes.good_repair("good"), "b")
    server.reply = lambda body: "YES"
    options = [{"token": "YES", "logprob": -0.1}, {"token": "NO", "logprob": -2.0}]
    server.extra = {"logprobs": {"content": [{"token": "YES", "logprob": -0.1, "top_logprobs": options}]}}
    prompt = prompts.load("verifier")
    run(lake, server, {"prompt": prompt})
    (row,) = made(lake, critic(prompt=prompt).id)
    assert row["verdict"]["scope"] == "trajectory"
    assert row["verdict"]["judgment"] is True
    assert row["verdict"]["confidence"] == pytest.approx(0.8699, abs=1e-4)
    assert server.bodies[0]["logprobs"] is True


def test_structured_output_is_asked_for_with_the_schema(full: Lake, server: ChatServer) -> None:
    run(full, server, {"structured": True})
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["type"] == "object"
    run(full, server)
    assert len(server.bodies) == 2 * CALLS, "a reply under a schema is another reply"


def test_an_engine_in_this_process_judges_too(full: Lake) -> None:
    sizes: list[int] = []

    def batch(calls: Sequence[Call]) -> list[Completion | Failure]:
        sizes.append(len(calls))
        return [Completion(critique(), tokens_in=1, tokens_out=1) for _ in calls]

    report = judge(full, critic(), BatchBackend(batch, size=32))
    assert report.complete
    assert sum(sizes) == CALLS
    assert max(sizes) == N, "one call of every trajectory at a time"


def command(lake: Lake, server: ChatServer, *more: str) -> list[str]:
    return [
        "judge",
        "--prompt",
        "steer-concise",
        "--model",
        "instant",
        "--base-url",
        server.url,
        "--lake",
        lake.uri,
        *more,
    ]


def started(lake: Lake, server: ChatServer) -> subprocess.Popen[str]:
    code = "import sys; from stepwell.cli import main; sys.argv[0] = 'stepwell'; main()"
    line = [
        "env",
        "--default-signal=INT",
        sys.executable,
        "-c",
        code,
        *command(lake, server, "--concurrency", "3", "--json"),
    ]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(server: ChatServer, n: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(server.bodies) < n:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_after_kill_9_only_what_was_not_answered_is_asked_again(full: Lake, server: ChatServer) -> None:
    server.delay = 0.05
    process = started(full, server)
    wait_for(server, 12, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2 * server.delay)
    server.delay, asked = 0.0, len(server.bodies)
    with Completions(place(full)) as completions:
        kept = completions.db.execute("SELECT count(*) FROM completions").fetchone()[0]
    assert asked - 3 <= kept <= asked, "every reply received is kept, whatever the process had under way"
    assert kept >= 9
    report = run(full, server)
    assert report.complete
    assert report.n_calls == CALLS - kept
    assert len(server.bodies) == asked + CALLS - kept
    assert len(made(full)) == CALLS


def test_an_interrupt_writes_what_is_done(full: Lake, server: ChatServer) -> None:
    server.delay = 0.05
    process = started(full, server)
    wait_for(server, 12, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    told = json.loads(out)
    assert told["stopped"] == "interrupted"
    assert told["n_calls"] >= 9
    assert len(made(full)) == told["n_verdicts"] == told["n_calls"]
    assert "run the same command to go on" in " ".join(err.split())
    server.delay = 0.0
    assert run(full, server).n_calls == CALLS - told["n_calls"]


def test_the_command_judges_says_what_it_did_and_plans(full: Lake, server: ChatServer) -> None:
    if not app.registered_commands:
        commands.register(app)
    runner = CliRunner()
    planned = runner.invoke(app, command(full, server, "--dry-run", "--json", "--price-in", "1", "--price-out", "4"))
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["n_calls"] == CALLS
    assert not server.bodies
    shown = runner.invoke(app, command(full, server, "--dry-run"))
    assert f"{CALLS} calls for {N} trajectories" in shown.stdout
    done = runner.invoke(app, command(full, server, "--json"))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n_verdicts"] == CALLS
    for flags in ([], ["--dry-run"]):
        cramped = command(full, server, "--max-tokens", "10", "--context", "20", "--json", *flags)
        told = json.loads(runner.invoke(app, cramped).stdout)
        assert list(told["not_judged"].values()) == [CALLS], "why a point is not judged is said in JSON too"
    server.fault_of = lambda body: Fault(401)
    failed = runner.invoke(app, command(full, server, "--every", "3"))
    assert isinstance(failed.exception, StepwellError)
    for wrong in (
        ["judge", "--model", "m"],
        command(full, server, "--price-in", "1"),
        command(full, server, "--history", "all"),
    ):
        assert isinstance(runner.invoke(app, wrong).exception, UsageError)
