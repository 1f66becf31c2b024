# SPDX-License-Identifier: Apache-2.0
"""How the budget is split over the layers: pairs a head of each layer.

Pyramid and squeeze in rational numbers: the decimal constants of their definitions are exact, and
so are ties.
"""

import fractions
import itertools

from maskkv_oracle import budgets, shares

F = fractions.Fraction
NAMES = ("uniform", "offline", "online", "pyramid", "squeeze", "pool")
MOST_CLUSTERS = 3


def pyramid_claims(layers, budget):
    """x_l = max - l (max - min) / (L - 1), min = B / 20, max = 2 B - min; one layer: B."""
    if layers == 1:
        return [F(budget)]
    low = F(budget, 20)
    high = 2 * budget - low
    return [high - l * (high - low) / (layers - 1) for l in range(layers)]


def partitions(similarity):
    """Every partition of the distinct values, ascending, into min(3, distinct) runs.

    -> [(summed squared distance to the means, borders)]: borders are indices into the distinct
    values at which the second and third cluster begin. Equal values count as often as they occur.
    """
    values = sorted(set(similarity))
    times = [similarity.count(v) for v in values]
    clusters = min(MOST_CLUSTERS, len(values))
    # Sums of n, n v and n v^2 before each value: sum n (v - mean)^2 = sum n v^2 - (sum n v)^2 / sum n,
    # exactly, in rational numbers.
    sums = [
        [F(0), *itertools.accumulate(n * F(v) ** power for v, n in zip(values, times))]
        for power in range(3)
    ]

    def spread(begin, end):
        count, total, squares = (s[end] - s[begin] for s in sums)
        return squares - total**2 / count

    result = []
    for borders in itertools.combinations(range(1, len(values)), clusters - 1):
        runs = itertools.pairwise((0, *borders, len(values)))
        result.append((sum(spread(begin, end) for begin, end in runs), borders))
    return result


def most_similar(similarity):
    """Layers of the cluster of highest similarity."""
    _, borders = min(partitions(similarity))  # ties: the borders that come first
    begin = sorted(set(similarity))[borders[-1] if borders else 0]
    return [l for l, c in enumerate(similarity) if c >= begin]


def squeeze_claims(importance, budget):
    """0.4 B for each layer of the most similar cluster, what that frees shared by the others."""
    layers = len(importance)
    group = most_similar([1.0 - i for i in importance])
    g = len(group)
    if g == layers:
        return [F(budget)] * layers
    others = budget + F(6, 10) * budget * g / (layers - g)
    return [F(4, 10) * budget if l in group else others for l in range(layers)]


def whole(claims, budget, candidates):
    """Claims -> whole pairs a head: between one and n_p, L * min(B, n_p) in all."""
    if candidates == 0:
        return [0] * len(claims)
    total = len(claims) * min(budget, candidates)
    return shares.nearest(claims, 1, candidates, total)


def layer_budgets(rule, importance, budget, beta, candidates):
    """k_l for every layer. importance: the profile's, or under `online` this prompt's own."""
    if rule == "uniform":
        return [min(budget, candidates)] * len(importance)
    if rule in ("offline", "online"):
        return budgets.layer_budgets(importance, budget, beta, candidates)
    return whole(claims(rule, importance, budget), budget, candidates)


def claims(rule, importance, budget):
    """Of `pyramid` or `squeeze`."""
    if rule == "pyramid":
        return pyramid_claims(len(importance), budget)
    return squeeze_claims(importance, budget)
