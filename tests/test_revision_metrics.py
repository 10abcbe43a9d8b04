"""Figures of critique-revision loops, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stepwell import query
from stepwell.cli import common, revise
from stepwell.evaluation.revision import COLUMNS, ArmReport, report
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog, in_order
from stepwell.rollout import revision
from stepwell.settings import Policy, Problems, Revision, RevisionArm

Said = bool | None


def tree(
    name: str, task: str, results: Sequence[bool], said: Sequence[Said] = (), *, arm: str = "a", status: str = "rounds_done",
    reruns: Sequence[bool] = (), leaks: Sequence[str] = (), cost: float = 0.0,
) -> list[Event]:  # fmt: skip
    """A chain: whether each solution passes, and what was said of each."""

    def event(kind: str, payload: dict[str, Any], step: int | None = None, **rest: Any) -> Event:
        return Event(kind, name, "c", rest.pop("actor", "system"), payload, step=step, **rest)

    events = [event("start", {"task_id": task, "arm": arm, "model": "g"})]
    for number, passed in enumerate(results):
        parent = f"{name}/{number - 1}" if number else None
        payload = {"attempt_id": f"{name}/{number}", "parent_attempt": parent, "round": number, "code": f"x = {number}"}
        attempt = event("attempt", payload, number)
        events.append(attempt)
        for rerun, result in enumerate((passed, *(reruns if number == 0 else ()))):
            outcome = {"subject": f"{name}/{number}", "rule": "all", "resolved": result, "rerun": rerun}
            events.append(event("outcome", outcome, number, caused_by=attempt.event_id))
        if number < len(said):
            judged = {
                "scope": "attempt",
                "judgment": said[number],
                "parse_status": "ok" if said[number] is not None else "unparseable",
            }
            extra = orjson.dumps({"leaks": list(leaks)}).decode()
            events.append(
                event("verdict", judged, number, caused_by=attempt.event_id, extra=extra, usage={"cost_usd": cost})
            )
    return [*events, event("end", {"exit_status": status})]


def group(name: str, rewards: Sequence[float]) -> list[Event]:
    payloads = [
        {"group_id": f"{name}/0", "attempt_id": f"{name}/1.{n}", "reward": float(r)} for n, r in enumerate(rewards)
    ]
    return [Event("reward", name, "c", "grader", p, step=1) for p in payloads]


def reported(*parts: Sequence[Event]) -> dict[str, ArmReport]:
    from datetime import UTC, datetime

    from stepwell.event import to_table

    rows: pa.Table = in_order(to_table([e for part in parts for e in part], "b", datetime.now(UTC)))
    return {r.arm: r for r in report(rows.select(list(COLUMNS)), draws=200)}


def value(found: ArmReport, name: str) -> float | None:
    return found.figures[name].value


def test_rounds_add_up_as_counted_by_hand() -> None:
    found = reported(
        tree("1", "x", [False, True]), tree("2", "x", [True, False]), tree("3", "y", [False, False]), tree("4", "y", [True]),
        tree("5", "z", [False, True]), tree("gone", "z", [True, True], status="aborted"),
    )["a"]  # fmt: skip
    assert (found.n_trees, found.n_tasks, found.n_rounds) == (5, 3, 1)
    wanted = {
        "pass@1@0": 2 / 5,
        "pass@1@1": 3 / 5,
        "up@1": 2 / 5,
        "down@1": 1 / 5,
        "gain@1": 1 / 5,
        "u@1": 2 / 3,
        "d@1": 1 / 2,
    }
    assert {name: value(found, name) for name in wanted} == pytest.approx(wanted)
    assert value(found, "p*@1") == pytest.approx((2 / 3) / (2 / 3 + 1 / 2))
    figure = found.figures["pass@1@1"]
    assert figure.n == 5
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= 3 / 5 <= figure.high


def test_a_tree_without_a_solution_counts_as_wrong() -> None:
    found = reported(tree("1", "x", [], status="context"), tree("2", "y", [True, True]))["a"]
    assert [value(found, f"pass@1@{n}") for n in (0, 1)] == [0.5, 0.5]


def test_judgments_are_measured_both_ways_and_what_cannot_be_read_is_a_miss() -> None:
    said = [(True, True), (True, None), (False, False), (False, False), (False, True), (True, True)]
    parts = [tree(str(n), str(n), [right], [judged]) for n, (right, judged) in enumerate(said)]
    found = reported(*parts)["a"]
    assert value(found, "f1_correct") == pytest.approx(2 * 2 / (3 + 3))  # 3 right, 3 called correct, 2 of them both
    assert value(found, "f1_incorrect") == pytest.approx(2 * 2 / (3 + 2))
    assert value(found, "balanced_accuracy") == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert value(found, "unparseable") == pytest.approx(1 / 6)
    assert found.figures["f1_correct"].n == 6


def test_critics_that_judge_a_loop_afterwards_are_no_part_of_it() -> None:
    played = tree("1", "x", [False, True], [False], leaks=["code"], cost=0.25)
    (attempt, *_) = (e for e in played if e.kind == "attempt")
    judged = {"scope": "attempt", "judgment": True, "parse_status": "ok"}
    where: dict[str, Any] = {"policy": "other@1", "caused_by": attempt.event_id, "usage": {"cost_usd": 9.0}}
    later = Event("verdict", "1", "c", "critic", judged, 0, **where)
    assert reported([*played, later]) == reported(played)


def test_groups_flakes_leaks_and_costs() -> None:
    found = reported(
        [*tree("1", "x", [False, True], [False], leaks=["code"], cost=0.25), *group("1", [1, 1, 1])],
        [*tree("2", "y", [True, True], [True], reruns=[True, False], cost=0.5), *group("2", [0, 1])],
        [*tree("3", "z", [True, True], [True]), *group("3", [1])],
    )["a"]
    assert (value(found, "zero_variance_groups"), found.figures["zero_variance_groups"].n) == (0.5, 2)
    assert (value(found, "flaky"), found.figures["flaky"].n) == (0.5, 2)
    assert value(found, "leaks") == pytest.approx(1 / 3)
    assert found.cost_usd == {"generator": 0.0, "critic": 0.75}


def test_hidden_tests_stand_in_place_of_visible_ones_and_are_no_rerun_of_them(lake: Lake) -> None:
    """Ten chains whose visible tests say the contrary of the hidden ones, first and last (as Reflexion records have them)."""
    events = [e for n in range(10) for e in tree(f"t{n}", str(n), [True, False], [False])]
    for attempt in [e for e in events if e.kind == "attempt"]:
        mended = attempt.payload["round"] == 1
        for rerun, resolved in ((1, mended), (2, not mended)):
            told = {"subject": attempt.payload["attempt_id"], "grader": "hidden", "resolved": resolved, "rerun": rerun}
            events.append(Event("outcome", attempt.trajectory_id, "c", "grader", told, attempt.step))
    EventLog(lake).append(events, "b")
    (found,) = report(EventLog(lake).read(columns=COLUMNS), draws=10)
    assert [value(found, f"pass@1@{n}") for n in (0, 1)] == [0, 1]
    assert value(found, "f1_incorrect") == 1, "the critic called the first ones incorrect"
    assert (value(found, "flaky"), found.figures["flaky"].n) == (1, 20), "reruns of the hidden tests alone"
    (told,) = query.run(query.connect(lake), query.question("revision_gains")).to_pylist()
    assert (told["up"], told["down"], told["right_after"]) == (10, 0, 1)


def test_a_grader_that_could_not_say_tells_nothing_of_critics(lake: Lake) -> None:
    events = [*tree("1", "x", [True], [True], reruns=[False]), *tree("2", "y", [False], [True])]
    for attempt in [e for e in events if e.kind == "attempt"]:
        told = {"subject": attempt.payload["attempt_id"], "grader": "later", "resolved": None, "rerun": 5}
        events.append(Event("outcome", attempt.trajectory_id, "c", "grader", told, attempt.step))
    found = reported(events)["a"]
    assert (value(found, "pass@1@0"), found.figures["f1_correct"].n, found.figures["flaky"].n) == (0, 0, 0)


def test_arms_are_compared_with_the_placebo_on_the_same_tasks() -> None:
    parts = [tree(f"a{n}", str(n), [False, n < 6]) for n in range(8)]
    sham = [tree(f"p{n}", str(n), [False, n < 2], arm="placebo") for n in range(8)]
    found = reported(*parts, *sham)
    figure = found["a"].figures["over_placebo@1"]
    assert figure.value == pytest.approx(0.5)
    assert figure.low is not None
    assert figure.low > 0
    assert "over_placebo@1" not in found["placebo"].figures


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1, max_size=12
    )
)
def test_the_identity_and_the_markov_step_hold_whatever_happened(chains: list[tuple[str, list[bool]]]) -> None:
    """Pass' = Pass + up - down, which `report` asserts; and p(t+1) = p(t)(1 - d) + (1 - p(t))u."""
    found = reported(*(tree(str(n), task, results) for n, (task, results) in enumerate(chains)))["a"]
    for number in range(1, found.n_rounds + 1):
        before, now = (value(found, f"pass@1@{n}") or 0.0 for n in (number - 1, number))
        u, d = value(found, f"u@{number}") or 0.0, value(found, f"d@{number}") or 0.0
        assert now == pytest.approx(before * (1 - d) + (1 - before) * u)


