# SPDX-License-Identifier: Apache-2.0
"""LongLLaDA's factor of the RoPE base."""

import pytest

from maskkv_oracle import rope_scaling


@pytest.mark.parametrize(
    "theta, trained, thousands, published",
    [
        (5e5, 4096, 4, 1),
        (5e5, 4096, 8, 4),
        (5e5, 4096, 16, 14),
        (5e5, 4096, 24, 31),
        (5e5, 4096, 32, 55),
        (1e6, 2048, 1, 1),
        (1e6, 2048, 4, 5),
        (1e6, 2048, 8, 25),
        (1e6, 2048, 16, 126),
    ],
)
def test_factors_of_llada_and_dream(theta, trained, thousands, published):
    assert rope_scaling.factor(theta, 128, trained, 1024 * thousands) == published


def test_critical_dimensions():
    # 64 ln(4096 / 2 pi) / ln 5e5 = 31.6; 64 ln(2048 / 2 pi) / ln 1e6 = 26.8.
    assert rope_scaling.critical_dimension(5e5, 128, 4096) == 64
    assert rope_scaling.critical_dimension(1e6, 128, 2048) == 54


def test_the_factor_never_falls_with_the_length():
    factors = [rope_scaling.factor(5e5, 128, 4096, n) for n in range(1, 40000, 97)]
    assert factors == sorted(factors) and factors[0] == 1
