"""Intervening where it was needed, from labels alone: hand counts, windows, and what labels do not tell."""

from __future__ import annotations

from typing import Any

import lakes
import pytest
from lakes import Step

from stepwell.critics.audit import audit
from stepwell.event import Event, to_table

LABELS = ("good", "mistake", "unnecessary", "recover", "mistake", "good")


def judged(said: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a critic that says these payloads of the six steps, on two equal trajectories."""
    made: list[Event] = []
    for name in ("t0", "t1"):
        one = lakes.trajectory(name, [Step("view", str(i), truth=label) for i, label in enumerate(LABELS)])
        made += one
        for action, payload in zip(lakes.actions(one), said, strict=True):
            if payload:
                rest = {k: v for k, v in payload.items() if k != "label"}
                made.append(lakes.verdict(action, payload.get("label"), **{"parse_status": "ok"} | rest))
    return dict(audit(to_table(made, "b", lakes.EPOCH), "judge@1", draws=100).intervention)


def test_severities_of_a_critic_are_held_against_labels_of_the_truth() -> None:
    found = judged([{"severity": s} for s in (1, 2, 1, 0, 0, 0)])
    assert {f.n for name, f in found.items() if name in ("needless", "neglected")} == {10}, "unnecessary tells nothing"
    assert found["needless"].value == pytest.approx(2 / 10)
    assert found["neglected"].value == pytest.approx(2 / 10)
    assert found["needless_where_on_track"].value == pytest.approx(2 / 6)
    assert found["neglected_where_needed"].value == pytest.approx(2 / 4)
    assert found["severity_exact"].value is None, "how grave a mistake is cannot be had from its label"


def test_a_critic_without_severities_speaks_by_its_labels_and_the_unreadable_speak_not() -> None:
    unread = {"parse_status": "unparseable", "label": None}
    found = judged(
        [{"label": "mistake"}, unread, {"label": "good"}, {"label": "unnecessary"}, {"label": "mistake"}, {}]
    )
    assert found["needless"].value == pytest.approx(1 / 3)
    assert found["neglected"].value == pytest.approx(1 / 3)
    assert found["neglected_lenient"].value == 0
    assert found["neglected_where_needed"].value == pytest.approx(1 / 2)
    assert found["neglected_where_needed"].n == 4


def test_a_window_needs_a_word_when_one_of_its_steps_does() -> None:
    window = {"scope": "window", "label": None}
    spans = {1: (0, 1, 0), 3: (2, 3, 1), 5: (4, 5, 2)}
    found = judged([
        window | {"window_from": spans[i][0], "window_to": spans[i][1], "severity": spans[i][2]} if i in spans else {}
        for i in range(6)
    ])  # fmt: skip
    assert found["needless"].n == 6
    assert found["neglected"].value == pytest.approx(1 / 3)
    assert found["needless"].value == pytest.approx(1 / 3)
    assert found["needless_where_on_track"].value == 1.0
