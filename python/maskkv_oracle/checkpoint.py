# SPDX-License-Identifier: Apache-2.0
"""A LLaDA checkpoint directory (Hugging Face layout) as float64 arrays.

Every value comes from config.json: a missing field is a KeyError, never a default.
"""

import dataclasses
import json
import pathlib

import numpy as np

from maskkv_oracle import tensor_file


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocab_rows: int
    rope_theta: float
    norm_eps: float
    tied_head: bool
    mask_id: int
    eos_id: int

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def group(self):
        """Query heads that read one KV head."""
        return self.heads // self.kv_heads


@dataclasses.dataclass(frozen=True)
class Layer:
    """Weights as stored, (out, in): y = x W^T."""

    attn_norm: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    out: np.ndarray
    ff_norm: np.ndarray
    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray

    # Field -> leaf of the tensor's name. The gate is `ff_proj`; the down projection is `ff_out`,
    # the same leaf as the vocabulary head, one level deeper.
    NAMES = {
        "attn_norm": "attn_norm", "q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "attn_out",
        "ff_norm": "ff_norm", "gate": "ff_proj", "up": "up_proj", "down": "ff_out",
    }


@dataclasses.dataclass(frozen=True)
class Model:
    config: Config
    embedding: np.ndarray  # (vocab_rows, hidden)
    blocks: tuple
    final_norm: np.ndarray
    head: np.ndarray  # (vocab_rows, hidden)

    def map(self, function):
        """The same model with `function` applied to every weight array."""
        return Model(
            self.config,
            function(self.embedding),
            tuple(Layer(*(function(getattr(b, f)) for f in Layer.NAMES)) for b in self.blocks),
            function(self.final_norm),
            function(self.head),
        )


def parse_config(fields):
    heads = fields["n_heads"]
    kv_heads = fields["n_kv_heads"]
    if kv_heads is None:
        kv_heads = 1 if fields["multi_query_attention"] else heads
    ffn = fields["mlp_hidden_size"]
    if ffn is None:
        ffn = fields["mlp_ratio"] * fields["d_model"]
    rows = fields["embedding_size"]
    return Config(
        hidden=fields["d_model"],
        layers=fields["n_layers"],
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        vocab_rows=fields["vocab_size"] if rows is None else rows,
        rope_theta=fields["rope_theta"],
        norm_eps=fields["rms_norm_eps"],
        tied_head=fields["weight_tying"],
        mask_id=fields["mask_token_id"],
        eos_id=fields["eos_token_id"],
    )


def load(directory):
    """Reads config.json and model.safetensors, or the shards that its index names."""
    directory = pathlib.Path(directory)
    config = parse_config(json.loads((directory / "config.json").read_text()))
    index = directory / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    tensors = {}
    for name in files:
        tensors.update(tensor_file.read(directory / name))

    def weight(name, *shape):
        array = tensors[f"model.transformer.{name}.weight"].astype(np.float64)
        if array.shape != shape:
            raise ValueError(f"{name}: found shape {array.shape}, expected {shape}")
        return array

    c = config
    kv = c.kv_heads * c.head_dim
    shapes = {
        "attn_norm": (c.hidden,), "q": (c.hidden, c.hidden), "k": (kv, c.hidden),
        "v": (kv, c.hidden), "out": (c.hidden, c.hidden), "ff_norm": (c.hidden,),
        "gate": (c.ffn, c.hidden), "up": (c.ffn, c.hidden), "down": (c.hidden, c.ffn),
    }  # fmt: skip
    blocks = tuple(
        Layer(*(weight(f"blocks.{i}.{leaf}", *shapes[f]) for f, leaf in Layer.NAMES.items()))
        for i in range(c.layers)
    )
    embedding = weight("wte", c.vocab_rows, c.hidden)
    head = embedding if c.tied_head else weight("ff_out", c.vocab_rows, c.hidden)
    return Model(config, embedding, blocks, weight("ln_f", c.hidden), head)
