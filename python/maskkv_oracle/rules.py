# SPDX-License-Identifier: Apache-2.0
"""Decoding rules: how sure a prediction is, and which of a block's masks a step commits.

One row of raw logits gives a choice (`choose`); the scores of a block's masks, by ascending position,
give the indices that are committed (`commit`). Everything in float64; ties go to the lower id and the
lower index.

Sources: LLaDA (arXiv 2502.09992) low_confidence, random; Dream (arXiv 2508.15487) origin,
maskgit_plus, topk_margin, entropy; Fast-dLLM (arXiv 2505.22618) threshold, factor; dInfer
(arXiv 2510.08666) hierarchical.
"""

import math

import numpy as np

from maskkv_oracle import sampling

SCHEDULED = ("low_confidence", "random", "origin", "maskgit_plus", "topk_margin", "entropy")
PARALLEL = ("threshold", "factor", "hierarchical", "prefix")
RULES = (*SCHEDULED, *PARALLEL)
DREAM = ("maskgit_plus", "topk_margin", "entropy")
POSITION_NOISE = 2  # the stream of Philox that decides positions


def keep_top_p(values, top_p):
    """Ids that stay: by descending probability while those before do not exceed top_p together."""
    p = _softmax(values)
    order = sorted(np.flatnonzero(values > -np.inf), key=lambda i: (-values[i], i))
    kept, before = [], 0.0
    for i in order:
        if before > top_p:
            break
        kept.append(int(i))
        before += p[i]
    return kept


def keep_top_k(values, top_k):
    """Ids that stay: all that reach the k-th largest value."""
    finite = np.sort(values[values > -np.inf])[::-1]
    least = finite[min(top_k, len(finite)) - 1]
    return [int(i) for i in np.flatnonzero(values >= least)]


def _softmax(values):
    weights = np.exp(values - values.max())  # exp(-inf) is 0
    return weights / weights.sum()


def _only(values, kept):
    left = np.full_like(values, -np.inf)
    left[kept] = values[kept]
    return left


def choose(raw, rule, forbidden=(), temperature=0.0, top_p=1.0, top_k=0, source=None, noise=None):
    """-> (token, confidence, score). raw: (vocabulary); noise: Gumbel, (vocabulary)."""
    allowed = np.array(raw, dtype=np.float64)
    allowed[list(forbidden)] = -np.inf
    scale = temperature if temperature > 0 else 1.0
    filtered = allowed
    if top_p < 1:
        filtered = _only(filtered, keep_top_p(filtered / scale, top_p))
    if top_k > 0:
        filtered = _only(filtered, keep_top_k(filtered, top_k))
    wanted = filtered if temperature == 0 else filtered + temperature * noise
    token = int(np.argmax(wanted))
    confidence = _softmax(allowed)[token]
    after = source == "filtered" or (source is None and rule in DREAM)
    p = _softmax(filtered / scale) if after else _softmax(allowed)
    if rule == "topk_margin":
        best = np.sort(p)[::-1]
        score = best[0] - best[1] if np.count_nonzero(p) > 1 else best[0]
    elif rule == "entropy":
        score = sum(x * math.log(x) for x in p if x > 0)
    else:
        score = p[token]
    return token, float(confidence), float(score)


def timestep_share(eps, steps, step):
    """1 - s / t between two of steps + 1 points from 1 to eps; the last step takes all."""
    if step + 1 == steps:
        return 1.0
    points = np.linspace(1.0, eps, steps + 1)
    return float(1 - points[step + 1] / points[step])


def _uniform(seed, position, step):
    bits = sampling.philox((position, step, 0, POSITION_NOISE), (seed & 0xFFFFFFFF, seed >> 32))[0]
    return float(sampling.uniform_from_bits([bits])[0])


def _best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def commit(rule, scores, positions, context, **params):
    """Indices that are committed, ascending.

    context: block_masks, block_steps, block_step, step, seed, first_position.
    """
    n = len(scores)
    if rule in ("low_confidence", "random"):
        masks, steps, step = (context[k] for k in ("block_masks", "block_steps", "block_step"))
        return _best(scores, masks // steps + (step < masks % steps))
    if rule in ("origin", *DREAM):
        share = timestep_share(params["eps"], context["block_steps"], context["block_step"])
        noise = [
            _uniform(context["seed"], context["first_position"] + p, context["step"])
            for p in positions
        ]
        if rule == "origin":
            return [i for i in range(n) if noise[i] < share]
        if params["alg_temp"] > 0:
            scores = [
                s / params["alg_temp"] - math.log(-math.log(u)) for s, u in zip(scores, noise)
            ]
        return _best(scores, math.floor(n * share))
    best = _best(scores, 1)
    if rule == "threshold":
        return sorted({*best, *(i for i in range(n) if scores[i] >= params["threshold"])})
    if rule == "factor":
        order = sorted(range(n), key=lambda i: (-scores[i], i))
        taken = order[:1]
        for rank, i in enumerate(order[1:], start=2):
            if scores[i] < 1 - params["factor"] / (rank + 1):
                break
            taken.append(i)
        return sorted(taken)
    if rule == "hierarchical":
        taken = {*best, *(i for i in range(n) if scores[i] >= params["threshold"])}
        runs = np.cumsum([0, *(b != a + 1 for a, b in zip(positions, positions[1:]))])
        for run in set(runs):
            members = [i for i in range(n) if runs[i] == run]
            first = min(members, key=lambda i: (-scores[i], i))
            if scores[first] >= params["low_threshold"]:
                taken.add(first)
        return sorted(taken)
    taken = [0]
    while len(taken) < n and scores[len(taken)] >= params["threshold"]:
        taken.append(len(taken))
    return taken
