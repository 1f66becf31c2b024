# SPDX-License-Identifier: Apache-2.0
"""Counter-based noise: Philox4x32-10, the mapping to (0, 1), and Gumbel noise in float32.

Philox: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

The noise of a vocabulary id at a canvas position in a step:
    key     = (seed mod 2^32, seed div 2^32)
    counter = (canvas position, step, vocabulary id div 4, stream), stream 0
    bits    = word (vocabulary id mod 4) of Philox(counter, key)
    u       = ((bits >> 9) + 0.5) * 2^-23            exact in float32, strictly inside (0, 1)
    g       = -log(-log(u))                          each logarithm rounded to float32
The canvas position is absolute (prompt + answer), the step counts over all blocks from 0.
"""

import numpy as np

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF
TOKEN_NOISE = 0


def philox(counter, key):
    """Four words and two words (Python integers) -> four words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniform_from_bits(bits):
    return (np.asarray(bits, dtype=np.uint32) >> 9).astype(np.float32) * np.float32(
        2.0**-23
    ) + np.float32(2.0**-24)


def random_bits(seed, position, step, vocab, stream=TOKEN_NOISE):
    """(vocab) words, one for each vocabulary id."""
    key = (seed & _MASK, seed >> 32)
    words = []
    for block in range(-(-vocab // 4)):
        words.extend(philox((position, step, block, stream), key))
    return np.array(words[:vocab], dtype=np.uint32)


def _log(x):
    """The logarithm rounded once to float32, through float64: the same on every machine."""
    return np.log(x.astype(np.float64)).astype(np.float32)


def gumbel_from_uniform(u):
    return -_log(-_log(np.asarray(u, dtype=np.float32)))


def gumbel(seed, position, step, vocab):
    """(vocab) float32: the noise of every vocabulary id."""
    return gumbel_from_uniform(uniform_from_bits(random_bits(seed, position, step, vocab)))
