# SPDX-License-Identifier: Apache-2.0
"""Initial weights that already look around: what makes retrieval appear in minutes.

A small transformer spends most of its training finding "the token before this one", which
retrieval waits for. So the coordinates of the residual stream are given roles at the start, and a
few heads a job; everything is then trained freely.

    0          a constant: what positional queries and keys read
    1 .. 127   the token's own embedding
    128 ..     four slots of 32: a random view of the token 1, 2, 3 and 4 places back

Layer 0: head h attends h + 1 places back and fills slot h. Layer 1: two heads of a mask attend the
end of the question and copy what its slots hold, one adds the next token to slot 1, one of a mask
fetches the role that a two-hop question names. Layers 2 and up: head 0 matches slots 3 and 4 (the
subject, seen from its value and from the end of the question alike) and fetches the matched token;
layer 2 has a head too that makes a person found so the subject of the next layer's match. All
other heads and all feed-forward matrices are N(0, 0.25 / fan in), biases 0.

The heads' keys and values are laid out in two ways: a KV head for every query head, where the end
of the question is its last token, <|eot_id|>; or one for two query heads, below "Shared KV heads",
where it is the question mark, as the system prompt ends in <|im_end|> too.
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


def _own_jobs(blocks, view, ids, wte, shape, generator):
    """Every query head has a KV head of its own."""
    mask, end, of = wte[ids["mask"]], wte[ids["end"]], wte[ids["of"]]
    for head in range(4):
        _positional_head(blocks[0], head, -(head + 1), head + 1, view, 1.0, shape)
    for head, source in enumerate((slots(1, 2), slots(3, 4))):
        _link_head(blocks[1], head, source, mask, end, shape)
    _positional_head(blocks[1], 2, 1, 1, view, 2**0.5, shape)
    _role_head(blocks[1], 3, mask, of, view, shape)
    for block in blocks[2:]:
        _match_head(block, 0, shape, generator)
    _hop_head(blocks[2], 1, view, 0, shape)


# Shared KV heads: KV head g serves query heads 2 g and 2 g + 1, which differ in the rows of the
# keys that they read and in where they write the part of the values that concerns them.


def _positional_rows(projection, rows, offset, scale, shape):
    """The rows of queries that look `offset` places away from keys of offset 0."""
    half = shape.head_dim // 2
    u = torch.zeros(half)
    u[:8] = (SHARPNESS * shape.head_dim**0.5 / 8) ** 0.5 * scale / CONSTANT
    angle = offset * _frequencies(shape)
    projection.weight[rows, 0] = torch.cat((u * angle.cos(), u * angle.sin()))


def _token_row(projection, rows, row, tokens, shape):
    """Row `row` (an index into the head) reads how much a token embeds as one of `tokens`."""
    scale = (LINK * shape.head_dim**0.5 / (0.5 * shape.d_model)) ** 0.5
    projection.weight[rows.start + row] = 0.0
    for token in tokens:
        projection.weight[rows.start + row, OWN] += scale * token[OWN] / token[OWN].norm()


def _copy_values(block, group, halves, shape):
    """The first halves of a KV head's values: (coordinates, (32, .) matrix) for each."""
    for half, (coordinates, matrix) in enumerate(halves):
        start = _rows(shape, group).start + half * SLOT
        block.v_proj.weight[start : start + SLOT] = 0.0
        block.v_proj.weight[start : start + SLOT, coordinates] = matrix


def _write(block, head, halves, shape):
    """Head `head` adds a matrix times a half of its values: {half: (coordinates, matrix)}."""
    for half in range(2):
        start = _rows(shape, head).start + half * SLOT
        block.attn_out.weight[:, start : start + SLOT] = 0.0
        if half in halves:
            coordinates, matrix = halves[half]
            block.attn_out.weight[coordinates, start : start + SLOT] = matrix


def _shared_positions(block, view, shape):
    """Layer 0: head h looks h + 1 places back."""
    block.q_proj.weight *= 0.1
    block.k_proj.weight *= 0.1
    for group in range(2):
        _positional_rows(block.k_proj, _rows(shape, group), 0, 1.0, shape)
        _copy_values(block, group, [(OWN, view)], shape)
    for head in range(4):
        _positional_rows(block.q_proj, _rows(shape, head), -(head + 1), 1.0, shape)
        _write(block, head, {0: (slots(head + 1, head + 1), torch.eye(SLOT))}, shape)


