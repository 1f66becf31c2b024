# SPDX-License-Identifier: Apache-2.0
"""The family Dream as the published Dream-v0 checkpoints have it.

The network is Qwen2's with full attention: biases of the query, key and value projections, shared
KV heads, and the prediction for a position in the row before it. The tokenizer's parts and the
chat template are those of Qwen2.5, which Dream was made from.
"""

import pathlib

from maskkv_tiny.families import Family, Shape, added_tokens

EOS, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
BOS, MASK = "<|beginoftext|>", "<|mask|>"
SPECIAL = (EOS, TURN_START, TURN_END, BOS, MASK)
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SYSTEM_PROMPT = "You are a helpful assistant."
# Of the public Qwen2.5 checkpoints (Apache-2.0), which Dream-v0 starts from.
CHAT_TEMPLATE = (pathlib.Path(__file__).parent / "qwen2_chat_template.jinja").read_text("utf-8")
MAX_POSITION_EMBEDDINGS = 4096


def render(messages):
    """What the Jinja source says, without tools and asked for a generation prompt."""
    if messages[0][0] != "system":
        messages = [("system", SYSTEM_PROMPT), *messages]
    text = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n" for role, content in messages)
    return text + f"{TURN_START}assistant\n"


def tokenizer_config(ids):
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added_tokens(ids),
        "additional_special_tokens": [TURN_START, TURN_END, BOS, MASK],
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "bos_token": BOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "errors": "replace",
        "mask_token": MASK,
        "model_max_length": 131072,
        "pad_token": EOS,
        "split_special_tokens": False,
        "tokenizer_class": "DreamTokenizer",
        "unk_token": None,
    }


def config(shape, ids):
    """config.json with every field that the published Dream checkpoints have."""
    return {
        "architectures": ["DreamModel"],
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
        "bos_token_id": ids[EOS],
        "eos_token_id": ids[EOS],
        "hidden_act": "silu",
        "hidden_size": shape.d_model,
        "initializer_range": 0.02,
        "intermediate_size": shape.mlp_hidden_size,
        "mask_token_id": ids[MASK],
        "max_position_embeddings": MAX_POSITION_EMBEDDINGS,
        "max_window_layers": shape.n_layers,
        "model_type": "Dream",
        "num_attention_heads": shape.n_heads,
        "num_hidden_layers": shape.n_layers,
        "num_key_value_heads": shape.n_kv_heads,
        "pad_token_id": ids[EOS],
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.2",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": shape.vocab_size,
    }


FAMILY = Family(
    name="dream",
    shape=Shape(vocab_size=0, n_layers=6, n_kv_heads=2, rope_theta=1e6, rms_norm_eps=1e-6,
                qkv_bias=True, shift=1),
    special=SPECIAL,
    eos=EOS,
    end_of_turn=TURN_END,
    mask=MASK,
    pattern=PATTERN,
    nfc=True,
    template_words=("user", "assistant", "system", SYSTEM_PROMPT),
    render=render,
    tokenizer_config=tokenizer_config,
    config=config,
    shape_fields={
        "vocab_size": "vocab_size",
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads",
        "mlp_hidden_size": "intermediate_size",
        "rope_theta": "rope_theta",
        "rms_norm_eps": "rms_norm_eps",
    },
    tensor_names=(
        ("transformer.wte", "embed_tokens"),
        ("transformer.ln_f", "norm"),
        ("model.transformer.ff_out", "lm_head"),
        ("transformer.blocks", "layers"),
        ("attn_norm", "input_layernorm"),
        ("ff_norm", "post_attention_layernorm"),
        ("q_proj", "self_attn.q_proj"),
        ("k_proj", "self_attn.k_proj"),
        ("v_proj", "self_attn.v_proj"),
        ("attn_out", "self_attn.o_proj"),
        ("ff_proj", "mlp.gate_proj"),
        ("up_proj", "mlp.up_proj"),
        ("ff_out", "mlp.down_proj"),
    ),
)
