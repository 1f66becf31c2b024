# SPDX-License-Identifier: Apache-2.0
"""Networks of the families: biases, norms of q and k, experts, shifted logits, against code written
another way or against what must not change an output."""

import dataclasses

import numpy as np
import pytest

from maskkv_oracle import checkpoint, decode, forward, golden_cases, layout, prefill
from maskkv_oracle import random_checkpoint

NAMES = ("illada", "dream", "dream_mqa", "moe", "moe_gqa")
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for name in NAMES:
        random_checkpoint.write(golden_cases.CHECKPOINTS[name], folder / name)
    return {name: checkpoint.load(folder / name) for name in NAMES}


def last_hidden(model, ids):
    return list(forward.run_rows(model, ids, np.arange(len(ids))))[-1].out


def row_by_row(model, ids):
    """The whole forward again: plain loops over rows and heads, complex rotations."""
    c = model.config
    d, half = c.head_dim, c.head_dim // 2
    x = model.embedding[ids].copy()

    def norm(v, w):
        return v / np.sqrt(v @ v / len(v) + c.norm_eps) * w

    def silu(v):
        return v / (1 + np.exp(-v))

    def turned(v, position):
        pairs = v[:half] + 1j * v[half:]
        pairs = pairs * np.exp(1j * position * c.rope_theta ** (-2.0 * np.arange(half) / d))
        return np.concatenate([pairs.real, pairs.imag])

    def heads_of(n, weight, bias, head_norm, position):
        v = weight @ n + (0 if bias is None else bias)
        heads = [v[i : i + d] for i in range(0, len(v), d)]
        heads = heads if head_norm is None else [norm(h, head_norm) for h in heads]
        return heads if position is None else [turned(h, position) for h in heads]

    def ffn(w, n):
        if not c.experts:
            return w.down @ (silu(w.gate @ n) * (w.up @ n))
        e = np.exp(w.router @ n)
        share = e / e.sum()
        best = sorted(range(c.experts), key=lambda i: (-share[i], i))[: c.experts_per_token]
        whole = sum(share[i] for i in best) if c.renormalised_gate else 1.0
        return sum(
            share[i] / whole * (w.down[i] @ (silu(w.gate[i] @ n) * (w.up[i] @ n))) for i in best
        )

    for w in model.blocks:
        normed = [norm(row, w.attn_norm) for row in x]
        q = [heads_of(n, w.q, w.q_bias, w.q_norm, i) for i, n in enumerate(normed)]
        k = [heads_of(n, w.k, w.k_bias, w.k_norm, i) for i, n in enumerate(normed)]
        v = [heads_of(n, w.v, w.v_bias, None, None) for n in normed]
        for i in range(len(ids)):
            mixed = []
            for h in range(c.heads):
                g = h * c.kv_heads // c.heads
                s = np.array([q[i][h] @ k[j][g] for j in range(len(ids))]) / np.sqrt(d)
                a = np.exp(s - s.max())
                mixed.append(sum(a[j] * v[j][g] for j in range(len(ids))) / a.sum())
            x[i] += w.out @ np.concatenate(mixed)
        x = np.array([row + ffn(w, norm(row, w.ff_norm)) for row in x])
    return np.array([model.head @ norm(row, model.final_norm) for row in x])


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_what_plain_loops_compute(models, name):
    model = models[name]
    found = forward.logits(model, last_hidden(model, PROMPT))
    assert found == pytest.approx(row_by_row(model, PROMPT), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_matters(models, name):
    model = models[name]
    before = last_hidden(model, PROMPT)
    for field in layout.layer_fields(model.config.family):
        block = dataclasses.replace(
            model.blocks[0], **{field: 1.5 * getattr(model.blocks[0], field) + 0.01}
        )
        other = dataclasses.replace(model, blocks=(block, *model.blocks[1:]))
        # A bias of all keys shifts a row's scores alike in part only: RoPE turns it.
        assert np.abs(last_hidden(other, PROMPT) - before).max() > 1e-6, field


def test_equal_probabilities_choose_the_lower_expert():
    p = np.array([[0.1, 0.3, 0.3, 0.3], [0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.4, 0.3]])
    assert forward.chosen_experts(p, 2).tolist() == [[1, 2], [0, 1], [2, 3]]
    assert forward.routing_gap(np.array([[3.0, 1.0, 2.5, 0.0]]), 2).tolist() == [1.5]
    assert forward.routing_gap(np.array([[3.0, 1.0]]), 2).tolist() == [np.inf]


def test_equal_experts_with_a_renormalised_gate_are_one_ffn(models):
    model = models["moe_gqa"]
    assert model.config.renormalised_gate

    def same(w):
        return np.broadcast_to(w[:1], w.shape)

    blocks = tuple(
        dataclasses.replace(b, gate=same(b.gate), up=same(b.up), down=same(b.down))
        for b in model.blocks
    )
    dense = tuple(
        dataclasses.replace(b, gate=b.gate[0], up=b.up[0], down=b.down[0]) for b in model.blocks
    )
    sparse = last_hidden(dataclasses.replace(model, blocks=blocks), PROMPT)
    config = dataclasses.replace(model.config, experts=0)
    plain = last_hidden(dataclasses.replace(model, config=config, blocks=dense), PROMPT)
    assert sparse == pytest.approx(plain, rel=1e-12)


@pytest.mark.parametrize("name", ["dream", "dream_mqa"])
def test_a_mask_is_predicted_by_the_row_before_it(models, name):
    model = models[name]
    mask = model.config.mask_id
    full = forward.logits(model, last_hidden(model, PROMPT + [mask] * 4))
    run = prefill.run(model, PROMPT, 4)
    assert run.logits == pytest.approx(full[len(PROMPT) - 1 : -1], rel=1e-12)
    assert run.candidates == len(PROMPT) - 1
    assert run.kept[0][0] == list(range(len(PROMPT) - 1))
    # The last prompt token votes with the masks: five rows of weights that sum to one.
    assert run.votes[0].scores.sum(axis=1) == pytest.approx(
        [5 * model.config.group] * model.config.kv_heads
    )


def test_the_row_before_the_masks_is_computed_by_every_step(models):
    model = models["dream"]
    mask = model.config.mask_id
    run = prefill.run(model, PROMPT, 4)
    canvas = [mask, 7, mask, mask]
    cached = decode.answer_logits(model, PROMPT, canvas, run.cache, [0, 2, 3])
    # By hand: the candidates' pairs in front, then the last prompt token and the canvas.
    rows = list(
        forward.run_rows(model, [PROMPT[-1], *canvas], np.arange(len(PROMPT) - 1, len(PROMPT) + 4),
                         run.cache)
    )[-1].out  # fmt: skip
    assert cached == pytest.approx(forward.logits(model, rows)[[0, 2, 3]], rel=1e-12)
    uncached = decode.answer_logits(model, PROMPT, [mask] * 4, None, range(4))
    assert run.logits == pytest.approx(uncached, rel=1e-9, abs=1e-9)


def test_shifted_logits_need_a_prompt_and_serve_candidates_only(models):
    model = models["dream"]
    with pytest.raises(ValueError, match="prompt"):
        prefill.run(model, [], 4)
    one = prefill.run(model, [5], 3, prefill.Eviction(4))
    assert one.candidates == 0 and one.kept == [[[]] * 2] * 3
    canvas = [model.config.mask_id] * 3
    cached = decode.answer_logits(model, [5], canvas, one.cache, range(3))
    assert cached == pytest.approx(one.logits, rel=1e-12)
    with pytest.raises(ValueError, match="served"):
        decode.answer_logits(model, [5], canvas, one.cache, range(3), served=1)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("dream", {"model_type": "Dream", "num_key_value_heads": 2, "vocab_size": 88}),
        ("moe", {"model_type": "llada", "num_experts": 6, "expert_intermediate_size": 12}),
        ("illada", {"model_type": "llada", "n_kv_heads": 8, "weight_tying": True}),
    ],
)
def test_configurations_have_the_published_fields(name, fields):
    found = random_checkpoint.config_json(golden_cases.CHECKPOINTS[name])
    assert {key: found[key] for key in fields} == fields


