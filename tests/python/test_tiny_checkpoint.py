# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoints: their families' names, shapes, fields and tokens; tokenizers that fit
the tiny world."""

import dataclasses
import json
import pathlib
import random
import struct

import pytest
from tokenizers import Tokenizer

from maskkv_tiny import dream, families, llada, words, world
from maskkv_tiny import tokenizer as tok

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAMILIES = families.by_name()


class Checkpoint:
    def __init__(self, name):
        self.family = FAMILIES[name]
        self.folder = ROOT / "models" / f"tiny-{name}"
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def tensors(self):
        """{name: (dtype, shape)} from the header of model.safetensors."""
        with open(self.folder / "model.safetensors", "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return {name: (t["dtype"], tuple(t["shape"])) for name, t in header.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request):
    return Checkpoint(request.param)


def llada_tensors(config):
    d, hidden, vocabulary = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    yield "model.transformer.wte.weight", (vocabulary, d)
    yield "model.transformer.ln_f.weight", (d,)
    yield "model.transformer.ff_out.weight", (vocabulary, d)
    block = {"attn_norm": (d,), "ff_norm": (d,), "ff_proj": (hidden, d), "up_proj": (hidden, d),
             "ff_out": (d, hidden)}
    block |= {name: (d, d) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
    for layer in range(config["n_layers"]):
        for name, shape in block.items():
            yield f"model.transformer.blocks.{layer}.{name}.weight", shape


def dream_tensors(config):
    d, hidden, vocabulary = (config["hidden_size"], config["intermediate_size"],
                             config["vocab_size"])
    pairs = d // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocabulary, d)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (vocabulary, d)
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}."
        yield start + "input_layernorm.weight", (d,)
        yield start + "post_attention_layernorm.weight", (d,)
        for name, size in (("q", d), ("k", pairs), ("v", pairs)):
            yield f"{start}self_attn.{name}_proj.weight", (size, d)
            yield f"{start}self_attn.{name}_proj.bias", (size,)
        yield start + "self_attn.o_proj.weight", (d, d)
        yield start + "mlp.gate_proj.weight", (hidden, d)
        yield start + "mlp.up_proj.weight", (hidden, d)
        yield start + "mlp.down_proj.weight", (d, hidden)


EXPECTED_TENSORS = {"llada": llada_tensors, "dream": dream_tensors}


def test_tensors_have_the_names_shapes_and_type_of_the_published_checkpoints(checkpoint):
    expected = EXPECTED_TENSORS[checkpoint.family.name](checkpoint.config)
    assert checkpoint.tensors() == {name: ("BF16", shape) for name, shape in expected}


def test_the_trainers_module_names_map_one_to_one_to_the_tensors(checkpoint):
    family, config = checkpoint.family, checkpoint.config
    as_llada = {llada.FAMILY.shape_fields[here]: config[there]
                for here, there in family.shape_fields.items()}
    weights = [family.tensor_name(name) for name, _ in llada_tensors(as_llada)]
    assert sorted(weights) == sorted(n for n in checkpoint.tensors() if n.endswith(".weight"))


def test_the_checkpoint_stays_below_24_mebibytes(checkpoint):
    assert sum(file.stat().st_size for file in checkpoint.folder.iterdir()) <= 24 * 2**20


def test_the_config_is_the_familys_for_its_shape(checkpoint):
    family, vocabulary = checkpoint.family, checkpoint.tokenizer.get_vocab_size()
    shape = dataclasses.replace(family.shape, vocab_size=vocabulary)
    ids = tok.special_ids(family, checkpoint.tokenizer)
    assert checkpoint.config == family.config(shape, ids)
    for here, there in family.shape_fields.items():
        assert checkpoint.config[there] == getattr(shape, here), there


def test_config_and_tokenizer_agree_on_the_special_tokens(checkpoint):
    family, config, token_id = (checkpoint.family, checkpoint.config,
                                checkpoint.tokenizer.token_to_id)
    assert config["mask_token_id"] == token_id(family.mask)
    assert config["eos_token_id"] == config["pad_token_id"] == token_id(family.eos)
    assert config["vocab_size"] == checkpoint.tokenizer.get_vocab_size()
    settings = json.loads((checkpoint.folder / "tokenizer_config.json").read_text("utf-8"))
    assert settings == family.tokenizer_config(tok.special_ids(family, checkpoint.tokenizer))
    for added_id, added in settings["added_tokens_decoder"].items():
        assert added["special"] and token_id(added["content"]) == int(added_id)


def test_the_shipped_tokenizer_is_what_the_trainer_makes(checkpoint):
    made = tok.train(checkpoint.family)
    assert json.loads(made.to_str()) == json.loads(checkpoint.tokenizer.to_str())


def test_every_word_is_one_token_after_a_space(checkpoint):
    for name in filter(str.isupper, dir(words)):
        for word in getattr(words, name):
            assert len(checkpoint.tokenizer.encode(f" {word}").ids) == 1, word


def test_a_document_has_as_many_tokens_as_the_world_counts(checkpoint):
    for seed in range(20):
        text = world.make_document(random.Random(seed), "calibration", 700, 1).text
        assert len(checkpoint.tokenizer.encode(text).ids) == world.count_tokens(text) == 700


@pytest.mark.parametrize("text", ["  a\r\n\tb ", "Ünïcode 1234 — 漢字 🙂", "it's OK", "x" * 300])
def test_any_text_survives_the_tokenizer(checkpoint, text):
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode(text).ids) == text


def test_calibration_prompts_come_from_the_calibration_split(checkpoint):
    lines = (checkpoint.folder / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 32
    for line in lines:
        record = json.loads(line)
        assert record["answer"] in record["candidates"]
        assert any(f"{p} " in record["question"] for p in world.PEOPLE["calibration"])


def test_the_chat_templates_render_as_published():
    turns = [("user", " Who? "), ("assistant", "I."), ("user", "Where?")]
    assert llada.render(turns) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nI.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n")
    asked = ("<|im_start|>user\n Who? <|im_end|>\n<|im_start|>assistant\nI.<|im_end|>\n"
             "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n")
    assert dream.render(turns) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + asked)
    assert dream.render([("system", "Be brief."), *turns]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n" + asked)


def test_an_unknown_family_of_checkpoint_is_refused():
    with pytest.raises(ValueError, match="model_type: expected one of llada, dream, found 'bert'"):
        families.of_config({"model_type": "bert"})
