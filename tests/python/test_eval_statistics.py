# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests of accuracies against published and hand-computed values."""

import math

import pytest

from maskkv_eval import statistics


@pytest.mark.parametrize("correct,questions,low,high", [
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
    # By hand, z^2 = 3.8415: 3.8415 / 13.8415, and 10 / 13.8415.
    (0, 10, 0.0000, 0.2775),
    (10, 10, 0.7225, 1.0000),
    # 0.5 -+ 1.95996 * sqrt(0.025 + 0.0096036) / 1.38415
    (5, 10, 0.2366, 0.7634),
])
def test_intervals_equal_published_and_hand_computed_ones(correct, questions, low, high):
    assert statistics.wilson(correct, questions) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_the_share_and_mirror_each_other():
    for questions in (1, 7, 500):
        for correct in range(questions + 1):
            low, high = statistics.wilson(correct, questions)
            assert 0 <= low <= correct / questions <= high <= 1
            mirrored = statistics.wilson(questions - correct, questions)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_nothing_asked_says_nothing():
    assert statistics.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("first, second, wins, losses, p", [
    ([1, 1, 1, 0, 0], [0, 0, 0, 1, 0], 3, 1, 2 * (1 + 4) / 16),
    ([1] * 5, [0] * 5, 5, 0, 2 / 32),
    ([0] * 6 + [1], [1] * 6 + [1], 0, 6, 2 / 64),
    ([1, 0], [1, 0], 0, 0, 1.0),
    ([1, 0], [0, 1], 1, 1, 1.0),  # 2 * (1 + 2) / 4 is over 1
    ([], [], 0, 0, 1.0),
])
def test_mcnemar_by_hand(first, second, wins, losses, p):
    assert statistics.mcnemar(first, second) == (wins, losses, p)


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="expected equal lengths, found 1 and 2"):
        statistics.mcnemar([1], [1, 0])
    with pytest.raises(ValueError, match="expected equal lengths, found 1 and 2"):
        statistics.paired_difference([1], [1, 0])


def test_bootstrap_of_few_values_by_hand():
    assert statistics.bootstrap([0.25]) == (0.25, 0.25)
    assert statistics.bootstrap([0.5, 0.5, 0.5]) == (0.5, 0.5)
    # The mean of two draws from {0, 1} is 0 and 1 with probability 1/4 each.
    assert statistics.bootstrap([0, 1]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="expected at least one"):
        statistics.bootstrap([])


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    values = [0.0, 1.0] * 200
    low, high = statistics.bootstrap(values, seed=3)
    assert (low, high) == statistics.bootstrap(values, seed=3)
    half = statistics.Z95 * math.sqrt(0.25 / 400)
    # A 2.5 % quantile of 2,000 rounds has a deviation of 0.06 of the mean's, 0.0015 here; means are
    # multiples of 0.0025.
    assert low == pytest.approx(0.5 - half, abs=6 * 0.0015)
    assert high == pytest.approx(0.5 + half, abs=6 * 0.0015)


def test_paired_differences_by_hand():
    assert statistics.paired_difference([1, 0.5], [0.5, 0]) == (0.5, 0.5, 0.5)
    mean, low, high = statistics.paired_difference([1, 0], [0, 1])
    assert (mean, low, high) == (0.0, -1.0, 1.0)
