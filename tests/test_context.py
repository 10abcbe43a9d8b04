"""Requests to model critics: their form, the budget, what varies, and that the log gives every one of them back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import lakes
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakes import Step

from jobs.tokenizer import train_tokenizer
from stepwell.critics import prompts
from stepwell.critics.context import Point, Request, Settings, build, left_out, points
from stepwell.critics.streams import COLUMNS, ESTIMATE, NO_OBSERVATION, Counter, Feedback, Stream, Turn, streams
from stepwell.errors import UsageError
from stepwell.event import Event, to_table
from stepwell.log import in_order

STEER = prompts.load("steer-concise")
WIDE = Settings(prompt_tokens=100_000)


def stream_of(events: list[Event]) -> Stream:
    (found,) = streams(in_order(to_table(events, "b", lakes.EPOCH)).select(COLUMNS), ESTIMATE)
    return found


def requests(stream: Stream, settings: Settings = WIDE, prompt: prompts.Prompt = STEER) -> list[Request]:
    given = [Feedback(f"v{p.step}", p.step or 0, f"guidance {p.step}") for p in points(stream, "steer", settings.k)]
    built = [build(stream, p, given, prompt, settings, ESTIMATE) for p in points(stream, prompt.kind, settings.k)]
    assert not [b for b in built if isinstance(b, str)]
    return [b for b in built if isinstance(b, Request)]


def event(kind: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
    return Event(kind, "t", "demo", "system", payload, step, **rest)


def test_the_form_is_task_turns_and_one_varying_last_message() -> None:
    events = lakes.trajectory("t", [Step(f"view {i}", f"out {i}") for i in range(12)])
    events.append(event("feedback", {"mode": "delivered", "text": "SECRET"}, 4))
    found = requests(stream_of(events))
    assert [(r.point.scope, r.point.first, r.point.step) for r in found] == [("window", 0, 4), ("window", 5, 9)]
    first, second = (r.messages for r in found)
    assert [m["role"] for m in first] == ["system", "user", *["assistant", "user"] * 5, "user"]
    assert first[0]["content"] == STEER.system
    assert first[1]["content"] == "Repair it."
    assert [m["content"] for m in first[2:6]] == ["view 0", "out 0", "view 1", "out 1"]
    assert second[: len(first) - 1] == first[:-1], "what was shown before is a prefix of what is shown next"
    assert "guidance 4" in second[-1]["content"]
    assert "guidance 4" not in "".join(m["content"] for m in second[:-1])
    assert "SECRET" not in json.dumps(second)
    assert found[1].history == ("v4",)


def test_what_the_agent_was_told_heads_the_task_and_demonstrations_are_left_out() -> None:
    events = lakes.trajectory("t", [Step("view", "out")])
    events += [
        event("instruction", {"position": -1, "role": "system", "content": "Be brief."}),
        event("instruction", {"position": 1, "role": "user", "content": "DEMO", "is_demo": True}),
    ]
    stream = stream_of(events)
    assert stream.task == "# What the agent was told\n\nBe brief.\n\n# The task\n\nRepair it."
    assert "DEMO" not in json.dumps([m["content"] for r in requests(stream, replace(WIDE, k=1)) for m in r.messages])


def test_turns_without_answers_tool_calls_and_replies_never_shown() -> None:
    calls = json.dumps([{"function": {"name": "bash", "arguments": '{"command": "ls"}'}}])
    events = [
        event("action", {"text": "Look.", "tool_calls": calls}, 0),
        event("observation", {"raw": "raw", "rendered": "shown b", "position": 1}, 0),
        event("observation", {"raw": "only raw", "position": 0}, 0),
        event("action", {"text": "dropped"}, 1, extra='{"not_in_prompt": true}'),
        event("action", {"text": "last"}, 2),
    ]
    stream = stream_of(events)
    assert [(t.step, t.said, t.seen) for t in stream.turns] == [
        (0, 'Look.\n[tool call] bash {"command": "ls"}', "only raw\nshown b"),
        (2, "last", NO_OBSERVATION),
    ]


def test_only_the_last_five_feedbacks_are_shown_and_none_on_request() -> None:
    stream = stream_of(lakes.trajectory("t", [Step(f"view {i}") for i in range(8)]))
    last = requests(stream, replace(WIDE, k=1))[-1]
    assert last.point.scope == "step"
    assert last.history == ("v2", "v3", "v4", "v5", "v6")
    assert "guidance 1" not in last.messages[-1]["content"]
    assert requests(stream, replace(WIDE, k=1, history="none"))[-1].history == ()
    delivered = replace(stream, delivered=(Feedback("f3", 3, "turn back"), Feedback("f7", 7, "too late")))
    (_, shown) = requests(delivered, replace(WIDE, k=4, history="delivered"))
    assert shown.history == ("f3",)
    assert "turn back" in shown.messages[-1]["content"]


def test_the_budget_note_comes_late_in_the_run_and_names_the_steps() -> None:
    stream = replace(stream_of(lakes.trajectory("t", [Step(f"view {i}") for i in range(12)])), step_limit=15)
    assert STEER.budget
    note = STEER.budget.replace("{current_step}", "10").replace("{step_limit}", "15")
    early, late = (r.messages[-1]["content"] for r in requests(stream))
    assert note in late
    assert "15" not in early


def test_the_steps_of_one_pass_are_numbered_as_in_the_log() -> None:
    stream = stream_of(lakes.trajectory("t", [Step(f"view {i}") for i in range(3)]))
    (request,) = requests(stream, prompt=prompts.load("steps-one-pass"))
    assert [m["content"] for m in request.messages[2:-1:2]] == [f"[step {i}]\nview {i}" for i in range(3)]
    assert request.steps == (0, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4000)), min_size=1, max_size=30), st.integers(0, 9000))
def test_the_oldest_turns_are_dropped_whole_until_the_rest_fits(sizes: list[tuple[int, int]], extra: int) -> None:
    turns = [Turn(i, f"a{i}", "x" * a, "y" * b, (-(-a // 4) + 8, -(-b // 4) + 8)) for i, (a, b) in enumerate(sizes)]
    stream = Stream("t", "demo", "The task.", tuple(turns), (), None, None, (), ())
    point = Point(len(turns) - 1, "step", len(turns) - 1, "a", len(turns), 0)
    fixed = sum(map(ESTIMATE.message, (STEER.system, "The task.", STEER.request)))
    budget = fixed + extra
    built = build(stream, point, (), STEER, Settings(budget, k=1), ESTIMATE)
    if isinstance(built, str):
        assert fixed - 20 + sum(turns[-1].tokens) + 20 > budget - 40, "refused although a turn would have fitted"
        return
    assert sum(built.tokens) <= budget
    assert sum(built.tokens) == sum(ESTIMATE.message(m["content"]) for m in built.messages)
    assert [m["content"] for m in built.messages[2:-1:2]] == [t.said for t in turns[built.omitted :]]
    assert built.messages[1]["content"] == "The task."
    if built.omitted:
        assert sum(built.tokens) + sum(sum(t.tokens) for t in turns[: built.omitted]) > budget * 7 // 8, (
            "dropped in vain"
        )


def test_what_cannot_be_cut_is_refused_with_a_reason() -> None:
    stream = stream_of(lakes.trajectory("t", [Step(f"view {i}") for i in range(5)]))
    (point,) = points(stream, "steer", 5)
    reason = build(stream, point, (), STEER, Settings(50), ESTIMATE)
    assert isinstance(reason, str)
    assert "50 tokens" in reason


def test_tokens_are_those_of_the_models_own_tokenizer(tmp_path: Path) -> None:
    train_tokenizer(["look at this and that"] * 20, 300).save_pretrained(tmp_path)
    counter = Counter.of(tmp_path)
    assert counter.exact
    assert counter.name.startswith("tokenizer:")
    assert counter.count("this and that") < len("this and that")
    with pytest.raises(UsageError, match=r"tokenizer\.json"):
        Counter.of(tmp_path / "nowhere")


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(0, 1500), st.sampled_from([0.7, 1.0]))
def test_what_is_left_out_is_whole_oldest_and_no_more_than_the_room_asks(
    costs: list[int], room: int, kept: float
) -> None:
    first = left_out(costs, room, kept)
    assert sum(costs[first:]) <= room
    if costs[-1] <= room:
        assert first < len(costs), "the last turn is shown when it fits"
    if sum(costs) <= (room if kept == 1 else room * 7 // 8 - 1):
        assert first == 0


def test_the_first_turn_shown_stays_for_many_points() -> None:
    costs, room = [100] * 200, 3000
    firsts = [left_out(costs[:n], room, 0.7) for n in range(1, 201)]
    assert firsts == sorted(firsts)
    assert len(set(firsts)) <= 200 / 8, "a prefix lasts at least eight points"
    wobbling = [left_out(costs[:n], room - n % 7, 0.7) for n in range(1, 201)]
    assert len(set(wobbling)) <= 200 / 8, "however the length of the request varies"
