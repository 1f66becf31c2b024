# SPDX-License-Identifier: Apache-2.0
"""Philox, the mapping to (0, 1) and Gumbel noise."""

import numpy as np
import pytest

from maskkv_oracle import golden_sampling, sampling


@pytest.mark.parametrize("counter, key, result", golden_sampling.PHILOX_KNOWN)
def test_philox_gives_the_published_known_answers(counter, key, result):
    assert list(sampling.philox(counter, key)) == result


def test_uniforms_lie_strictly_between_zero_and_one():
    u = sampling.uniform_from_bits([0, 0x1FF, 0x200, 0xFFFFFFFF])
    assert u.dtype == np.float32
    assert list(u) == [2.0**-24, 2.0**-24, 3 * 2.0**-24, 1 - 2.0**-24]


def test_noise_is_a_function_of_seed_position_step_and_id_alone():
    long, short = sampling.gumbel(7, 3, 5, 40), sampling.gumbel(7, 3, 5, 13)
    assert (long[:13] == short).all()
    for other in ((8, 3, 5), (7 + 2**32, 3, 5), (7, 4, 5), (7, 3, 6)):
        assert (sampling.gumbel(*other, 40) != long).mean() > 0.9


def test_an_id_reads_the_word_id_mod_four_of_block_id_div_four():
    bits = sampling.random_bits(2**40 + 9, 11, 2, 9)
    assert bits[8] == sampling.philox((11, 2, 2, 0), (9, 256))[0]
    assert bits[7] == sampling.philox((11, 2, 1, 0), (9, 256))[3]


def test_gumbel_noise_has_the_moments_of_the_gumbel_distribution():
    g = sampling.gumbel(1, 0, 0, 40000).astype(float)
    assert g.mean() == pytest.approx(0.5772, abs=5 * 1.2825 / 200)
    assert g.std() == pytest.approx(1.2825, rel=0.03)


def test_adding_noise_samples_the_softmax():
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    counts = np.zeros(3)
    for position in range(6000):
        counts[np.argmax(logits + sampling.gumbel(5, position, 0, 3))] += 1
    assert counts / 6000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