def _shared_links(block, view, seekers, end, of, shape):
    """Layer 1: heads 0 and 2 link, head 1 fetches the role, head 3 looks one place ahead.

    A subject's names stand in slots 2 and 3 of the question mark and in slots 3 and 4 of a value, so
    what is copied moves up by one slot.
    """
    eye, link, role = torch.eye(SLOT), shape.head_dim // 2 - 1, shape.head_dim // 2 - 2
    block.q_proj.weight *= 0.1
    block.k_proj.weight *= 0.1
    for group, keys in ((0, ((link, end), (role, of))), (1, ((link, end),))):
        for row, token in keys:
            _token_row(block.k_proj, _rows(shape, group), row, [token], shape)
    for head, row in ((0, link), (1, role), (2, link)):
        _token_row(block.q_proj, _rows(shape, head), row, seekers, shape)
    _positional_rows(block.k_proj, _rows(shape, 1), 0, 2**0.5, shape)
    _positional_rows(block.q_proj, _rows(shape, 3), 1, 2**0.5, shape)
    _copy_values(block, 0, [(slots(1, 1), eye), (slots(2, 2), eye)], shape)
    _copy_values(block, 1, [(slots(3, 3), eye), (OWN, view)], shape)
    _write(block, 0, {0: (slots(2, 2), 1.5 * eye), 1: (slots(3, 3), 1.5 * eye)}, shape)
    _write(block, 1, {0: (OWN, view.T)}, shape)
    _write(block, 2, {0: (slots(4, 4), 1.5 * eye)}, shape)
    _write(block, 3, {1: (slots(1, 1), eye)}, shape)


def _shared_hop(block, view, shape):
    """Head 2 attends as the match head 0 and makes the person found there the new subject."""
    eye = torch.eye(SLOT)
    block.q_proj.weight[_rows(shape, 2)] = block.q_proj.weight[_rows(shape, 0)]
    block.k_proj.weight[_rows(shape, 1)] = block.k_proj.weight[_rows(shape, 0)]
    _copy_values(block, 1, [(OWN, 2.0 * view), (slots(1, 1), 2.0 * eye)], shape)
    _write(block, 2, {0: (slots(4, 4), eye), 1: (slots(3, 3), eye)}, shape)


def _shared_jobs(blocks, view, ids, wte, shape, generator):
    """Two query heads share a KV head; the row before the masks does a mask's job too."""
    _shared_positions(blocks[0], view, shape)
    seekers = [wte[ids["mask"]], wte[ids["line"]]]
    _shared_links(blocks[1], view, seekers, wte[ids["question"]], wte[ids["of"]], shape)
    for block in blocks[2:]:
        _match_head(block, 0, shape, generator)
    _shared_hop(blocks[2], view, shape)


@torch.no_grad()
def initialise(model, seed, family, tokenizer):
    """Sets all weights of `model` (d_model 256, 4 heads, 4 or 2 KV heads)."""
    generator = torch.Generator().manual_seed(seed)
    shape, t = model.shape, model.model.transformer
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            weight.normal_(0.0, GAIN * weight.shape[1] ** -0.5, generator=generator)
        elif name.endswith("bias"):
            weight.zero_()
    wte = t.wte.weight
    wte.normal_(0.0, 0.1, generator=generator)
    wte[:, OWN] = 2**0.5 * torch.randn(wte[:, OWN].shape, generator=generator)
    wte[:, 0] = CONSTANT
    t.ff_out.weight[:, OWN] = 0.1 * wte[:, OWN]
    view = torch.empty(SLOT, OWN.stop - OWN.start)
    nn.init.orthogonal_(view, generator=generator)
    names = {"mask": family.mask, "end": family.end_of_turn, "question": "?", "of": "\u0120of",
             "line": "\u010a"}
    ids = {name: tokenizer.token_to_id(token) for name, token in names.items()}
    jobs = _own_jobs if shape.n_kv_heads == shape.n_heads else _shared_jobs
    jobs(t.blocks, view, ids, wte, shape, generator)
