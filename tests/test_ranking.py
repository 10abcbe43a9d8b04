"""Figures over scored attempts, against counting them out."""

from __future__ import annotations

import random
from itertools import combinations, product

import pytest

from stepwell.critics.ensemble import Ensemble, majority
from stepwell.evaluation.ranking import Scored, best, ranked, scored
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog

TASKS = 12


def drawn(seed: int) -> list[Scored]:
    rng = random.Random(seed)
    return [
        Scored(f"t{task}", rng.choice((0.1, 0.3, 0.5, 0.7, 0.9)), rng.random() < 0.4)
        for task in range(TASKS)
        for _ in range(rng.randint(1, 6))
    ]


def counted(pairs: list[tuple[Scored, Scored]]) -> float:
    return sum((a.score > b.score) + (a.score == b.score) / 2 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_areas_and_pairs_are_shares_of_pairs(seed: int) -> None:
    made = drawn(seed)
    good, bad = [a for a in made if a.right], [a for a in made if not a.right]
    found = ranked(made, draws=200)
    assert found["auc"].value == pytest.approx(counted(list(product(good, bad))))
    assert found["pairs"].value == pytest.approx(counted([(a, b) for a, b in product(good, bad) if a.task == b.task]))
    assert found["accuracy"].value == pytest.approx(sum((a.score > 0.5) == a.right for a in made) / len(made))
    assert found["majority"].value == pytest.approx(max(len(good), len(bad)) / len(made))
    assert found["auc"].low is not None
    assert found["auc"].low <= found["auc"].value <= (found["auc"].high or 0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_best_of_k_is_what_every_choice_of_k_comes_to(k: int) -> None:
    task = [Scored("t", s, r) for s, r in ((0.2, True), (0.9, False), (0.9, True), (0.5, True), (0.2, False))]
    each = []
    for chosen in combinations(task, k):
        top = [a.right for a in chosen if a.score == max(b.score for b in chosen)]
        each.append(sum(top) / len(top))
    assert best(task, k) == pytest.approx(sum(each) / len(each))
    found = ranked(task, ks=(k,), draws=10)
    anything = sum(any(a.right for a in chosen) for chosen in combinations(task, k))
    assert found[f"any@{k}"].value == pytest.approx(anything / len(each))
    assert found[f"random@{k}"].value == pytest.approx(3 / 5)


def test_scores_come_from_confidence_or_from_the_votes_of_candidates(lake: Lake) -> None:
    def verdict(stream: str, cause: str | None, candidate: int, **said: object) -> Event:
        about = {"parse_status": "ok", "candidate": candidate, **said}
        return Event("verdict", stream, "c", "critic", about, policy="judge@1", caused_by=cause)

    events = []
    for stream, resolved in (("one", True), ("two", False), ("open", None)):
        events.append(Event("start", stream, "c", "system", {"task_id": f"task {stream}"}))
        if resolved is not None:
            outcome = {"subject": "trajectory", "grader": "g", "rule": "all", "resolved": resolved}
            events.append(Event("outcome", stream, "c", "grader", outcome))
        events.append(verdict(stream, None, 0, scope="trajectory", judgment=True, confidence=0.75))
    attempt = Event("attempt", "one", "c", "agent", {"attempt_id": "one/0", "round": 0, "code": "x"}, step=0)
    graded = {"subject": "one/0", "grader": "g", "rule": "all", "resolved": False}
    events += [attempt, Event("outcome", "one", "c", "grader", graded, step=0)]
    for candidate, judgment in enumerate((True, True, False, None)):
        said = {} if judgment is None else {"judgment": judgment}
        events.append(verdict("one", attempt.event_id, candidate, scope="attempt", **said))
    EventLog(lake).append(events, "test")
    found, n_said = scored(EventLog(lake).read(), "judge@1")
    assert n_said == 7
    assert sorted((a.task, a.score, a.right) for a in found) == [
        ("task one", 0.625, False), ("task one", 0.75, True), ("task two", 0.75, False),
    ]  # fmt: skip
    assert ranked([]) == {}


def test_what_a_majority_is_sure_of_is_its_severity_and_no_score(lake: Lake) -> None:
    """Members that agree that all is well, and that nothing is: the share of votes is 1 for both."""
    events = []
    for i in range(6):
        where, right = (f"t{i}", "c"), i % 2 == 0
        events += [
            Event("start", *where, "system", {"task_id": f"k{i}"}),
            Event("action", *where, "agent", {"text": "ls", "command": "ls"}, 0),
            Event("outcome", *where, "grader", {"subject": "trajectory", "grader": "g", "resolved": right}),
        ]
        for n in range(3):
            said = {"scope": "window", "window_from": 0, "window_to": 0, "parse_status": "ok", "candidate": n}
            said |= {"severity": 2 * (not right) if n or not right else 1, "detections": []}
            events.append(Event("verdict", *where, "critic", said, 0, "steer/m"))
    log, most = EventLog(lake), Ensemble(("steer/m",), 3)
    log.append(events, "b")
    log.append(majority(log.read(), most), "votes")
    for critic in ("steer/m", most.id):
        assert ranked(scored(log.read(), critic)[0], draws=10)["auc"].value == 1, critic
