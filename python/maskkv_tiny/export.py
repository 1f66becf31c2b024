# SPDX-License-Identifier: Apache-2.0
"""Writes a trained model as a published checkpoint: config.json, model.safetensors, tokenizer files.

    python -m maskkv_tiny.export --family llada --work build/tiny-train --out models/tiny-llada
"""

import argparse
import dataclasses
import json
import pathlib

import torch
from safetensors.torch import load_file, save

from maskkv_tiny import families, world
from maskkv_tiny import tokenizer as tok
from maskkv_tiny.model import Network

CALIBRATION_QUESTIONS = 32
CALIBRATION_LENGTH = 500


def load(folder):
    """The family and the model of a checkpoint folder, its bf16 weights held in float32."""
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = families.of_config(fields)
    model = Network(dataclasses.replace(
        family.shape, **{here: fields[there] for here, there in family.shape_fields.items()}))
    weights = load_file(folder / "model.safetensors")
    names = {name: family.tensor_name(name) for name in model.state_dict()}
    if set(weights) != set(names.values()):
        raise ValueError(f"{folder}: tensors that differ: {set(weights) ^ set(names.values())}")
    model.load_state_dict({here: weights[there].float() for here, there in names.items()})
    return family, model.eval()


def write_calibration(out):
    with open(out / "calibration.jsonl", "w", encoding="utf-8") as lines:
        for record in world.records("calibration", CALIBRATION_QUESTIONS, CALIBRATION_LENGTH, 0):
            lines.write(json.dumps(record) + "\n")


def export(family, work, out):
    """Writes the model that training left in `work` to the checkpoint folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = tok.train(family)
    weights = torch.load(work / "state.pt", weights_only=True)["model"]
    shape = dataclasses.replace(family.shape, vocab_size=tokenizer.get_vocab_size())
    Network(shape).load_state_dict(weights)  # names and shapes agree, or this raises
    rounded = {family.tensor_name(name): w.to(torch.bfloat16).contiguous()
               for name, w in weights.items()}
    data = save(rounded, metadata={"format": "pt"})
    (out / "model.safetensors").write_bytes(data)
    text = json.dumps(family.config(shape, tok.special_ids(family, tokenizer)), indent=2)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
    tok.write(family, tokenizer, out)
    write_calibration(out)
    print(f"{sum(w.numel() for w in weights.values())} parameters written to {out}")


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.export", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/tiny-train"))
    families.add_arguments(parser)
    args = parser.parse_args()
    export(families.by_name()[args.family], args.work, families.checkpoint_folder(args))


if __name__ == "__main__":
    main()
