# SPDX-License-Identifier: Apache-2.0
"""Layers by weight, base rates of heads, coverage: examples by hand, and what must always hold."""

import itertools
import math

import numpy as np
import pytest

from maskkv_oracle import budgets, shares

SEED = 2025


def test_layers_by_weight_by_hand():
    # B 10, L 4, beta 0.4: a base of 4 each, 24 by weight: 12, 6, 3, 3.
    assert shares.layer_budgets([4, 2, 1, 1], 10, 0.4, 100) == [16, 10, 7, 7]
    # beta 0: a base of 1 each, 35 by weight: 4.375 four times, 17.5; two left: the half, then the
    # lowest of equals.
    assert shares.layer_budgets([1, 1, 1, 1, 4], 8, 0.0, 100) == [6, 5, 5, 5, 19]
    # 25 is more than there are: the 13 over go to the others, lower layers first.
    assert shares.layer_budgets([0, 0, 8, 0], 10, 0.5, 12) == [10, 9, 12, 9]


def test_heads_with_rates_by_hand():
    # The last head has its 16 for sure; 48 go by preference: 24, 12, 6, 6.
    assert shares.head_budgets([0.5, 0.25, 0.125, 0.125], 16, [0, 0, 0, 1], 100) == [24, 12, 6, 22]
    assert shares.head_budgets([0.9, 0.1], 5, [1, 1], 100) == [5, 5]
    assert shares.head_budgets([0, 0], 5, [0.3, 0.9], 100) == [5, 5]


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2], [math.nan, 1], [math.inf, 1]])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        shares.layer_budgets(weights, 5, 0.4, 10)


@pytest.mark.parametrize("rates", [[0.5], [0.5, 1.1], [-0.1, 0.5], [math.nan, 0.5]])
def test_rates_that_mean_nothing_are_refused(rates):
    with pytest.raises(ValueError, match="rates"):
        shares.head_budgets([0.5, 0.5], 5, rates, 10)


def test_equal_weights_are_uniform_and_equal_rates_are_equation_15():
    rng = np.random.default_rng(SEED)
    for _ in range(200):
        n, prompt = int(rng.integers(1, 12)), int(rng.integers(1, 60))
        budget = int(rng.integers(1, prompt + 1))
        rate = float(rng.integers(0, 9)) / 8
        assert shares.layer_budgets([0.37] * n, budget, rate, prompt) == [budget] * n
        preference = (rng.integers(0, 64, n) / 64).tolist()  # exact sums
        claims = shares.head_claims(preference, budget, [rate] * n)
        assert [float(x) for x in claims] == pytest.approx(
            budgets.head_claims(preference, budget, rate), rel=1e-12
        )


def test_nearest_is_nearest_with_the_exact_total():
    rng = np.random.default_rng(SEED + 1)
    for _ in range(150):
        units, high = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        low = int(rng.integers(0, high + 1))
        total = int(rng.integers(units * low, units * high + 1))
        claims = rng.uniform(0, 8, units).tolist()
        found = shares.nearest(claims, low, high, total)
        every = itertools.product(range(low, high + 1), repeat=units)
        best = min(
            (sum((k - x) ** 2 for k, x in zip(each, claims)), each)
            for each in every if sum(each) == total
        )  # fmt: skip
        assert tuple(found) == best[1]
    with pytest.raises(ValueError, match="total"):
        shares.nearest([1.0, 2.0], 0, 3, 7)


def test_coverage_by_hand():
    scores = [[4, 1, 1, 2, 9], [0.5, 0.25, 4, 0.25, 9]]  # 8 and 5 on four prompt keys
    assert shares.covering(scores, 4, 8 / 13, 0) == [[0], [2]]
    assert shares.covering(scores, 4, 0.7, 0) == [[0, 3], [2]]
    assert shares.covering(scores, 4, 0.8, 0) == [[0, 1, 3], [2]]
    assert shares.covering(scores, 4, 1.0, 2) == [[0, 1, 3], [2]]
    assert shares.covering([[0, 0], [0, 0]], 2, 0.9, 0) == [[0], [0]]
    assert shares.covering(scores, 0, 0.9, 0) == [[], []]


def test_no_smaller_set_with_a_pair_a_head_covers_as_much():
    rng = np.random.default_rng(SEED + 2)
    for _ in range(150):
        heads, prompt = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        scores = (rng.integers(0, 9, (heads, prompt)) / 8).tolist()
        coverage = float(rng.uniform(0.05, 1))
        kept = shares.covering(scores, prompt, coverage, 0)
        cells = list(itertools.product(range(heads), range(prompt)))
        target = coverage * math.fsum(scores[h][j] for h, j in cells)
        fewest = min(
            len(chosen)
            for count in range(heads, len(cells) + 1)
            for chosen in itertools.combinations(cells, count)
            if {h for h, _ in chosen} == set(range(heads))
            and math.fsum(scores[h][j] for h, j in chosen) >= target
        )
        assert sum(map(len, kept)) == fewest
        assert math.fsum(scores[h][j] for h, row in enumerate(kept) for j in row) >= target
