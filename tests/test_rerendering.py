"""Prompts made again from the log alone, to the byte; and the check that says when they are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lakes
import pytest
from chat_server import ChatServer, critique
from lakes import Step

from stepwell.chat import OpenAIBackend, prompt_hash
from stepwell.critics import prompts
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.critics.rerendering import reproduced, rerender
from stepwell.critics.streams import ESTIMATE
from stepwell.errors import StepwellError, UsageError
from stepwell.event import Event
from stepwell.invariants import EVENTS
from stepwell.lake import Lake
from stepwell.log import EventLog

STEER = prompts.load("steer-concise")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda body: critique(f"Look at line {len(body['messages'])}.")) as running:
        yield running


def test_every_request_is_rebuilt_from_the_log_to_the_byte(lake: Lake, server: ChatServer) -> None:
    log = EventLog(lake)
    events = lakes.trajectory("long", [Step(f"view {i}", f"line {i} " * 80) for i in range(30)], resolved=False)
    events += lakes.good_repair("good")
    attempts = [Event("attempt", "tries", "demo", "agent", {"code": f"x = {i}", "round": i}, step=i) for i in range(2)]
    told = Event("instruction", "tries", "demo", "system", {"position": 0, "role": "user", "content": "Write x."})
    log.append([*events, *attempts, told], "b")
    n = 0
    for prompt in (prompts.load(name) for name in prompts.names()):
        if prompt.kind == "pair":
            continue  # pairs have a test of their own
        context = ESTIMATE.message(prompt.system) + ESTIMATE.message(prompt.request) + 2600
        critic = ModelCritic(prompt, "m", k=4, max_tokens=100, context=context)
        report = judge(lake, critic, OpenAIBackend("m", server.url))
        assert report.complete
        n += report.n_verdicts
    more = Event("action", "long", "demo", "agent", {"text": "submit"}, step=30)
    log.append([more, *lakes.actions(lakes.trajectory("good", [Step("another")]))], "later")
    rows = [r for r in log.read(kinds=["verdict"]).to_pylist() if r["extra"]]
    assert len(rows) == n
    omitted, history = 0, 0
    for row in {r["usage"]["prompt_hash"]: r for r in rows}.values():
        messages = rerender(log, row)
        assert prompt_hash(messages) == row["usage"]["prompt_hash"]
        omitted += json.loads(row["extra"])["omitted"]
        history += len(json.loads(row["extra"])["history"])
    assert omitted, "no request had turns left out: the test proves too little"
    assert history, "no request had a history: the test proves too little"
    found = reproduced(log)
    assert (found.n, found.of, found.problems) == (n, n, ())
    assert not list(EVENTS["prompts_are_reproduced"](lake))


def test_a_verdict_that_cannot_be_rebuilt_says_why(lake: Lake, server: ChatServer) -> None:
    log = EventLog(lake)
    log.append(lakes.good_repair("good"), "b")
    truth = log.read(kinds=["verdict"]).to_pylist()[0]
    with pytest.raises(UsageError, match="records no request"):
        rerender(log, truth)
    judge(lake, ModelCritic(STEER, "m"), OpenAIBackend("m", server.url))
    (row,) = [r for r in log.read(kinds=["verdict"]).to_pylist() if r["extra"]]
    with pytest.raises(StepwellError, match=r"asked for with steer-concise"):
        rerender(log, row, replace(STEER, request=STEER.request + " Thanks."))


def judged(lake: Lake, server: ChatServer) -> list[dict[str, Any]]:
    """Verdicts of a steering critic on one trajectory of 20 steps."""
    EventLog(lake).append(lakes.trajectory("long", [Step(f"view {i}", f"line {i}") for i in range(20)]), "b")
    assert judge(lake, ModelCritic(STEER, "m"), OpenAIBackend("m", server.url)).complete
    return [r for r in EventLog(lake).read(kinds=["verdict"]).to_pylist() if r["extra"]]


def changed(log: EventLog) -> int:
    """Replace what was seen in step 12; the version of `events` that has it."""
    (old,) = [r for r in log.read(kinds=["observation"]).to_pylist() if r["step"] == 12]
    new = Event("observation", "long", "demo", "environment", {"raw": "tampered", "role": "user"}, step=12)
    gone = {"target_event": old["event_id"], "action": "supersede", "replacement": new.event_id}
    return log.append([new, Event("retraction", "long", "demo", "system", gone, step=12)], "change").version


def test_what_is_changed_later_leaves_the_prompts_as_they_were(lake: Lake, server: ChatServer) -> None:
    rows = judged(lake, server)
    changed(EventLog(lake))
    found = reproduced(EventLog(lake))
    assert (found.n, found.problems) == (len(rows), ())


def test_a_log_that_gives_another_prompt_than_the_recorded_one_is_found(lake: Lake, server: ChatServer) -> None:
    rows, log = judged(lake, server), EventLog(lake)
    version = changed(log)
    told = sorted(rows, key=lambda r: r["step"])
    moved = [
        Event(
            "verdict", "long", "demo", "critic", row["verdict"], row["step"], row["policy"], row["occurred_at"],
            row["caused_by"], row["usage"], json.dumps(json.loads(row["extra"]) | {"events_version": version}), "moved",
        )
        for row in told
    ]  # fmt: skip
    gone = [
        Event("retraction", "long", "demo", "critic", {"target_event": r["event_id"], "action": "supersede"}, r["step"])
        for r in told
    ]
    log.append([*moved, *gone], "move")
    problems = list(EVENTS["prompts_are_reproduced"](lake))
    later = [e for e, row in zip(moved, told, strict=True) if row["step"] >= 12]
    assert len(later) == 2, "steps 14 and 19 were shown step 12, steps 4 and 9 were not"
    assert sorted(p.split()[1] for p in problems) == sorted(e.event_id for e in later)
    assert all("the log gives" in p for p in problems)


def test_what_was_judged_and_is_gone_is_a_problem_and_a_prompt_that_is_not_here_is_counted_out(
    lake: Lake, server: ChatServer
) -> None:
    (row, *_), log = judged(lake, server), EventLog(lake)
    usage = {"prompt_hash": row["usage"]["prompt_hash"]}
    for name, edit in (("elsewhere", {"step": 99}), ("unknown", {"prompt_id": "my-own@1#123"})):
        payload = row["verdict"] | {k: v for k, v in edit.items() if k == "prompt_id"}
        where = ("long", "demo", "critic", payload, edit.get("step", row["step"]), row["policy"])
        log.append([Event("verdict", *where, usage=usage, extra=row["extra"], discriminator=name)], name)
    found = reproduced(log)
    assert (found.n, found.of) == (5, 6)
    (problem,) = found.problems
    assert "no longer in the log" in problem


def test_the_sample_is_drawn_by_the_seed_and_no_larger_than_asked_for(lake: Lake, server: ChatServer) -> None:
    rows = judged(lake, server)
    assert len(rows) == 4
    found = reproduced(EventLog(lake), most=3, seed=1)
    assert (found.n, found.of) == (3, 4)
