# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints in the exact layout of each family, small enough to commit.

Weights are scaled so that a random model is not a dull one: embeddings of standard deviation 1,
queries and keys such that attention logits spread by about 2 (sharp, not one-hot), the head such
that logits spread by about 3, the router such that its logits spread by about 2. Norm weights vary
around 1 and biases around 0, so that forgetting one shows.

    python -m maskkv_oracle.random_checkpoint --hidden 64 --layers 2 --heads 4 --ffn 96 --vocab 99 \\
        --out DIR
"""

import argparse
import dataclasses
import json
import math
import pathlib

import numpy as np

from maskkv_oracle import layout, published_fields, tensor_file


@dataclasses.dataclass(frozen=True)
class Shape:
    seed: int
    hidden: int
    layers: int
    heads: int
    ffn: int  # of each expert where there are experts
    vocab: int  # token ids that a tokenizer would know; mask = vocab - 1, eos = vocab - 2
    kv_heads: int | None = None  # None writes null (llada): multi_query decides
    multi_query: bool | None = None
    embedding_rows: int | None = None  # None writes null (llada): the vocabulary size counts
    tied: bool = False
    bf16: bool = False
    shards: int = 1
    theta: float = 500000.0
    eps: float = 1e-5
    family: str = "llada"  # a key of layout.NAMES
    experts: int = 0  # llada-moe
    experts_per_token: int = 0
    norm_topk_prob: bool | None = None

    @property
    def vocab_rows(self):
        return self.vocab if self.embedding_rows is None else self.embedding_rows

    @property
    def written_kv_heads(self):
        if self.kv_heads is None:
            return 1 if self.multi_query else self.heads
        return self.kv_heads


def config_json(s):
    """The fields of a published config.json of the family, in its order."""
    return published_fields.OF_FAMILY[s.family](s)


_SHARP = math.sqrt(2.0)
# Standard deviation of a matrix's entries times the square root of its columns.
_GAINS = {"q": _SHARP, "k": _SHARP, "head": 3.0, "router": 2.0}


def tensors(s):
    """{name: float32 array}, in the order of a published checkpoint."""
    rng = np.random.default_rng(s.seed)
    names = layout.NAMES[s.family]
    shapes = layout.shapes(dataclasses.replace(s, kv_heads=s.written_kv_heads))

    def values(field):
        shape = shapes[field]
        if field == "embedding":
            array = rng.normal(0, 1, shape)
        elif field.endswith("_bias"):
            array = rng.normal(0, 0.5, shape)
        elif len(shape) == 1:
            array = rng.uniform(0.7, 1.3, shape)
        else:
            array = rng.normal(0.0, _GAINS.get(field, 1.0) / math.sqrt(shape[1]), shape)
        return array.astype(np.float32)

    result = {names["embedding"]: values("embedding")}
    for layer in range(s.layers):
        for field in layout.layer_fields(s.family):
            if s.experts and field == "gate":  # an expert's three matrices lie together
                for e in range(s.experts):
                    for part in layout.OF_EXPERTS:
                        result[names[part].format(layer=layer, expert=e)] = values(part)
            elif not (s.experts and field in layout.OF_EXPERTS):
                result[names[field].format(layer=layer)] = values(field)
    result[names["final_norm"]] = values("final_norm")
    if not s.tied:
        result[names["head"]] = values("head")
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
                                     description="Writes a random checkpoint of a family's layout.")
    parser.add_argument("--family", choices=list(layout.NAMES), default="llada")
    for name in ("hidden", "layers", "heads", "ffn", "vocab"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--kv-heads", type=int, help="fewer than --heads: grouped queries")
    parser.add_argument("--experts", type=int, default=0, help="llada-moe; --ffn wide each")
    parser.add_argument("--experts-per-token", type=int, default=0, help="llada-moe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tied", action="store_true", help="the head is the embedding")
    parser.add_argument("--bf16", action="store_true", help="weights in bf16 instead of f32")
    parser.add_argument("--shards", type=int, default=1, help="files, with an index if several")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the checkpoint")
    values = vars(parser.parse_args())
    out = values.pop("out")
    if (values["family"] == "llada-moe") != (values["experts"] > 0):
        parser.error("--experts: expected with --family llada-moe, and only there")
    if values["experts_per_token"] > values["experts"] or bool(values["experts"]) != bool(
        values["experts_per_token"]
    ):
        parser.error("--experts-per-token: expected 1 to --experts")
    if values["family"] != "llada" and values["kv_heads"] is None:
        values["kv_heads"] = values["heads"]
    write(Shape(**values), out)


if __name__ == "__main__":
    main()
