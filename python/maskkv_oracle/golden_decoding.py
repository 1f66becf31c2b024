# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the decoding rules: choices from rows of logits, commits from scores."""

import numpy as np

from maskkv_oracle import rules, sampling

VOCABULARY = 13
CLEAR = 1e-4  # what f32 noise and f64 sums of f32 logits cannot turn over


def _row_case(rng):
    # Eighths: f32 holds them, and ties happen.
    logits = np.round(rng.normal(0, 2, VOCABULARY) * 8) / 8
    if rng.random() < 0.3:
        logits[rng.integers(0, VOCABULARY, 3)] = -np.inf
    forbidden = sorted({int(i) for i in rng.integers(0, VOCABULARY + 3, rng.integers(0, 4))})
    case = {
        "rule": str(rng.choice(rules.RULES)),
        "source": [None, "raw", "filtered"][rng.integers(0, 3)],
        "forbidden": forbidden,
        "temperature": float(rng.choice([0, 0.5, 1.5])),
        "top_p": float(rng.choice([1, 0.9, 0.5, 0.05])),
        "top_k": int(rng.choice([0, 1, 3, 40])),
        "seed": int(rng.integers(0, 2**40)),
        "step": int(rng.integers(0, 100)),
        "position": int(rng.integers(0, 5000)),
        "logits": [None if v == -np.inf else float(v) for v in logits],
    }
    return case, logits


def _clear(case, logits, noise):
    """No decision of the case hangs on rounding."""
    inside = [i for i in case["forbidden"] if i < VOCABULARY]
    allowed = logits.copy()
    allowed[inside] = -np.inf
    if not np.isfinite(allowed).any():
        return False
    scale = case["temperature"] or 1.0
    p = np.sort(rules._softmax(allowed / scale))[::-1]
    if case["top_p"] < 1 and np.abs(np.cumsum(p) - case["top_p"]).min() < CLEAR:
        return False
    if case["temperature"] == 0:
        return True  # equal logits are equal in f32 too
    noisy = np.sort((allowed + case["temperature"] * noise)[np.isfinite(allowed)])
    return len(noisy) < 2 or np.diff(noisy).min() > CLEAR


def _rows(rng):
    cases = []
    while len(cases) < 160:
        case, logits = _row_case(rng)
        noise = sampling.gumbel(case["seed"], case["position"], case["step"], VOCABULARY)
        noise = noise.astype(np.float64)
        if not _clear(case, logits, noise):
            continue
        token, confidence, score = rules.choose(
            logits, case["rule"], [i for i in case["forbidden"] if i < VOCABULARY],
            case["temperature"], case["top_p"], case["top_k"], case["source"], noise,
        )  # fmt: skip
        cases.append(case | {"token": token, "confidence": confidence, "score": score})
    return cases


def _commits(rng):
    cases = []
    for number in range(200):
        rule = rules.RULES[number % len(rules.RULES)]
        n = int(rng.integers(1, 13))
        positions = sorted(int(p) for p in rng.choice(24, n, replace=False))
        scores = [float(s) for s in np.round(rng.random(n) * 16) / 16]  # ties, thresholds met exactly
        if rule == "entropy":
            scores = [-4 * s for s in scores]
        steps = int(rng.integers(1, 9))
        context = {
            "block_masks": int(n + rng.integers(0, 4)),
            "block_steps": steps,
            "block_step": int(rng.integers(0, steps)),
            "step": int(rng.integers(0, 200)),
            "seed": int(rng.integers(0, 2**40)),
            "first_position": int(rng.integers(0, 4000)),
        }
        if rule in ("low_confidence", "random"):
            context["block_masks"] = n  # a first step: never more than there are
            context["block_step"] = 0
        params = {
            "threshold": float(rng.choice([0.5, 0.75, 0.875, 1.0])),
            "low_threshold": float(rng.choice([0.25, 0.5])),
            "factor": float(rng.choice([0.5, 1.0, 2.0])),
            "eps": float(rng.choice([1e-3, 0.05, 0.3])),
            "alg_temp": float(rng.choice([0.0, 0.5])),
        }
        chosen = rules.commit(rule, scores, positions, context, **params)
        cases.append({
            "rule": rule, **params, **context, "positions": positions, "scores": scores,
            "committed": [int(i) for i in chosen],
        })  # fmt: skip
    return cases


def generate():
    rng = np.random.default_rng(20260101)
    return {"format": 1, "rows": _rows(rng), "commits": _commits(rng)}
