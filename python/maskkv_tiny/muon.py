# SPDX-License-Identifier: Apache-2.0
"""Muon (Jordan et al., 2024) in float32: each matrix moves along its orthogonalised momentum.

torch.optim.Muon computes the same updates in bfloat16, which takes twenty seconds a step on a CPU
without a bfloat16 unit; here matrices of one shape share float32 products and it takes a fraction
of one. The learning rate is scaled by sqrt(max(1, rows / columns)), as there.
"""

import collections

import torch

MOMENTUM = 0.95
ROUNDS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5: drives singular values to 0.7 .. 1.2


def orthogonalised(matrices):
    """The matrices (count, rows, columns), rows <= columns, with all singular values near 1."""
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Takes matrices only; Nesterov momentum, no weight decay."""

    def __init__(self, matrices, lr):
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = collections.defaultdict(list)
            for p in group["params"]:
                by_shape[p.shape].append(p)
            for (rows, columns), matrices in by_shape.items():
                moved = torch.stack([self._direction(p) for p in matrices])
                tall = rows > columns
                moved = orthogonalised(moved.mT if tall else moved)
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for p, update in zip(matrices, moved):
                    p.sub_(update.mT if tall else update, alpha=rate)

    def _direction(self, p):
        momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
        momentum.lerp_(p.grad, 1.0 - MOMENTUM)
        return p.grad.lerp(momentum, MOMENTUM)
