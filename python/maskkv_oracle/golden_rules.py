# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the layer and head rules of policies: pyramid, squeeze, adakv, pools.

As in `golden_policy`: far from a rounding edge, or an exact tie. Claims of `adakv` are fifths, which
no double holds: its ties are marked, an implementation must see them all the same.
"""

import numpy as np

from maskkv_oracle import head_rules, layer_rules, shares

CLEAR = 1e-9


def _clear(claims, k, low, high):
    """Nothing that doubles do to the claims makes other whole pairs of them."""
    if all(x.denominator & (x.denominator - 1) == 0 for x in map(shares.F, claims)):
        return True
    edge = shares.slack(claims, k, low, high)
    return edge is None or edge > CLEAR * max(1, *k)


def _pyramid_case(name, layers, budget, candidates):
    return {
        "name": name, "layers": layers, "budget": budget, "candidates": candidates,
        "layer_budgets": layer_rules.layer_budgets(
            "pyramid", [0.0] * layers, budget, 0.4, candidates
        ),
    }  # fmt: skip


def _pyramid_cases(rng):
    cases = [
        _pyramid_case("one layer", 1, 7, 100),
        _pyramid_case("two layers", 2, 40, 100),
        _pyramid_case("steps of one", 20, 10, 100),
        _pyramid_case("steps of a half more: ties go to the lower layer", 5, 20, 100),
        _pyramid_case("budget one", 6, 1, 50),
        _pyramid_case("the top is cut off at the prompt", 4, 40, 50),
        _pyramid_case("budget equals prompt", 5, 30, 30),
        _pyramid_case("budget beyond prompt", 5, 300, 30),
        _pyramid_case("empty prompt", 5, 8, 0),
        _pyramid_case("32 layers of 256", 32, 256, 4000),
        _pyramid_case("28 layers of 16", 28, 16, 30000),
    ]
    while len(cases) < 60:
        layers, budget = int(rng.integers(1, 33)), int(rng.integers(1, 300))
        case = _pyramid_case("random", layers, budget, int(rng.integers(1, 700)))
        claims = layer_rules.pyramid_claims(layers, budget)
        if _clear(claims, case["layer_budgets"], 1, case["candidates"]):
            cases.append(case)
    return cases


def _squeeze_case(name, importance, budget, candidates):
    importance = [float(i) for i in importance]
    return {
        "name": name, "importance": importance, "budget": budget, "candidates": candidates,
        "layer_budgets": layer_rules.layer_budgets(
            "squeeze", importance, budget, 0.4, candidates
        ),
    }  # fmt: skip


def _clusters_clear(importance):
    """The second best partition is worse by more than rounding, or everything is exact."""
    similarity = [1.0 - i for i in importance]
    if all(float(s * 2**12).is_integer() for s in similarity):
        costs = [float(cost * 2**24) for cost, _ in layer_rules.partitions(similarity)]
        if all(c.is_integer() for c in costs):
            return True
    costs = sorted(float(cost) for cost, _ in layer_rules.partitions(similarity))
    return len(costs) == 1 or costs[1] - costs[0] > CLEAR


def _squeeze_cases(rng):
    cases = [
        _squeeze_case("one layer", [0.5], 7, 100),
        _squeeze_case("one value: uniform", [0.25] * 6, 10, 100),
        _squeeze_case("two values", [0.5, 0.25, 0.25, 0.5], 10, 100),
        _squeeze_case("three values", [0.5, 0.25, 0, 0, 0.25], 10, 100),
        _squeeze_case("ties: borders that come first", [1, 0.75, 0.5, 0.25], 10, 100),
        _squeeze_case("equal values stay together", [0.5, 0.125, 0.125, 0.125, 0, 1], 15, 100),
        _squeeze_case("the others share what it frees", [0.9, 0.1, 0.1, 0.1, 0.9, 0.5], 9, 1000),
        _squeeze_case("importances above one", [1.5, 1, 0.5, 0.25, 2], 10, 100),
        _squeeze_case("capped at the prompt", [0.5, 0, 0, 0, 0.25], 20, 22),
        _squeeze_case("budget one", [0.5, 0.25, 0, 0], 1, 100),
        _squeeze_case("budget beyond prompt", [0.5, 0.25, 0, 0], 30, 7),
        _squeeze_case("empty prompt", [0.5, 0.25, 0, 0], 30, 0),
    ]
    while len(cases) < 70:
        layers, budget = int(rng.integers(1, 33)), int(rng.integers(1, 300))
        importance = np.round(rng.gamma(0.6, 0.2, layers), 4 if rng.random() < 0.7 else 1).tolist()
        case = _squeeze_case("random", importance, budget, int(rng.integers(1, 700)))
        k, candidates = case["layer_budgets"], case["candidates"]
        claims = layer_rules.squeeze_claims(importance, budget)
        low, high = min(claims), max(claims)
        # Equal claims tie in doubles as well; the two kinds must be apart.
        two = len(set(claims)) == 1 or all(
            1 - (claims[t] - k[t]) + (claims[g] - k[g]) > CLEAR
            for t in range(layers) if k[t] < candidates for g in range(layers) if k[g] > 1
            if claims[t] != claims[g] and {claims[t], claims[g]} == {low, high}
        )  # fmt: skip
        if _clusters_clear(importance) and two:
            cases.append(case)
    return cases


def _scores_of(rng, heads, candidates, few):
    """Scores that f32 holds; `few`: many ties and zeros."""
    scores = rng.gamma(0.4, 1.0, (heads, candidates)) * rng.gamma(1.0, 2.0, (heads, 1))
    return np.round(scores * (2 if few else 4096)) / (2 if few else 4096)


def _kept_of(scores, head_budgets, forced):
    return [head_rules.keep(row, n, forced) for row, n in zip(scores, head_budgets)]


def _adakv_case(name, scores, k, forced):
    scores = [[float(s) for s in row] for row in scores]
    f = min(forced, k)
    budgets = head_rules.head_budgets("adakv", scores, None, k, 0.1, forced)
    claims = head_rules.adakv_claims(scores, k, f)
    return {
        "name": name, "scores": scores, "layer_budget": k, "window": forced,
        "tie": not _clear(claims, budgets, max(1, f), len(scores[0])),
        "head_budgets": budgets, "kept": _kept_of(scores, budgets, forced),
    }  # fmt: skip


def _adakv_cases(rng):
    two = [[9, 8, 7, 1, 0], [6, 1, 1, 1, 0]]
    cases = [
        _adakv_case("one head", [[3, 1, 2, 0]], 2, 0),
        _adakv_case("two heads", two, 2, 0),
        _adakv_case("two heads and a window", two, 3, 1),
        _adakv_case("k within the window", two, 2, 3),
        _adakv_case("k is the window", two, 3, 3),
        _adakv_case("everything", two, 5, 2),
        _adakv_case("one pair a head", [[9, 8], [7, 0], [6, 5]], 1, 0),
        _adakv_case("all scores equal: the lower heads", [[1] * 6] * 4, 2, 0),
        _adakv_case("no score at all", [[0] * 6] * 3, 2, 1),
        _adakv_case("ties of fifths", [[1] * n + [0] * (8 - n) for n in (2, 7, 6)], 5, 0),
        _adakv_case("capped at the prompt", [[9] * 6, [1] * 6, [0] * 6], 4, 0),
    ]
    while len(cases) < 70:
        heads, candidates = int(rng.integers(1, 9)), int(rng.integers(1, 40))
        k = int(rng.integers(1, candidates + 1))
        forced = int(rng.choice([0, rng.integers(0, candidates + 1)]))
        scores = _scores_of(rng, heads, candidates, rng.random() < 0.4)
        cases.append(_adakv_case("random", scores, k, forced))
    return cases


def _pool_case(name, scores, budget):
    """scores (layers, heads, candidates); B pairs a head and layer, at most all."""
    scores = [[[float(s) for s in row] for row in layer] for layer in scores]
    k = min(budget, len(scores[0][0]))
    count = len(scores) * len(scores[0]) * k
    return {
        "name": name, "scores": scores, "budget": budget,
        "kept": head_rules.pooled(scores, count, 0),
    }  # fmt: skip


def _pool_cases(rng):
    two = [[[4, 1, 0], [4, 3, 3]], [[9, 0, 0], [0, 0, 3]]]
    cases = [
        _pool_case("one pair a head", two, 1),
        _pool_case("two pairs a head", two, 2),
        _pool_case("one layer", two[:1], 1),
        _pool_case("everything", two, 3),
        _pool_case("beyond everything", two, 100),
        _pool_case("ties: lower layer, head, position", [[[1, 1, 1]] * 2] * 3, 1),
        _pool_case("no score at all", [[[0, 0, 0, 0]] * 2] * 2, 2),
        _pool_case("a layer that keeps nothing", [[[1, 1]] * 2, [[5, 6]] * 2], 1),
    ]
    while len(cases) < 40:
        layers, heads, candidates = (int(x) for x in rng.integers(1, (6, 5, 20)))
        few = bool(rng.random() < 0.5)
        scores = [_scores_of(rng, heads, candidates, few) for _ in range(layers)]
        cases.append(_pool_case("random", scores, int(rng.integers(1, candidates + 3))))
    return cases


def _head_pool_case(name, scores, k, forced):
    """One layer's pool beside a window of `forced` that every head keeps, at most k of it."""
    scores = [[float(s) for s in row] for row in scores]
    f = min(forced, k)
    return {
        "name": name, "scores": scores, "layer_budget": k, "window": forced,
        "kept": head_rules.pooled([scores], len(scores) * (k - f), f)[0],
    }  # fmt: skip


def _head_pool_cases(rng):
    two = [[9, 8, 7, 1, 0], [6, 1, 1, 1, 0]]
    cases = [
        _head_pool_case("a head that keeps nothing", two, 1, 0),
        _head_pool_case("a window in every head", two, 2, 1),
        _head_pool_case("k within the window", two, 2, 3),
        _head_pool_case("everything", two, 5, 2),
        _head_pool_case("ties: lower head, lower position", [[1] * 5] * 3, 2, 0),
        _head_pool_case("one head", [[3, 1, 2, 0]], 2, 0),
    ]
    while len(cases) < 40:
        heads, candidates = (int(x) for x in rng.integers(1, (7, 25)))
        k, forced = (int(x) for x in rng.integers((1, 0), candidates + 1))
        scores = _scores_of(rng, heads, candidates, bool(rng.random() < 0.4))
        cases.append(_head_pool_case("random", scores, k, forced if rng.random() < 0.6 else 0))
    return cases


def generate():
    rng = np.random.default_rng(22)
    return {
        "pyramid": _pyramid_cases(rng),
        "squeeze": _squeeze_cases(rng),
        "adakv": _adakv_cases(rng),
        "pool": _pool_cases(rng),
        "head_pool": _head_pool_cases(rng),
    }
