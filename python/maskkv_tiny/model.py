# SPDX-License-Identifier: Apache-2.0
"""The network of both families in PyTorch, small and plain.

LLaDA and Dream compute the same thing but for three switches of their shape (families.Shape):
shared KV heads, biases of the query, key and value projections, and which row predicts a position.
Module names give the tensor names of a published LLaDA checkpoint; a Family knows its own.

Attention is written as matmul, softmax, matmul: on a CPU that trains twice as fast as the fused
kernel, whose backward pass is slow there. Shapes: B rows, n positions, H heads of D = d / H.
"""

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Statistics in float32, the result cast to the weight's type before the product."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(self.weight.dtype)


def rotary_tables(positions, head_dim, theta):
    """cos and sin, (B, 1, n, D) float32, of half-split rotary embedding at `positions` (B, n)."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = positions[:, None, :, None].float() * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    first, second = x.float().chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.n_heads, self.n_kv_heads = shape.n_heads, shape.n_kv_heads
        self.head_dim = shape.head_dim
        pairs, bias = shape.n_kv_heads * shape.head_dim, shape.qkv_bias
        d, hidden = shape.d_model, shape.mlp_hidden_size
        self.attn_norm = RMSNorm(d, shape.rms_norm_eps)
        self.q_proj = nn.Linear(d, d, bias=bias)
        self.k_proj = nn.Linear(d, pairs, bias=bias)
        self.v_proj = nn.Linear(d, pairs, bias=bias)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.ff_norm = RMSNorm(d, shape.rms_norm_eps)
        self.ff_proj = nn.Linear(d, hidden, bias=False)
        self.up_proj = nn.Linear(d, hidden, bias=False)
        self.ff_out = nn.Linear(hidden, d, bias=False)

    def _heads(self, x):
        """(B, n, heads * D) as (B, heads, n, D)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x, cos, sin, bias):
        rows, n, d = x.shape
        h = self.attn_norm(x)
        q = rotate(self._heads(self.q_proj(h)), cos, sin)
        k, v = rotate(self._heads(self.k_proj(h)), cos, sin), self._heads(self.v_proj(h))
        if self.n_kv_heads != self.n_heads:
            group = self.n_heads // self.n_kv_heads
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        if bias is not None:
            scores = scores + bias
        mixed = torch.softmax(scores, dim=-1).to(v.dtype) @ v
        x = x + self.attn_out(mixed.transpose(1, 2).reshape(rows, n, d))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


class Network(nn.Module):
    def __init__(self, shape):
        """`shape`: a families.Shape."""
        super().__init__()
        self.shape = shape
        transformer = nn.Module()
        transformer.wte = nn.Embedding(shape.vocab_size, shape.d_model)
        transformer.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        transformer.ln_f = RMSNorm(shape.d_model, shape.rms_norm_eps)
        transformer.ff_out = nn.Linear(shape.d_model, shape.vocab_size, bias=False)
        self.model = nn.Module()
        self.model.transformer = transformer

    def forward(self, ids, positions, bias, picked):
        """Logits (number picked, vocabulary) of the rows `picked`, flat indices into (B, n).

        `bias` (B, 1, n, n) is added to the attention scores; None lets all see all.
        """
        t = self.model.transformer
        x = t.wte(ids)
        cos, sin = rotary_tables(positions, self.shape.head_dim, self.shape.rope_theta)
        for block in t.blocks:
            x = block(x, cos, sin, bias)
        return t.ff_out(t.ln_f(x.flatten(0, 1)[picked]))
