"""The leak corpus: large and varied enough to say something, and the critic's figures on it, which only a review changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.critics import taxonomy
from tests.bench.leak_corpus import BEHAVIOURS, LOOK_ALIKES
from tests.bench.leak_recall import cases, rates


def test_the_corpus_has_every_category_in_many_forms() -> None:
    names = {c.id for c in taxonomy.load("leaks").categories}
    assert set(BEHAVIOURS) == set(LOOK_ALIKES) == names
    assert min(len(forms) for forms in BEHAVIOURS.values()) >= 10
    assert min(len(forms) for forms in LOOK_ALIKES.values()) >= 3
    for forms in (*BEHAVIOURS.values(), *LOOK_ALIKES.values()):
        assert len({tuple(form) for form in forms}) == len(forms)


def test_recall_and_precision_are_as_they_were(golden: Callable[[str, Any], None]) -> None:
    golden("leak_recall", rates(list(cases())))


def test_clean_trajectories_and_look_alikes_are_clean() -> None:
    assert [(c.name, c.found()) for c in cases() if c.category is None and c.found()] == []


def test_where_a_behaviour_is_put_does_not_decide_whether_it_is_found() -> None:
    caught = [[c.caught() for c in cases(seed) if c.category] for seed in range(4)]
    total = [sum(run) for run in caught]
    assert max(total) - min(total) <= 2, "three clean trajectories differ little in what they hide"
