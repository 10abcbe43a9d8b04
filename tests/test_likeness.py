"""Distances between samples against what is known of them, and what they say of real rollouts."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stepwell.cli import build_app
from stepwell.distances import coverage, discrepancy, divergence, lengths, told_apart
from stepwell.errors import UsageError
from stepwell.event import Event
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.likeness import BINS, chosen, likeness, seen, shift
from stepwell.log import EventLog
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World

COUNTS = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), max_size=4).map(Counter), max_size=5)


def test_divergence_is_0_of_equal_and_1_of_disjoint_sides() -> None:
    a, b = [Counter("aab"), Counter("ab")], [Counter("cd")]
    assert divergence(a, a).value == pytest.approx(0.0)
    assert divergence(a, b).value == pytest.approx(1.0)
    # p = (1, 0), q = (1/2, 1/2): half of KL(p, m) + KL(q, m), m = (3/4, 1/4), in bits
    by_hand = (np.log2(4 / 3) + (np.log2(2 / 3) + np.log2(2)) / 2) / 2
    assert divergence([Counter("a")], [Counter("ab")]).value == pytest.approx(by_hand)
    assert divergence([], a).value is None
    assert divergence([Counter()], a).value is None


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS)
def test_divergence_is_symmetric_and_bounded(a: list[Counter[str]], b: list[Counter[str]]) -> None:
    one, other = divergence(a, b, 5), divergence(b, a, 5)
    assert one.value == pytest.approx(other.value)
    assert one.value is None or -1e-9 <= one.value <= 1 + 1e-9


def test_what_chance_gives_is_rarely_exceeded_by_chance() -> None:
    """Both sides from one source, groups of unlike items: about one in twenty is beyond the 95th percentile."""
    rng = np.random.default_rng(5)
    beyond, far = 0, 0
    for _ in range(200):
        groups = [Counter(rng.choice(list("abc"), 10, p=rng.dirichlet([1, 1, 1]))) for _ in range(24)]
        found = divergence(groups[:12], groups[12:], 60)
        assert found.value is not None
        assert found.chance is not None
        assert found.p is not None
        beyond += found.value > found.chance
        far += found.p <= 0.05
    assert 2 <= beyond <= 22
    assert far <= 22


def test_discrepancy_finds_a_shift_and_is_near_0_without() -> None:
    rng = np.random.default_rng(2)
    names = [f"g{i // 5}" for i in range(60)]
    values = [discrepancy(rng.normal(size=(60, 3)), rng.normal(size=(60, 3)), names, names, 2).value for _ in range(60)]
    assert abs(float(np.mean([v for v in values if v is not None]))) < 0.005
    moved = discrepancy(rng.normal(size=(60, 3)), rng.normal(1.0, size=(60, 3)), names, names)
    assert moved.value is not None
    assert moved.chance is not None
    assert moved.value > 3 * moved.chance
    assert moved.p == pytest.approx(1 / 201)
    assert moved.n_a == 12
    assert discrepancy(np.zeros((3, 1)), np.ones((3, 1)), ["one"] * 3, names[:3]).value is None


def test_a_classifier_tells_apart_what_differs_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    tasks = [f"t{i}" for i in range(40)]
    of_task = rng.normal(size=(40, 4))
    # Both sides attempt the same tasks and differ in nothing: the twins must not teach the classifier to be wrong.
    alike = told_apart(of_task + rng.normal(0, 0.1, (40, 4)), of_task + rng.normal(0, 0.1, (40, 4)), tasks, tasks)
    assert alike.value == pytest.approx(0.5, abs=0.15)
    apart = told_apart(of_task, of_task + np.array([3.0, 0, 0, 0]), tasks, tasks)
    assert apart.value is not None
    assert apart.chance is not None
    assert apart.value > 0.9 > apart.chance
    assert told_apart(of_task[:3], of_task[:3], tasks[:3], tasks[:3]).value is None


def test_coverage_counts_what_lies_near_something_known() -> None:
    rng = np.random.default_rng(4)
    known, names = rng.normal(size=(100, 2)), [f"g{i // 4}" for i in range(100)]
    asked = np.concatenate([rng.normal(size=(50, 2)), rng.normal(50, 1, size=(50, 2))])
    found = coverage(known, names, asked, [f"q{i // 10}" for i in range(100)])
    assert found.value == pytest.approx(0.5, abs=0.06)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.4 < 0.6 < found.high, "trajectories are drawn anew, not states"
    assert coverage(known, names, asked[:0], []).value is None


def test_lengths_are_compared_by_their_distributions() -> None:
    assert lengths([1, 2, 3], [1, 2, 3]).value == 0
    assert lengths([1, 2, 3], [7, 8, 9]).value == 1
    assert lengths([], [1]).value is None


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Oracle and noisy policy on the same tasks, and the noisy one again."""
    lake = Lake(str(tmp_path_factory.mktemp("likeness")))
    world = World(functions=1, bugs_max=1, max_turns=10)
    noisy = Policy(kind="noisy", n_tasks=16, mistake_rate=0.5, recover_rate=0.3)
    for corpus, policy in (("o", Policy(kind="oracle", n_tasks=16)), ("n", noisy), ("m", noisy)):
        collect_pool(lake, Collect(corpus=corpus, seed=7, policies=(policy,)), world)
    refresh(lake)
    return lake


