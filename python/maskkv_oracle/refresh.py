# SPDX-License-Identifier: Apache-2.0
"""Refreshing the prompt's cache: the prompt is prefilled again with the response as it stands.

After `every` steps over an entry, or once the share of attention that falls on kept pairs is below
`floor` times what it was in the entry's first step, the prompt goes through another prefill together
with the response: decided tokens are rows that others attend to, the rows still undecided vote, under
the same eviction. The next step runs over what this keeps. Nothing is refreshed after the last step.
"""

import dataclasses

import numpy as np

from maskkv_oracle import decode, forward, ops, prefill


@dataclasses.dataclass(frozen=True)
class Schedule:
    every: int = 0  # steps over an entry; 0: any number
    floor: float = 0.0  # 0 to 1; 0: the share is not looked at


@dataclasses.dataclass
class Entry:
    """One prefill of the prompt and the steps that ran over it."""

    response: list  # token ids that it saw, mask ids where nothing was decided
    prefill: prefill.Prefill
    kept_mass: list  # (steps): the share of attention to its pairs


def kept_mass(model, prompt, canvas, cache, rows, noise=None):
    """The share of attention that falls on the cache's pairs, which serve any prompt after the canvas.

    Of the rows that predict answer positions `rows`, in one step over the cache: the mean over
    layers, query heads and rows.
    """
    c, n_p = model.config, prefill.candidates_of(model.config, prompt)
    ids = list(prompt[n_p:]) + list(canvas)
    positions = np.arange(n_p, len(prompt) + len(canvas))
    shares = []
    for trace, past in zip(forward.run_rows(model, ids, positions, cache, noise), cache):
        for head in range(c.heads):
            g = head // c.group
            keys = np.concatenate([past.k[g], trace.k[g]])
            s = ops.attention_scores(trace.q[head][np.asarray(rows)], keys, noise)
            shares.append(ops.softmax(s, noise)[:, : len(past.k[g])].sum(axis=1))
    return float(np.mean(shares))


def run(model, prompt, params, eviction, schedule, response=None):
    """eviction None keeps every pair. -> (decode.Answer, [Entry])

    response: a response_cache.ResponseCache, whose forward after a prefill is whole. In between it
    has no attention of all rows, so there the floor is not looked at and kept_mass is None.
    """
    entries = []

    def due():
        masses = entries[-1].kept_mass
        if schedule.every and len(masses) >= schedule.every:
            return True
        if masses[-1] is None:
            return False
        return schedule.floor > 0 and masses[-1] < schedule.floor * masses[0]

    def cache_at(canvas, rows):
        if not entries or due():
            fresh = prefill.run(
                model, prompt, params.gen_length, eviction, response=canvas, suffix=params.suffix
            )
            entries.append(Entry(list(canvas), fresh, []))
            if response:
                response.restart()
        entry = entries[-1]
        mass = None
        if response is None or response.next_is_whole:
            mass = kept_mass(model, prompt, canvas, entry.prefill.cache, rows)
        entry.kept_mass.append(mass)
        return entry.prefill.cache

    run_rows = response.run_rows if response else forward.run_rows
    return decode.run(model, prompt, params, cache_at=cache_at, run_rows=run_rows), entries
