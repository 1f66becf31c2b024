# SPDX-License-Identifier: Apache-2.0
"""Canvases that grow at their end, after DAEDAL (arXiv 2508.00819).

The end's certainty is the mean, over the canvas' last `window` positions, of the probability of the
end token (raw softmax without forbidden ids), 0 where another token is decided. While no end token
is decided and the canvas is below max_gen_length, it grows by `by` masks

- before the first commit, in the place of a step, while the certainty is below eos_threshold;
- after a step whose certainty was below eos_threshold_decoding and which left a mask of its block
  with a confidence below low_confidence;
- when every position is decided.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Growth:
    max_gen_length: int
    by: int = 8
    window: int = 32
    eos_threshold: float = 0.5
    eos_threshold_decoding: float = 0.9
    low_confidence: float = 0.1


def may_grow(growth, canvas, stop_ids):
    return len(canvas) < growth.max_gen_length and not any(t in stop_ids for t in canvas)


def watched(growth, canvas, mask_id):
    """Masked positions of the window."""
    begin = max(0, len(canvas) - growth.window)
    return [i for i in range(begin, len(canvas)) if canvas[i] == mask_id]


def certainty(growth, canvas, probabilities):
    """probabilities: of the end token at watched()."""
    return float(sum(probabilities)) / min(growth.window, len(canvas))


def grow(growth, canvas, mask_id):
    """-> how many masks"""
    count = min(growth.by, growth.max_gen_length - len(canvas))
    canvas.extend([mask_id] * count)
    return count
