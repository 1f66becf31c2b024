# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the policy alone: random and adversarial inputs of equations (9) to (16).

Every case is either far from a rounding edge or an exact tie that every order of operations sees as
one (equal inputs), so an independent implementation must give equal integers. Drawn cases that are
neither are dropped.
"""

import numpy as np

from maskkv_oracle import budgets, golden_rules, golden_shares, selection, voting

CLEAR = 1e-9


def _layer_case(name, importance, budget, beta, prompt):
    importance = [float(i) for i in importance]
    return {
        "name": name,
        "importance": importance,
        "budget": int(budget),
        "beta": float(beta),
        "prompt_tokens": int(prompt),
        "layer_budgets": budgets.layer_budgets(importance, budget, beta, prompt),
    }


def _layer_cases(rng):
    ramp = [0.9, 0.1, 0.05, 0.06, 0.3, 0.8]
    cases = [
        _layer_case("one layer", [0.5], 7, 0.4, 100),
        _layer_case("two layers get B each", [0.9, 0.1], 7, 0.4, 100),
        _layer_case("two layers, short prompt", [0.9, 0.1], 7, 0.4, 3),
        _layer_case("all zero: equal shares", [0.0] * 6, 11, 0.4, 100),
        _layer_case("middle zero: it keeps the base", [0.5, 0, 0, 0, 0.25], 16, 0.4, 1000),
        _layer_case("boundary zero", [0, 0.25, 0.5, 0.25, 0], 16, 0.4, 1000),
        _layer_case("budget one: one each", ramp, 1, 0.4, 100),
        _layer_case("budget two, base below one is one", ramp, 2, 0.4, 100),
        _layer_case("beta zero", ramp, 10, 0.0, 100),
        _layer_case("beta one: B each", ramp, 10, 1.0, 100),
        _layer_case("empty prompt", ramp, 10, 0.4, 0),
        _layer_case("prompt of one", ramp, 10, 0.4, 1),
        _layer_case("budget equals prompt", ramp, 40, 0.4, 40),
        _layer_case("budget beyond prompt", ramp, 400, 0.4, 40),
        _layer_case("caps overflow to the others", ramp, 30, 0.4, 40),
        _layer_case("caps overflow, tied importance", [1, 0.5, 0.5, 0.5, 1], 30, 0.2, 32),
        _layer_case("equal importances of eight", [0.25] * 8, 10, 0.5, 100),
        _layer_case("three layers", [0.75, 0.125, 0.5], 9, 0.4, 100),
        _layer_case("huge importance in the middle", [1e-6, 1e6, 1e-6, 1e-6], 50, 0.4, 60),
        _layer_case("tiny importances", [3e-300, 1e-300, 2e-300, 7e-300], 50, 0.4, 600),
    ]
    while len(cases) < 140:
        layers = int(rng.integers(1, 33))
        importance = np.round(rng.gamma(0.5, 0.3, layers), 6).tolist()
        budget, prompt = int(rng.integers(1, 300)), int(rng.integers(1, 600))
        beta = float(np.round(rng.uniform(), 3))
        margin = budgets.layer_margin(importance, budget, beta, prompt)
        if margin is None or margin > CLEAR:
            cases.append(_layer_case("random", importance, budget, beta, prompt))
    return cases


def _head_case(name, preference, k_l, alpha, prompt):
    preference = [float(p) for p in preference]
    return {
        "name": name,
        "preference": preference,
        "layer_budget": int(k_l),
        "alpha": float(alpha),
        "prompt_tokens": int(prompt),
        "head_budgets": budgets.head_budgets(preference, k_l, alpha, prompt),
    }


def _head_cases(rng):
    cases = [
        _head_case("one head", [0.3], 7, 0.1, 100),
        _head_case("equal heads", [0.5] * 4, 7, 0.1, 100),
        _head_case("equal heads, five", [0.5] * 5, 3, 0.1, 100),
        _head_case("all zero: equal shares", [0.0] * 4, 7, 0.1, 100),
        _head_case("one pair a head", [1, 0, 0, 0], 1, 0.1, 100),
        _head_case("one head wants all", [1, 0, 0, 0], 10, 0.0, 1000),
        _head_case("one head wants all, capped", [1, 0, 0, 0], 10, 0.0, 12),
        _head_case("cap: everything kept", [0.9, 0.1], 12, 0.1, 12),
        _head_case("alpha one: equal", [0.9, 0.1, 0.3], 5, 1.0, 100),
        _head_case("empty layer", [0.9, 0.1], 0, 0.1, 0),
        _head_case("floor of one takes back", [0.5, 0.25, 0.001, 0.001], 2, 0.0, 100),
        _head_case("ties between two of three", [0.25, 0.5, 0.25], 5, 0.0, 100),
        _head_case("tiny preferences", [3e-300, 1e-300, 5e-300], 50, 0.1, 600),
        _head_case("two capped, rest shares", [0.5, 0.5, 0.002, 0.001], 20, 0.1, 30),
    ]
    while len(cases) < 160:
        heads = int(rng.integers(1, 33))
        preference = np.round(rng.beta(0.5, 0.8, heads), 6).tolist()
        prompt = int(rng.integers(1, 400))
        k_l = int(rng.integers(1, prompt + 1))
        alpha = float(np.round(rng.uniform(), 3))
        margin = budgets.head_margin(preference, k_l, alpha, prompt)
        if margin is None or margin > CLEAR:
            cases.append(_head_case("random", preference, k_l, alpha, prompt))
    return cases


def _selection_cases(rng):
    inf = [1.0, 2.0**127, 2.0**-149, 0.0, 2.0**127]
    inputs = [
        ("nothing", [], 0),
        ("none of three", [1.0, 2.0, 3.0], 0),
        ("all of three", [3.0, 2.0, 1.0], 3),
        ("all equal: the lower positions", [0.5] * 9, 4),
        ("all zero", [0.0] * 5, 2),
        ("negative zero ties with zero", [-0.0, 0.0, -0.0, 0.0], 2),
        ("ties at the border", [1.0, 3.0, 2.0, 2.0, 2.0, 5.0], 4),
        ("extremes", inf, 3),
        ("ascending", list(range(40)), 7),
        ("descending", list(range(40, 0, -1)), 7),
    ]
    for _ in range(30):
        n = int(rng.integers(1, 80))
        few = rng.integers(0, int(rng.integers(2, 200)), n) / 16.0  # many exact ties
        inputs.append(("random with ties", few.tolist(), int(rng.integers(0, n + 1))))
    return [
        {"name": name, "scores": [float(s) for s in scores], "k": k,
         "kept": selection.top_k(scores, k)}
        for name, scores, k in inputs
    ]  # fmt: skip


def _decision_cases(rng):
    """One layer from scores to kept positions. Scores are multiples of 2^-12: sums are exact."""
    cases = []
    while len(cases) < 40:
        heads, prompt = int(rng.integers(1, 9)), int(rng.integers(1, 50))
        masks = int(rng.integers(1, 20))
        raw = rng.gamma(0.3, 1.0, (heads, prompt + masks)) * rng.gamma(1.0, 2.0, (heads, 1))
        scores = np.round(raw * 4096) / 4096
        scores[:, -1] += 2.0**-12  # no head without any mass
        k_l = int(rng.integers(1, prompt + 1))
        alpha = float(rng.choice([0.0, 0.1, 0.4, 1.0]))
        vote = voting.vote(scores, prompt)
        preference = vote.preference.tolist()
        margin = budgets.head_margin(preference, k_l, alpha, prompt)
        if margin is not None and margin <= CLEAR:
            continue
        k = budgets.head_budgets(preference, k_l, alpha, prompt)
        kept = [selection.top_k(s[:prompt], n) for s, n in zip(scores, k)]
        cases.append({
            "scores": scores.tolist(),
            "prompt_tokens": prompt,
            "layer_budget": k_l,
            "alpha": alpha,
            "prompt_mass": vote.prompt_mass.tolist(),
            "mask_mass": vote.mask_mass.tolist(),
            "preference": preference,
            "head_budgets": k,
            "kept": kept,
            "kept_mass": [float(s[p].sum()) for s, p in zip(scores, kept)],
        })  # fmt: skip
    return cases


def generate():
    rng = np.random.default_rng(20)
    return {
        "format": 1,
        "layers": _layer_cases(rng),
        "heads": _head_cases(rng),
        "selection": _selection_cases(rng),
        "decisions": _decision_cases(rng),
        **golden_shares.generate(),
        **golden_rules.generate(),
    }
