# SPDX-License-Identifier: Apache-2.0
"""Initial weights that already look around: what makes retrieval appear in minutes.

A small transformer spends most of its training finding "the token before this one", which
retrieval waits for. So the coordinates of the residual stream are given roles at the start, and a
few heads a job; everything is then trained freely.

    0          a constant: what positional queries and keys read
    1 .. 127   the token's own embedding
    128 ..     four slots of 32: a random view of the token 1, 2, 3 and 4 places back

Layer 0: head h attends h + 1 places back and fills slot h. Layer 1: heads 0 and 1 of a mask attend
the end of the user's turn and copy its four slots, head 2 adds the next token to slot 1, head 3 of
a mask fetches the role that a two-hop question names. Layers 2 and up: head 0 matches slots 3 and
4 (the subject, seen from its value and from the end of the question alike) and fetches the matched
token; layer 2's head 1 makes a person found so the subject of the next layer's match. All
other heads and all feed-forward matrices are N(0, 0.25 / fan in).
"""

import torch
from torch import nn

CONSTANT = 4.0
SHARPNESS = 30.0  # attention logit of a positional head at its offset
LINK = 12.0  # attention logit from a mask to the end of the user's turn
MATCH = 6.0  # attention logit for each slot that agrees
OWN = slice(1, 128)
SLOT = 32
GAIN = 0.5


def slots(first, last):
    """The residual coordinates of slots first .. last, counted from 1."""
    return slice(128 + SLOT * (first - 1), 128 + SLOT * last)


def _frequencies(shape):
    half = shape.head_dim // 2
    return shape.rope_theta ** (-torch.arange(half).float() / half)


