# SPDX-License-Identifier: Apache-2.0
"""Selection: keep = top-k of I over the prompt (equation 16)."""

import numpy as np


def top_k(scores, k):
    """Positions of the k largest scores, ascending; ties: the lower position. NaN is an error."""
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        raise ValueError("NaN scores")
    if not 0 <= k <= len(scores):
        raise ValueError(f"k: found {k}, expected 0 to {len(scores)}")
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], j))
    return sorted(order[:k])


def boundary_scores(scores, kept):
    """(smallest kept score, largest dropped score), or None if nothing is kept or dropped."""
    scores = np.asarray(scores, dtype=np.float64)
    dropped = np.setdiff1d(np.arange(len(scores)), kept)
    if len(kept) == 0 or len(dropped) == 0:
        return None
    return float(scores[kept].min()), float(scores[dropped].max())
