"""Evaluation: rows from the log once each, and what they add up to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evaluated import evaluated, once

from stepwell.errors import LakeError
from stepwell.evaluation.intervals import wilson
from stepwell.evaluation.rows import summarise
from stepwell.event import Event
from stepwell.lake import Lake


def test_rows_once_and_their_sum(lake: Lake) -> None:
    run = evaluated(lake, "a", once(True, True, False, False))
    evaluated(lake, "a", once(True, True, False, False))
    result = summarise(lake, run)
    assert (result.n, result.resolved, result.submitted, result.seed) == (4, 2, 4, 3)
    assert (result.low, result.high) == wilson(2, 4)
    assert "2/4 = 50.0%" in result.line()
    assert "single run" in result.line()
    with pytest.raises(LakeError, match=r"run: python -m jobs\.evaluate"):
        summarise(lake, "nothing")


def test_attempts_of_one_task_are_not_independent(lake: Lake) -> None:
    """Ten attempts at each of four tasks, all alike: the interval is that of four tasks, not of forty coins."""
    result = summarise(lake, evaluated(lake, "a", [[True] * 10, [False] * 10] * 2))
    assert (result.n, result.rate) == (40, 0.5)
    assert (result.low, result.high) == (0.0, 1.0)
    assert wilson(20, 40)[0] > 0.3


def test_what_an_attempt_cost_and_how_often_it_repeats_itself(lake: Lake) -> None:
    def cached(events: list[Event]) -> list[Event]:
        return [replace(e, usage={**e.usage, "cache_read": 7, "cache_write": 2}) if e.usage else e for e in events]

    evaluated(lake, "a", once(True, False), change=cached)
    rows = lake.read("evaluations").sort_by("task_id").to_pylist()
    names = ("tokens_in", "tokens_out", "cache_read", "cache_write", "longest_repeat")
    assert [tuple(r[n] for n in names) for r in rows] == [(510, 50, 35, 10, 1), (615, 60, 42, 12, 4)]
    assert [r["cost_usd"] for r in rows] == pytest.approx([0.05, 0.12])
