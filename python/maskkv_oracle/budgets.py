# SPDX-License-Identifier: Apache-2.0
"""Budgets of layers and heads: equations (9) to (13) and (15), with their open points settled.

All inputs are integers and IEEE doubles; where rounding could matter the docstrings fix the order
of operations, so another implementation can agree exactly. Sums over layers or heads are exactly
rounded (math.fsum); a plain loop differs by an ulp at most, which matters in ties alone.

Margins tell how much an input may change before a budget does (None: no change can do it), so that
a comparison knows which differences rounding excuses.
"""

import math


def boundary_layers(layers):
    """The boundary group of equation (11): first and last layer."""
    return sorted({0, layers - 1})


def layer_budgets(importance, budget, beta, prompt_tokens):
    """k_l for every layer: pairs kept per head, so N_h * k_l pairs in the layer.

    budget: B >= 1, an integer; k_p = B * L. beta in [0, 1]. importance: I(l) >= 0, finite.

    How the equations are read:
    * (9)   k_base = floor(beta * k_p / L) = floor(beta * B), one double product; at least 1:
            every head keeps at least one pair (15) and a layer of no pairs could not give it.
    * (10)  k_imp = L * (B - k_base).
    * (11)  share = I_B / (I_B + I_M), k_grpB = k_imp * share; (12) k_grpM = k_imp - k_grpB. Real
            numbers; only (13) rounds.
    * (13)  k_l = k_base + floor(k_grp / |group|).
    * L <= 2: every layer is a boundary layer and gets B. All importances zero: B each.
    * Cap: no layer gets more than n_p. What floors and caps left over goes out one unit at a time
      to the layers in rounds: by descending importance (all layers, whatever their group; ties to
      the lower index), passing over those at their cap, round after round.
    * So the sum is min(B, n_p) * L exactly. n_p = 0: all zero.
    """
    layers = len(importance)
    _check_layers(importance, budget, beta, prompt_tokens)
    total = min(budget, prompt_tokens) * layers
    k = [min(b, prompt_tokens) for b in _layer_floors(importance, budget, beta)]
    order = sorted(range(layers), key=lambda l: (-importance[l], l))
    while sum(k) < total:
        for l in order:
            if sum(k) < total and k[l] < prompt_tokens:
                k[l] += 1
    return k


def _check_layers(importance, budget, beta, prompt_tokens):
    if budget < 1 or int(budget) != budget:
        raise ValueError(f"budget: found {budget}, expected an integer >= 1")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta: found {beta}, expected a number from 0 to 1")
    if not importance or not all(math.isfinite(i) and i >= 0 for i in importance):
        raise ValueError("importance: expected one finite number >= 0 for every layer")
    if prompt_tokens < 0:
        raise ValueError(f"prompt_tokens: found {prompt_tokens}, expected >= 0")


def _group_sums(importance):
    boundary = boundary_layers(len(importance))
    i_boundary = math.fsum(importance[l] for l in boundary)
    i_middle = math.fsum(i for l, i in enumerate(importance) if l not in boundary)
    return i_boundary, i_middle


def _layer_floors(importance, budget, beta, sums=None):
    """(9) to (13), before caps and the remainder."""
    layers = len(importance)
    i_boundary, i_middle = sums or _group_sums(importance)
    if layers <= 2 or i_boundary + i_middle == 0:
        return [budget] * layers
    boundary = boundary_layers(layers)
    k_base = max(1, math.floor(beta * budget))
    k_imp = layers * (budget - k_base)
    k_boundary = k_imp * (i_boundary / (i_boundary + i_middle))
    k_middle = k_imp - k_boundary
    of_boundary = k_base + math.floor(k_boundary / len(boundary))
    of_middle = k_base + math.floor(k_middle / (layers - len(boundary)))
    return [of_boundary if l in boundary else of_middle for l in range(layers)]


