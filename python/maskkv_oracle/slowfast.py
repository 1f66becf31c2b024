# SPDX-License-Identifier: Apache-2.0
"""SlowFast sampling (arXiv 2506.10848), replayed from the beginning of a block at every step.

A block is decided in cycles. In the slow phase of a cycle every step estimates where the span of sure
predictions ends: behind the last mask that reaches `span_threshold`, or behind the first mask if none
does; the surest mask is committed. The span is settled once the last `stable_steps` estimates have a
population standard deviation below 1 (its end is the latest of them), or after `explore_steps` steps
(the mean of the last `stable_steps`, rounded down). In the fast phase every step commits the masks
before the end that reach `threshold`, the surest of them always. When none is left there, another
cycle begins.
"""

import dataclasses
import math
import statistics
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class Look:
    """What a step saw: the masks of its block."""

    positions: tuple
    scores: tuple


def estimate(look, span_threshold):
    sure = [p for p, s in zip(look.positions, look.scores) if s >= span_threshold]
    return 1 + (max(sure) if sure else look.positions[0])


def settled(estimates, explore_steps, stable_steps):
    """Where the span ends after these slow steps; None: the phase goes on."""
    last = [Fraction(e) for e in estimates[-stable_steps:]]
    if len(last) == stable_steps and statistics.pvariance(last) < 1:
        return estimates[-1]
    if len(estimates) == explore_steps:
        return math.floor(sum(last) / len(last))
    return None


def phases(looks, span_threshold, explore_steps, stable_steps):
    """For each step of a block the span's end in a fast step, None in a slow one."""
    result, cycle, end = [], [], None
    for look in looks:
        if end is not None and not any(p < end for p in look.positions):
            cycle, end = [], None
        result.append(end)
        if end is None:
            cycle.append(estimate(look, span_threshold))
            end = settled(cycle, explore_steps, stable_steps)
    return result


def commit(looks, *, threshold, span_threshold, explore_steps, stable_steps, **_):
    """Indices of the masks that the last of these steps commits, ascending.

    looks: of every step of the block up to this one.
    """
    look = looks[-1]
    end = phases(looks, span_threshold, explore_steps, stable_steps)[-1]
    inside = [i for i, p in enumerate(look.positions) if end is None or p < end]
    best = min(inside, key=lambda i: (-look.scores[i], i))
    if end is None:
        return [best]
    return [i for i in inside if i == best or look.scores[i] >= threshold]