def _slow_rows(shape):
    """Rows of a head whose rotation over 1,000 positions stays below one radian."""
    slow = (_frequencies(shape) * 1000 < 1.0).nonzero().squeeze(1)
    return torch.cat((slow, slow + shape.head_dim // 2))


def _rows(shape, head):
    return slice(head * shape.head_dim, (head + 1) * shape.head_dim)


def _positional_head(block, head, offset, slot, view, scale, shape):
    """Fills `slot` with a view of the token `offset` places away.

    q.k = sum_i u_i^2 cos((m - n + offset) f_i) is largest where n = m + offset. `scale` is the
    root mean square of the residual stream, which the norm divides by.
    """
    half, rows = shape.head_dim // 2, _rows(shape, head)
    u = torch.zeros(half)
    u[:8] = (SHARPNESS * shape.head_dim**0.5 / 8) ** 0.5 * scale / CONSTANT
    angle = -offset * _frequencies(shape)
    for projection, first, second in (
        (block.q_proj, u, torch.zeros(half)),
        (block.k_proj, u * angle.cos(), u * angle.sin()),
    ):
        projection.weight[rows] *= 0.1
        projection.weight[rows, 0] = torch.cat((first, second))
    start = rows.start
    block.v_proj.weight[start : start + SLOT] = 0.0
    block.v_proj.weight[start : start + SLOT, OWN] = view
    block.attn_out.weight[:, start : start + SLOT] = 0.0
    block.attn_out.weight[slots(slot, slot), start : start + SLOT] = torch.eye(SLOT)


def _link_head(block, head, source, query, key, shape):
    """Tokens that embed as `query` attend those that embed as `key` and copy slots `source`."""
    rows = _rows(shape, head)
    row = rows.start + shape.head_dim // 2 - 1
    scale = (LINK * shape.head_dim**0.5 / (0.5 * 256)) ** 0.5
    for projection, token in ((block.q_proj, query), (block.k_proj, key)):
        projection.weight[rows] *= 0.1
        projection.weight[row] = 0.0
        projection.weight[row, OWN] = scale * token[OWN] / token[OWN].norm()
    block.v_proj.weight[rows] = 0.0
    block.v_proj.weight[rows, source] = torch.eye(shape.head_dim)
    block.attn_out.weight[:, rows] = 0.0
    block.attn_out.weight[source, rows] = 1.5 * torch.eye(shape.head_dim)


def _role_head(block, head, query, key, view, shape):
    """Masks attend "of" and take what stands before it, the role in "the boss of ..."."""
    _link_head(block, head, slots(1, 2), query, key, shape)
    rows = _rows(shape, head)
    block.attn_out.weight[:, rows] = 0.0
    block.attn_out.weight[OWN, rows.start : rows.start + SLOT] = view.T


def _hop_head(block, head, view, match, shape):
    """Attends as the match head `match` and makes the person found there the new subject.

    The given name found goes to slot 4, the token after it (see layer 1's head 2) to slot 3.
    """
    rows, source = _rows(shape, head), _rows(shape, match)
    for projection in (block.q_proj, block.k_proj):
        projection.weight[rows] = projection.weight[source]
    start, middle = rows.start, rows.start + SLOT
    block.v_proj.weight[rows] = 0.0
    block.v_proj.weight[start:middle, OWN] = 2.0 * view
    block.v_proj.weight[middle : rows.stop, slots(1, 1)] = 2.0 * torch.eye(SLOT)
    block.attn_out.weight[:, rows] = 0.0
    block.attn_out.weight[slots(4, 4), start:middle] = torch.eye(SLOT)
    block.attn_out.weight[slots(3, 3), middle : rows.stop] = torch.eye(SLOT)


def _match_head(block, head, shape, generator):
    """Attends tokens whose slots 3 and 4 agree with one's own; fetches their embedding."""
    rows, slow = _rows(shape, head), _slow_rows(shape)
    shared = torch.zeros(shape.head_dim, 2 * SLOT)
    scale = (MATCH * shape.head_dim**0.5 / SLOT / len(slow)) ** 0.5
    shared[slow] = scale * torch.randn(len(slow), 2 * SLOT, generator=generator)
    for projection in (block.q_proj, block.k_proj):
        projection.weight[rows] *= 0.1
        projection.weight[rows, slots(3, 4)] = shared
    fetch = torch.empty(shape.head_dim, OWN.stop - OWN.start)
    nn.init.orthogonal_(fetch, generator=generator)
    block.v_proj.weight[rows] = 0.0
    block.v_proj.weight[rows, OWN] = fetch
    block.attn_out.weight[:, rows] = 0.0
    block.attn_out.weight[OWN, rows] = fetch.T


@torch.no_grad()
def initialise(model, seed, mask_id, end_id, of_id):
    """Sets all weights of `model` (d_model 256, 4 heads); `end_id` ends the user's turn."""
    generator = torch.Generator().manual_seed(seed)
    shape, t = model.shape, model.model.transformer
    for weight in model.parameters():
        if weight.dim() == 2:
            weight.normal_(0.0, GAIN * weight.shape[1] ** -0.5, generator=generator)
    wte = t.wte.weight
    wte.normal_(0.0, 0.1, generator=generator)
    wte[:, OWN] = 2**0.5 * torch.randn(wte[:, OWN].shape, generator=generator)
    wte[:, 0] = CONSTANT
    t.ff_out.weight[:, OWN] = 0.1 * wte[:, OWN]
    view = torch.empty(SLOT, OWN.stop - OWN.start)
    nn.init.orthogonal_(view, generator=generator)
    for head in range(4):
        _positional_head(t.blocks[0], head, -(head + 1), head + 1, view, 1.0, shape)
    for head, source in enumerate((slots(1, 2), slots(3, 4))):
        _link_head(t.blocks[1], head, source, wte[mask_id], wte[end_id], shape)
    _positional_head(t.blocks[1], 2, 1, 1, view, 2**0.5, shape)
    _role_head(t.blocks[1], 3, wte[mask_id], wte[of_id], view, shape)
    for block in t.blocks[2:]:
        _match_head(block, 0, shape, generator)
    _hop_head(t.blocks[2], 1, view, 0, shape)
