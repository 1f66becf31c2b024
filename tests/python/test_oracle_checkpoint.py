# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints and their reading: layout, dtypes, shards, head counts."""

import dataclasses

import numpy as np
import pytest
import safetensors

from maskkv_oracle import checkpoint, golden_cases, random_checkpoint, tensor_file

GQA = golden_cases.CHECKPOINTS["gqa"]


def weights(model):
    collected = []
    model.map(collected.append)
    return collected


def test_files_are_read_by_the_safetensors_package(tmp_path):
    shape = golden_cases.CHECKPOINTS["odd"]
    random_checkpoint.write(shape, tmp_path)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert set(file.keys()) == set(random_checkpoint.tensors(shape))
        for name, array in random_checkpoint.tensors(shape).items():
            assert (file.get_tensor(name) == array).all()


def test_shards_hold_the_same_model_as_one_file(tmp_path):
    assert GQA.shards > 1
    random_checkpoint.write(GQA, tmp_path / "shards")
    random_checkpoint.write(dataclasses.replace(GQA, shards=1), tmp_path / "one")
    a, b = checkpoint.load(tmp_path / "shards"), checkpoint.load(tmp_path / "one")
    assert a.config == b.config
    assert all((x == y).all() for x, y in zip(weights(a), weights(b), strict=True))


def test_bf16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 3e38], np.float32)
    rounded = tensor_file.bf16_to_float32(tensor_file.float32_to_bf16(values))
    expected = np.array([1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -0.0], np.float32)
    assert (rounded[:5] == expected).all()
    assert abs(rounded[5] / 3e38 - 1) <= 2**-8


@pytest.mark.parametrize(
    "kv_heads, multi_query, expected",
    [(2, None, 2), (None, True, 1), (None, False, 6), (None, None, 6)],
)
def test_kv_heads_null_means_one_or_all(tmp_path, kv_heads, multi_query, expected):
    shape = dataclasses.replace(GQA, kv_heads=kv_heads, multi_query=multi_query)
    random_checkpoint.write(shape, tmp_path)
    assert checkpoint.load(tmp_path).config.kv_heads == expected


def test_embedding_size_wins_over_vocab_size(tmp_path):
    random_checkpoint.write(GQA, tmp_path)
    model = checkpoint.load(tmp_path)
    assert (GQA.vocab, GQA.embedding_rows) == (101, 104)
    assert model.config.vocab_rows == 104
    assert model.head.shape == (104, 48)


def test_a_tied_head_is_the_embedding(tmp_path):
    random_checkpoint.write(golden_cases.CHECKPOINTS["mqa"], tmp_path)
    model = checkpoint.load(tmp_path)
    assert (model.head == model.embedding).all()


def test_a_missing_field_is_an_error():
    fields = random_checkpoint.config_json(GQA)
    del fields["rope_theta"]
    with pytest.raises(KeyError, match="rope_theta"):
        checkpoint.parse_config(fields)


def test_a_wrong_shape_is_an_error(tmp_path):
    random_checkpoint.write(GQA, tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"mlp_hidden_size": 64', '"mlp_hidden_size": 65'))
    with pytest.raises(ValueError, match="expected"):
        checkpoint.load(tmp_path)
