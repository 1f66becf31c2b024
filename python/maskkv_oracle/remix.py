# SPDX-License-Identifier: Apache-2.0
"""ReMix (arXiv 2602.22868): masks that are shown as a mix of what they were last predicted to be.

The embedding of a mask is

    (1 - weight) * embedding(mask) + weight * sum over its `top` most likely tokens p_i embedding(i)

with the probabilities of its last prediction (raw softmax without forbidden ids), renormalised over
those tokens. It is the mask's alone while nothing was predicted, and after a step whose prediction
moved from the one before by more than js_threshold: Jensen-Shannon divergence, in nats, of the two
renormalised distributions.
"""

import dataclasses

import numpy as np

from maskkv_oracle import forward, ops


@dataclasses.dataclass(frozen=True)
class Mixing:
    weight: float = 0.5
    top: int = 50
    js_threshold: float = 0.3
    threshold: float = 0.9  # of the commit

    def spec(self):
        """As core/decoding/rule_spec.h reads it."""
        return (f"remix:{self.threshold!r}:mix_weight={self.weight!r}:mix_top={self.top}"
                f":js_threshold={self.js_threshold!r}")  # fmt: skip


def most(masks):
    """How many of a block's masks a step commits at most."""
    return min(max(masks * 7 // 10, 5), 20)


def commit(scores, threshold):
    """Indices that are committed, ascending; ties go to the lower index."""
    above = sum(s > threshold for s in scores)
    count = min(max(above, 1), most(len(scores)))
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])


def commit_gap(scores, threshold, chosen):
    """The least change of a score that could make another choice."""
    gaps = [abs(s - threshold) for s in scores]
    above = sum(s > threshold for s in scores)
    left = [s for i, s in enumerate(scores) if i not in chosen]
    if left and above != len(chosen):
        gaps.append(min(scores[i] for i in chosen) - max(left))
    return float(min(gaps))


def best_ids(raw, forbidden, top):
    """Ids of the largest logits, in descending order, ties to the lower id."""
    allowed = [i for i in range(len(raw)) if i not in forbidden]
    return sorted(allowed, key=lambda i: (-raw[i], i))[:top]


def edge(raw, forbidden, ids):
    """How far the least logit of `ids` is above the best that is not among them."""
    left = [raw[i] for i in range(len(raw)) if i not in forbidden and i not in ids]
    return float(min(raw[i] for i in ids) - max(left)) if left else np.inf


def distribution(raw, ids):
    """{id: probability}, renormalised over ids. What lies outside cancels."""
    weights = np.exp(raw[ids] - raw[ids].max())
    return dict(zip(ids, weights / weights.sum()))


def jensen_shannon(p, q):
    total = 0.0
    for i in p.keys() | q.keys():
        a, b = p.get(i, 0.0), q.get(i, 0.0)
        m = (a + b) / 2
        total += (a * np.log(a / m) if a > 0 else 0.0) + (b * np.log(b / m) if b > 0 else 0.0)
    return float(total / 2)


@dataclasses.dataclass
class Moved:
    """What one step did to one mask that it left."""

    position: int
    ids: list
    edge: float  # see edge()
    divergence: float | None  # None: its first prediction
    mixed: bool


class Mixer:
    def __init__(self, mixing):
        self.mixing = mixing
        self._last = {}  # position -> distribution
        self._mix = {}  # position -> distribution, where the mask is mixed

    def update(self, positions, raw, forbidden, follow=None):
        """positions: masks left, raw: a row for each. follow: Moved of each, decisions to repeat.

        -> [Moved]
        """
        last, mix, result = {}, {}, []
        for i, position in enumerate(positions):
            ids = follow[i].ids if follow else best_ids(raw[i], forbidden, self.mixing.top)
            p = distribution(raw[i], ids)
            before = self._last.get(position)
            divergence = None if before is None else jensen_shannon(before, p)
            mixed = divergence is None or divergence <= self.mixing.js_threshold
            if follow:
                mixed = follow[i].mixed
            last[position] = p
            if mixed:
                mix[position] = p
            result.append(Moved(position, ids, edge(raw[i], forbidden, ids), divergence, mixed))
        self._last, self._mix = last, mix
        return result

    def embedding(self, model, position, noise=None):
        """(hidden): the mix of a mask, or None."""
        p = self._mix.get(position)
        if p is None:
            return None
        weight = self.mixing.weight
        parts = [(1 - weight) * model.embedding[model.config.mask_id]]
        parts += [weight * x * model.embedding[i] for i, x in p.items()]
        mixed = np.sum(parts, axis=0)
        if noise:  # a weight, a product and a sum for each
            size = np.sum(np.abs(parts), axis=0)
            mixed = noise.add(mixed[None], np.sqrt(3 * len(parts)) * ops.U * size[None])[0]
        return mixed

    def rows(self, length):
        """forward.run_rows for ids whose last `length` are the canvas."""

        def run_rows(model, ids, positions, past=None, noise=None):
            ids = np.asarray(ids)
            x, kinds = model.embedding[ids].copy(), ids.copy()
            for position in self._mix:
                row = len(ids) - length + position
                kinds[row] = len(model.embedding) + position  # equal to no other row
                x[row] = self.embedding(model, position, noise)
            if noise:
                noise.rows_are(kinds)
            for index in range(model.config.layers):
                trace = forward.run_block(model, index, x, positions,
                                          past[index] if past else None, noise)  # fmt: skip
                yield trace
                x = trace.out

        return run_rows
