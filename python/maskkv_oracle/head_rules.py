# SPDX-License-Identifier: Apache-2.0
"""How a layer's share is split over its heads, and which pairs a head then keeps.

`forced` is how many of the last candidates every head keeps without a vote (under `window`), else 0.
"""

import fractions

from maskkv_oracle import budgets, selection, shares

F = fractions.Fraction
NAMES = ("uniform", "preference", "adakv", "pool")


def best_pairs(rows, count):
    """The `count` pairs of highest score of all rows: ties to the lower row, then position.

    -> (positions of each row, ascending; smallest score taken or None, largest left or None)
    """
    pairs = sorted((-float(s), r, j) for r, row in enumerate(rows) for j, s in enumerate(row))
    taken, left = pairs[:count], pairs[count:]
    kept = [sorted(j for _, row, j in taken if row == r) for r in range(len(rows))]
    return kept, (-taken[-1][0] if taken else None), (-left[0][0] if left else None)


def adakv_claims(scores, k, forced):
    """f + 0.2 (k - f) + 0.8 n_h, n_h of the N_h (k - f) best pairs outside the window being h's."""
    heads, candidates = len(scores), len(scores[0])
    outside = [row[: candidates - forced] for row in scores]
    kept, _, _ = best_pairs(outside, heads * (k - forced))
    return [forced + F(2, 10) * (k - forced) + F(8, 10) * len(own) for own in kept]


def head_budgets(rule, scores, preference, k, alpha, forced):
    """k_lh of every head of a layer of k pairs a head. scores (heads, n_p): candidates only.

    Not for `pool`, where the pairs themselves are drawn: `pooled`.
    """
    heads, candidates = len(scores), len(scores[0])
    if rule == "uniform" or k == 0:
        return [k] * heads
    if rule == "preference":
        return budgets.head_budgets(preference, k, alpha, candidates)
    f = min(forced, k)
    claims = adakv_claims(scores, k, f)
    return shares.nearest(claims, max(1, f), candidates, heads * k)


def keep(scores, k, forced):
    """One head: the last min(forced, k) candidates, then those of highest score among the others."""
    f = min(forced, k)
    others = len(scores) - f
    return selection.top_k(scores[:others], k - f) + list(range(others, len(scores)))


def pooled(layers, count, forced):
    """`count` pairs of the given layers' heads, from one ranking, beside the forced of every head.

    layers: scores (heads, n_p) of each. -> kept positions [layer][head]
    """
    heads, candidates = len(layers[0]), len(layers[0][0])
    outside = [row[: candidates - forced] for rows in layers for row in rows]
    kept, _, _ = best_pairs(outside, count)
    window = list(range(candidates - forced, candidates))
    return [[own + window for own in kept[i : i + heads]] for i in range(0, len(kept), heads)]
