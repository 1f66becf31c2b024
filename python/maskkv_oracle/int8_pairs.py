# SPDX-License-Identifier: Apache-2.0
"""Kept pairs as an int8 entry holds them: a byte an element, a float32 scale for each key and value
of a head. What is read is the byte times the scale, rounded to float32."""

import numpy as np

from maskkv_oracle import forward

LEAST_SCALE = np.float32(2.0**-126)


def quantise(rows):
    """rows: (n, head_dim). -> int8 (n, head_dim), float32 scales (n)"""
    rows = np.asarray(rows, np.float32)
    scales = np.maximum(np.abs(rows).max(axis=1) / np.float32(127), LEAST_SCALE)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def read(rows):
    """The numbers that quantised rows stand for, as float64."""
    q, scales = quantise(rows)
    return (q.astype(np.float32) * scales[:, None]).astype(np.float64)


def cache(layers):
    """forward.Pairs a layer, as decoding reads them out of an int8 entry."""
    def heads(all_heads):
        return [read(head) if len(head) else head for head in all_heads]

    return [forward.Pairs(heads(pairs.k), heads(pairs.v)) for pairs in layers]