def test_the_command_plays_and_reports_what_the_log_says(lake: Lake, tmp_path: Any) -> None:
    import typer
    import yaml

    arms = (RevisionArm(name="oracle", critic="oracle"), RevisionArm(name="placebo", critic="placebo"))
    settings = Revision(
        corpus="rollouts/c",
        generator=Policy(kind="noisy", mistake_rate=0.6),
        samples=1,
        problems=Problems(n=4),
        arms=arms,
    )
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"revision": settings.model_dump(mode="json")}))
    app = typer.Typer()
    app.callback()(common.program)
    revise.register(app)
    command = ["revise", str(file), "--lake", lake.uri, "--json"]
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert orjson.loads(dry.stdout)["loops"] == len(revision.plan(settings, revision.problems_of(settings)[0])) == 8
    assert lake.version("events") is None
    said = orjson.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    again = orjson.loads(CliRunner().invoke(app, [*command, "--report"], catch_exceptions=False).stdout)
    assert said == again
    found = {r.arm: r for r in report(EventLog(lake).read(columns=COLUMNS))}
    assert {arm["arm"]: arm["figures"]["pass@1@1"]["value"] for arm in said} == {
        name: value(r, "pass@1@1") for name, r in found.items()
    }
    table = CliRunner().invoke(app, [*command[:-1], "--report"], catch_exceptions=False).stdout
    assert "oracle" in table