def test_policies_are_told_apart_and_a_policy_not_from_itself(played: Lake) -> None:
    o, n, m = (seen(played, chosen(played, f"corpus = '{c}'")) for c in "onm")
    found = likeness(o, n)
    assert found.shared_tasks == 16
    assert (found.a.n_trajectories, found.a.n_tasks) == (16, 16)
    runs = found.distances["actions, runs of 2"]
    assert runs.value is not None
    assert runs.chance is not None
    assert runs.value > runs.chance
    same = likeness(n, m)
    assert same.distances["actions, runs of 2"].value == pytest.approx(0)
    assert same.distances["length"].value == 0
    assert same.distances["told apart by what was said"].value == pytest.approx(0.5, abs=0.2)
    assert same.distances["error categories"].value is None, "nobody judged"


def test_categories_of_a_critic_that_does_not_name_every_one(played: Lake) -> None:
    ids = chosen(played, "corpus = 'n'")
    named, unnamed = ({"category": c, "evidence": "x", "recovery": None} for c in ("ignored_feedback", None))
    verdicts = []
    for step, detections in enumerate(([named], [unnamed], [named, unnamed])):
        payload = {"scope": "step", "label": "mistake", "detections": detections, "parse_status": "ok"}
        verdicts.append(Event("verdict", ids[0], "n", "critic", payload, step, "picky@1", discriminator="here"))
    EventLog(played).append(verdicts, "judged")
    found = likeness(seen(played, ids), seen(played, chosen(played, "corpus = 'o'")))
    assert found.distances["error categories"].value is None, "the other side has none"
    (judged,) = (s for s in seen(played, ids) if s.categories)
    assert judged.categories == {"ignored_feedback": 2}


@pytest.mark.parametrize("column", ["raw", "rendered"])
def test_every_answer_of_a_turn_is_in_the_state_after_it(lake: Lake, column: str) -> None:
    """Two answers a turn, told only as they came or as they were shown: the sides differ in the later one alone."""
    sides: tuple[list[str], list[str]] = ([], [])
    events = []
    for i in range(30):
        where = (f"t{i:02}", "c")
        sides[i % 2].append(where[0])
        events.append(Event("start", *where, "system", {"task_id": f"k{i // 2}"}))
        for step in range(4):
            events.append(Event("action", *where, "agent", {"text": "ls", "command": "ls"}, step))
            for position, text in enumerate(("the same", "alpha beta" if i % 2 else "gamma delta")):
                told = {"position": position, column: text, "exit_code": 0, "files_changed": [f"{step}.{position}"]}
                events.append(Event("observation", *where, "environment", told, step))
    EventLog(lake).append(events, "b")
    a, b = (seen(lake, ids) for ids in sides)
    assert a[0].states[:, -1] == pytest.approx(np.log1p([0, 2, 4, 6])), "files so far"
    apart = shift(a, b).told_apart["all"].value
    assert apart is not None
    assert apart > 0.9


def test_states_of_the_same_policy_cover_each_other(played: Lake) -> None:
    o, n, m = (seen(played, chosen(played, f"corpus = '{c}'")) for c in "onm")
    alike, unlike = shift(n, m), shift(o, n)
    assert alike.covered.value == 1
    assert unlike.covered.value is not None
    assert unlike.covered.value < 1
    assert set(alike.discrepancy) == {"all", *(f"student {b} of the turns before" for b in (BINS[0], BINS[2]))}
    assert (alike.n_trained, alike.n_evaluated) == (sum(len(s.types) for s in n),) * 2


def test_the_command_shows_both_and_refuses_what_is_not_there(played: Lake) -> None:
    ask = ["likeness", "corpus = 'o'", "corpus = 'n'", "--lake", played.uri]
    told = json.loads(CliRunner().invoke(build_app(), [*ask, "--json"]).stdout)
    assert told["likeness"]["shared_tasks"] == 16
    assert 0 <= told["states"]["covered"]["value"] <= 1
    assert "told apart by what was said" in CliRunner().invoke(build_app(), ask).stdout
    for wrong in ("corpus = 'x'", "colour = 'x'", "corpus ="):
        with pytest.raises(UsageError):
            chosen(played, wrong)
