"""Of several gradings one stands, and everyone who asks is told the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stepwell import query
from stepwell.drift import drift
from stepwell.evaluation.ranking import ranked, scored
from stepwell.evaluation.steering import steering_report
from stepwell.event import Event, to_table
from stepwell.fold import fold_trajectories
from stepwell.gradings import by_subject, results, runs, standing
from stepwell.importers.companions import AGGREGATE, INSTANCE
from stepwell.importers.outcome import Finding, outcome_events
from stepwell.lake import Lake
from stepwell.log import EventLog, in_order
from stepwell.pairs import graded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GRADINGS = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2), st.sampled_from([True, False, None]), st.integers(0, 2)),
    min_size=1, max_size=6,
)  # fmt: skip


def recorded(told: list[tuple[str | None, int, bool | None, int]], subject: str | None = None) -> pa.Table:
    """Gradings (grader, rerun, result, day it was recorded) of trajectory `t`."""
    parts = []
    for n, (grader, rerun, resolved, day) in enumerate(told):
        payload = {"subject": subject, "grader": grader, "rerun": rerun, "resolved": resolved, "score": n / 10}
        event = Event("outcome", "t", "c", "grader", payload)
        parts.append(to_table([event], "b", NOW + timedelta(days=day)))
    return in_order(pa.concat_tables(parts))


@given(GRADINGS)
def test_of_a_trajectory_stands_what_its_row_says(told: list[tuple[str | None, int, bool | None, int]]) -> None:
    rows = recorded(told)
    assert results(rows.to_pylist()) == {("t", "trajectory"): pl.DataFrame(fold_trajectories(rows))["resolved"][0]}


def test_of_a_solution_stands_the_first_run_of_the_last_grader_as_corrected() -> None:
    hidden = [("hidden", 1, True, 0), ("hidden", 2, False, 0), ("hidden", 1, False, 1)]
    rows = recorded([("visible", 0, True, 2), *hidden], "s").to_pylist()
    (found,) = by_subject(rows).values()
    assert [(g["grader"], g["rerun"], g["resolved"]) for g in runs(found)] == [
        ("hidden", 1, False),
        ("hidden", 2, False),
    ]
    assert standing(found)["recorded_at"] == NOW + timedelta(days=1), "a report that was corrected"


def test_a_grading_that_was_corrected_is_no_rerun(lake: Lake) -> None:
    def grade(trajectory: str, rerun: int, resolved: bool) -> Event:
        payload = {"subject": "trajectory", "grader": "tests", "rerun": rerun, "resolved": resolved}
        return Event("outcome", trajectory, "c", "grader", payload)

    EventLog(lake).append([grade(t, n, True) for t in ("corrected", "again") for n in (0, 1)], "1")
    EventLog(lake).append([grade("corrected", 0, False), grade("corrected", 1, False), grade("again", 1, False)], "2")
    (row,) = query.run(query.connect(lake), query.question("disagreement_on_rerun")).to_pylist()
    assert (row["things"], row["runs"], row["disagreeing"]) == (2, 4, 1)


def test_pairs_rankings_mixtures_and_arms_say_what_trajectories_say(lake: Lake) -> None:
    """A list of ids says otherwise than the instance's own report, which stands; of every fifth, two reports disagree."""
    events: list[Event] = []
    for i in range(20):
        where: tuple[str, str] = (f"t{i:02}", "s/off")
        said: dict[str, Any] = {"scope": "trajectory", "judgment": i % 2 == 0, "parse_status": "ok"}
        events.append(Event("start", *where, "system", {"task_id": f"k{i}", "attempt": 0}))
        events.append(Event("action", *where, "agent", {"text": "ls", "command": "ls"}, 0))
        events.append(Event("verdict", *where, "critic", said, policy="knowing"))
        events.append(Event("end", *where, "environment", {"exit_status": "submitted"}))
        findings = [Finding("a", AGGREGATE, i % 2 == 1), Finding("b", INSTANCE, i % 2 == 0)]
        findings += [Finding("c", INSTANCE, i % 2 == 1)] if i % 5 == 0 else []
        events += outcome_events(findings, *where, None)
    log = EventLog(lake)
    log.append(events, "b")
    rows = log.read()
    told = {r["trajectory_id"]: r["resolved"] for r in fold_trajectories(rows).to_pylist()}
    assert [told[f"t{i:02}"] for i in range(20)] == [None if i % 5 == 0 else i % 2 == 0 for i in range(20)]
    known = {name: right for name, right in told.items() if right is not None}
    assert {a.id: a.right for a in graded(rows).values()} == known, "undecided ones are not graded"
    assert ranked(scored(rows, "knowing")[0], draws=10)["auc"].value == 1
    found = drift(log, sorted(told), "teacher").resolved
    assert (found.k, found.n) == (sum(known.values()), len(known))
    (off,) = steering_report(lake, "s")
    assert (off.n, off.resolved.value) == (20, sum(known.values()) / 20)
