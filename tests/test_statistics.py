"""Statistics of comparisons: against scipy, enumeration and closed forms, and by seeded simulation of what they promise."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepwell.bootstrap import figures, ratio
from stepwell.errors import UsageError
from stepwell.evaluation.grim import grim
from stepwell.evaluation.intervals import benjamini_hochberg, holm, mcnemar, minimum_detectable, sign_flip, wilson
from stepwell.evaluation.seeds import components, crossed, over_seeds, pass_all, pass_at


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
    assert sign_flip(np.zeros(5)) == 1.0
    assert benjamini_hochberg([]) == []


def test_mcnemar_is_the_binomial_tail() -> None:
    for only_a, only_b in ((3, 9), (0, 5), (7, 7)):
        n, least = only_a + only_b, min(only_a, only_b)
        assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * stats.binom.cdf(least, n, 0.5)))


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=11))
def test_the_sign_flip_test_of_single_attempts_is_mcnemar(differences: list[float]) -> None:
    """With few enough tasks it enumerates every sign pattern, so both are the same number."""
    d = np.array(differences)
    assert sign_flip(d) == pytest.approx(mcnemar(int((d < 0).sum()), int((d > 0).sum())))


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_corrections_only_raise_p_and_keep_its_order(p: list[float]) -> None:
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert all(low <= high + 1e-12 <= 1 + 1e-9 for low, high in zip(p, adjusted, strict=True))
        assert [x for _, x in sorted(zip(p, adjusted, strict=True))] == sorted(adjusted)
    assert all(q <= h + 1e-12 for q, h in zip(benjamini_hochberg(p), holm(p), strict=True))


def test_passes_are_the_mean_over_all_subsets() -> None:
    for attempts in range(1, 6):
        for successes in range(attempts + 1):
            outcomes = [i < successes for i in range(attempts)]
            for k in range(1, attempts + 1):
                subsets = list(combinations(outcomes, k))
                c = np.array([successes])
                assert pass_at(c, attempts, k)[0] == pytest.approx(mean(any(s) for s in subsets))
                assert pass_all(c, attempts, k)[0] == pytest.approx(mean(all(s) for s in subsets))


def world(
    rng: np.random.Generator, tasks: int, seeds: int, task: float, seed: float, residual: float
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Outcomes (tasks, seeds) with known variances."""
    shape = (tasks, seeds)
    return np.asarray(
        rng.normal(0, task**0.5, (tasks, 1))
        + rng.normal(0, seed**0.5, (1, seeds))
        + rng.normal(0, residual**0.5, shape)
    )


def test_variance_components_are_found_again() -> None:
    rng = np.random.default_rng(1)
    found = [components(world(rng, 80, 5, 0.16, 0.01, 0.05)) for _ in range(200)]
    means = [mean(getattr(f, name) for f in found if f) for name in ("task", "seed", "residual")]
    assert means == pytest.approx([0.16, 0.01, 0.05], rel=0.12)
    assert components(np.ones((10, 1))) is None, "one seed tells nothing of seeds"
    same = components(np.tile(np.array([[0.0], [1.0]]), (1, 3)))
    assert same is not None
    assert (same.seed, same.residual) == (0.0, 0.0)


def test_the_interval_over_seeds_is_students() -> None:
    outcomes = np.random.default_rng(2).random((30, 4))
    means = outcomes.mean(axis=0)
    got = over_seeds(outcomes)
    low, high = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    assert (got.value, got.low, got.high, got.n) == (
        pytest.approx(means.mean()),
        pytest.approx(low),
        pytest.approx(high),
        4,
    )
    assert over_seeds(outcomes[:, :1]).low is None


def test_without_seed_variance_it_is_the_paired_t_test() -> None:
    """Seeds whose means agree add nothing: what is left is the t test of task means."""
    rng = np.random.default_rng(3)
    a, b = (np.tile(rng.random((40, 1)), (1, 3)) for _ in range(2))
    found = crossed(a, b)
    assert found is not None
    t = stats.ttest_rel(b.mean(axis=1), a.mean(axis=1))
    assert found.p_value == pytest.approx(float(t.pvalue))
    interval = t.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.freedom == pytest.approx(39)
    assert crossed(a[:, :1], b[:, :1]) is None


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [((1.0, 1.0), (1.0, 1.0), False), ((0.0, 0.0), (1.0, 1.0), True), ((0.1, 0.2), (0.4, 0.5), True)],
)
@pytest.mark.parametrize("tasks", [2, 3, 6])
def test_where_nothing_varies_the_tasks_alone_speak(
    a: tuple[float, ...], b: tuple[float, ...], differ: bool, tasks: int
) -> None:
    """The exact sign test, also where shares differ by the same up to rounding (.3 is not .4 - .1); no interval."""
    rows = np.array([a, a[::-1]] * tasks)[:tasks], np.array([b, b[::-1]] * tasks)[:tasks]
    found = crossed(*(np.tile(r.mean(axis=1, keepdims=True), (1, 2)) for r in rows))
    assert found is not None
    assert (found.low, found.high, found.error) == (None, None, 0)
    assert found.p_value == pytest.approx(stats.binomtest(tasks, tasks, 0.5).pvalue if differ else 1)
    assert over_seeds(rows[0].mean(axis=1, keepdims=True).repeat(3, axis=1)).low is None


