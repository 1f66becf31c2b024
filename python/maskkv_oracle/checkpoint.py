# SPDX-License-Identifier: Apache-2.0
"""A checkpoint directory (Hugging Face layout) of any family as float64 arrays.

Every value comes from config.json: a missing field is a KeyError, never a default.
"""

import dataclasses
import json
import pathlib

import numpy as np

from maskkv_oracle import layout, tensor_file

# LLaDA-MoE's config.json does not say its mask; the model's card does.
LLADA_MOE_MASK = 156895


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
    family: str = "llada"
    experts: int = 0  # 0: one dense FFN
    experts_per_token: int = 0
    renormalised_gate: bool = False

    @property
    def head_dim(self):
        return self.hidden // self.heads

    @property
    def group(self):
        """Query heads that read one KV head."""
        return self.heads // self.kv_heads

    @property
    def shift(self):
        """The prediction for position i is the head's output at i - shift.

        The last `shift` prompt tokens are then response rows, and no candidates.
        """
        return 1 if self.family == "dream" else 0

    @property
    def rope_in_compute_dtype(self):
        return self.family != "llada"


@dataclasses.dataclass(frozen=True)
class Layer:
    """Weights as stored, (out, in): y = x W^T. None: the family has no such thing.

    With experts, gate, up and down have a leading axis of experts.
    """

    attn_norm: np.ndarray
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    out: np.ndarray
    ff_norm: np.ndarray
    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray
    q_bias: np.ndarray | None = None
    k_bias: np.ndarray | None = None
    v_bias: np.ndarray | None = None
    q_norm: np.ndarray | None = None
    k_norm: np.ndarray | None = None
    router: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    config: Config
    embedding: np.ndarray  # (vocab_rows, hidden)
    blocks: tuple
    final_norm: np.ndarray
    head: np.ndarray  # (vocab_rows, hidden)

    def map(self, function):
        """The same model with `function` applied to every weight array."""
        fields = layout.layer_fields(self.config.family)
        return Model(
            self.config,
            function(self.embedding),
            tuple(Layer(**{f: function(getattr(b, f)) for f in fields}) for b in self.blocks),
            function(self.final_norm),
            function(self.head),
        )


def parse_config(fields):
    return (_parse_llada if layout.family_of(fields) == "llada" else _parse_common)(fields)


def _parse_llada(fields):
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


def _parse_common(fields):
    """Dream and LLaDA-MoE: the names that most models have."""
    family = layout.family_of(fields)
    moe = family == "llada-moe"
    if moe and not fields["qk_layernorm"]:
        raise ValueError("qk_layernorm: found false, expected true")
    return Config(
        hidden=fields["hidden_size"],
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        kv_heads=fields["num_key_value_heads"],
        ffn=fields["expert_intermediate_size" if moe else "intermediate_size"],
        vocab_rows=fields["vocab_size"],
        rope_theta=fields["rope_theta"],
        norm_eps=fields["rms_norm_eps"],
        tied_head=fields["tie_word_embeddings"],
        mask_id=fields.get("mask_token_id", LLADA_MOE_MASK) if moe else fields["mask_token_id"],
        eos_id=fields["eos_token_id"],
        family=family,
        experts=fields["num_experts"] if moe else 0,
        experts_per_token=fields["num_experts_per_tok"] if moe else 0,
        renormalised_gate=bool(fields.get("norm_topk_prob")) if moe else False,
    )


def _read_tensors(directory):
    index = directory / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    tensors = {}
    for name in files:
        tensors.update(tensor_file.read(directory / name))
    return tensors


def load(directory):
    """Reads config.json and model.safetensors, or the shards that its index names."""
    directory = pathlib.Path(directory)
    c = parse_config(json.loads((directory / "config.json").read_text()))
    tensors, names, shapes = _read_tensors(directory), layout.NAMES[c.family], layout.shapes(c)

    def weight(field, **place):
        name = names[field].format(**place)
        array = tensors[name].astype(np.float64)
        if array.shape != shapes[field]:
            raise ValueError(f"{name}: found shape {array.shape}, expected {shapes[field]}")
        return array

    def of_layer(field, layer):
        if c.experts and field in layout.OF_EXPERTS:
            return np.stack([weight(field, layer=layer, expert=e) for e in range(c.experts)])
        return weight(field, layer=layer)

    fields = layout.layer_fields(c.family)
    blocks = tuple(Layer(**{f: of_layer(f, i) for f in fields}) for i in range(c.layers))
    embedding = weight("embedding")
    head = embedding if c.tied_head else weight("head")
    return Model(c, embedding, blocks, weight("final_norm"), head)
