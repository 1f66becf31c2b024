# SPDX-License-Identifier: Apache-2.0
"""LLaDA's forward: full bidirectional attention, no causal mask anywhere.

    x = wte[ids]
    per block: x += attn_out(attention(attn_norm(x)));  n = ff_norm(x)
               x += ff_out(silu(ff_proj(n)) * up_proj(n))
    logits = head(ln_f(x))

A set of rows is computed together; they attend to each other and, in front of them, to `past` pairs
that were computed earlier. Nothing is cached but K (after RoPE, at its own position) and V.
"""

import dataclasses

import numpy as np

from maskkv_oracle import ops


@dataclasses.dataclass
class Pairs:
    """K and V of one layer, one (pairs, head_dim) array a KV head; heads may differ in length."""

    k: list
    v: list


@dataclasses.dataclass
class LayerTrace:
    """What one layer did, for those who look inside."""

    q: np.ndarray  # (heads, rows, head_dim), after RoPE
    k: np.ndarray  # (kv_heads, rows, head_dim), after RoPE
    v: np.ndarray  # (kv_heads, rows, head_dim)
    attn_in: np.ndarray  # (rows, hidden): the residual stream entering the attention sub-layer
    attn_out: np.ndarray  # the same after the sub-layer, residual included
    out: np.ndarray  # the residual stream after the whole block


def _split(x, heads):
    """(rows, heads * d) -> (heads, rows, d)"""
    rows, width = x.shape
    return x.reshape(rows, heads, width // heads).transpose(1, 0, 2)


def attend(q, k_per_head, v_per_head, group, noise=None):
    """q (heads, rows, d); query head h reads KV head h // group. -> (rows, heads * d)"""
    outputs = []
    for head in range(q.shape[0]):
        k, v = k_per_head[head // group], v_per_head[head // group]
        p = ops.softmax(ops.attention_scores(q[head], k, noise), noise)
        outputs.append(ops.weighted_values(p, v, noise))
    return np.concatenate(outputs, axis=-1)


def run_block(model, index, x, positions, past=None, noise=None):
    """One block over rows x (rows, hidden). -> LayerTrace"""
    c, w = model.config, model.blocks[index]
    n = ops.rms_norm(x, w.attn_norm, c.norm_eps, noise)
    q = _split(ops.matmul(n, w.q, noise), c.heads)
    k = _split(ops.matmul(n, w.k, noise), c.kv_heads)
    v = _split(ops.matmul(n, w.v, noise), c.kv_heads)
    if noise:
        noise.rows_differ()
    q = ops.rope(q, positions, c.rope_theta, noise)
    k = ops.rope(k, positions, c.rope_theta, noise)
    if noise:
        k, v = noise.operand(k), noise.operand(v)
    keys, values = list(k), list(v)
    if past is not None:
        keys = [np.concatenate([past.k[g], k[g]]) for g in range(c.kv_heads)]
        values = [np.concatenate([past.v[g], v[g]]) for g in range(c.kv_heads)]
    attention = ops.matmul(attend(q, keys, values, c.group, noise), w.out, noise)
    middle = ops.residual(x, attention, noise)
    n = ops.rms_norm(middle, w.ff_norm, c.norm_eps, noise)
    update = ops.swiglu(ops.matmul(n, w.gate, noise), ops.matmul(n, w.up, noise), noise)
    out = ops.residual(middle, ops.matmul(update, w.down, noise), noise)
    return LayerTrace(q, k, v, x, middle, out)


def run_rows(model, ids, positions, past=None, noise=None):
    """All blocks over rows with these token ids and positions. Yields each LayerTrace in turn.

    past: a list of Pairs, one a layer, that the rows attend to before each other; or None.
    """
    ids = np.asarray(ids)
    if noise:
        noise.rows_are(ids)
    x = model.embedding[ids]
    for index in range(model.config.layers):
        trace = run_block(model, index, x, positions, past[index] if past else None, noise)
        yield trace
        x = trace.out


def logits(model, hidden, noise=None):
    """hidden (rows, hidden) after the last block -> (rows, vocab_rows)"""
    n = ops.rms_norm(hidden, model.final_norm, model.config.norm_eps, noise)
    return ops.matmul(n, model.head, noise)
