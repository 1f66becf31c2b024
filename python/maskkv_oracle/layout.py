# SPDX-License-Identifier: Apache-2.0
"""Where each family of published checkpoints keeps what: fields of config.json, names of tensors.

llada: LLaDA-8B, LLaDA-1.5, iLLaDA. dream: Dream-v0, DiffuCoder (the Qwen2 network). llada-moe:
LLaDA-MoE-7B-A1B, which calls itself "llada" too and is told apart by its architecture.
"""

MODEL = ("embedding", "final_norm", "head")
# Fields of a layer in the order of a published file; a family has those that it names below.
LAYER = (
    "attn_norm", "q", "q_bias", "k", "k_bias", "v", "v_bias", "q_norm", "k_norm", "out", "ff_norm",
    "router", "gate", "up", "down",
)  # fmt: skip
OF_EXPERTS = ("gate", "up", "down")  # one tensor an expert where there are experts

_BLOCK, _LAYER = "model.transformer.blocks.{layer}.", "model.layers.{layer}."

_LLADA = {
    "embedding": "model.transformer.wte.weight",
    "final_norm": "model.transformer.ln_f.weight",
    "head": "model.transformer.ff_out.weight",
    "attn_norm": _BLOCK + "attn_norm.weight",
    "q": _BLOCK + "q_proj.weight",
    "k": _BLOCK + "k_proj.weight",
    "v": _BLOCK + "v_proj.weight",
    "out": _BLOCK + "attn_out.weight",
    "ff_norm": _BLOCK + "ff_norm.weight",
    # The gate is `ff_proj`; the down projection is `ff_out`, the same leaf as the vocabulary head.
    "gate": _BLOCK + "ff_proj.weight",
    "up": _BLOCK + "up_proj.weight",
    "down": _BLOCK + "ff_out.weight",
}
_COMMON = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": _LAYER + "input_layernorm.weight",
    "q": _LAYER + "self_attn.q_proj.weight",
    "k": _LAYER + "self_attn.k_proj.weight",
    "v": _LAYER + "self_attn.v_proj.weight",
    "out": _LAYER + "self_attn.o_proj.weight",
    "ff_norm": _LAYER + "post_attention_layernorm.weight",
}
_DREAM = _COMMON | {
    "q_bias": _LAYER + "self_attn.q_proj.bias",
    "k_bias": _LAYER + "self_attn.k_proj.bias",
    "v_bias": _LAYER + "self_attn.v_proj.bias",
    "gate": _LAYER + "mlp.gate_proj.weight",
    "up": _LAYER + "mlp.up_proj.weight",
    "down": _LAYER + "mlp.down_proj.weight",
}
_EXPERT = _LAYER + "mlp.experts.{expert}."
_LLADA_MOE = _COMMON | {
    "q_norm": _LAYER + "self_attn.q_norm.weight",
    "k_norm": _LAYER + "self_attn.k_norm.weight",
    "router": _LAYER + "mlp.gate.weight",
    "gate": _EXPERT + "gate_proj.weight",
    "up": _EXPERT + "up_proj.weight",
    "down": _EXPERT + "down_proj.weight",
}
NAMES = {"llada": _LLADA, "dream": _DREAM, "llada-moe": _LLADA_MOE}


def family_of(fields):
    """The family of a parsed config.json."""
    if fields["model_type"] == "Dream":
        return "dream"
    if fields["model_type"] == "llada":
        return "llada-moe" if "LLaDAMoEModelLM" in fields["architectures"] else "llada"
    raise ValueError(f'model_type: found {fields["model_type"]}, expected llada or Dream')


def shapes(c):
    """{field: shape of one tensor} of a model; c has hidden, heads, kv_heads, ffn, ..."""
    d = c.hidden // c.heads
    kv = c.kv_heads * d
    return {
        "embedding": (c.vocab_rows, c.hidden), "final_norm": (c.hidden,),
        "head": (c.vocab_rows, c.hidden), "attn_norm": (c.hidden,), "ff_norm": (c.hidden,),
        "q": (c.hidden, c.hidden), "k": (kv, c.hidden), "v": (kv, c.hidden),
        "q_bias": (c.hidden,), "k_bias": (kv,), "v_bias": (kv,), "q_norm": (d,), "k_norm": (d,),
        "out": (c.hidden, c.hidden), "router": (c.experts, c.hidden),
        "gate": (c.ffn, c.hidden), "up": (c.ffn, c.hidden), "down": (c.hidden, c.ffn),
    }  # fmt: skip


def layer_fields(family):
    """Fields that a layer of the family has, in the order of a file."""
    return [f for f in LAYER if f in NAMES[family]]
