"""Evaluation: intervals against published values, paired comparison on the same tasks."""

from __future__ import annotations

import pytest

from stepwell.errors import LakeError, UsageError
from stepwell.evaluation.compare import compare, compare_all, table_of
from stepwell.evaluation.intervals import mcnemar, wilson
from stepwell.evaluation.rows import record_rows, summarise
from stepwell.lake import Lake
from stepwell.log import EventLog
from tests.lakes import good_repair, looping


@pytest.mark.parametrize(
    ("resolved", "n", "low", "high"),
    [(126, 500, 21.6, 29.2), (104, 500, 17.5, 24.6), (165, 500, 29.0, 37.2), (127, 466, 23.4, 31.5)],
)
def test_wilson_gives_the_published_intervals(resolved: int, n: int, low: float, high: float) -> None:
    got = wilson(resolved, n)
    assert (round(100 * got[0], 1), round(100 * got[1], 1)) == (low, high)


def test_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 * 0.5**10)


def evaluated(lake: Lake, model: str, resolved: list[bool]) -> str:
    """One evaluation of a model over tasks 0..n-1."""
    names = [f"{model}-{i}" for i in range(len(resolved))]
    events = [
        e
        for i, (name, ok) in enumerate(zip(names, resolved, strict=True))
        for e in (good_repair if ok else looping)(name, task_id=f"task-{i}", corpus="evaluations/x")
    ]
    EventLog(lake).append(events, model)
    identity = f"{model}-0123456789ab"
    record_rows(
        lake, names, evaluation_id=f"{identity}@x", suite="x", recipe=model, model_id=identity, seed=3, backend="test"
    )
    return f"{identity}@x"


def test_rows_once_and_their_sum(lake: Lake) -> None:
    run = evaluated(lake, "a", [True, True, False, False])
    evaluated(lake, "a", [True, True, False, False])
    result = summarise(lake, run)
    assert (result.n, result.resolved, result.submitted, result.seed) == (4, 2, 4, 3)
    assert (result.low, result.high) == wilson(2, 4)
    assert "2/4 = 50.0%" in result.line()
    assert "single run" in result.line()
    with pytest.raises(LakeError, match=r"run: python -m jobs\.evaluate"):
        summarise(lake, "nothing")


def test_comparison_is_paired(lake: Lake) -> None:
    a = evaluated(lake, "a", [True] * 2 + [False] * 8)
    b = evaluated(lake, "b", [True] * 8 + [False] * 2)
    row = compare(lake, a, b)
    assert (row["n_tasks"], row["only_a"], row["only_b"]) == (10, 0, 6)
    assert row["difference"] == pytest.approx(0.6)
    assert row["low"] < 0.6 < row["high"]
    assert row["p_value"] == pytest.approx(2 * 0.5**6)
    assert compare_all(lake) == 1
    assert compare_all(lake) == 1
    assert len(lake.read("comparisons")) == 1
    assert [arm.name for arm in table_of(lake)] == ["a", "b"]


def test_evaluations_without_a_common_task_are_refused(lake: Lake) -> None:
    a = evaluated(lake, "a", [True])
    with pytest.raises(UsageError, match="share no task"):
        compare(lake, a, "other@y")
