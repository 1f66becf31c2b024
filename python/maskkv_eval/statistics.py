# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests for accuracies: pure functions of counts."""

import math
import random
import statistics

Z95 = statistics.NormalDist().inv_cdf(0.975)


def wilson(right, asked, z=Z95):
    """The Wilson score interval of a proportion; (0, 1) when nothing was asked."""
    if asked == 0:
        return 0.0, 1.0
    p, scale = right / asked, 1 + z * z / asked
    middle = (p + z * z / (2 * asked)) / scale
    half = z * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked)) / scale
    # At 0 and at 1 the bound is exact, but for rounding.
    return (0.0 if right == 0 else middle - half), (1.0 if right == asked else middle + half)


def mcnemar(first, second):
    """McNemar's exact test of two paired lists of outcomes.

    -> (only first right, only second right, two-sided p): under "equally good" each discordant
    pair falls either way like a fair coin.
    """
    if len(first) != len(second):
        raise ValueError(f"paired outcomes: expected equal lengths, found {len(first)} and "
                         f"{len(second)}")
    wins = sum(bool(a) and not b for a, b in zip(first, second))
    losses = sum(bool(b) and not a for a, b in zip(first, second))
    n, k = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    return wins, losses, min(1.0, 2 * tail / 2**n)


def bootstrap(values, rounds=2000, seed=0):
    """A percentile interval (95 %) of the mean of graded scores."""
    if not values:
        raise ValueError("values: expected at least one, found none")
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(rounds))
    return means[int(0.025 * rounds)], means[min(rounds - 1, int(0.975 * rounds))]


def paired_difference(first, second, rounds=2000, seed=0):
    """(mean, low, high) of first - second, a pair a question; the interval as bootstrap's."""
    if len(first) != len(second):
        raise ValueError(f"paired scores: expected equal lengths, found {len(first)} and "
                         f"{len(second)}")
    gaps = [a - b for a, b in zip(first, second)]
    return statistics.fmean(gaps), *bootstrap(gaps, rounds, seed)
