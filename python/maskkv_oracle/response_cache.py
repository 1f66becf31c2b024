# SPDX-License-Identifier: Apache-2.0
"""The response feature cache of dLLM-Cache (arXiv 2506.06295), step by step; docs/adr/0012.

Every `every`-th forward of a request recomputes all its rows and keeps K, V, attention output and
FFN output of each layer. In between a layer computes V of all rows; the ceil(share * rows) rows
whose new V is least similar to the kept one go through Q, K, attention and FFN and replace what is
kept of them; the others add the kept attention and FFN outputs to their residual stream.
"""

import dataclasses
import math

import numpy as np

from maskkv_oracle import forward, ops


@dataclasses.dataclass
class Features:
    """What one layer keeps of the rows."""

    k: np.ndarray  # (kv_heads, rows, head_dim), after RoPE
    v: np.ndarray  # (kv_heads, rows, head_dim)
    attention: np.ndarray  # (rows, hidden): after the output projection, without the residual
    ffn: np.ndarray  # (rows, hidden): without the residual


@dataclasses.dataclass
class Choice:
    """One layer of a forward in between."""

    similarity: np.ndarray  # (rows)
    chosen: np.ndarray  # rows, ascending
    gap: float  # lowest similarity left minus highest chosen; inf: all chosen, 0: a tie


@dataclasses.dataclass
class Trace:
    out: np.ndarray  # (rows, hidden)
    choice: Choice | None  # None: every row was recomputed
    router: None = None  # routers of rows that are not computed do not exist


def similarity(new, kept):
    """Cosine of each row's V over all heads. (kv_heads, rows, d) twice -> (rows), at most 1.

    1 where nothing changed, whatever rounding would say; 0 where one of the two is all zeros.
    """
    rows = new.shape[1]
    a = new.transpose(1, 0, 2).reshape(rows, -1)
    b = kept.transpose(1, 0, 2).reshape(rows, -1)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    cosine = np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1), 0)
    return np.where((a == b).all(axis=1), 1.0, np.minimum(cosine, 1.0))


def choose(values, share):
    """The ceil(share * rows) rows of lowest similarity, at least 1, ties to the lower row."""
    count = max(1, math.ceil(share * len(values)))
    order = np.argsort(values, kind="stable")
    gap = math.inf
    if count < len(values):
        gap = float(values[order[count]] - values[order[count - 1]])
    return Choice(values, np.sort(order[:count]), gap)


class ResponseCache:
    """The features of one request; run_rows takes the place of forward.run_rows in decode.run."""

    def __init__(self, every, share):
        if every < 1:
            raise ValueError(f"every: found {every}, expected at least 1")
        if not 0 < share <= 1:
            raise ValueError(f"share: found {share}, expected above 0, at most 1")
        self.every, self.share = every, share
        self.forwards = 0
        self.layers = []

    def run_rows(self, model, ids, positions, past=None, noise=None):
        if noise:
            raise ValueError("noise: the response cache has no error model")
        whole = self.forwards % self.every == 0
        self.forwards += 1
        if whole:
            self.layers = [None] * model.config.layers
        x = model.embedding[np.asarray(ids)]
        for index in range(model.config.layers):
            trace = self._block(model, index, x, positions, past[index] if past else None)
            yield trace
            x = trace.out

    def _block(self, model, index, x, positions, past):
        c, w, kept = model.config, model.blocks[index], self.layers[index]
        n = ops.rms_norm(x, w.attn_norm, c.norm_eps, None)
        v = forward._split(ops.linear(n, w.v, w.v_bias, None), c.kv_heads)
        if kept is None:
            choice, rows = None, np.arange(len(x))
            kept = Features(np.empty_like(v), v, np.empty_like(x), np.empty_like(x))
            self.layers[index] = kept
        else:
            choice = choose(similarity(v, kept.v), self.share)
            rows = choice.chosen
        kept.v = v  # of every row: what others attend to now and what the next V is compared with
        q = forward._split(ops.linear(n[rows], w.q, w.q_bias, None), c.heads)
        k = forward._split(ops.linear(n[rows], w.k, w.k_bias, None), c.kv_heads)
        if w.q_norm is not None:
            q = ops.rms_norm(q, w.q_norm, c.norm_eps, None)
            k = ops.rms_norm(k, w.k_norm, c.norm_eps, None)
        at = np.asarray(positions)[rows]
        q = ops.rope(q, at, c.rope_theta, None, c.rope_in_compute_dtype)
        kept.k[:, rows] = ops.rope(k, at, c.rope_theta, None, c.rope_in_compute_dtype)
        keys, values = list(kept.k), list(v)
        if past is not None:
            keys = [np.concatenate([past.k[g], keys[g]]) for g in range(c.kv_heads)]
            values = [np.concatenate([past.v[g], values[g]]) for g in range(c.kv_heads)]
        kept.attention[rows] = ops.matmul(forward.attend(q, keys, values, c.group), w.out, None)
        middle = ops.residual(x, kept.attention, None)
        n = ops.rms_norm(middle[rows], w.ff_norm, c.norm_eps, None)
        if c.experts:
            kept.ffn[rows] = forward._experts(c, w, n, None)[0]
        else:
            kept.ffn[rows] = forward._ffn(n, w.gate, w.up, w.down, None)
        return Trace(ops.residual(middle, kept.ffn, None), choice)
