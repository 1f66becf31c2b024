# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints in LLaDA's exact layout, small enough to commit.

Weights are scaled so that a random model is not a dull one: embeddings of standard deviation 1,
queries and keys such that attention logits spread by about 2 (sharp, not one-hot), the head such
that logits spread by about 3. Norm weights vary around 1, so that forgetting one shows.

    python -m maskkv_oracle.random_checkpoint --hidden 64 --layers 2 --heads 4 --ffn 96 --vocab 99 \\
        --out DIR
"""

import argparse
import dataclasses
import json
import math
import pathlib

import numpy as np

from maskkv_oracle import tensor_file


@dataclasses.dataclass(frozen=True)
class Shape:
    seed: int
    hidden: int
    layers: int
    heads: int
    ffn: int
    vocab: int  # token ids that a tokenizer would know; mask = vocab - 1, eos = vocab - 2
    kv_heads: int | None = None  # None writes null: multi_query decides
    multi_query: bool | None = None
    embedding_rows: int | None = None  # None writes null: the vocabulary size counts
    tied: bool = False
    bf16: bool = False
    shards: int = 1
    theta: float = 500000.0
    eps: float = 1e-5

    @property
    def kv_rows(self):
        heads = self.kv_heads
        if heads is None:
            heads = 1 if self.multi_query else self.heads
        return heads * (self.hidden // self.heads)


def config_json(s):
    """The fields of a published LLaDA config.json, in its order."""
    return {
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "architectures": ["LLaDAModelLM"],
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig",
            "AutoModel": "modeling_llada.LLaDAModelLM",
            "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        },
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": s.hidden,
        "embedding_dropout": 0.0,
        "embedding_size": s.embedding_rows,
        "eos_token_id": s.vocab - 2,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": s.vocab - 1,
        "max_sequence_length": 4096,
        "mlp_hidden_size": s.ffn,
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": s.multi_query,
        "n_heads": s.heads,
        "n_kv_heads": s.kv_heads,
        "n_layers": s.layers,
        "pad_token_id": s.vocab - 2,
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": s.eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": s.theta,
        "scale_logits": False,
        "torch_dtype": "bfloat16" if s.bf16 else "float32",
        "transformers_version": "4.46.3",
        "use_cache": False,
        "vocab_size": s.vocab,
        "weight_tying": s.tied,
    }


def tensors(s):
    """{name: float32 array}, in the order of a published checkpoint."""
    rng = np.random.default_rng(s.seed)

    def matrix(out, into, gain):
        return rng.normal(0.0, gain / math.sqrt(into), (out, into)).astype(np.float32)

    def norm():
        return rng.uniform(0.7, 1.3, s.hidden).astype(np.float32)

    sharp = math.sqrt(2.0)
    rows = s.vocab if s.embedding_rows is None else s.embedding_rows
    prefix = "model.transformer."
    result = {prefix + "wte.weight": rng.normal(0, 1, (rows, s.hidden)).astype(np.float32)}
    for i in range(s.layers):
        block = {
            "attn_norm": norm(),
            "q_proj": matrix(s.hidden, s.hidden, sharp),
            "k_proj": matrix(s.kv_rows, s.hidden, sharp),
            "v_proj": matrix(s.kv_rows, s.hidden, 1.0),
            "attn_out": matrix(s.hidden, s.hidden, 1.0),
            "ff_norm": norm(),
            "ff_proj": matrix(s.ffn, s.hidden, 1.0),
            "up_proj": matrix(s.ffn, s.hidden, 1.0),
            "ff_out": matrix(s.hidden, s.ffn, 1.0),
        }
        result.update({f"{prefix}blocks.{i}.{k}.weight": v for k, v in block.items()})
    result[prefix + "ln_f.weight"] = norm()
    if not s.tied:
        result[prefix + "ff_out.weight"] = matrix(rows, s.hidden, 3.0)
    return result


def files(s):
    """{file name: bytes} of the checkpoint directory."""
    weights = tensors(s)
    result = {"config.json": (json.dumps(config_json(s), indent=2) + "\n").encode()}
    if s.shards == 1:
        result["model.safetensors"] = tensor_file.to_bytes(weights, s.bf16, {"format": "pt"})
        return result
    names = list(weights)
    per_shard = -(-len(names) // s.shards)
    weight_map, total = {}, 0
    for i in range(s.shards):
        file = f"model-{i + 1:05d}-of-{s.shards:05d}.safetensors"
        part = {n: weights[n] for n in names[i * per_shard : (i + 1) * per_shard]}
        weight_map.update(dict.fromkeys(part, file))
        total += sum(a.size for a in part.values()) * (2 if s.bf16 else 4)
        result[file] = tensor_file.to_bytes(part, s.bf16, {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    result["model.safetensors.index.json"] = (json.dumps(index, indent=2) + "\n").encode()
    return result


def write(s, directory):
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files(s).items():
        (directory / name).write_bytes(data)


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_oracle.random_checkpoint",
                                     description="Writes a random checkpoint in LLaDA's layout.")
    for name in ("hidden", "layers", "heads", "ffn", "vocab"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--kv-heads", type=int, help="fewer than --heads: grouped queries")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="weights in bf16 instead of f32")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the checkpoint")
    values = vars(parser.parse_args())
    out = values.pop("out")
    write(Shape(**values), out)


if __name__ == "__main__":
    main()
