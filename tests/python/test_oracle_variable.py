# SPDX-License-Identifier: Apache-2.0
"""The reference of mixed masks and growing canvases, against what must follow from its definition."""

import dataclasses
import math

import numpy as np
import pytest

from maskkv_oracle import (
    checkpoint, decode, forward, golden_cases, growth, random_checkpoint, remix, variable,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "dream"
    random_checkpoint.write(golden_cases.CHECKPOINTS["dream"], path)
    return checkpoint.load(path)


PROMPT = list(range(1, 16))


def sampling(**more):
    return decode.Sampling(8, 8, 8, ignore_eos=True, **more)


def test_divergences_by_hand():
    assert remix.jensen_shannon({1: 0.5, 2: 0.5}, {2: 0.5, 1: 0.5}) == 0
    assert remix.jensen_shannon({1: 1.0}, {2: 1.0}) == pytest.approx(math.log(2))
    assert remix.jensen_shannon({1: 0.5, 2: 0.5}, {2: 0.5, 3: 0.5}) == pytest.approx(
        math.log(2) / 2)


def test_commits_by_hand():
    assert remix.commit([0.1, 0.3, 0.3], 0.9) == [1]
    assert remix.commit([0.95, 0.3, 0.9], 0.9) == [0]  # not above
    assert [len(remix.commit([0.95] * n, 0.9)) for n in (1, 5, 7, 9, 10, 29, 64)] == [
        1, 5, 5, 6, 7, 20, 20]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_without_weight_it_is_the_threshold_rule(model, temperature):
    rule = decode.Rule("threshold", threshold=0.5)
    params = sampling(temperature=temperature, seed=3, rule=rule)
    expected = decode.run(model, PROMPT, params)
    assert max(len(step.committed) for step in expected.steps) <= 5  # no cap is met
    found = variable.run(model, PROMPT, dataclasses.replace(params, rule=decode.Rule()), None,
                         remix.Mixing(weight=0.0, threshold=0.5))
    assert [p.step.committed for p in found.passes] == [s.committed for s in expected.steps]


def test_a_canvas_that_may_not_grow_is_decoded_as_ever(model):
    params = sampling(stop_ids=(3,))
    expected = decode.run(model, PROMPT, params)
    found = variable.run(model, PROMPT, params, None, None, growth.Growth(8))
    assert found.canvas == [int(t) for t in expected.canvas]


def test_a_canvas_that_grew_first_is_decoded_as_a_longer_one(model):
    longer = dataclasses.replace(sampling(stop_ids=(3,)), gen_length=16, steps=16)
    expected = decode.run(model, PROMPT, longer)
    grows = growth.Growth(16, 8, 4, 1.0, 0.0)
    found = variable.run(model, PROMPT, sampling(stop_ids=(3,)), None, None, grows)
    assert [p.grown for p in found.passes] == [8] + [0] * 16
    assert found.canvas == [int(t) for t in expected.canvas]


def test_a_mix_is_a_row_of_a_table_with_that_embedding(model):
    """The forward of mixed rows equals that of a model whose table holds the mixes as tokens."""
    mixer = remix.Mixer(remix.Mixing(0.25, 3, 1.0))
    raw = np.linspace(0, 3, len(model.embedding))[None].repeat(2, axis=0)
    raw[1] = raw[1][::-1]
    mixer.update([1, 4], raw, [model.config.mask_id])
    mask = model.config.mask_id
    ids = PROMPT + [mask] * 6
    positions = np.arange(len(ids))
    *_, found = mixer.rows(6)(model, ids, positions)
    table = model.embedding.copy()
    stand_in = {1: 40, 4: 41}
    for position, token in stand_in.items():
        best = sorted((i for i in range(len(table)) if i != mask),
                      key=lambda i: -raw[0 if position == 1 else 1][i])[:3]
        p = np.exp([raw[0 if position == 1 else 1][i] for i in best])
        expected = 0.25 * (p / p.sum()) @ model.embedding[best] + 0.75 * model.embedding[mask]
        table[token] = expected
        ids[len(PROMPT) + position] = token
    *_, expected = forward.run_rows(dataclasses.replace(model, embedding=table), ids, positions)
    np.testing.assert_allclose(found.out, expected.out, rtol=1e-12, atol=1e-13)
