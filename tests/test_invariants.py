"""Invariants of the log find what breaks them, and let pass what was put right."""

from __future__ import annotations

from stepwell.event import Event
from stepwell.invariants import one_action_per_turn
from stepwell.lake import Lake
from stepwell.log import EventLog


def action(step: int, text: str) -> Event:
    return Event("action", "t", "c", "agent", {"text": text}, step)


def test_a_turn_has_one_action_that_holds(lake: Lake) -> None:
    first, second, again = action(0, "ls"), action(1, "cat x"), action(1, "cat y")
    EventLog(lake).append([first, second], "w")
    assert not list(one_action_per_turn(lake))
    EventLog(lake).append([again], "w2")
    assert list(one_action_per_turn(lake)) == ["trajectory t: 3 actions, last step 1"]
    superseded = {"target_event": second.event_id, "action": "supersede", "replacement": again.event_id}
    EventLog(lake).append([Event("retraction", "t", "c", "system", {**superseded, "reason": "it went on"}, 1)], "w3")
    assert not list(one_action_per_turn(lake))
    EventLog(lake).append([action(4, "pwd")], "w4")
    assert list(one_action_per_turn(lake)) == ["trajectory t: 3 actions, last step 4"]
