# SPDX-License-Identifier: Apache-2.0
"""Ideas for eviction policies: functions (seen, B) -> (layers)(heads) kept positions, ascending.

`seen` is policy_lab.Seen. Unless an idea says otherwise layers and heads get MaskKV's budgets
(offline layers, preference heads) and only the score that ranks a head's pairs is another one.
"""

import numpy as np

from maskkv_oracle import forward, selection


def prompt_ids(tokenizer, record):
    """The user message of a question under LLaDA's template."""
    user = f"{record['document']}\n\n{record['question']}"
    text = ("<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n" + user
            + "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    return tokenizer.encode(text, add_special_tokens=False).ids


def by_score(score):
    """MaskKV's budgets, a head's pairs by score(seen, layer) (heads, n_p)."""
    def idea(seen, b):
        kept = []
        for layer, k_l in enumerate(seen.layer_budgets(b)):
            scores = score(seen, layer)
            heads = seen.head_budgets(layer, k_l)
            kept.append([selection.top_k(scores[h], k) for h, k in enumerate(heads)])
        return kept
    return idea


def votes(seen, layer):
    return seen.prompt_attention(layer).sum(axis=1)


def loudest(seen, layer):
    """The most attentive mask alone."""
    return seen.prompt_attention(layer).max(axis=1)


def power(exponent):
    return lambda seen, layer: (seen.prompt_attention(layer) ** exponent).sum(axis=1)


def valued(score):
    return lambda seen, layer: score(seen, layer) * seen.moved[layer][:, : seen.n_p]


def value_norm(score):
    return lambda seen, layer: score(seen, layer) * np.linalg.norm(
        seen.values[layer][:, : seen.n_p], axis=-1)


def weighted(rows):
    """Votes weighted by rows(seen) (masks)."""
    return lambda seen, layer: np.einsum(
        "hmn,m->hn", seen.prompt_attention(layer), rows(seen).astype(np.float32))


def uncertain(seen):
    return 1.0 - seen.confidence + 1e-3


def front(decay):
    return lambda seen: decay ** np.arange(len(seen.confidence))


def spread(score, share):
    """Neighbours of a hit inherit a share of its score."""
    def smooth(seen, layer):
        s = score(seen, layer)
        wide = np.pad(s, ((0, 0), (1, 1)))
        return np.maximum(s, share * np.maximum(wide[:, :-2], wide[:, 2:]))
    return smooth


def top_of_all(scores, total, floor):
    """The `total` best of all (layer, head, position), after each head's best `floor`.

    scores (layers)(heads, n_p). -> kept
    """
    stacked = np.stack(scores).astype(np.float64)  # (L, H, n)
    flat = stacked.reshape(-1, stacked.shape[-1]).copy()
    order = np.argsort(-flat, axis=1, kind="stable")[:, :floor]
    np.put_along_axis(flat, order, np.inf, axis=1)
    best = np.argsort(-flat.ravel(), kind="stable")[:total]
    units, positions = np.divmod(best, flat.shape[1])
    kept = [sorted(positions[units == u].tolist()) for u in range(flat.shape[0])]
    heads = stacked.shape[1]
    return [kept[i : i + heads] for i in range(0, len(kept), heads)]


def pool(score, floor_share=0.0, layer_weight=None):
    """One pool over layers and heads; every head is sure of floor_share * B pairs."""
    def idea(seen, b):
        scores = [score(seen, layer) for layer in range(seen.layers)]
        if layer_weight:
            scores = [s * layer_weight(seen, layer) for layer, s in enumerate(scores)]
        floor = int(floor_share * b)
        return top_of_all(scores, b * seen.layers * seen.heads, floor)
    return idea


def layer_pool(score, floor_share=0.0):
    """Offline layer budgets; within a layer one pool over heads."""
    def idea(seen, b):
        kept = []
        for layer, k_l in enumerate(seen.layer_budgets(b)):
            floor = int(floor_share * k_l)
            kept += top_of_all([score(seen, layer)], k_l * seen.heads, floor)
        return kept
    return idea


def important(seen, layer):
    """A layer's offline importance against the mean."""
    return seen.profile[layer] / np.mean(seen.profile)


def uniform(score):
    def idea(seen, b):
        return [[selection.top_k(s, b) for s in score(seen, layer)]
                for layer in range(seen.layers)]
    return idea


# Found on calibration questions (length 1000, seed 11): mean pairs a head and layer = B.
SHARES = {1: 0.17926, 2: 0.20216, 4: 0.22307, 8: 0.24342}


def covered(share_of_budget):
    """A request keeps the fewest pairs of the pool that hold a share of the mask-query mass.

    share_of_budget: B -> share, tuned so that the mean over questions is B pairs a head and layer.
    """
    def idea(seen, b):
        scores = [votes(seen, layer) for layer in range(seen.layers)]
        flat = np.sort(np.concatenate([s.ravel() for s in scores]))[::-1].cumsum(dtype=np.float64)
        total = int(np.searchsorted(flat, share_of_budget[b] * flat[-1])) + 1
        return top_of_all(scores, total, 0)
    return idea


def _pairs(seen, kept, edit):
    """MaskKV's kept positions, with edit(layer, head, positions, keys, values) -> (k, v)."""
    return [forward.Pairs(*map(list, zip(*(
        edit(layer, h, np.asarray(p, int), seen.keys[layer][h], seen.values[layer][h])
        for h, p in enumerate(heads))))) for layer, heads in enumerate(kept)]


def merged(seen, b):
    """Values of evicted pairs flow, by votes, into the kept pair of the most similar key."""
    def edit(layer, h, p, keys, values):
        share = votes(seen, layer)[h]
        keys_n = keys[: seen.n_p] / np.linalg.norm(keys[: seen.n_p], axis=1, keepdims=True)
        nearest = p[np.argmax(keys_n @ keys_n[p].T, axis=1)]
        nearest[p] = p
        v = [(share[nearest == j, None] * values[: seen.n_p][nearest == j]).sum(0)
             / share[nearest == j].sum() for j in p]
        return keys[p], np.asarray(v, np.float32)
    return _pairs(seen, by_score(votes)(seen, b), edit)


def summary(seen, b):
    """The weakest kept pair of a head makes room for the mean, by votes, of what is evicted."""
    def edit(layer, h, p, keys, values):
        share = votes(seen, layer)[h].copy()
        weakest = p[np.argmin(share[p])]
        stay = p[p != weakest]
        share[stay] = 0.0
        share /= share.sum()
        k, v = share @ keys[: seen.n_p], share @ values[: seen.n_p]
        return (np.concatenate([keys[stay], k[None]]), np.concatenate([values[stay], v[None]]))
    return _pairs(seen, by_score(votes)(seen, b), edit)


IDEAS = {
    "maskkv": by_score(votes),
    "uniform": uniform(votes),
    "loudest": by_score(loudest),
    "square": by_score(power(2)),
    "value-norm": by_score(value_norm(votes)),
    "moved": by_score(valued(votes)),
    "uncertain": by_score(weighted(uncertain)),
    "front-0.7": by_score(weighted(front(0.7))),
    "spread-0.5": by_score(spread(votes, 0.5)),
    "merged": merged,
    "summary": summary,
    "head-pool": layer_pool(votes),
    "head-pool-0.4": layer_pool(votes, 0.4),
    "head-pool-loudest": layer_pool(loudest),
    "pool": pool(votes),
    "pool-0.4": pool(votes, 0.4),
    "pool-loudest": pool(loudest),
    "pool-moved": pool(valued(votes)),
    "pool-important": pool(votes, 0.0, important),
    "covered": covered(SHARES),
}
