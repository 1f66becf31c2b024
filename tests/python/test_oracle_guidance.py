# SPDX-License-Identifier: Apache-2.0
"""The oracles of guidance and of the rule slowfast, against what must hold whatever they compute."""

import dataclasses

import numpy as np
import pytest
from maskkv_oracle import (
    checkpoint,
    decode,
    forward,
    golden_cases,
    guidance,
    prefill,
    random_checkpoint,
    slowfast,
)

NUMBERS = {"threshold": 0.75, "span_threshold": 0.5, "explore_steps": 3, "stable_steps": 2}


@pytest.fixture(scope="module", params=["mha", "dream"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / request.param
    random_checkpoint.write(golden_cases.CHECKPOINTS[request.param], path)
    return checkpoint.load(path)


def prompt_of(model):
    return [int(i) for i in np.random.default_rng(3).integers(0, model.config.mask_id, 17)]


def first_logits(model, cache, unconditional, scale):
    params = decode.Sampling(6, 6, 6, cfg_scale=scale)
    canvas = [model.config.mask_id] * 6
    return decode.step_forward(model, prompt_of(model), canvas, cache, np.arange(6), params,
                               unconditional=unconditional)[0]


def test_the_first_step_over_everything_is_the_one_without_a_cache(model):
    prompt = prompt_of(model)
    caches = [prefill.run(model, ids, 6).cache
              for ids in (prompt, guidance.masked(model.config, prompt))]
    over, without = first_logits(model, *caches, 1.5), first_logits(model, None, None, 1.5)
    assert np.abs(over - without).max() < 1e-9 * np.abs(without).max()


def test_guided_logits_lie_on_the_line_through_both(model):
    n = len(prompt_of(model))
    ids = [model.config.mask_id] * (n + 6)
    trace = list(forward.run_rows(model, ids, np.arange(n + 6)))[-1]
    first = n - model.config.shift
    unconditional = forward.logits(model, trace.out[first : first + 6])
    conditional = first_logits(model, None, None, 0)
    for scale in (0.5, 2.0):
        expected = conditional + scale * (conditional - unconditional)
        assert np.abs(first_logits(model, None, None, scale) - expected).max() < 1e-9


def test_guidance_changes_answers_but_not_what_scale_zero_gives(model):
    prompt, params = prompt_of(model), decode.Sampling(6, 6, 6, ignore_eos=True)
    plain = decode.run(model, prompt, params)
    guided = decode.run(model, prompt, dataclasses.replace(params, cfg_scale=2.0))
    assert guided.steps[0].confidence.tolist() != plain.steps[0].confidence.tolist()


def test_slow_steps_take_one_mask_and_fast_ones_nothing_behind_the_span():
    rng = np.random.default_rng(11)
    for _ in range(200):
        masks, looks = list(range(int(rng.integers(1, 15)))), []
        while masks:
            looks.append(slowfast.Look(tuple(masks), tuple(rng.random(len(masks)))))
            end = slowfast.phases(looks, 0.5, 3, 2)[-1]
            chosen = slowfast.commit(looks, **NUMBERS)
            best = int(np.argmax(looks[-1].scores))
            assert chosen == [best] if end is None else all(masks[i] < end for i in chosen)
            assert chosen
            masks = [p for i, p in enumerate(masks) if i not in chosen]
        assert slowfast.phases(looks, 0.5, 3, 2)[0] is None


def test_one_estimate_suffices_if_one_is_asked_for():
    look = slowfast.Look((0, 1, 2, 3), (0.2, 0.9, 0.6, 0.1))
    assert slowfast.phases([look, look], 0.5, 6, 1) == [None, 3]
    assert slowfast.commit([look, look], **NUMBERS | {"stable_steps": 1}) == [1]
    assert slowfast.estimate(look, 0.95) == 1
