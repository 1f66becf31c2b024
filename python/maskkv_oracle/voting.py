# SPDX-License-Identifier: Apache-2.0
"""Mask voting: what the mask queries look at (equations 6, 7, 14) and layer importance (8)."""

import dataclasses

import numpy as np

from maskkv_oracle import ops


@dataclasses.dataclass
class Vote:
    scores: np.ndarray  # (kv_heads, n_p + n_m): I_j of every key, prompt and mask
    preference: np.ndarray  # (kv_heads): P_h
    prompt_mass: np.ndarray  # (kv_heads): sum of I over the prompt's keys
    mask_mass: np.ndarray  # (kv_heads): sum of I over the masks' keys


def mask_query_scores(trace, mask_rows, group, noise=None):
    """Equations (6), (7) of one layer: (kv_heads, keys).

    A = softmax over all keys, prompt and mask alike, of the mask rows' queries; I_j sums A over the
    mask queries. With grouped queries a KV head's score is the sum over its query heads. Rows are
    masks by role: `mask_rows` says which, whatever their token ids; other rows may vote as well.
    """
    kv_heads, keys, _ = trace.k.shape
    scores = np.zeros((kv_heads, keys), trace.k.dtype)
    for head in range(trace.q.shape[0]):
        s = ops.attention_scores(trace.q[head][mask_rows], trace.k[head // group], noise)
        scores[head // group] += ops.softmax(s, noise).sum(axis=0)
    if noise:  # n_m * group positive terms, then nothing else
        terms = len(mask_rows) * group
        scores = noise.add(scores, np.sqrt(terms) * ops.U * scores)
    return scores


def vote(scores, prompt_tokens):
    """Equation (14): P_h = S_m2p / (S_m2p + S_m2m). The prompt has the first prompt_tokens keys."""
    if np.isnan(scores).any():
        raise ValueError("NaN scores")
    prompt = scores[:, :prompt_tokens].sum(axis=1, dtype=np.float64)
    mask = scores[:, prompt_tokens:].sum(axis=1, dtype=np.float64)
    total = np.where(prompt + mask == 0, 1.0, prompt + mask)  # no voter: no preference
    return Vote(scores, prompt / total, prompt, mask)


def layer_importance(trace, noise=None):
    """Equation (8): 1 - mean cosine similarity of the residual stream before and after attention.

    h_out includes the residual; the mean runs over prompt and masks. Rounding can make it a hair
    negative: 0 then.
    """
    similarity = ops.cosine_similarity(trace.attn_in, trace.attn_out, noise)
    return max(0.0, 1.0 - float(np.mean(similarity)))
