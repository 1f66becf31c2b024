# SPDX-License-Identifier: Apache-2.0
"""Error bounds for f32 (and bf16) implementations, derived for a given model and input.

What is bounded: |result of an f32 implementation - exact result|, to first order in the unit
roundoff u, for any order of summation.

Why this is a bound. To first order, rounding errors reach a result r linearly:

    r_f32 - r = sum_k J_k d_k,     |d_k| <= s_k

over all elementary roundings k (d_k what rounding k does to the result of its operation, s_k <= u
times its size, J_k the derivative of r with respect to it). With the usual model of probabilistic
error analysis (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019:
errors independent, mean zero, bounded) the sum is sub-Gaussian with variance proxy

    V = sum_k J_k^2 s_k^2,         P(|r_f32 - r| > lambda sqrt(V)) <= 2 exp(-lambda^2 / 2)

(Hoeffding). V needs no derivative: replace every d_k by +-s_k with random signs and the variance of
the result is exactly V. So the float64 oracle runs again with `Noise`: each operation adds its own
error, of scale s (`ops` gives them: sqrt(K) u sum|a||b| for a dot product of K terms, whatever the
order; 4 ulp for elementary functions), with random signs; the spread of the results over RUNS such
runs estimates sqrt(V) element by element, and

    bound = SAFETY * (1 + 4 / sqrt(2 RUNS)) * root mean square + u |r|

SAFETY = lambda = 8 leaves 3e-14 an element; the bracket is four standard errors of an estimate from
RUNS runs; the last term pays for storing golden tensors in f32. The amplification by the layers,
the softmax and the norms is measured, not assumed, and so is cancellation.

Errors that are not independent are drawn together: equal rows (all masks before the first RoPE) err
equally, and the rounding of the RoPE table is one for all heads, layers, queries and keys.

It is not a worst-case bound: that one grows with the sum of the |J_k| s_k and says nothing after a
few layers. It is tight: an f32 run of the oracle's own code errs by 1/50 to 1/150 of it
(tests/python/test_oracle_forward.py asks for less than the bound, not 4 orders less).

bf16: operands of products, and K and V, are rounded to bf16 (unit roundoff 2^-9), weights likewise;
accumulation stays in f32. The same derivation; second order terms are then not far below the first,
so treat those bounds as good to a factor of two.
"""

import math

import numpy as np

from maskkv_oracle import ops, tensor_file

SAFETY = 8.0
RUNS = 16
BF16_U = 2.0**-9
_TABLE_POSITIONS = 1 << 12
_POOL = 1 << 16  # signs drawn at a time


class Noise:
    """Rounding errors of one imagined implementation: deterministic in the seed."""

    def __init__(self, seed, bf16=False):
        self._rng = np.random.default_rng([seed, int(bf16)])
        self._seed = seed
        self._bf16 = bf16
        self._signs_left, self._used = np.empty(0), 0
        self._tables = {}
        self._same = None  # row -> group of equal rows

    def rows_are(self, ids):
        """Until rows_differ(), rows of the same id hold the same values and err alike."""
        unique, self._same = np.unique(ids, return_inverse=True)
        self._unique = len(unique)

    def rows_differ(self):
        self._same = None

    def _signs(self, shape):
        if self._same is not None and shape[0] == len(self._same):
            return self._draw((self._unique, *shape[1:]))[self._same]
        return self._draw(shape)

    def _draw(self, shape):
        count = math.prod(shape)
        if self._used + count > len(self._signs_left):
            bits = np.frombuffer(self._rng.bytes(max(_POOL, count) // 8 + 1), np.uint8)
            self._signs_left, self._used = 2.0 * np.unpackbits(bits) - 1.0, 0
        self._used += count
        return self._signs_left[self._used - count : self._used].reshape(shape)

    def add(self, y, scale):
        return y + self._signs(y.shape) * scale

    def operand(self, x):
        return self.add(x, BF16_U * np.abs(x)) if self._bf16 else x

    def rope_table(self, positions, cos, sin, in_compute_dtype=False):
        half = cos.shape[1]
        if half not in self._tables:
            rng = np.random.default_rng([self._seed, half, 1])
            self._tables[half] = 2.0 * rng.integers(0, 2, (2, _TABLE_POSITIONS, half)) - 1.0
        signs = self._tables[half][:, positions]
        u = BF16_U if self._bf16 and in_compute_dtype else ops.U
        return cos + signs[0] * u * np.abs(cos), sin + signs[1] * u * np.abs(sin)


def round_weights_to_bf16(model):
    """Matrices as a bf16 engine holds them; norm weights stay."""

    def rounded(w):
        if w.ndim == 1:
            return w
        bits = tensor_file.float32_to_bf16(w.astype(np.float32))
        return tensor_file.bf16_to_float32(bits).astype(np.float64)

    return model.map(rounded)


def measure(evaluate, exact, bf16=False, runs=RUNS):
    """Element-wise bounds.

    evaluate: function of a Noise -> {name: array}; exact: the same dict without noise.
    -> {name: array of bounds, same shape}
    """
    squares = {name: np.zeros(np.shape(value)) for name, value in exact.items()}
    for run in range(runs):
        result = evaluate(Noise(run, bf16))
        for name, value in exact.items():
            squares[name] += (np.asarray(result[name]) - value) ** 2
    factor = SAFETY * (1 + 4 / math.sqrt(2 * runs))
    return {
        name: factor * np.sqrt(square / runs) + ops.U * np.abs(exact[name])
        for name, square in squares.items()
    }