def layer_margin(importance, budget, beta, prompt_tokens):
    """Largest e (to a relative 1e-3) such that moving every I(l) by at most e changes no budget."""
    layers = len(importance)
    if layers <= 2 or budget >= prompt_tokens:
        return None
    if sum(importance) == 0:
        return 0.0
    floors = _layer_floors(importance, budget, beta)
    left = budget * layers - sum(min(f, prompt_tokens) for f in floors)
    ranked = sorted(importance, reverse=True)
    gaps = [a - b for a, b in zip(ranked, ranked[1:])]
    if max(floors) > prompt_tokens:
        order_gap = min(gaps)  # rounds skip capped layers: ask that the whole order stands
    else:
        order_gap = gaps[left % layers - 1] if left % layers else math.inf
    i_boundary, i_middle = _group_sums(importance)
    n_boundary, n_middle = 2, layers - 2

    def stands(e):
        if 2 * e >= order_gap:
            return False
        low = (max(0.0, i_boundary - n_boundary * e), i_middle + n_middle * e)
        high = (i_boundary + n_boundary * e, max(0.0, i_middle - n_middle * e))
        return all(_layer_floors(importance, budget, beta, s) == floors for s in (low, high))

    low, high = 0.0, 4.0
    if stands(high):
        return None
    while high - low > 1e-3 * high and high > 1e-18:
        middle = (low + high) / 2
        low, high = (middle, high) if stands(middle) else (low, middle)
    return low


def head_claims(preference, layer_budget, alpha):
    """Equation (15) without its floor: x_h = alpha k_l + ((1 - alpha) N_h k_l) (P_h / sum P).

    In doubles, in this order. All preferences zero: k_l each.
    """
    heads, total = len(preference), math.fsum(preference)
    if total == 0:
        return [float(layer_budget)] * heads
    varying = (1 - alpha) * (heads * layer_budget)
    return [alpha * layer_budget + varying * (p / total) for p in preference]


def head_budgets(preference, layer_budget, alpha, prompt_tokens):
    """k_lh for every KV head of a layer; the sum is N_h * k_l exactly.

    layer_budget: k_l, at most n_p. alpha in [0, 1]. preference: P_h >= 0, finite.

    Equation (15) takes floors; the open points (remainder by largest fraction, ties to the lower
    index; overflow past n_p stays in the layer; every head keeps at least one pair) are read as one
    rule: start from k_h = floor(x_h) clamped to [1, n_p]; while pairs are left, the head with the
    largest claim x_h - k_h that is below n_p gets one (ties: lower index); while there are too
    many, the head with the smallest claim that has more than one gives one back (ties: higher
    index). That is the vector of integers in [1, n_p] with the right sum that is nearest to x, so
    the order of the steps does not matter. Claims are compared exactly, as (floor(x_h) - k_h,
    fraction of x_h), without rounding.
    """
    heads = len(preference)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: found {alpha}, expected a number from 0 to 1")
    if not preference or not all(math.isfinite(p) and p >= 0 for p in preference):
        raise ValueError("preference: expected one finite number >= 0 for every head")
    if not 0 <= layer_budget <= prompt_tokens:
        raise ValueError(f"layer budget: found {layer_budget}, expected 0 to {prompt_tokens}")
    if layer_budget == 0:
        return [0] * heads
    x = head_claims(preference, layer_budget, alpha)
    k = [min(max(math.floor(v), 1), prompt_tokens) for v in x]
    left = heads * layer_budget - sum(k)

    def claim(h):
        return (math.floor(x[h]) - k[h], x[h] - math.floor(x[h]))

    while left > 0:
        takers = [h for h in range(heads) if k[h] < prompt_tokens]
        k[max(takers, key=lambda h: (claim(h), -h))] += 1
        left -= 1
    while left < 0:
        givers = [h for h in range(heads) if k[h] > 1]
        k[min(givers, key=lambda h: (claim(h), -h))] -= 1
        left += 1
    return k


def head_margin(preference, layer_budget, alpha, prompt_tokens):
    """An e such that moving every P_h by at most e changes no head budget (first order in e).

    k is nearest to x as long as no head that may take has a claim more than 1 above that of a head
    that may give; the slack of that condition, divided by how fast two claims can part.
    """
    heads = len(preference)
    k = head_budgets(preference, layer_budget, alpha, prompt_tokens)
    x = head_claims(preference, layer_budget, alpha)
    takers = [h for h in range(heads) if k[h] < prompt_tokens]
    givers = [h for h in range(heads) if k[h] > 1]
    total = math.fsum(preference)
    slacks = [1 - (x[t] - k[t]) + (x[g] - k[g]) for t in takers for g in givers if t != g]
    if heads == 1 or not slacks or alpha == 1:
        return None
    if total == 0:
        return 0.0
    varying = (1 - alpha) * heads * layer_budget
    speed = max(varying * (1 + heads * p / total) / total for p in preference)
    return max(0.0, min(slacks)) / (2 * speed)
