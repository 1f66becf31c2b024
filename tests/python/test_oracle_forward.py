# SPDX-License-Identifier: Apache-2.0
"""The oracle's forward, decoding and error bounds."""

import dataclasses

import numpy as np
import pytest

from maskkv_oracle import (
    bounds,
    checkpoint,
    decode,
    forward,
    golden_cases,
    golden_run,
    ops,
    prefill,
    random_checkpoint,
    rules,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    result = {}
    for name, shape in golden_cases.CHECKPOINTS.items():
        random_checkpoint.write(shape, folder / name)
        result[name] = checkpoint.load(folder / name)
    return result


def prompt_of(model, tokens, seed=0):
    rng = np.random.default_rng(seed)
    return [int(i) for i in rng.integers(0, model.config.mask_id, tokens)]


def test_rms_norm_has_unit_mean_square_times_the_weight():
    x = np.random.default_rng(0).normal(size=(3, 10)) * 5
    y = ops.rms_norm(x, np.full(10, 2.0), 0.0)
    assert np.mean(y * y, axis=1) == pytest.approx([4, 4, 4])
    assert ops.rms_norm(np.zeros((1, 4)), np.ones(4), 1e-5).tolist() == [[0, 0, 0, 0]]


def test_softmax_rows_sum_to_one_whatever_their_offset():
    s = np.random.default_rng(0).normal(size=(5, 9)) * 30
    assert ops.softmax(s).sum(axis=1) == pytest.approx(np.ones(5))
    assert ops.softmax(s + 1000) == pytest.approx(ops.softmax(s), rel=1e-9)
    assert ops.softmax(np.zeros((3, 0))).shape == (3, 0)


def test_rope_turns_pairs_of_halves_and_scores_see_distances_only():
    x = np.zeros((1, 1, 4))
    x[0, 0, 1] = 1.0  # pair (1, 3), frequency theta^(-1/2)
    turned = ops.rope(x, [3], 100.0)[0, 0]
    assert turned == pytest.approx([0, np.cos(0.3), 0, np.sin(0.3)])
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 8))

    def score(i, j):
        return np.vdot(ops.rope(q, [i], 1e4), ops.rope(k, [j], 1e4))

    assert score(5, 2) == pytest.approx(score(105, 102))
    assert score(5, 2) != pytest.approx(score(5, 3))


def test_grouped_heads_equal_full_heads_with_copied_keys_and_values(models):
    model = models["gqa"]
    c = model.config

    def copied(w):  # each KV head's rows once for every query head of its group
        heads = w.reshape(c.kv_heads, c.head_dim, c.hidden)
        return np.repeat(heads, c.group, axis=0).reshape(c.hidden, c.hidden)

    full = dataclasses.replace(
        model,
        config=dataclasses.replace(c, kv_heads=c.heads),
        blocks=tuple(dataclasses.replace(b, k=copied(b.k), v=copied(b.v)) for b in model.blocks),
    )
    prompt = prompt_of(model, 12)
    a, b = prefill.run(model, prompt, 4), prefill.run(full, prompt, 4)
    assert a.logits == pytest.approx(b.logits, rel=1e-9, abs=1e-9)
    summed = b.votes[1].scores.reshape(c.kv_heads, c.group, -1).sum(axis=1)
    assert a.votes[1].scores == pytest.approx(summed, rel=1e-9)


def test_attention_has_no_causal_mask(models):
    model = models["mha"]
    prompt = prompt_of(model, 6)
    other = prompt[:5] + [(prompt[5] + 1) % model.config.mask_id]
    first = [list(forward.run_rows(model, p, np.arange(6)))[-1].out[0] for p in (prompt, other)]
    assert np.abs(first[0] - first[1]).max() > 1e-3


