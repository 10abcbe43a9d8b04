"""How judging ends: failures, limits of cost and context, kills and interrupts lose nothing that was answered."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from chat_server import ChatServer, Fault
from filelock import FileLock
from judged import CALLS, N, critic, filled, made, run, steps
from typer.testing import CliRunner

from stepwell.chat import OpenAIBackend
from stepwell.cli import build_app
from stepwell.critics.cache import Completions, place
from stepwell.critics.judging import judge
from stepwell.critics.planning import plan
from stepwell.errors import StepwellError, UsageError
from stepwell.ids import digest
from stepwell.lake import Lake
from stepwell.log import EventLog


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@pytest.fixture
def full(lake: Lake) -> Lake:
    return filled(lake)


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
    app = build_app()
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
