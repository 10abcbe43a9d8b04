"""What masks lose when labels are flipped: closed forms, limits, and the random control."""

from __future__ import annotations

import numpy as np
import pytest

from stepwell.errors import UsageError
from stepwell.evaluation.sensitivity import flip_matrix, leaked_share, sensitivity

rng = np.random.default_rng(0)
LABELS = rng.choice(4, 6000, p=[0.6, 0.1, 0.24, 0.06])
GROUPS = np.sort(rng.integers(0, 300, 6000))
MISTAKE = 2


def test_the_closed_form_at_the_published_working_point() -> None:
    """pi = .24 and P = R = .737 give f = pi R (1-P) / (P (1-pi)) = .083, and 8.3% of trained steps harmful."""
    harmful, recall = 0.24, 0.737
    false_alarm = harmful * recall * (1 - 0.737) / (0.737 * (1 - harmful))
    assert false_alarm == pytest.approx(0.083, abs=5e-4)
    assert leaked_share(harmful, recall, false_alarm) == pytest.approx(0.083, abs=5e-4)
    assert leaked_share(harmful, 1, false_alarm) == 0
    assert leaked_share(harmful, 0, 0) == harmful
    assert leaked_share(1, 1, 0) == 0, "nothing is left to train on"


def test_rows_of_a_flip_matrix_are_distributions_and_towards_shapes_them() -> None:
    counts = np.array([[90.0, 3, 7], [0, 50, 0], [1, 1, 8]])
    plain, shaped = flip_matrix(3, 0.2), flip_matrix(3, 0.2, counts)
    for matrix in (plain, shaped):
        np.testing.assert_allclose(matrix.sum(1), 1)
        np.testing.assert_allclose(matrix.diagonal(), 0.8)
    assert shaped[0].tolist() == pytest.approx([0.8, 0.06, 0.14])
    assert shaped[1].tolist() == pytest.approx([0.1, 0.8, 0.1]), "a row without errors flips to any"
    assert counts[0, 0] == 90, "what was given is not changed"
    with pytest.raises(UsageError, match="allowed: 0 to 1"):
        flip_matrix(3, 1.5)


def test_without_flips_nothing_is_lost_and_random_masks_overlap_as_chance_has_it() -> None:
    flipped, random = sensitivity(LABELS, GROUPS, [MISTAKE], 4, epsilons=[0.0], repeats=4, draws=100)
    assert (flipped.iou.value, flipped.leaked.value, flipped.lost.value, flipped.loss_steps.value) == (1, 0, 0, 0)
    assert random.loss_steps.value == 0, "as many steps of every trajectory"
    share = (LABELS == MISTAKE).mean()
    assert random.leaked.value == pytest.approx(share, abs=0.03)
    assert random.iou.value == pytest.approx(share / (2 - share), abs=0.04)


def test_flips_lose_what_the_closed_form_says_and_recall_is_one_minus_epsilon() -> None:
    points = [p for p in sensitivity(LABELS, GROUPS, [MISTAKE], 4, repeats=20, draws=200) if p.arm == "flipped"]
    assert [p.epsilon for p in points] == [0, 0.1, 0.2, 0.3]
    overlaps = [p.iou.value or 0 for p in points]
    assert overlaps == sorted(overlaps, reverse=True)
    for p in points:
        assert p.recall.value == pytest.approx(1 - p.epsilon, abs=0.02)
        assert p.lost.value == pytest.approx(p.epsilon / 3, abs=0.01)
        assert p.leaked.value == pytest.approx(p.predicted, abs=0.01)
        identity = leaked_share((LABELS == MISTAKE).mean(), p.recall.value or 0, p.lost.value or 0)
        assert p.leaked.value == pytest.approx(identity, abs=2e-3)


def test_flips_that_never_reach_the_mask_only_leak() -> None:
    towards = np.zeros((4, 4))
    towards[:, 0] = 1
    towards[0, 1] = 1
    (point,) = (
        p
        for p in sensitivity(LABELS, GROUPS, [MISTAKE], 4, epsilons=[0.3], towards=towards, draws=50)
        if p.arm == "flipped"
    )
    assert point.lost.value == 0
    assert point.iou.value == pytest.approx(0.7, abs=0.02)
    assert (point.loss_steps.value or 0) > 0


def test_several_labels_may_be_masked_and_no_steps_at_all_is_no_error() -> None:
    flipped, _ = sensitivity(LABELS, GROUPS, [1, MISTAKE], 4, epsilons=[0.3], repeats=10, draws=50)
    assert flipped.recall.value == pytest.approx(1 - 0.3 * 2 / 3, abs=0.02), "a third of its flips stays in the mask"
    empty = np.empty(0, np.int64)
    assert sensitivity(empty, empty, [MISTAKE], 4, epsilons=[0.1])[0].leaked.value is None