@pytest.mark.parametrize("name", golden_cases.CHECKPOINTS)
def test_step_one_over_the_whole_cache_equals_the_uncached_step_one(models, name):
    model = models[name]
    prompt = prompt_of(model, 17)
    run = prefill.run(model, prompt, 6)
    canvas = [model.config.mask_id] * 6
    cached = decode.answer_logits(model, prompt, canvas, run.cache, range(6))
    uncached = decode.answer_logits(model, prompt, canvas, None, range(6))
    assert cached == pytest.approx(uncached, rel=1e-9, abs=1e-9)
    assert run.logits == pytest.approx(uncached, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", golden_cases.CHECKPOINTS)
def test_what_nothing_serves_is_recomputed_as_without_a_cache(models, name):
    model = models[name]
    prompt, canvas = prompt_of(model, 13), [model.config.mask_id] * 5
    nothing = prefill.run(model, prompt, 5).cache_of_first(0)
    uncached = decode.answer_logits(model, prompt, canvas, None, range(5))
    recomputed = decode.answer_logits(model, prompt, canvas, nothing, range(5), served=0)
    assert recomputed == pytest.approx(uncached, rel=1e-12)


def test_a_question_is_read_over_what_the_first_one_left_of_the_document(models):
    model = models["gqa"]
    prompt, canvas = prompt_of(model, 20), [model.config.mask_id] * 5
    first = prefill.run(model, prompt, 5)
    document = first.cache_of_first(12)
    assert all(len(head) == 12 for pairs in document for head in pairs.k + pairs.v)
    # The same question over the document's own K and V is where the first pass had it.
    same = decode.answer_logits(model, prompt, canvas, document, range(5), served=12)
    kept = decode.answer_logits(model, prompt, canvas, first.cache, range(5))
    assert same == pytest.approx(kept, rel=1e-9, abs=1e-9)
    question = [(t + 1) % model.config.mask_id for t in prompt[12:]]
    other = decode.answer_logits(model, prompt[:12] + question, canvas, document, range(5), served=12)
    assert np.abs(other - kept).max() > 1e-3


def test_a_budget_of_the_prompt_or_more_keeps_everything(models):
    model = models["gqa"]
    prompt = prompt_of(model, 9)
    for budget in (9, 10, 1000):
        run = prefill.run(model, prompt, 4, prefill.Eviction(budget))
        assert run.kept == [[list(range(9))] * 2] * 3
        assert run.kept_mass == pytest.approx(1)


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_an_evicted_cache_holds_exactly_the_budget(models, budget):
    model = models["deep"]
    run = prefill.run(model, prompt_of(model, 23), 4, prefill.Eviction(budget))
    pairs = sum(len(head) for layer in run.kept for head in layer)
    assert pairs == budget * model.config.layers * model.config.kv_heads
    assert [len(h) for h in run.cache[3].k] == [len(h) for h in run.kept[3]]
    assert 0 < run.kept_mass < 1


def test_kept_pairs_are_the_prompts_own_at_their_positions(models):
    model = models["mha"]
    prompt = prompt_of(model, 15)
    full = prefill.run(model, prompt, 4)
    run = prefill.run(model, prompt, 4, prefill.Eviction(3))
    for layer, heads in enumerate(run.kept):
        for head, positions in enumerate(heads):
            assert (run.cache[layer].k[head] == full.cache[layer].k[head][positions]).all()
            assert (run.cache[layer].v[head] == full.cache[layer].v[head][positions]).all()


def test_an_empty_prompt_gives_an_empty_cache(models):
    model = models["mha"]
    run = prefill.run(model, [], 4, prefill.Eviction(3))
    assert run.layer_budgets == [0] * 4 and run.kept_mass == 1
    answer = decode.run(model, [], decode.Sampling(4, 4, 4), run.cache)
    assert answer.canvas == decode.run(model, [], decode.Sampling(4, 4, 4)).canvas


def test_commits_are_as_even_as_can_be():
    def counts(masks, steps):
        places = [{"block_masks": masks, "block_steps": steps, "block_step": s} for s in range(steps)]
        return [rules.count("low_confidence", masks, place, 0) for place in places]

    assert counts(7, 3) == [3, 2, 2]
    assert counts(2, 4) == [1, 1, 0, 0]


def test_blocks_are_finished_left_to_right_and_the_mask_is_never_predicted(models):
    model = models["mha"]
    answer = decode.run(model, prompt_of(model, 11), decode.Sampling(12, 4, 6, temperature=1.5))
    assert [len(s.committed) for s in answer.steps] == [2] * 6
    for s in answer.steps:
        assert all(s.step // 2 == position // 4 for position, _, _ in s.committed)
    assert model.config.mask_id not in answer.canvas
    assert [s.step for s in answer.steps] == list(range(6))


def test_equal_logits_choose_the_lowest_id_and_forbidden_ids_leave_the_softmax():
    raw = np.array([[1.0, 3.0, 3.0, 9.0], [0.0, 0.0, 0.0, 9.0]])
    tokens, gaps = decode.predict(raw, [3], None, 0.0)
    assert tokens.tolist() == [1, 0] and gaps.tolist() == [0, 0]
    assert decode.confidence_of(raw, tokens, [3])[1] == pytest.approx(1 / 3)


def test_an_answer_stops_once_everything_up_to_the_first_stop_id_is_decided():
    mask = 9
    assert not decode.stopped([1, mask, 5], mask, {5})
    assert decode.stopped([1, 2, 5, mask], mask, {5})
    assert not decode.stopped([1, 2, 3, 4], mask, {5})


@pytest.mark.parametrize("gen, block, steps", [(10, 4, 10), (12, 4, 4)])
def test_lengths_and_steps_that_do_not_divide_are_refused(gen, block, steps):
    with pytest.raises(ValueError, match="multiple"):
        decode.Sampling(gen, block, steps).check()


def in_f32(function):
    """Runs the oracle's own code in float32 by handing it a float32 model."""
    return lambda model, *args, **more: function(
        model.map(lambda w: w.astype(np.float32)), *args, **more
    )


@pytest.mark.parametrize("name", golden_cases.CHECKPOINTS)
def test_an_f32_forward_errs_by_less_than_the_bound_and_not_by_four_orders_less(models, name):
    model = models[name]
    prompt, masks = prompt_of(model, 30), 8
    exact = prefill.run(model, prompt, masks)
    values = golden_run.prefill_values(exact)

    def perturbed(noise):
        return golden_run.prefill_values(prefill.run(model, prompt, masks, noise=noise))

    limits = bounds.measure(perturbed, values)
    rough = golden_run.prefill_values(in_f32(prefill.run)(model, prompt, masks))
    assert rough["logits"].dtype == np.float32
    for key in ("logits", "log_scores", "hidden", "kept_k", "importance", "preference"):
        error = np.abs(rough[key] - values[key]).max()
        assert error <= limits[key].max(), key
        assert error >= 1e-4 * limits[key].max(), f"{key}: bound {limits[key].max()}, error {error}"
    # Element by element, not only the worst against the worst.
    assert (np.abs(rough["logits"] - values["logits"]) <= limits["logits"]).all()
