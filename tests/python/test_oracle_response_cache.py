# SPDX-License-Identifier: Apache-2.0
"""The oracle's response feature cache against the plain forward and hand-made rows."""

import math

import numpy as np
import pytest

from maskkv_oracle import (
    bounds,
    checkpoint,
    decode,
    forward,
    golden_cases,
    ops,
    prefill,
    random_checkpoint,
    response_cache,
)

NAMES = ("mha", "gqa", "dream", "moe_gqa")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        random_checkpoint.write(golden_cases.CHECKPOINTS[name], folder / name)
    return {name: checkpoint.load(folder / name) for name in NAMES}


def ids_of(model, count, seed=0):
    rng = np.random.default_rng(seed)
    return [int(i) for i in rng.integers(0, model.config.mask_id, count)]


def past_of(model, pairs, seed=1):
    c = model.config
    shape = (2, c.kv_heads, pairs, c.head_dim)
    drawn = [np.random.default_rng([seed, i]).normal(size=shape) for i in range(c.layers)]
    return [forward.Pairs(list(k), list(v)) for k, v in drawn]


def last(traces):
    return list(traces)[-1].out


def test_similarity_of_equal_opposite_and_zero_rows():
    kept = np.array([[[1.0, 2], [1, 0], [0, 0], [0, 0], [0.1, 0.7]]])
    new = np.array([[[2.0, 4], [-1, 0], [1, 0], [0, 0], [0.1, 0.7]]])
    found = response_cache.similarity(new, kept)
    assert found == pytest.approx([1, -1, 0, 1, 1])
    assert found[3] == found[4] == 1.0 and found.max() <= 1


def test_similarity_is_over_all_heads_of_a_row():
    kept = np.array([[[1.0, 0]], [[3.0, 0]]])  # two heads, one row
    new = np.array([[[0.0, 1]], [[3.0, 0]]])
    assert response_cache.similarity(new, kept) == pytest.approx([0.9])


def test_choice_rounds_up_takes_at_least_one_and_ties_go_to_the_lower_row():
    values = np.array([1.0, 0.5, 0.2, 0.5, 1.0])
    one, two, three = (response_cache.choose(values, s) for s in (0.01, 0.4, 0.41))
    assert (one.chosen.tolist(), one.gap) == ([2], pytest.approx(0.3))
    assert (two.chosen.tolist(), two.gap) == ([1, 2], 0)
    assert three.chosen.tolist() == [1, 2, 3]
    assert response_cache.choose(values, 1.0).gap == math.inf
    assert response_cache.choose(np.ones(4), 0.5).chosen.tolist() == [0, 1]


@pytest.mark.parametrize("every, share", [(0, 0.5), (2, 0), (2, 1.5), (2, math.nan)])
def test_settings_out_of_range_are_refused(every, share):
    with pytest.raises(ValueError, match="expected"):
        response_cache.ResponseCache(every, share)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("every, share", [(1, 0.25), (3, 1.0)])
