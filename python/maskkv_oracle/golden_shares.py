# SPDX-License-Identifier: Apache-2.0
"""Golden cases of layers by weight, of base rates of heads, of coverage (see `shares`).

As in `golden_policy`: every case is far from a rounding edge, or a tie of numbers that are exact in
doubles; drawn cases that are neither are dropped.
"""

import numpy as np

from maskkv_oracle import shares

CLEAR = 1e-9


def _weight_case(name, weights, budget, beta, prompt):
    weights = [float(w) for w in weights]
    return {
        "name": name,
        "weights": weights,
        "budget": int(budget),
        "beta": float(beta),
        "prompt_tokens": int(prompt),
        "layer_budgets": shares.layer_budgets(weights, budget, beta, prompt),
    }


def _weight_cases(rng):
    ramp = [4.0, 1.0, 0.5, 0.5, 2.0]  # sum 8
    cases = [
        _weight_case("one layer", [3], 7, 0.4, 100),
        _weight_case("equal weights: B each", [0.1] * 7, 11, 0.4, 100),
        _weight_case("by hand", ramp, 10, 0.4, 1000),
        _weight_case("ties go to the lower layer", [1, 1, 1, 1, 4], 8, 0.0, 100),
        _weight_case("all on one layer: the others keep the base", [0, 0, 8, 0], 10, 0.5, 1000),
        _weight_case("all on one layer, capped", [0, 0, 8, 0], 10, 0.5, 12),
        _weight_case("beta one: B each", ramp, 10, 1.0, 100),
        _weight_case("budget one: one each", ramp, 1, 0.0, 100),
        _weight_case("empty prompt", ramp, 10, 0.4, 0),
        _weight_case("budget equals prompt", ramp, 40, 0.4, 40),
        _weight_case("budget beyond prompt", ramp, 400, 0.4, 40),
        _weight_case("caps overflow to the others", ramp, 30, 0.25, 40),
        _weight_case("tiny weights", [3e-300, 1e-300, 2e-300], 50, 0.4, 600),
    ]
    while len(cases) < 120:
        layers = int(rng.integers(1, 33))
        weights = np.round(rng.gamma(0.5, 1.0, layers), 6).tolist()
        budget, prompt = int(rng.integers(1, 300)), int(rng.integers(1, 600))
        beta = float(np.round(rng.uniform(), 3))
        if not any(weights):
            continue
        case = _weight_case("random", weights, budget, beta, prompt)
        claims = shares.layer_claims(weights, budget, beta)
        edge = shares.slack(claims, case["layer_budgets"], 1, prompt)
        if budget >= prompt or edge is None or edge > CLEAR * budget * layers:
            cases.append(case)
    return cases


def _rate_case(name, preference, k_l, rates, prompt):
    preference = [float(p) for p in preference]
    return {
        "name": name,
        "preference": preference,
        "layer_budget": int(k_l),
        "rates": [float(a) for a in rates],
        "prompt_tokens": int(prompt),
        "head_budgets": shares.head_budgets(preference, k_l, rates, prompt),
    }


def _rate_cases(rng):
    eighths = [0.5, 0.25, 0.125, 0.125]
    cases = [
        _rate_case("one head", [0.3], 7, [0.2], 100),
        _rate_case("equal rates", eighths, 10, [0.5] * 4, 100),
        _rate_case("a head that reads little is held up", eighths, 16, [0, 0, 0, 1], 100),
        _rate_case("all rates one: equal", eighths, 5, [1] * 4, 100),
        _rate_case("no preference: equal", [0] * 4, 5, [0, 0.5, 1, 0.25], 100),
        _rate_case("ties go to the lower head", [0.25, 0.25, 0.5], 3, [0.25, 0.25, 0], 100),
        _rate_case("cap: everything kept", [0.9, 0.1], 12, [0.1, 0.7], 12),
        _rate_case("overflow stays in the layer", [1, 0, 0, 0], 10, [0, 0.25, 0, 0.5], 12),
        _rate_case("one pair a head", [1, 0, 0], 1, [0, 0, 0], 100),
        _rate_case("empty layer", [0.9, 0.1], 0, [0.1, 0.2], 0),
    ]
    while len(cases) < 120:
        heads = int(rng.integers(1, 33))
        preference = np.round(rng.beta(0.5, 0.8, heads), 6).tolist()
        prompt = int(rng.integers(1, 400))
        k_l = int(rng.integers(1, prompt + 1))
        rates = np.round(rng.uniform(0, 1, heads), 3).tolist()
        if rng.uniform() < 0.2:
            rates = [rates[0]] * heads
        case = _rate_case("random", preference, k_l, rates, prompt)
        claims = shares.head_claims(preference, k_l, rates)
        edge = shares.slack(claims, case["head_budgets"], 1, prompt)
        if edge is None or edge > CLEAR * k_l * heads:
            cases.append(case)
    return cases


def _coverage_case(name, scores, prompt, coverage, max_budget):
    scores = np.asarray(scores, dtype=np.float32)
    kept = shares.covering(scores.tolist(), prompt, coverage, max_budget)
    return {
        "name": name,
        "scores": [[float(s) for s in row] for row in scores],
        "prompt_tokens": int(prompt),
        "coverage": float(coverage),
        "max_budget": int(max_budget),
        "kept": kept,
    }


def _coverage_cases(rng):
    two = [[4, 1, 1, 2, 9], [0.5, 0.25, 4, 0.25, 9]]  # 8 and 5 on four prompt keys
    cases = [
        _coverage_case("half of the mass", two, 4, 0.5, 0),
        _coverage_case("exactly reached is enough", two, 4, 8 / 13, 0),
        _coverage_case("one more than exactly", two, 4, np.nextafter(8 / 13, 1), 0),
        _coverage_case("all of the mass", two, 4, 1.0, 0),
        _coverage_case("a bound", two, 4, 1.0, 2),
        _coverage_case("a bound of one is the best pair of each head", two, 4, 1.0, 1),
        _coverage_case("a bound beyond the prompt", two, 4, 1.0, 1000),
        _coverage_case("zeros are not needed", [[2, 0, 0], [0, 0, 0]], 3, 1.0, 0),
        _coverage_case("no mass at all: a pair a head", [[0, 0, 7], [0, 0, 7]], 2, 0.9, 0),
        _coverage_case("empty prompt", [[3, 1], [2, 2]], 0, 0.9, 0),
        _coverage_case("ties: lower head, lower position", [[1] * 5, [1] * 5], 4, 0.6, 0),
    ]
    while len(cases) < 60:
        heads, prompt = int(rng.integers(1, 7)), int(rng.integers(1, 40))
        scores = rng.gamma(0.3, 1.0, (heads, prompt + 5)) * rng.gamma(1.0, 2.0, (heads, 1))
        if rng.uniform() < 0.4:
            scores = np.round(scores * 2) / 2  # many exact ties and zeros
        coverage = float(np.round(rng.uniform(0.01, 1), 3))
        most = int(rng.choice([0, 0, rng.integers(1, prompt + 1)]))
        cases.append(_coverage_case("random", scores, prompt, coverage, most))
    return cases


def generate():
    rng = np.random.default_rng(21)
    return {
        "weights": _weight_cases(rng),
        "rates": _rate_cases(rng),
        "coverage": _coverage_cases(rng),
    }
