"""What each kind of critic asks and what its replies become: candidates, step labels, critiques, verifiers, engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import lakes
import pytest
from chat_server import ChatServer, critique
from judged import CALLS, N, critic, filled, made, run

from stepwell.chat import BatchBackend, Call, Completion, Failure
from stepwell.critics import prompts
from stepwell.critics.judging import judge
from stepwell.errors import UsageError
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


def test_unparseable_replies_are_verdicts_with_their_text(full: Lake, server: ChatServer) -> None:
    server.reply = lambda body: "I would rather not say."
    report = run(full, server)
    assert report.complete
    assert report.n_unparseable == CALLS
    row = made(full)[0]
    assert (row["verdict"]["parse_status"], row["verdict"]["raw"]) == ("unparseable", "I would rather not say.")
    assert json.loads(row["extra"])["problems"]
    assert row["verdict"]["severity"] is None


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
