# SPDX-License-Identifier: Apache-2.0
"""Writes the trained model as a LLaDA checkpoint: config.json, model.safetensors, tokenizer files.

    python -m maskkv_tiny.export --work build/tiny-train --out models/tiny-llada
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save

from maskkv_tiny import tokenizer as tok
from maskkv_tiny import world
from maskkv_tiny.model import Llada, Shape

MAX_SEQUENCE_LENGTH = 4096
CALIBRATION_QUESTIONS = 32
CALIBRATION_LENGTH = 500


def config(shape, tokenizer):
    """config.json with every field that the published LLaDA checkpoints have."""
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
        "d_model": shape.d_model,
        "embedding_dropout": 0.0,
        "embedding_size": shape.vocab_size,
        "eos_token_id": tokenizer.token_to_id(tok.EOS),
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
        "mask_token_id": tokenizer.token_to_id(tok.MASK),
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "mlp_hidden_size": shape.mlp_hidden_size,
        "mlp_ratio": 4,
        "model_type": "llada",
        "multi_query_attention": None,
        "n_heads": shape.n_heads,
        "n_kv_heads": shape.n_heads,
        "n_layers": shape.n_layers,
        "pad_token_id": tokenizer.token_to_id(tok.EOS),
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": shape.rope_theta,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
        "use_cache": False,
        "vocab_size": shape.vocab_size,
        "weight_tying": False,
    }


def load(folder):
    """The model of a checkpoint folder, its bf16 weights held in float32."""
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("d_model", "n_layers", "n_heads", "mlp_hidden_size", "rope_theta", "rms_norm_eps")
    shape = Shape(vocab_size=fields["embedding_size"], **{n: fields[n] for n in names})
    model = Llada(shape)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: w.float() for name, w in weights.items()})
    return model.eval()


def write_calibration(out):
    with open(out / "calibration.jsonl", "w", encoding="utf-8") as lines:
        for record in world.records("calibration", CALIBRATION_QUESTIONS, CALIBRATION_LENGTH, 0):
            lines.write(json.dumps(record) + "\n")


def export(work, out):
    """Writes the model that training left in `work` to the checkpoint folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = tok.train()
    weights = torch.load(work / "state.pt", weights_only=True)["model"]
    shape = Shape(vocab_size=tokenizer.get_vocab_size())
    Llada(shape).load_state_dict(weights)  # names and shapes agree, or this raises
    rounded = {name: w.to(torch.bfloat16).contiguous() for name, w in weights.items()}
    data = save(rounded, metadata={"format": "pt"})
    (out / "model.safetensors").write_bytes(data)
    text = json.dumps(config(shape, tokenizer), indent=2)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
    tok.write(tokenizer, out)
    write_calibration(out)
    print(f"{sum(w.numel() for w in weights.values())} parameters written to {out}")


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/tiny-train"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/tiny-llada"))
    args = parser.parse_args()
    export(args.work, args.out)


if __name__ == "__main__":
    main()
