# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoint: LLaDA's names and shapes, and a tokenizer that fits the tiny world."""

import json
import pathlib
import random
import struct
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "tiny-llada"
sys.path.insert(0, str(ROOT / "python"))

from tokenizers import Tokenizer  # noqa: E402

from maskkv_tiny import tokenizer as tok  # noqa: E402
from maskkv_tiny import words, world  # noqa: E402

CONFIG = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def tensors():
    """{name: (dtype, shape)} from the header of model.safetensors."""
    with open(MODEL / "model.safetensors", "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {name: (t["dtype"], tuple(t["shape"])) for name, t in header.items()}


def test_tensors_have_the_names_shapes_and_type_of_a_llada_checkpoint():
    d, hidden, vocabulary = CONFIG["d_model"], CONFIG["mlp_hidden_size"], CONFIG["embedding_size"]
    expected = {
        "model.transformer.wte.weight": (vocabulary, d),
        "model.transformer.ln_f.weight": (d,),
        "model.transformer.ff_out.weight": (vocabulary, d),
    }
    block = {"attn_norm": (d,), "ff_norm": (d,), "ff_proj": (hidden, d), "up_proj": (hidden, d),
             "ff_out": (d, hidden)}
    block |= {name: (d, d) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
    for layer in range(CONFIG["n_layers"]):
        for name, shape in block.items():
            expected[f"model.transformer.blocks.{layer}.{name}.weight"] = shape
    assert tensors() == {name: ("BF16", shape) for name, shape in expected.items()}


def test_the_checkpoint_stays_below_24_mebibytes():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 24 * 2**20


def test_config_and_tokenizer_agree_on_the_special_tokens():
    assert CONFIG["mask_token_id"] == TOKENIZER.token_to_id(tok.MASK)
    assert CONFIG["eos_token_id"] == CONFIG["pad_token_id"] == TOKENIZER.token_to_id(tok.EOS)
    assert CONFIG["vocab_size"] == CONFIG["embedding_size"] == TOKENIZER.get_vocab_size()


def test_the_shipped_tokenizer_is_what_the_trainer_makes():
    assert json.loads(tok.train().to_str()) == json.loads(TOKENIZER.to_str())


def test_every_word_is_one_token_after_a_space():
    for name in filter(str.isupper, dir(words)):
        for word in getattr(words, name):
            assert len(TOKENIZER.encode(f" {word}").ids) == 1, word


def test_a_document_has_as_many_tokens_as_the_world_counts():
    for seed in range(20):
        text = world.make_document(random.Random(seed), "calibration", 700, 1).text
        assert len(TOKENIZER.encode(text).ids) == world.count_tokens(text) == 700


def test_any_text_survives_the_tokenizer():
    for text in ("  a\r\n\tb ", "Ünïcode 1234 — 漢字 🙂", "it's OK", "x" * 300):
        assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_calibration_prompts_come_from_the_calibration_split():
    lines = (MODEL / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 32
    for line in lines:
        record = json.loads(line)
        assert record["answer"] in record["candidates"]
        assert any(f"{p} " in record["question"] for p in world.PEOPLE["calibration"])
