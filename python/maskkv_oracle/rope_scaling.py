# SPDX-License-Identifier: Apache-2.0
"""How much larger RoPE's base is for prompts longer than a model was trained on (LongLLaDA).

Liu et al., "LongLLaDA: Unlocking Long Context Capabilities in Diffusion LLMs", arXiv 2506.14429.
"""

import math


def critical_dimension(theta, head_dim, trained):
    """d_crit: dimensions whose rotations have come full circle within the trained length."""
    return 2 * math.ceil(head_dim / 2 * math.log(trained / (2 * math.pi), theta))


def factor(theta, head_dim, trained, length):
    """lambda = ceil(theta^-1 (length / 2 pi)^(d / d_crit)), by which theta is multiplied.

    1 for lengths up to the trained one: nothing is out of range there.
    """
    if length <= trained:
        return 1
    power = head_dim / critical_dimension(theta, head_dim, trained)
    return math.ceil((length / (2 * math.pi)) ** power / theta)
