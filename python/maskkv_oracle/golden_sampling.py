# SPDX-License-Identifier: Apache-2.0
"""Golden numbers of the noise: Philox blocks, uniforms, Gumbel values."""

from maskkv_oracle import sampling

# Published with Random123 (kat_vectors, philox4x32 10): counter, key, result.
PHILOX_KNOWN = [
    ([0x00000000] * 4, [0x00000000] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
BITS = [0, 1, 0x1FF, 0x200, 0x7FFFFFFF, 0x80000000, 0xFFFFFDFF, 0xFFFFFE00, 0xFFFFFFFF, 0x12345678]
DRAWS = [  # seed, canvas position, step, vocabulary ids
    (0, 0, 0, 13),
    (1, 0, 0, 8),
    (7, 37, 5, 8),
    (2**32, 4095, 127, 8),
    (2**64 - 1, 2**31 - 1, 2**32 - 1, 6),
    (0x9E3779B97F4A7C15, 33000, 3, 8),
]


def generate():
    uniforms = sampling.uniform_from_bits(BITS)
    draws = []
    for seed, position, step, vocab in DRAWS:
        bits = sampling.random_bits(seed, position, step, vocab)
        u = sampling.uniform_from_bits(bits)
        draws.append({
            "seed": seed,
            "position": position,
            "step": step,
            "bits": [int(b) for b in bits],
            "uniform": [float(v) for v in u],
            "gumbel": [float(v) for v in sampling.gumbel_from_uniform(u)],
        })  # fmt: skip
    return {
        "format": 1,
        "philox": [{"counter": c, "key": k, "result": r} for c, k, r in PHILOX_KNOWN],
        "uniform": [{"bits": b, "value": float(u)} for b, u in zip(BITS, uniforms)],
        "gumbel_error": 2.0**-20,
        "draws": draws,
    }