def test_the_mask_of_llada_moe_is_a_constant_where_the_file_is_silent():
    fields = random_checkpoint.config_json(golden_cases.CHECKPOINTS["moe"])
    del fields["mask_token_id"]
    assert checkpoint.parse_config(fields).mask_id == 156895
    fields["qk_layernorm"] = False
    with pytest.raises(ValueError, match="qk_layernorm"):
        checkpoint.parse_config(fields)
    with pytest.raises(ValueError, match="model_type"):
        checkpoint.parse_config(fields | {"model_type": "gpt2"})


def test_names_of_tensors_are_the_published_ones():
    dream = random_checkpoint.tensors(golden_cases.CHECKPOINTS["dream"])
    assert dream["model.layers.2.self_attn.k_proj.bias"].shape == (12,)
    assert dream["lm_head.weight"].shape == (88, 36)
    moe = random_checkpoint.tensors(golden_cases.CHECKPOINTS["moe"])
    assert moe["model.layers.1.mlp.gate.weight"].shape == (6, 32)
    assert moe["model.layers.1.mlp.experts.5.down_proj.weight"].shape == (32, 12)
    assert moe["model.layers.0.self_attn.q_norm.weight"].shape == (8,)
    assert "lm_head.weight" not in random_checkpoint.tensors(golden_cases.CHECKPOINTS["moe_gqa"])
