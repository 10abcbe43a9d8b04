"""Statistics of agreement against values counted by hand, and against what must hold for any ratings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu, rankdata

from schemas.kinds import LABELS
from stepwell.bootstrap import Figure, figures, ratio
from stepwell.critics.audit import agreement as ag
from stepwell.critics.audit import calibration as ca
from stepwell.critics.audit.members import curve, plurality
from stepwell.critics.audit.ratings import CLASSES

K = len(CLASSES)
N = len(LABELS)
codes = arrays(np.int64, st.integers(2, 40), elements=st.integers(0, K - 1))


def one(pair: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.asarray(pair[0]).ravel()[0])


def coded(values: list[list[int | None]], k: int) -> np.ndarray:
    """Ratings by unit -> how many raters gave each value, (units, k)."""
    return np.array([[sum(v == c for v in unit) for c in range(k)] for unit in values], np.float64)


def test_kappa_of_a_square_table_counted_by_hand() -> None:
    table = np.array([[20.0, 5, 0], [4, 10, 6], [1, 5, 9]])
    observed = 39 / 60
    expected = (25 * 25 + 20 * 20 + 15 * 15) / 60**2
    assert one(ag.kappa(table[None])) == pytest.approx((observed - expected) / (1 - expected))


def test_weighted_kappas_counted_by_hand() -> None:
    table = np.array([[20.0, 5, 0], [4, 10, 6], [1, 5, 9]])
    rows, columns = (25, 20, 15), (25, 20, 15)

    def by_hand(disagreement: dict[int, float]) -> float:
        seen = sum(disagreement[abs(i - j)] * table[i, j] for i in range(3) for j in range(3)) / 60
        chance = sum(disagreement[abs(i - j)] * rows[i] * columns[j] for i in range(3) for j in range(3)) / 3600
        return 1 - seen / chance

    assert one(ag.kappa(table[None], ag.linear_weights(3))) == pytest.approx(by_hand({0: 0, 1: 1 / 2, 2: 1}))
    assert one(ag.kappa(table[None], ag.quadratic_weights(3))) == pytest.approx(by_hand({0: 0, 1: 1 / 4, 2: 1}))
    assert ag.quadratic_weights(3).tolist() == [[1 - (i - j) ** 2 / 4 for j in range(3)] for i in range(3)]


def test_weights_mean_nothing_with_two_values() -> None:
    table = np.array([[7.0, 2], [3, 8]])[None]
    assert (
        one(ag.kappa(table))
        == one(ag.kappa(table, ag.linear_weights(2)))
        == one(ag.kappa(table, ag.quadratic_weights(2)))
    )


def test_nominal_alpha_of_three_raters_with_missing_ratings_counted_by_hand() -> None:
    """Units aa-, abb, b--, bb-, aaa: the third has one rating and cannot be paired.

    Coincidences: aa 2 + 3 = 5, bb 1 + 2 = 3, ab 1 in either direction; n_a = 6, n_b = 4; 1 - 9 * 1 / (6 * 4) = .625.
    """
    units = [[0, 0, None], [0, 1, 1], [1, None, None], [1, 1, None], [0, 0, 0]]
    o = ag.coincidences(coded(units, 2)).sum(0)
    assert o.tolist() == [[5, 1], [1, 3]]
    value, n = ag.alpha(o[None])
    assert value.tolist() == pytest.approx([0.625])
    assert n.tolist() == [10]


def test_ordinal_alpha_counted_by_hand() -> None:
    """Two raters, units (0,0) (0,1) (1,1) (1,2) (2,2) (0,2): n_0 = 4, n_1 = 4, n_2 = 4.

    The distance of neighbours is (4+4 - 4)^2 = 16, of the ends (12 - 4)^2 = 64. Observed: two pairs of neighbours and one
    of ends, both ways: 2 (16 + 16 + 64) = 192; by chance: 2 (16*16 + 16*16 + 16*64) = 3072.
    """
    o = ag.coincidences(coded([[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [0, 2]], 3)).sum(0)
    assert one(ag.alpha(o[None], ordinal=True)) == pytest.approx(1 - 11 * 192 / 3072)
    assert one(ag.alpha(o[None])) == pytest.approx(1 - 11 * 6 / 96)


def test_alpha_says_nothing_where_one_value_was_used() -> None:
    assert np.isnan(one(ag.alpha(ag.coincidences(coded([[0, 0], [0, 0]], 2)).sum(0)[None])))


@given(codes, st.randoms(use_true_random=False))
def test_agreement_with_itself_is_one_and_names_do_not_matter(said: np.ndarray, random: object) -> None:
    groups = np.zeros(len(said), np.int64)
    table = ag.confusion(said, said, groups, 1, K)
    for value in (ag.kappa(table), ag.alpha(table)):
        assert np.isnan(one(value)) or one(value) == pytest.approx(1)
    for width in (None, N):
        f1 = [one(ag.f1(table[:, :N, :width], i)) for i in range(N)]
        assert all(np.isnan(v) or v == 1 for v in f1)


@given(codes, st.data())
def test_order_of_units_and_of_classes_does_not_matter(said: np.ndarray, data: st.DataObject) -> None:
    true = data.draw(arrays(np.int64, len(said), elements=st.integers(0, K - 1)))
    groups = np.zeros(len(said), np.int64)
    place = np.array(data.draw(st.permutations(range(len(said)))))
    name = np.array(data.draw(st.permutations(range(K))))
    table = ag.confusion(true, said, groups, 1, K)
    assert (table == ag.confusion(true[place], said[place], groups, 1, K)).all()
    renamed = ag.confusion(name[true], name[said], groups, 1, K)
    np.testing.assert_allclose(ag.kappa(table)[0], ag.kappa(renamed)[0], atol=1e-12)
    np.testing.assert_allclose(ag.kappa(table)[0], ag.kappa(table.swapaxes(1, 2))[0], atol=1e-12)


@given(codes, st.data())
def test_strict_recall_and_f1_are_at_most_lenient_and_reverse_swaps_precision_and_recall(
    said: np.ndarray, data: st.DataObject
) -> None:
    true = data.draw(arrays(np.int64, len(said), elements=st.integers(0, K - 1)))
    sums = {"m": ag.confusion(true, said, np.zeros(len(said), np.int64), 1, K)}
    there = figures(sums, ag.label_statistics("m"))
    back = figures(sums, ag.label_statistics("m", reverse=True))
    for label in LABELS:
        for strict, lenient in (("recall", "recall_lenient"), ("f1", "f1_lenient")):
            low, high = there[f"{label}.{strict}"].value, there[f"{label}.{lenient}"].value
            assert low is None or high is None or low <= high + 1e-12
        assert there[f"{label}.precision"].value == back[f"{label}.recall_lenient"].value
        assert there[f"{label}.f1_lenient"].value == back[f"{label}.f1_lenient"].value


@settings(max_examples=40)
@given(st.data())
def test_alpha_of_two_complete_raters_is_scotts_pi_corrected_for_small_samples(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 30))
    a, b = (data.draw(arrays(np.int64, n, elements=st.integers(0, 2))) for _ in range(2))
    alpha = one(ag.alpha(ag.coincidences(coded(np.stack([a, b], 1).tolist(), 3)).sum(0)[None]))
    share = np.bincount(np.concatenate([a, b]), minlength=3) / (2 * n)
    observed, chance = (a == b).mean(), (share**2).sum()
    if chance < 1:
        pi = (observed - chance) / (1 - chance)
        assert alpha == pytest.approx(pi + (1 - pi) / (2 * n))


@settings(max_examples=40)
@given(st.data())
def test_auc_is_the_mann_whitney_statistic(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 25))
    score = data.draw(arrays(np.float64, n, elements=st.integers(0, 5).map(float)))
    positive = data.draw(arrays(np.bool_, n))
    found = figures({"x": np.zeros((n, 1))}, {"auc": ca.auc(score, positive, np.arange(n))}, draws=1)["auc"]
    if positive.all() or not positive.any():
        assert found.value is None
    else:
        u = mannwhitneyu(score[positive], score[~positive]).statistic
        assert found.value == pytest.approx(u / (positive.sum() * (~positive).sum()))


def test_auc_is_exact_in_every_draw() -> None:
    rng = np.random.default_rng(3)
    score, positive, groups = rng.integers(0, 4, 30).astype(float), rng.random(30) < 0.5, rng.integers(0, 6, 30)
    weights = rng.integers(0, 3, (5, 6)).astype(float)
    values, _ = ca.auc(score, positive, groups)({"weights": weights})
    for value, weight in zip(values, weights, strict=True):
        often = np.repeat(np.arange(30), weight[groups].astype(int))
        s, p = score[often], positive[often]
        ranks = rankdata(s)
        expected = (ranks[p].sum() - p.sum() * (p.sum() + 1) / 2) / (p.sum() * (~p).sum())
        assert value == pytest.approx(expected)


def test_calibration_counted_by_hand() -> None:
    stated = np.array([0.1, 0.1, 0.9, 0.9])
    right = np.array([0.0, 1.0, 1.0, 1.0])
    sums, statistics = ca.confidence(stated, right, np.arange(4), 4, bins=2)
    found = figures(sums, statistics, draws=10)
    assert found["ece"].value == pytest.approx((abs(0.2 - 1) + abs(1.8 - 2)) / 4)
    assert found["brier"].value == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert [(b.n, b.right) for b in ca.reliability(stated, right, bins=2)] == [(2, 0.5), (2, 1.0)]
    assert ca.reliability(np.empty(0), np.empty(0)) == []


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(0, 1)), st.integers(1, 12))
def test_bins_hold_every_unit_once_and_equal_confidences_together(stated: np.ndarray, bins: int) -> None:
    table = ca.reliability(stated, np.zeros(len(stated)), bins)
    assert sum(b.n for b in table) == len(stated)
    assert len(table) <= bins
    assert all(a.high < b.low for a, b in pairwise(table))


def test_the_bootstrap_of_a_mean_has_the_width_theory_gives() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, 400)
    sums = {"x": np.stack([x, np.ones(400)], 1)}
    found = figures(sums, {"mean": lambda s: ratio(s["x"][:, 0], s["x"][:, 1])}, draws=4000)["mean"]
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((x.mean() - 0.196, x.mean() + 0.196), abs=0.03)


def test_steps_of_one_trajectory_are_not_independent() -> None:
    """Ten trajectories of a hundred equal steps: the interval is that of ten observations, not of a thousand."""
    by_group = np.repeat([[100.0, 100.0], [0.0, 100.0]], 5, axis=0)
    by_step = np.repeat([[1.0, 1.0], [0.0, 1.0]], 500, axis=0)
    wide, narrow = (
        figures({"x": x}, {"share": lambda s: ratio(s["x"][:, 0], s["x"][:, 1])})["share"] for x in (by_group, by_step)
    )
    assert wide.value == narrow.value == 0.5
    assert (wide.high or 0) - (wide.low or 0) > 8 * ((narrow.high or 0) - (narrow.low or 0))


def test_one_group_gives_no_interval_and_none_gives_nothing() -> None:
    statistic = {"share": lambda s: ratio(s["x"][:, 0], s["x"][:, 1])}
    assert figures({"x": np.array([[1.0, 2.0]])}, statistic) == {"share": Figure(0.5, None, None, 2)}
    assert figures({"x": np.zeros((0, 2))}, statistic) == {"share": Figure(None, None, None, 0)}


def test_plurality_knows_ties_and_empty_ballots() -> None:
    votes = np.array([[0, 0, 1], [0, 1, -1], [-1, -1, -1], [2, -1, -1], [1, 1, 1]])
    assert plurality(votes, 3).tolist() == [0, -1, -1, 2, 1]


def test_the_curve_of_independent_voters_follows_condorcet() -> None:
    """Voters right with p = .7: a majority of three is right with p^3 + 3 p^2 (1-p) = .784, of five with .837."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 4000)
    votes = np.where(rng.random((4000, 5)) < 0.7, truth[:, None], 1 - truth[:, None])
    points = curve(votes, truth, np.arange(4000) // 10, 2, draws=200)
    assert [p.n for p in points] == [1, 2, 3, 4, 5]
    assert [p.n_subsets for p in points] == [5, 10, 10, 5, 1]
    for n, expected in ((1, 0.7), (3, 0.784), (5, 0.83692)):
        point = points[n - 1].accuracy
        assert (point.low or 1) - 0.005 <= expected <= (point.high or 0) + 0.005
        assert points[n - 1].undecided.value == 0
    assert points[1].undecided.value == pytest.approx(2 * 0.7 * 0.3, abs=0.02)
