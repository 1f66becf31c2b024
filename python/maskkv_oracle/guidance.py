# SPDX-License-Identifier: Apache-2.0
"""Classifier-free guidance as LLaDA (arXiv 2502.09992) does it.

logits = un + (w + 1)(cond - un): cond of the prompt and the canvas, un of the same canvas behind a
prompt of nothing but masks, chat template and all. Over a cache the masked prompt has one of its own,
made by the same eviction, and rows that are recomputed are masks there too.
"""

from maskkv_oracle import ops


def masked(config, prompt):
    return [config.mask_id] * len(prompt)


def guide(conditional, unconditional, scale, noise=None):
    difference = (scale + 1) * (conditional - unconditional)
    result = unconditional + difference
    if noise:  # a difference, a product and a sum
        result = noise.add(result, ops.U * (2 * abs(difference) + abs(result)))
    return result
