"""Auditing a critic: figures against hand counts, unparseable output, the bootstrap."""

from __future__ import annotations

import io

import lakes
import pyarrow as pa
import pytest
from lakes import Step
from rich.console import Console

from stepwell.critics.audit import CLASSES, audit, render
from stepwell.errors import UsageError
from stepwell.event import Event, to_table


def events(pairs: list[list[tuple[str, str | None]]]) -> list[Event]:
    """One trajectory per list of (true label, predicted label)."""
    made: list[Event] = []
    for i, steps in enumerate(pairs):
        one = lakes.trajectory(f"t{i}", [Step("view", str(k), truth=true) for k, (true, _) in enumerate(steps)])
        acted = lakes.actions(one)
        made += [*one, *(lakes.verdict(a, predicted) for a, (_, predicted) in zip(acted, steps, strict=True))]
    return made


def table(made: list[Event]) -> pa.Table:
    return to_table(made, "b", lakes.EPOCH)


PAIRS: list[list[tuple[str, str | None]]] = [
    [("good", "good"), ("good", "mistake"), ("mistake", "mistake"), ("mistake", None)],
    [("good", "good"), ("recover", "good"), ("mistake", "mistake"), ("unnecessary", "unnecessary")],
]


def test_figures_equal_hand_counts() -> None:
    result = audit(table(events(PAIRS)), "judge@1", draws=400)
    assert (result.n_steps, result.n_trajectories, result.n_not_judged) == (8, 2, 0)
    assert result.confusion == [[2, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 2, 0, 1], [1, 0, 0, 0, 0]]
    harmful = result.harmful
    assert harmful.precision == pytest.approx(2 / 3)
    assert harmful.recall == pytest.approx(2 / 3), "the unparseable step counts as missed"
    assert harmful.lenient_f1 == pytest.approx(2 * 2 / 5)
    observed, expected = 5 / 8, (3 * 3 + 1 * 1 + 3 * 3 + 1 * 0) / 64
    assert result.kappa == pytest.approx((observed - expected) / (1 - expected))
    recover = next(s for s in result.scores if s.label == "recover")
    assert (recover.precision, recover.recall, recover.f1) == (None, 0.0, 0.0)
    assert harmful.low is not None
    assert harmful.high is not None
    assert harmful.low <= (harmful.f1 or 0) <= harmful.high


def test_the_same_seed_gives_the_same_interval_and_order_does_not_matter() -> None:
    made = events(PAIRS)
    assert audit(table(made), "judge@1", draws=300) == audit(table(made[::-1]), "judge@1", draws=300)
    assert audit(table(made), "judge@1", draws=300, seed=1).n_steps == 8


def test_steps_without_a_verdict_count_against_the_critic_but_unjudged_trajectories_do_not() -> None:
    made = events(PAIRS)
    partial = [e for e in made if not (e.policy == "judge@1" and e.trajectory_id == "t0" and e.step == 0)]
    result = audit(table(partial), "judge@1", draws=100)
    assert sum(row[CLASSES.index("unparseable")] for row in result.confusion) == 2
    none_of_t1 = [e for e in made if not (e.policy == "judge@1" and e.trajectory_id == "t1")]
    result = audit(table(none_of_t1), "judge@1", draws=100)
    assert (result.n_steps, result.n_not_judged) == (4, 4)


def test_a_superseded_verdict_does_not_count() -> None:
    made = events([[("good", "mistake")]])
    wrong = next(e for e in made if e.policy == "judge@1")
    right = lakes.verdict(lakes.actions(made)[0], "good")
    target = {"target_event": wrong.event_id, "action": "supersede", "replacement": right.event_id}
    gone = Event("retraction", "t0", "demo", "critic", target, 0, "judge@1")
    result = audit(table([*made, right, gone]), "judge@1", draws=100)
    assert result.confusion[0] == [1, 0, 0, 0, 0]
    assert result.kappa is None, "one class only: chance agreement is 1"


def test_policies_that_never_meet_are_an_error_that_lists_policies() -> None:
    with pytest.raises(UsageError, match=r"policies with verdicts: ground-truth@1, judge@1"):
        audit(table(events(PAIRS)), "nobody@1")


def test_the_tables_show_n_interval_and_seed() -> None:
    out = io.StringIO()
    console = Console(file=out, width=160)
    for shown in render(audit(table(events(PAIRS)), "judge@1", draws=100, seed=7)):
        console.print(shown)
    assert "n = 8 steps of 2 trajectories" in out.getvalue()
    assert "seed 7" in out.getvalue()
    assert "unparseable" in out.getvalue()
