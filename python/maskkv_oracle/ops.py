# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of the model, one function an operation, and how far off f32 may do each.

`noise` is None for the exact result. A `bounds.Noise` asks what an f32 implementation might give
instead: every operation then states the scale of its own rounding error (`noise.add(y, scale)`,
scale >= the standard deviation of the error of an implementation that rounds every elementary
operation, in any order of summation) and the noise object perturbs the result by it. `bounds`
explains why that yields error bounds.

U is the unit roundoff of f32. A sum of K terms whose absolute values sum to S has K roundings, each
at most U * S, so its scale is sqrt(K) U S whatever the order.
Elementary functions are taken to be within 4 units in the last place.
"""

import math

import numpy as np

U = 2.0**-24
ELEMENTARY = 8 * U  # 4 ulp


def matmul(x, weight, noise=None):
    """x (rows, in) @ weight (out, in)^T -> (rows, out)."""
    if noise:
        x = noise.operand(x)
    y = x @ weight.T
    if noise:
        y = noise.add(y, math.sqrt(x.shape[1]) * U * (np.abs(x) @ np.abs(weight).T))
    return y


def linear(x, weight, bias=None, noise=None):
    y = matmul(x, weight, noise)
    if bias is None:
        return y
    y = y + bias
    return noise.add(y, U * np.abs(y)) if noise else y


def rms_norm(x, weight, eps, noise=None):
    """x / sqrt(mean(x^2) + eps) * weight, over the last axis."""
    inverse = 1.0 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    if noise:  # the mean enters by its square root: half its error; then +eps, sqrt, division
        inverse = noise.add(inverse, (0.5 * math.sqrt(x.shape[-1]) + 3) * U * inverse)
    y = x * inverse * weight
    return noise.add(y, 2 * U * np.abs(y)) if noise else y


def rope(x, positions, theta, noise=None, in_compute_dtype=False):
    """Rotates the pairs (i, i + d/2) of x (heads, rows, d) by position * theta^(-2i/d).

    in_compute_dtype: sines and cosines are rounded to the dtype of the activations.
    """
    half = x.shape[-1] // 2
    angle = np.asarray(positions)[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    if noise:  # a table in f32, the same for every head, layer, query and key
        cos, sin = noise.rope_table(positions, cos, sin, in_compute_dtype)
    a, b = x[..., :half], x[..., half:]
    y = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    if noise:
        size = np.abs(a) * np.abs(cos) + np.abs(b) * np.abs(sin)
        other = np.abs(b) * np.abs(cos) + np.abs(a) * np.abs(sin)
        y = noise.add(y, math.sqrt(2) * U * np.concatenate([size, other], axis=-1))
    return y


def attention_scores(q, k, noise=None):
    """q (rows, d) against k (keys, d): scaled dot products (rows, keys)."""
    scale = 1.0 / math.sqrt(q.shape[-1])
    s = (q @ k.T) * scale
    if noise:
        size = (np.abs(q) @ np.abs(k).T) * scale
        s = noise.add(s, (math.sqrt(q.shape[-1]) + 2) * U * size)
    return s


def softmax(s, noise=None):
    """Over the last axis; no key at all gives no weights.

    In f32: exp(s - m) carries the rounding of s - m, the error of exp, and with an online softmax a
    handful of rescalings by exp(m_old - m_new); the denominator is a sum of positive terms.
    """
    if s.shape[-1] == 0:
        return s
    shifted = s - s.max(axis=-1, keepdims=True)
    p = np.exp(shifted)
    if noise:
        p = noise.add(p, (U * (2 * np.abs(s) + np.abs(shifted)) + 2 * ELEMENTARY) * p)
    total = p.sum(axis=-1, keepdims=True)
    if noise:
        total = noise.add(total, math.sqrt(s.shape[-1] + 2) * U * total)
    return p / total


def weighted_values(p, v, noise=None):
    """p (rows, keys) @ v (keys, d)."""
    y = p @ v
    if noise:
        y = noise.add(y, (math.sqrt(v.shape[0]) + 2) * U * (p @ np.abs(v)))
    return y


def swiglu(gate, up, noise=None):
    """silu(gate) * up with silu(z) = z / (1 + e^-z)."""
    y = gate / (1.0 + np.exp(-gate)) * up
    return noise.add(y, (ELEMENTARY + U * np.abs(gate) + 4 * U) * np.abs(y)) if noise else y


def residual(x, update, noise=None):
    y = x + update
    return noise.add(y, U * np.abs(y)) if noise else y


def cosine_similarity(a, b, noise=None):
    """Row by row; 1 for two zero rows, 0 for one."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = (np.linalg.norm(a, axis=-1) == 0) & (np.linalg.norm(b, axis=-1) == 0)
    safe = np.where(norms == 0, 1.0, norms)
    result = np.where(norms == 0, both_zero.astype(a.dtype), np.sum(a * b, axis=-1) / safe)
    if noise:  # products, square root and quotient; sums run in f64 or f32
        result = noise.add(result, (math.sqrt(a.shape[-1]) + 4) * U * np.ones_like(result))
    return result
