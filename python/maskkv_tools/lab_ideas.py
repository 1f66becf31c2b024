# SPDX-License-Identifier: Apache-2.0
"""Ideas for eviction policies: functions (seen, B) -> (layers)(heads) kept positions, ascending.

`seen` is policy_lab.Seen. Unless an idea says otherwise layers and heads get MaskKV's budgets
(offline layers, preference heads) and only the score that ranks a head's pairs is another one.
"""

import numpy as np

from maskkv_oracle import selection


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


IDEAS = {
    "maskkv": by_score(votes),
    "uniform": uniform(votes),
    "loudest": by_score(loudest),
    "square": by_score(power(2)),
    "root": by_score(power(0.5)),
    "value-norm": by_score(value_norm(votes)),
    "moved": by_score(valued(votes)),
    "uncertain": by_score(weighted(uncertain)),
    "front-0.7": by_score(weighted(front(0.7))),
    "front-0.3": by_score(weighted(front(0.3))),
    "spread-0.5": by_score(spread(votes, 0.5)),
    "pool": pool(votes),
    "pool-0.4": pool(votes, 0.4),
    "pool-loudest": pool(loudest),
    "pool-square": pool(power(2)),
    "pool-moved": pool(valued(votes)),
    "pool-loudest-moved": pool(valued(loudest)),
    "pool-important": pool(votes, 0.0, important),
    "layer-pool": layer_pool(votes),
    "layer-pool-0.4": layer_pool(votes, 0.4),
    "layer-pool-loudest": layer_pool(loudest),
    "layer-pool-square": layer_pool(power(2)),
    "layer-pool-moved": layer_pool(valued(votes)),
    "layer-pool-loudest-moved": layer_pool(valued(loudest)),
}
