# SPDX-License-Identifier: Apache-2.0
"""Layers by weight, heads with a base rate each, coverage: what a controller may ask for.

In rational numbers (fractions.Fraction), straight from the definitions: no rounding order to agree
on. `slack` tells how far a result is from a rounding edge, so that a comparison with doubles takes
clear cases only, or exact ties of numbers that doubles hold exactly.
"""

import fractions
import math

F = fractions.Fraction


def nearest(claims, low, high, total):
    """The integers in [low, high] with the sum `total` that are nearest to the claims.

    Whole pairs are handed out, or taken back, one at a time from the clamped floors: to the largest
    unmet claim, from the smallest; ties give to the lower and take from the higher index.
    """
    if not len(claims) * low <= total <= len(claims) * high:
        raise ValueError(f"total: found {total}, expected what {low} to {high} each allow")
    k = [min(max(math.floor(x), low), high) for x in claims]
    units = range(len(k))
    while sum(k) < total:
        k[max((i for i in units if k[i] < high), key=lambda i: (claims[i] - k[i], -i))] += 1
    while sum(k) > total:
        k[min((i for i in units if k[i] > low), key=lambda i: (claims[i] - k[i], -i))] -= 1
    return k


def slack(claims, k, low, high):
    """Two claims may part by so much before another k is nearest; None: no change can do it."""
    units = range(len(k))
    pairs = [
        1 - (claims[t] - k[t]) + (claims[g] - k[g])
        for t in units if k[t] < high for g in units if k[g] > low and g != t
    ]  # fmt: skip
    return float(min(pairs)) if pairs else None


def layer_claims(weights, budget, beta):
    """Every layer the base of equation (9), the rest of L * B in proportion to its weight.

    The base is max(1, floor(beta * B)), beta * B being one double product.
    """
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
        raise ValueError("weights: expected finite numbers >= 0, not all zero")
    base = max(1, math.floor(beta * budget))
    rest, total = len(weights) * (budget - base), sum(map(F, weights))
    return [base + rest * F(w) / total for w in weights]


def layer_budgets(weights, budget, beta, prompt_tokens):
    """k_l of every layer, min(B, n_p) * L in all, between one and n_p each."""
    claims = layer_claims(weights, budget, beta)
    if budget >= prompt_tokens:
        return [prompt_tokens] * len(weights)
    return nearest(claims, 1, prompt_tokens, budget * len(weights))


def head_claims(preference, layer_budget, rates):
    """Head h has a_h * k_l for sure; what that leaves of N_h * k_l goes in proportion to P_h.

    No preference at all: k_l each.
    """
    if not all(0 <= a <= 1 for a in rates) or len(rates) != len(preference):
        raise ValueError("rates: expected a number from 0 to 1 for every head")
    total = sum(map(F, preference))
    if total == 0:
        return [F(layer_budget)] * len(preference)
    sure = [F(a) * layer_budget for a in rates]
    left = len(preference) * layer_budget - sum(sure)
    return [s + left * F(p) / total for s, p in zip(sure, preference)]


def head_budgets(preference, layer_budget, rates, prompt_tokens):
    """k_lh of every head, N_h * k_l in all, between one and n_p each."""
    if layer_budget == 0:
        return [0] * len(preference)
    claims = head_claims(preference, layer_budget, rates)
    return nearest(claims, 1, prompt_tokens, layer_budget * len(preference))


def covering(scores, prompt_tokens, coverage, max_budget):
    """Kept positions of each head: the fewest pairs of a layer that hold a share of its prompt mass.

    scores (heads, keys), the prompt's first. Each head keeps its best pair; then pairs of all heads
    by descending score (ties: lower head, lower position) until the sum of those kept reaches
    coverage * the sum of all, or max_budget (0: no bound) pairs a head on average are kept. Sums and
    product are doubles, each rounded once.
    """
    pairs = [(float(s), h, j) for h, row in enumerate(scores)
             for j, s in enumerate(row[:prompt_tokens])]  # fmt: skip
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    target = coverage * math.fsum(s for s, _, _ in pairs)
    best = {}
    for pair in pairs:
        best.setdefault(pair[1], pair)
    kept = list(best.values())
    most = len(scores) * max_budget if max_budget else len(pairs)
    for pair in pairs:
        if len(kept) >= most or math.fsum(s for s, _, _ in kept) >= target:
            break
        if pair not in kept:
            kept.append(pair)
    return [sorted(j for _, head, j in kept if head == h) for h in range(len(scores))]
