# SPDX-License-Identifier: Apache-2.0
"""Who votes: the rows whose attention scores the pairs, and what is kept without a vote.

The prompt's candidates are rows 0 to n_p - 1, the response rows follow: the masks, and before them,
where logits are shifted, the last prompt token.
"""

import numpy as np

QUARTERS = ("masks-front", "masks-second", "masks-third", "masks-back")
WITHOUT_SCORES = ("recent", "random", "full")
NAMES = ("masks", *QUARTERS, "prompt", "all", "window", *WITHOUT_SCORES)


def window_of(budget, candidates):
    """w: the last candidates that vote, and are kept, under `window`."""
    return min(max(1, min(32, budget // 2)), candidates)


def rows(name, candidates, response, budget):
    """Rows that vote, of candidates + response rows; none under the names without scores."""
    if name in WITHOUT_SCORES:
        return np.arange(0)
    if name in QUARTERS:
        q = QUARTERS.index(name)
        begin = q * response // 4
        return candidates + np.arange(begin, max((q + 1) * response // 4, begin + 1))
    begin, end = {
        "masks": (candidates, candidates + response),
        "prompt": (0, candidates),
        "all": (0, candidates + response),
        "window": (candidates - window_of(budget, candidates), candidates),
    }[name]
    return np.arange(begin, end)


def most_recent(k, candidates):
    """The first s = min(4, floor(k / 2)) candidates and the last k - s."""
    first = min(4, k // 2)
    return [*range(first), *range(candidates - (k - first), candidates)]


def any_random(k, candidates, seed, layer, head):
    """k random candidates, a function of (seed, layer, head).

    Which function is an implementation's own: what must agree is how many and that none is there
    twice.
    """
    rng = np.random.default_rng([seed, layer, head])
    return sorted(int(j) for j in rng.choice(candidates, k, replace=False))
