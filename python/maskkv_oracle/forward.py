# SPDX-License-Identifier: Apache-2.0
"""The forward of every family: full bidirectional attention, no causal mask anywhere.

    x = embedding[ids]
    per block: x += out(attention(attn_norm(x)));  x += ffn(ff_norm(x))
               ffn(n) = down(silu(gate(n)) * up(n)), or a weighted sum of such experts
    logits = head(final_norm(x))

Dream adds biases to q, k, v. LLaDA-MoE norms each head's q and k before RoPE.

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
    router: np.ndarray | None = None  # (rows, experts): the router's logits


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


def _ffn(n, gate, up, down, noise):
    inner = ops.swiglu(ops.matmul(n, gate, noise), ops.matmul(n, up, noise), noise)
    return ops.matmul(inner, down, noise)


def chosen_experts(p, count):
    """The `count` experts of highest probability, best first, ties to the lower expert.

    p (rows, experts) -> (rows, count)
    """
    return np.argsort(-p, axis=-1, kind="stable")[:, :count]


def routing_gap(router, count):
    """How far the worst chosen expert's logit is above the best one not chosen: (rows)."""
    if count == router.shape[-1]:
        return np.full(len(router), np.inf)
    ordered = -np.sort(-router, axis=-1)
    return ordered[:, count - 1] - ordered[:, count]


def _experts(c, w, n, noise):
    """-> (weighted sum of the chosen experts' outputs, the router's logits)"""
    router = ops.matmul(n, w.router, noise)
    p = ops.softmax(router, noise)
    chosen = chosen_experts(p, c.experts_per_token)
    weights = np.take_along_axis(p, chosen, axis=-1)
    if c.renormalised_gate:
        weights = weights / weights.sum(axis=-1, keepdims=True)
        if noise:
            weights = noise.add(weights, c.experts_per_token * ops.U * weights)
    total, size = np.zeros_like(n), np.zeros_like(n)
    for expert in range(c.experts):
        y = _ffn(n, w.gate[expert], w.up[expert], w.down[expert], noise)
        share = np.where(chosen == expert, weights, 0).sum(axis=-1, keepdims=True)
        total += share * y
        size += np.abs(share * y)
    if noise:  # a product and a sum for each expert
        total = noise.add(total, np.sqrt(2 * c.experts_per_token) * ops.U * size)
    return total, router


def run_block(model, index, x, positions, past=None, noise=None):
    """One block over rows x (rows, hidden). -> LayerTrace"""
    c, w = model.config, model.blocks[index]
    n = ops.rms_norm(x, w.attn_norm, c.norm_eps, noise)
    q = _split(ops.linear(n, w.q, w.q_bias, noise), c.heads)
    k = _split(ops.linear(n, w.k, w.k_bias, noise), c.kv_heads)
    v = _split(ops.linear(n, w.v, w.v_bias, noise), c.kv_heads)
    if w.q_norm is not None:
        q = ops.rms_norm(q, w.q_norm, c.norm_eps, noise)
        k = ops.rms_norm(k, w.k_norm, c.norm_eps, noise)
    if noise:
        noise.rows_differ()
    q = ops.rope(q, positions, c.rope_theta, noise, c.rope_in_compute_dtype)
    k = ops.rope(k, positions, c.rope_theta, noise, c.rope_in_compute_dtype)
    if noise:
        k, v = noise.operand(k), noise.operand(v)
    keys, values = list(k), list(v)
    if past is not None:
        keys = [np.concatenate([past.k[g], k[g]]) for g in range(c.kv_heads)]
        values = [np.concatenate([past.v[g], v[g]]) for g in range(c.kv_heads)]
    attention = ops.matmul(attend(q, keys, values, c.group, noise), w.out, noise)
    middle = ops.residual(x, attention, noise)
    n = ops.rms_norm(middle, w.ff_norm, c.norm_eps, noise)
    if c.experts:
        update, router = _experts(c, w, n, noise)
    else:
        update, router = _ffn(n, w.gate, w.up, w.down, noise), None
    out = ops.residual(middle, update, noise)
    return LayerTrace(q, k, v, x, middle, out, router)


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
