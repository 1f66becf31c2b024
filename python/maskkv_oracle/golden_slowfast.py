# SPDX-License-Identifier: Apache-2.0
"""Golden cases of the rule slowfast alone: whole blocks decided from scores, step by step."""

import numpy as np

from maskkv_oracle import slowfast

CASES = 28


def _case(rng):
    numbers = {
        "threshold": float(rng.choice([0.5, 0.75, 0.9375])),
        "span_threshold": float(rng.choice([0.0, 0.25, 0.5, 0.75, 1.0])),
        "explore_steps": int(rng.integers(1, 7)),
        "stable_steps": int(rng.integers(1, 5)),
    }
    steps, begin = [], 0
    for _ in range(int(rng.integers(1, 3))):  # blocks
        length = int(rng.integers(1, 14))
        masks, looks = list(range(begin, begin + length)), []
        begin += length
        while masks:
            # Sixteenths: ties, and thresholds met exactly.
            scores = [float(s) for s in rng.integers(0, 17, len(masks)) / 16]
            looks.append(slowfast.Look(tuple(masks), tuple(scores)))
            chosen = slowfast.commit(looks, **numbers)
            steps.append({"block_step": len(looks) - 1, "positions": masks, "scores": scores,
                          "committed": chosen})
            masks = [p for i, p in enumerate(masks) if i not in chosen]
    return numbers | {"steps": steps}


def generate():
    rng = np.random.default_rng(20260210)
    return {"format": 1, "cases": [_case(rng) for _ in range(CASES)]}