def binary(rng: np.random.Generator, hard: np.ndarray, seeds: int, wobble: float) -> np.ndarray:  # type: ignore[type-arg]
    """Yes-or-no outcomes (tasks, seeds) where every seed is a policy a bit better or worse than its recipe."""
    chance = np.clip(hard[:, None] + rng.normal(0, wobble, (1, seeds)), 0.02, 0.98)
    return np.asarray(rng.random((len(hard), seeds)) < chance, np.float64)


@pytest.mark.parametrize(("seeds", "wobble"), [(2, 0.08), (4, 0.08), (3, 0.0)])
def test_seeds_are_what_a_test_over_tasks_alone_mistakes_for_a_gain(seeds: int, wobble: float) -> None:
    """Two recipes that are the same, whose seeds differ: the crossed test keeps its level, McNemar of single runs does not."""
    rng = np.random.default_rng(4)
    wrong_crossed, wrong_single = 0, 0
    for _ in range(600):
        hard = rng.beta(1, 1, 150)
        a, b = (binary(rng, hard, seeds, wobble) for _ in range(2))
        found = crossed(a, b)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high), "interval and test say the same"
        wrong_crossed += found.p_value < 0.05
        only_a, only_b = (int(((x - y)[:, 0] > 0).sum()) for x, y in ((a, b), (b, a)))
        wrong_single += mcnemar(only_a, only_b) < 0.05
    assert wrong_crossed / 600 < 0.07
    assert (wrong_single / 600 > 0.2) == (wobble > 0), "the reason single runs claim nothing"


def test_paired_tests_keep_their_level_over_tasks() -> None:
    rng = np.random.default_rng(5)
    rejected = {"mcnemar": 0, "flip": 0}
    for _ in range(400):
        hard = rng.beta(1, 1, 60)
        one = [binary(rng, hard, 1, 0.0)[:, 0] for _ in range(2)]
        rejected["mcnemar"] += mcnemar(int((one[0] > one[1]).sum()), int((one[1] > one[0]).sum())) < 0.05
        several = [binary(rng, hard, 3, 0.0).mean(axis=1) for _ in range(2)]
        rejected["flip"] += sign_flip(several[1] - several[0], draws=199) < 0.05
    assert rejected["mcnemar"] / 400 <= 0.06, "exact, so at most the level"
    assert 0.02 < rejected["flip"] / 400 < 0.08


def test_the_bootstrap_over_tasks_covers_a_paired_difference() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for i in range(300):
        hard = rng.beta(1, 1, 100)
        a = (rng.random(100) < hard).astype(float)
        b = (rng.random(100) < np.clip(hard + 0.1, 0, 1)).astype(float)
        truth = 0.1 - 0.1**2 / 2  # clipped where hard > .9
        sums = {"d": b - a, "n": np.ones(100)}
        f = figures(sums, {"d": lambda s: ratio(s["d"], s["n"])}, draws=300, seed=i)["d"]
        assert f.low is not None
        assert f.high is not None
        covered += f.low <= truth <= f.high
    assert 0.91 <= covered / 300 <= 0.98


def test_a_difference_of_the_stated_size_shows_four_times_in_five() -> None:
    """Power of McNemar at the smallest detectable difference; the exact test is a little short of the formula's."""
    least = minimum_detectable(0.2, 500)
    assert least is not None
    better, worse = (0.2 + least) / 2, (0.2 - least) / 2
    rng = np.random.default_rng(7)
    draws = rng.multinomial(500, [better, worse, 1 - better - worse], 600)
    shown = mean(mcnemar(int(w), int(b)) < 0.05 for b, w, _ in draws)
    assert 0.72 < shown < 0.85


@pytest.mark.parametrize(
    ("reported", "counts", "runs"),
    [
        ("28.4", [142], None),
        ("33.0", [165], None),
        ("28.5", [], 2),
        ("30.9", [], 2),
        ("32.2", [161], None),
        ("25", [125], None),
    ],
)
def test_a_percentage_must_be_a_count(reported: str, counts: list[int], runs: int | None) -> None:
    found = grim(reported, 500)
    if reported == "25":
        assert found.counts == [123, 124, 125, 126, 127], "no decimals: everything that rounds to it"
    else:
        assert found.counts == counts
    assert found.runs == runs
    assert found.possible == (runs is None)


def test_what_grim_says() -> None:
    assert grim("28.5%", 500).line() == (
        "28.5% is no count out of 500 (28.4% or 28.6% would be); it can be the mean of 2 runs, or n is another."
    )
    assert grim("28.4", 500).line() == "28.4% of 500 can be 142 resolved."
    for wrong in ("101", "-1", "many", "1/2", "1e1", "nan"):
        with pytest.raises(UsageError, match="percentage from 0 to 100"):
            grim(wrong, 500)


@given(st.integers(1, 700).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.integers(0, 3))
def test_every_count_passes_as_it_is_printed(of: tuple[int, int], decimals: int) -> None:
    n, k = of
    assert k in grim(f"{100 * k / n:.{decimals}f}", n).counts
