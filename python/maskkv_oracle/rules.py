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
RULES = (*SCHEDULED, *PARALLEL)  # functions of a step alone; slowfast.py remembers a block
DREAM = ("maskgit_plus", "topk_margin", "entropy")
RANDOM_CONFIDENCE, POSITION_NOISE = 1, 2  # streams of Philox: sampling.py


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


def filtered(allowed, scale, top_p, top_k):
    """The row with what top-p, then top-k leave of it; -inf elsewhere. scale: the softmax's."""
    if top_p < 1:
        allowed = _only(allowed, keep_top_p(allowed / scale, top_p))
    if top_k > 0:
        allowed = _only(allowed, keep_top_k(allowed, top_k))
    return allowed


def filter_gap(allowed, scale, top_p, top_k):
    """How far logits may come nearer to each other before other ids are left; inf: whatever they do.

    An id comes in for another as their logits meet. Logits that move by d each move the probability
    p of a set by p (1 - p) 2 d / scale, at most d / (2 scale), so a sum of probabilities that is e
    from top_p is 4 scale e away in what two logits move against each other.
    """
    gap = np.inf
    if top_p < 1:
        best = np.sort(allowed[allowed > -np.inf])[::-1]
        sums = np.cumsum(_softmax(best / scale))
        kept = len(keep_top_p(allowed / scale, top_p))
        near = [abs(x - top_p) for x in sums[max(kept - 2, 0) : kept]]
        gap = min([4 * scale * x for x in near] + list(best[kept - 1 : kept] - best[kept : kept + 1]))
        allowed = _only(allowed, keep_top_p(allowed / scale, top_p))
    if top_k > 0:
        best = np.sort(allowed[allowed > -np.inf])[::-1]
        if top_k < len(best):
            gap = min(gap, best[top_k - 1] - best[top_k])
    return float(gap)


def score_of(raw, token, rule, forbidden=(), temperature=0.0, top_p=1.0, top_k=0):
    """The score of a token that was chosen, after temperature, top-p and top-k."""
    values = np.array(raw, dtype=np.float64)
    values[list(forbidden)] = -np.inf
    scale = temperature if temperature > 0 else 1.0
    return _score(rule, _softmax(filtered(values, scale, top_p, top_k) / scale), token)


def _score(rule, p, token):
    if rule == "topk_margin":
        best = np.sort(p)[::-1]
        return best[0] - best[1]
    if rule == "entropy":
        return sum(x * math.log(x) for x in p if x > 0)
    return p[token]


def choose(raw, rule, forbidden=(), temperature=0.0, top_p=1.0, top_k=0, source=None, noise=None):
    """-> (token, confidence, score). raw: (vocabulary); noise: Gumbel, (vocabulary)."""
    allowed = np.array(raw, dtype=np.float64)
    allowed[list(forbidden)] = -np.inf
    scale = temperature if temperature > 0 else 1.0
    left = filtered(allowed, scale, top_p, top_k)
    wanted = left if temperature == 0 else left + temperature * noise
    token = int(np.argmax(wanted))
    confidence = _softmax(allowed)[token]
    after = source == "filtered" or (source is None and rule in DREAM)
    p = _softmax(left / scale) if after else _softmax(allowed)
    score = _score(rule, p, token)
    return token, float(confidence), float(score)


def timestep_share(eps, steps, step):
    """1 - s / t between two of steps + 1 points from 1 to eps; the last step takes all."""
    if step + 1 == steps:
        return 1.0
    points = np.linspace(1.0, eps, steps + 1)
    return float(1 - points[step + 1] / points[step])


def uniform(seed, position, step, stream):
    bits = sampling.philox((position, step, 0, stream), (seed & 0xFFFFFFFF, seed >> 32))[0]
    return float(sampling.uniform_from_bits([bits])[0])


def position_noise(positions, context):
    first = context["first_position"]
    return [
        uniform(context["seed"], first + int(p), context["step"], POSITION_NOISE) for p in positions
    ]


def ranked(scores, positions, context, alg_temp):
    """Scores, or with alg_temp > 0 scores / alg_temp + Gumbel noise, whose largest are draws from
    softmax(scores / alg_temp) without replacement."""
    if alg_temp == 0:
        return scores
    noise = position_noise(positions, context)
    return [s / alg_temp - math.log(-math.log(u)) for s, u in zip(scores, noise)]


def count(rule, masks, context, eps):
    """How many of the masks left in its block a step commits; parallel rules: at least one."""
    steps, step = context["block_steps"], context["block_step"]
    if rule in ("low_confidence", "random"):
        return context["block_masks"] // steps + (step < context["block_masks"] % steps)
    if rule in DREAM:
        return math.floor(masks * timestep_share(eps, steps, step))
    return 1


def limits(rule, masks, numbers):
    """What a rule compares scores with."""
    if rule == "threshold" or rule == "prefix":
        return [numbers.threshold]
    if rule == "hierarchical":
        return [numbers.threshold, numbers.low_threshold]
    if rule == "slowfast":
        return [numbers.threshold, numbers.span_threshold]
    if rule == "factor":
        return [1 - numbers.factor / (rank + 1) for rank in range(2, masks + 1)]
    return []


def _best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def commit(rule, scores, positions, context, **params):
    """Indices that are committed, ascending.

    context: block_masks, block_steps, block_step, step, seed, first_position.
    """
    n = len(scores)
    if rule in ("low_confidence", "random"):
        return _best(scores, count(rule, n, context, None))
    if rule == "origin":
        share = timestep_share(params["eps"], context["block_steps"], context["block_step"])
        noise = position_noise(positions, context)
        return [i for i in range(n) if noise[i] < share]
    if rule in DREAM:
        scores = ranked(scores, positions, context, params["alg_temp"])
        return _best(scores, count(rule, n, context, params["eps"]))
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
