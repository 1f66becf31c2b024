# SPDX-License-Identifier: Apache-2.0
"""maskkv inspect-model: sizes of published configurations and of real checkpoints."""

import json

import pytest

from cli_runs import GOLDEN, TINY, config, run, validated

GIB = 1 << 30
LLADA_8B = {
    "model_type": "llada", "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32,
    "mlp_hidden_size": 12288, "vocab_size": 126464, "embedding_size": 126464,
    "mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081,
    "max_sequence_length": 4096,
}
DREAM_7B = {
    "model_type": "Dream", "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "vocab_size": 152064, "mask_token_id": 151666, "eos_token_id": 151643,
    "pad_token_id": 151643, "max_position_embeddings": 131072, "rope_theta": 1e6,
    "rope_scaling": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "use_sliding_window": False, "torch_dtype": "bfloat16",
}


def published(folder, fields):
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def shown(*args):
    return validated("inspect-model", run("inspect-model", *args, "--json").json)


@pytest.mark.parametrize("fields, family, parameters, position, whole, budget", [
    (config(TINY) | LLADA_8B, "llada", 8_015_581_184, 512 << 10, 16 * GIB, 128 << 20),
    (DREAM_7B, "dream", 7_615_616_512, 56 << 10, 7 * GIB // 4, 14 << 20),
])
def test_published_sizes(tmp_path, fields, family, parameters, position, whole, budget):
    report = shown(published(tmp_path, fields), "--prompt-tokens", "32768", "--budget", 256)
    assert report["family"] == family and report["parameters"] == parameters
    assert report["weights"]["file_bytes"] is None, "there is a config.json alone"
    assert report["kv_bytes_a_position"] == position
    assert report["whole_kv"] == [{"prompt_tokens": 32768, "bytes": whole}]
    assert report["budget"] == {"pairs": 256, "bytes": budget}


def test_int8_pairs_are_told_with_their_scales(tmp_path):
    folder = published(tmp_path, DREAM_7B)
    bf16, int8 = shown(folder), shown(folder, "--kv-dtype", "int8")
    assert (bf16["kv_dtype"], int8["kv_dtype"]) == ("bf16", "int8")
    # Heads of 128: a byte an element and 4 bytes a key or value.
    assert int8["kv_bytes_a_position"] * 256 == bf16["kv_bytes_a_position"] * (128 + 4)
    assert int8["weights"] == bf16["weights"]


@pytest.mark.parametrize("model", [TINY, GOLDEN / "gqa", GOLDEN / "mqa"])
def test_a_checkpoint_is_told_from_its_headers(model):
    report = shown(model, "--dtype", "f32", "--prompt-tokens", "1,7", "--budget", 3)
    fields = config(model)
    kv_heads = fields["n_kv_heads"] or (1 if fields["multi_query_attention"] else fields["n_heads"])
    head_dim = fields["d_model"] // fields["n_heads"]
    assert report["kv_heads"] == kv_heads and report["head_dim"] == head_dim
    position = 4 * 2 * fields["n_layers"] * kv_heads * head_dim
    assert report["kv_bytes_a_position"] == position
    assert [length["bytes"] for length in report["whole_kv"]] == [position, 7 * position]
    assert report["budget"]["bytes"] == 3 * position
    assert report["weights"]["file_bytes"] in (2 * report["parameters"], 4 * report["parameters"])
    assert report["weights"]["packed_f32_bytes"] <= 4 * report["parameters"]
    machine = report["machine"]
    assert 0 < machine["largest_prompt_whole"] <= machine["largest_prompt_maskkv"] <= 1 << 24


def test_the_page_says_what_the_object_says(tmp_path):
    folder = published(tmp_path, DREAM_7B)
    page = run("inspect-model", folder, "--prompt-tokens", "32768").text
    assert "family                       dream\n" in page
    assert "  a position                 56.00 KiB\n" in page
    assert "  32768 tokens               1.75 GiB\n" in page
    assert "  256 pairs a KV head        14.00 MiB\n" in page
    assert "parameters                   7615616512\n" in page


def test_what_is_no_model_is_refused(tmp_path):
    failed = run("inspect-model", tmp_path)
    assert failed.code == 3 and "config.json" in failed.error
    failed = run("inspect-model", published(tmp_path, DREAM_7B | {"use_sliding_window": True}))
    assert failed.code == 3 and "field use_sliding_window: expected false" in failed.error
    (tmp_path / "config.json").write_text(json.dumps(DREAM_7B))
    (tmp_path / "model.safetensors").write_bytes(b"short")
    failed = run("inspect-model", tmp_path)
    assert failed.code == 3 and "model.safetensors" in failed.error
    failed = run("inspect-model", TINY, "--prompt-tokens", "0")
    assert failed.code == 2 and "--prompt-tokens" in failed.error
    assert run("inspect-model").code == 2
