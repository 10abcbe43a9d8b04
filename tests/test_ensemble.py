"""Majorities of critics: votes, ties, what an event says of its members, keeping up, and the curve over members."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import lakes
import numpy as np
import orjson
import pyarrow as pa
import pytest
import typer
from lakes import Step
from typer.testing import CliRunner

from stepwell.cli import audit as command
from stepwell.critics.audit import audit
from stepwell.critics.ensemble import Ensemble, curves, judge_new, majority
from stepwell.curation.masks import MaskRule, mask_new
from stepwell.errors import UsageError
from stepwell.event import Event, to_table
from stepwell.lake import Lake
from stepwell.log import EventLog, live

CRITIC = "steps@1/small/t0.7"


def table(made: list[Event]) -> pa.Table:
    return to_table(made, "b", lakes.EPOCH)


def sampled(votes: list[list[str | None]], name: str = "t", truth: str | None = "good", **rest: Any) -> list[Event]:
    """A trajectory with one step a list of votes, each vote a candidate; None cannot be read."""
    one = lakes.trajectory(name, [Step("view", str(k), truth=truth) for k in range(len(votes))], **rest)
    made = list(one)
    for action, said in zip(lakes.actions(one), votes, strict=True):
        made += [lakes.verdict(action, label, CRITIC, candidate=i, guidance=f"g{i}") for i, label in enumerate(said)]
    return made


def test_the_most_votes_win_a_draw_is_a_tie_and_the_members_are_named() -> None:
    votes: list[list[str | None]] = [
        ["good", "good", "mistake"], ["good", "mistake", None], [None, None, None], ["mistake", "recover", "recover"],
        ["good", None, None],
    ]  # fmt: skip
    made = sampled(votes)
    found = majority(table(made), Ensemble((CRITIC,), 3))
    said = [(e.payload["label"], e.payload["parse_status"], orjson.loads(e.extra or "")["tie"]) for e in found]
    assert said == [
        ("good", "ok", False), (None, "ok", True), (None, "unparseable", False), ("recover", "ok", False),
        ("good", "ok", False),
    ]  # fmt: skip
    assert [e.payload["confidence"] for e in found] == [2 / 3, None, None, 2 / 3, 1]
    assert found[0].policy == f"majority-3/{CRITIC}"
    members = {e.event_id for e in made if e.policy == CRITIC and e.step == 0}
    assert set(orjson.loads(found[0].extra or "")["members"]) == members
    assert found[0].caused_by == lakes.actions(made)[0].event_id
    assert found[0].payload["guidance"] in ("g0", "g1"), "of a member that agrees"
    assert found[1].payload["guidance"] is None


def test_order_does_not_matter_and_fewer_samples_are_another_ensemble() -> None:
    made = sampled([["good", "good", "mistake"], ["mistake", "good", "good"]])
    three = Ensemble((CRITIC,), 3)
    assert majority(table(made), three) == majority(table(made[::-1]), three)
    two = majority(table(made), Ensemble((CRITIC,), 2))
    assert [e.payload["label"] for e in two] == ["good", None]
    assert {e.policy for e in two} == {f"majority-2/{CRITIC}"}
    assert majority(table(made[:-2]), three)[1:] == [], "one vote is no majority"


def test_several_critics_vote_on_severity_judgment_and_categories() -> None:
    one = lakes.trajectory("t", [Step("view", "1")])

    def critic(policy: str, severity: int, *categories: str) -> Event:
        found = [{"category": c, "recovery": f"leave {c}"} for c in categories]
        payload = {"scope": "window", "window_from": 0, "window_to": 0, "severity": severity, "detections": found}
        return Event("verdict", "t", "demo", "critic", payload | {"parse_status": "ok"}, 0, policy)

    def verifier(policy: str, judgment: bool) -> Event:
        payload = {"scope": "trajectory", "judgment": judgment, "parse_status": "ok"}
        return Event("verdict", "t", "demo", "critic", payload, None, policy)

    votes = [critic("a@1", 2, "tool_selection"), critic("b@1", 2, "tool_selection", "hallucination"), critic("c@1", 0)]
    judged = [verifier("a@1", True), verifier("b@1", False), verifier("c@1", False)]
    found = majority(table([*one, *votes, *judged]), Ensemble(("a@1", "b@1", "c@1")))
    assert {e.policy for e in found} == {"majority-3/a@1+b@1+c@1"}
    window = next(e.payload for e in found if e.payload["scope"] == "window")
    assert (window["severity"], window["window_to"], window["judgment"]) == (2, 0, None)
    (detected,) = window["detections"]
    assert (detected["category"], detected["recovery"]) == ("tool_selection", "leave tool_selection")
    assert detected["evidence"].startswith("2 of 3 members: ")
    assert votes[0].event_id in detected["evidence"]
    whole = next(e.payload for e in found if e.payload["scope"] == "trajectory")
    assert (whole["judgment"], whole["confidence"], whole["detections"]) == (False, pytest.approx(1 / 3), None)


def test_an_ensemble_needs_two_votes_and_names_masks_can_carry() -> None:
    for critics, n in (((CRITIC,), 1), ((), 5), ((CRITIC, CRITIC), 1)):
        with pytest.raises(UsageError, match="fewer than two votes"):
            Ensemble(critics, n)
    with pytest.raises(UsageError, match="joins the members"):
        Ensemble(("a+b", "c"))
    assert MaskRule("srft", Ensemble((CRITIC, "rules@1"), 2).id).critic == f"majority-4/{CRITIC}+rules@1"


def test_voting_keeps_up_with_its_members_and_masks_follow(lake: Lake) -> None:
    log = EventLog(lake)
    made = sampled([["good", "mistake"], ["good", "good"]], resolved=False)
    log.append(made, "first")
    ensemble = Ensemble((CRITIC,), 3)
    first = judge_new(lake, ensemble)
    assert (first.n_verdicts, first.n_ties, first.n_unparseable, first.n_superseded) == (2, 1, 0, 0)
    assert judge_new(lake, ensemble).n_verdicts == 0
    action = lakes.actions(made)[0]
    log.append([lakes.verdict(action, "mistake", CRITIC, candidate=2)], "third sample")
    second = judge_new(lake, ensemble)
    assert (second.n_verdicts, second.n_ties, second.n_superseded) == (1, 0, 1)
    (third,) = [r for r in log.read(kinds=["verdict"]).to_pylist() if r["verdict"]["candidate"] == 2]

    def majorities() -> list[str | None]:
        rows = [r for r in live(log.read()).to_pylist() if r["policy"] == ensemble.id and r["kind"] == "verdict"]
        return [r["verdict"]["label"] for r in rows]

    def without(event_id: str) -> Event:
        gone = {"target_event": event_id, "action": "supersede", "reason": "was read wrongly"}
        return Event("retraction", third["trajectory_id"], "demo", "system", gone, third["step"])

    assert majorities() == ["mistake", "good"]
    log.append([without(third["event_id"])], "two samples again")
    assert judge_new(lake, ensemble).n_verdicts == 1
    assert majorities() == [None, "good"]
    assert judge_new(lake, ensemble).n_verdicts == 0
    said = lakes.verdict(action, "mistake", CRITIC, candidate=2)
    log.append([replace(said, discriminator="again")], "and the third again")
    assert judge_new(lake, ensemble).n_verdicts == 1
    mask_new(lake, MaskRule("srft", ensemble.id))
    weights = {r["step"]: r["mask"]["weight"] for r in log.read(kinds=["mask"]).to_pylist()}
    assert weights == {0: 0.0, 1: 1.0}
    result = audit(log.read(), ensemble.id, draws=100)
    assert result.confusion[0][:3] == [1, 0, 1]


def test_a_tie_is_not_the_same_as_what_cannot_be_read() -> None:
    made = sampled([["good", "mistake"], [None, None], ["good", "good"]])
    ensemble = Ensemble((CRITIC,), 2)
    result = audit(table([*made, *majority(table(made), ensemble)]), ensemble.id, draws=100)
    assert result.confusion[0] == [1, 0, 0, 0, 1, 1]


def test_the_curve_over_samples_starts_at_the_mean_sample_and_counts_all_it_judged() -> None:
    rng = np.random.default_rng(5)
    made: list[Event] = []
    for i in range(30):
        steps = [["good" if rng.random() < 0.7 else "mistake" for _ in range(5)] for _ in range(8)]
        made += sampled(steps, f"t{i}")  # type: ignore[arg-type]
    unread: list[list[str | None]] = [[None] * 5]
    made += sampled(unread, "t-unread")
    points = curves(table(made), CRITIC, "ground-truth@1", draws=100)["labels"]
    assert [p.n for p in points] == [1, 2, 3, 4, 5]
    assert {p.accuracy.n for p in points} == {241}
    each = [[e for e in made if e.policy != CRITIC or e.payload["candidate"] == c] for c in range(5)]
    one_by_one = [audit(table(e), CRITIC, draws=100).agreement["accuracy"].value or 0 for e in each]
    assert points[0].accuracy.value == pytest.approx(np.mean(one_by_one))
    assert (points[4].accuracy.value or 0) > (points[0].accuracy.value or 0)
    whole = Ensemble((CRITIC,), 5)
    last = audit(table([*made, *majority(table(made), whole)]), whole.id, draws=100)
    assert points[4].accuracy.value == pytest.approx(last.agreement["accuracy"].value)


def test_majorities_of_judgments_are_held_against_outcomes() -> None:
    made: list[Event] = []
    for name, resolved, judgments in (("a", True, (True, True, False)), ("b", False, (False, True, False))):
        one = lakes.trajectory(name, [Step("view", "1")], resolved=resolved)
        made += one
        for i, judgment in enumerate(judgments):
            payload = {"scope": "trajectory", "judgment": judgment, "parse_status": "ok", "candidate": i}
            made.append(Event("verdict", name, "demo", "critic", payload, None, "verifier@1"))
    found = curves(table(made), "verifier@1", "ground-truth@1", draws=100)
    assert list(found) == ["judgments"]
    assert [p.accuracy.value for p in found["judgments"]] == [pytest.approx(2 / 3), pytest.approx(1 / 3), 1.0]
    assert [p.undecided.value for p in found["judgments"]] == [0, pytest.approx(2 / 3), 0]
    assert curves(table(made), "nobody@1", "ground-truth@1") == {}


def test_the_command_votes_and_says_how_often_there_was_a_tie(lake: Lake) -> None:
    EventLog(lake).append(sampled([["good", "mistake"], ["mistake", "mistake"]]), "b")
    app = typer.Typer()
    command.register(app)
    done = CliRunner().invoke(app, ["vote", CRITIC, "--samples", "2", "--lake", lake.uri, "--json"])
    assert {"n_verdicts": 2, "n_ties": 1}.items() <= json.loads(done.stdout).items()
    again = CliRunner().invoke(app, ["vote", CRITIC, "--samples", "2", "--lake", lake.uri])
    assert "0 verdicts in 0 trajectories" in again.stdout
    shown = CliRunner().invoke(app, ["audit", CRITIC, "--lake", lake.uri, "--draws", "100", "--json"])
    assert [p["n"] for p in json.loads(shown.stdout)["curves"]["labels"]] == [1, 2]