def test_recomputing_every_row_gives_the_plain_decoding(models, name, every, share):
    model, prompt = models[name], ids_of(models[name], 9)
    params = decode.Sampling(gen_length=8, block_length=4, steps=8)
    cached = response_cache.ResponseCache(every, share)
    exact = decode.run(model, prompt, params)
    found = decode.run(model, prompt, params, run_rows=cached.run_rows)
    assert found.canvas == exact.canvas
    for a, b in zip(found.steps, exact.steps, strict=True):
        np.testing.assert_allclose(a.logits, b.logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_did_not_change_keep_their_exact_output(models, name):
    model, positions = models[name], np.arange(5, 17)
    ids, past = ids_of(model, 12), past_of(model, 5)
    cached = response_cache.ResponseCache(9, 0.25)
    last(cached.run_rows(model, ids, positions, past))
    again = last(cached.run_rows(model, ids, positions, past))
    exact = last(forward.run_rows(model, ids, positions, past))
    np.testing.assert_allclose(again, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_between_is_the_definition_row_by_row(models, name):
    """One token changes: the first layer is predicted from two plain forwards."""
    model, positions, changed = models[name], np.arange(5, 17), 7
    ids, past = ids_of(model, 12), past_of(model, 5)
    after = list(ids)
    after[changed] = (ids[changed] + 1) % model.config.mask_id
    cached = response_cache.ResponseCache(9, 0.05)  # one row
    list(cached.run_rows(model, ids, positions, past))
    traces = list(cached.run_rows(model, after, positions, past))
    assert traces[0].choice.chosen.tolist() == [changed]
    assert traces[0].choice.similarity[changed] < 1
    assert (np.delete(traces[0].choice.similarity, changed) == 1).all()
    old = next(forward.run_rows(model, ids, positions, past)).out
    new = next(forward.run_rows(model, after, positions, past)).out
    # K and V of layer 0 depend on the row's token alone, so the changed row is exact; the others
    # still carry the attention of the step before.
    expected = old.copy()
    expected[changed] = new[changed]
    np.testing.assert_allclose(traces[0].out, expected, rtol=0, atol=1e-10)
    assert [len(t.choice.chosen) for t in traces] == [1] * model.config.layers


@pytest.mark.parametrize("name", ("mha", "gqa", "dream"))
def test_a_chosen_row_sees_new_values_of_all_rows_and_new_keys_of_chosen_ones(models, name):
    model, positions = models[name], np.arange(12)
    ids, w, c = ids_of(model, 12), models[name].blocks[0], models[name].config
    after = list(ids)
    for row in (2, 7, 9):
        after[row] = (ids[row] + 1) % c.mask_id
    cached = response_cache.ResponseCache(9, 0.05)  # one row
    list(cached.run_rows(model, ids, positions))
    between = next(cached.run_rows(model, after, positions))
    (row,) = between.choice.chosen
    assert row in (2, 7, 9)
    old, new = (next(forward.run_rows(model, i, positions)) for i in (ids, after))
    keys = old.k.copy()
    keys[:, row] = new.k[:, row]
    seen = forward.attend(new.q[:, [row]], list(keys), list(new.v), c.group)
    middle = new.attn_in[[row]] + seen @ w.out.T
    n = ops.rms_norm(middle, w.ff_norm, c.norm_eps)
    gate = n @ w.gate.T
    expected = middle + (gate / (1 + np.exp(-gate)) * (n @ w.up.T)) @ w.down.T
    np.testing.assert_allclose(between.out[[row]], expected, rtol=0, atol=1e-10)
    # A third forward without a change: V is compared with the step before, so all rows tie at 1.
    third = next(cached.run_rows(model, after, positions))
    assert (third.choice.similarity == 1).all() and third.choice.chosen.tolist() == [0]


def test_the_kth_forward_is_whole_again_and_forgets_the_past(models):
    model, positions = models["gqa"], np.arange(12)
    cached = response_cache.ResponseCache(2, 0.25)
    for seed in range(5):
        ids = ids_of(model, 12, seed)
        traces = list(cached.run_rows(model, ids, positions))
        assert all((t.choice is None) == (seed % 2 == 0) for t in traces)
        error = np.abs(traces[-1].out - last(forward.run_rows(model, ids, positions))).max()
        assert (error < 1e-10) == (seed % 2 == 0)


def test_an_evicted_cache_decodes_and_differs_from_the_exact_steps(models):
    model, prompt = models["dream"], ids_of(models["dream"], 9)
    past = past_of(model, prefill.candidates_of(model.config, prompt))
    params = decode.Sampling(gen_length=8, block_length=4, steps=8)
    cached = response_cache.ResponseCache(3, 0.25)
    found = decode.run(model, prompt, params, past, run_rows=cached.run_rows)
    exact = decode.run(model, prompt, params, past)
    assert model.config.mask_id not in found.canvas
    assert cached.forwards == len(found.steps) == 8
    np.testing.assert_allclose(found.steps[0].logits, exact.steps[0].logits, rtol=0, atol=1e-10)
    assert np.abs(found.steps[1].logits - exact.steps[1].logits).max() > 1e-6


def choice(values, chosen, equal=()):
    values = np.array(values)
    same = np.isin(np.arange(len(values)), equal)
    return response_cache.Choice(values, np.array(chosen), 0.0, same)


def test_a_choice_is_decided_beyond_the_errors_of_the_rows_beside_the_cut():
    bound = np.array([0.01, 0.02, 0.01, 0.01])
    assert choice([0.5, 0.54, 0.9, 0.9], [0]).decided(bound)
    assert not choice([0.5, 0.52, 0.9, 0.9], [0]).decided(bound)
    assert choice([0.5, 0.52, 0.9, 0.9], [0, 1, 2, 3]).decided(bound)


def test_ties_of_equal_rows_are_decided_and_no_others():
    bound = np.full(4, 0.01)
    assert choice([1.0, 0.5, 1.0, 1.0], [1], equal=[0, 2, 3]).decided(bound)
    assert choice([1.0, 0.5, 1.0, 1.0], [0, 1], equal=[0, 2, 3]).decided(bound)
    assert choice([1.0, 1.0, 1.0, 1.0], [0], equal=[0, 1, 2, 3]).decided(bound)
    assert not choice([1.0, 0.995, 1.0, 1.0], [0, 1], equal=[0, 2, 3]).decided(bound)
    assert not choice([1.0, 0.5, 1.0, 0.995], [0, 1], equal=[0, 2]).decided(bound)


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_makes_the_next_forward_whole(models, name):
    model, positions = models[name], np.arange(12)
    ids = ids_of(model, 12)
    cached = response_cache.ResponseCache(9, 0.25)
    for whole in (True, False):
        last(cached.run_rows(model, ids, positions))
        assert (cached.choices[-1][0] is None) == whole
    cached.restart()
    assert cached.next_is_whole
    again = last(cached.run_rows(model, ids, positions, past_of(model, 3)))
    exact = last(forward.run_rows(model, ids, positions, past_of(model, 3)))
    np.testing.assert_allclose(again, exact, rtol=0, atol=1e-10)
    assert all(choice is None for choice in cached.choices[-1])


@pytest.mark.parametrize("name", ("gqa", "dream"))
def test_noise_follows_the_exact_choices_and_reaches_what_is_reused(models, name):
    model, positions = models[name], np.arange(5, 17)
    ids, past = ids_of(model, 12), past_of(model, 5)
    after = list(ids)
    after[3] = (ids[3] + 1) % model.config.mask_id
    exact = response_cache.ResponseCache(9, 0.25)
    outs = [last(exact.run_rows(model, i, positions, past)) for i in (ids, after)]
    with pytest.raises(ValueError, match="follow"):
        last(response_cache.ResponseCache(9, 0.25).run_rows(
            model, ids, positions, past, bounds.Noise(0)))  # fmt: skip
    noisy = response_cache.ResponseCache(9, 0.25, exact.choices)
    for i, out in zip((ids, after), outs):
        errors = np.abs(last(noisy.run_rows(model, i, positions, past, bounds.Noise(0))) - out)
        assert 0 < errors.min() and errors.max() < 1e-4
    for mine, followed in zip(noisy.choices[1], exact.choices[1]):
        assert mine.chosen.tolist() == followed.chosen.tolist()
        assert np.abs(mine.similarity - followed.similarity).max() > 0
