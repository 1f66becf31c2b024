# SPDX-License-Identifier: Apache-2.0
"""The response feature cache of dLLM-Cache (arXiv 2506.06295), step by step; docs/adr/0012.

Every `every`-th forward of a request recomputes all its rows and keeps K, V, attention output and
FFN output of each layer. In between a layer computes V of all rows; the ceil(share * rows) rows
whose new V is least similar to the kept one go through Q, K, attention and FFN and replace what is
kept of them; the others add the kept attention and FFN outputs to their residual stream.

How far f32 may be from it is asked with `follow`, which takes over the rows that an exact run chose:
errors then reach results through what is computed and through what was kept of earlier forwards.
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
    equal: np.ndarray | None = None  # (rows): V did not change in any element

    def decided(self, bound):
        """Whether no implementation whose similarities are within bound (rows) can choose others.

        Rows with equal V are exact everywhere, and ties of them go to the lower row everywhere.
        """
        left = np.setdiff1d(np.arange(len(self.similarity)), self.chosen)
        if len(left) == 0:
            return True
        error = np.where(self.equal, 0, bound)
        top, low = (self.similarity + error)[self.chosen], (self.similarity - error)[left]
        if top.max() < low.min():
            return True
        # The others are as clear among themselves, and all chosen ones are below those that tie.
        tie = self.equal[self.chosen]
        return bool(tie.any() and self.equal[left].all() and (tie.all() or top[~tie].max() < 1))


@dataclasses.dataclass
class Trace:
    out: np.ndarray  # (rows, hidden)
    choice: Choice | None  # None: every row was recomputed
    router: np.ndarray | None = None  # (computed rows, experts): the router's logits


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
    """The features of one request; run_rows takes the place of forward.run_rows in decode.run.

    follow: the choices of another one, whose rows are taken over instead of this one's own.
    """

    def __init__(self, every, share, follow=None):
        if every < 1:
            raise ValueError(f"every: found {every}, expected at least 1")
        if not 0 < share <= 1:
            raise ValueError(f"share: found {share}, expected above 0, at most 1")
        self.every, self.share = every, share
        self.follow = follow
        self.forwards = 0  # since the first one or the last restart
        self.layers = []
        self.choices = []  # (forwards, all of them)(layers): Choice, or None in whole forwards

    @property
    def next_is_whole(self):
        return self.forwards % self.every == 0

    def restart(self):
        """The next forward is whole: what rows attend to has changed."""
        self.forwards = 0

    def run_rows(self, model, ids, positions, past=None, noise=None):
        if noise and self.follow is None:
            raise ValueError("noise: expected choices to follow, found none")
        if self.next_is_whole:
            self.layers = [None] * model.config.layers
        self.forwards += 1
        self.choices.append([])
        ids = np.asarray(ids)
        x = model.embedding[ids]
        for index in range(model.config.layers):
            same = ids if index == 0 else None  # only the embeddings of equal tokens are equal
            trace = self._block(model, index, x, positions, past[index] if past else None, noise,
                                same)  # fmt: skip
            self.choices[-1].append(trace.choice)
            yield trace
            x = trace.out

    def _choose(self, index, v, kept):
        values = similarity(v, kept.v)
        if self.follow is None:
            choice = choose(values, self.share)
        else:
            followed = self.follow[len(self.choices) - 1][index]
            choice = Choice(values, followed.chosen, followed.gap)
        choice.equal = (v == kept.v).all(axis=(0, 2))
        return choice

    def _block(self, model, index, x, positions, past, noise, same):
        c, w, kept = model.config, model.blocks[index], self.layers[index]
        if noise and same is not None:
            noise.rows_are(same)
        n = ops.rms_norm(x, w.attn_norm, c.norm_eps, noise)
        v = forward._split(ops.linear(n, w.v, w.v_bias, noise), c.kv_heads)
        if noise:
            v = noise.operand(v)
        if kept is None:
            choice, rows = None, np.arange(len(x))
            kept = Features(np.empty_like(v), v, np.empty_like(x), np.empty_like(x))
            self.layers[index] = kept
        else:
            choice = self._choose(index, v, kept)
            rows = choice.chosen
        kept.v = v  # of every row: what others attend to now and what the next V is compared with
        if noise and same is not None:
            noise.rows_are(same[rows])
        q = forward._split(ops.linear(n[rows], w.q, w.q_bias, noise), c.heads)
        k = forward._split(ops.linear(n[rows], w.k, w.k_bias, noise), c.kv_heads)
        if w.q_norm is not None:
            q = ops.rms_norm(q, w.q_norm, c.norm_eps, noise)
            k = ops.rms_norm(k, w.k_norm, c.norm_eps, noise)
        if noise:
            noise.rows_differ()
        at = np.asarray(positions)[rows]
        q = ops.rope(q, at, c.rope_theta, noise, c.rope_in_compute_dtype)
        k = ops.rope(k, at, c.rope_theta, noise, c.rope_in_compute_dtype)
        kept.k[:, rows] = noise.operand(k) if noise else k
        keys, values = list(kept.k), list(v)
        if past is not None:
            keys = [np.concatenate([past.k[g], keys[g]]) for g in range(c.kv_heads)]
            values = [np.concatenate([past.v[g], values[g]]) for g in range(c.kv_heads)]
        attended = forward.attend(q, keys, values, c.group, noise)
        kept.attention[rows] = ops.matmul(attended, w.out, noise)
        middle = ops.residual(x, kept.attention, noise)
        n = ops.rms_norm(middle[rows], w.ff_norm, c.norm_eps, noise)
        router = None
        if c.experts:
            kept.ffn[rows], router = forward._experts(c, w, n, noise)
        else:
            kept.ffn[rows] = forward._ffn(n, w.gate, w.up, w.down, noise)
        return Trace(ops.residual(middle, kept.ffn, noise), choice, router)
