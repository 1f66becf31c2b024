# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints of the shapes that docs/performance.md measures, in LLaDA's layout, bf16. They
are written tensor by tensor, so that gigabytes need no memory.

    python -m maskkv_tools.bench_models S M --out build/bench-models

A checkpoint that is there already is left alone.
"""

import argparse
import dataclasses
import json
import math
import pathlib

import numpy as np
from maskkv_oracle import layout, random_checkpoint, tensor_file

Shape = random_checkpoint.Shape

SHAPES = {
    "S": Shape(seed=1, hidden=1024, layers=8, heads=8, ffn=3072, vocab=8192, bf16=True),
    "M": Shape(seed=2, hidden=2048, layers=16, heads=16, ffn=6144, vocab=32768, bf16=True),
    # A checkpoint of about one GiB: half of M.
    "G": Shape(seed=3, hidden=2048, layers=8, heads=16, ffn=6144, vocab=32768, bf16=True),
    # One layer and the head of LLaDA-8B.
    "L": Shape(seed=4, hidden=4096, layers=1, heads=32, ffn=12288, vocab=126464, bf16=True),
    # For tables by prompt length.
    "small": Shape(seed=6, hidden=512, layers=8, heads=8, ffn=1536, vocab=4096, bf16=True),
    # For tests of the bench itself.
    "tiny": Shape(seed=5, hidden=128, layers=2, heads=2, ffn=256, vocab=512, bf16=True),
}
_RUN = 1 << 20  # values written at a time


def tensor_shapes(shape):
    """{tensor name: its shape}, in the order of a file."""
    names = layout.NAMES["llada"]
    sizes = layout.shapes(dataclasses.replace(shape, kv_heads=shape.written_kv_heads))
    found = {names["embedding"]: sizes["embedding"]}
    for layer in range(shape.layers):
        for field in layout.layer_fields("llada"):
            found[names[field].format(layer=layer)] = sizes[field]
    return found | {names[field]: sizes[field] for field in ("final_norm", "head")}


def values(rng, name, size, count):
    """bf16 bits of `count` values of a tensor: norms near 1, embeddings of standard deviation 1,
    matrices such that they keep the spread of their input."""
    if len(size) == 1:
        numbers = rng.uniform(0.7, 1.3, count).astype(np.float32)
    else:
        numbers = rng.standard_normal(count, dtype=np.float32)
        if name != layout.NAMES["llada"]["embedding"]:
            numbers *= np.float32(1 / math.sqrt(size[1]))
    return tensor_file.float32_to_bf16(numbers)


def write(shape, directory):
    """The checkpoint; config.json comes last, so that a folder with one is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    sizes = tensor_shapes(shape)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, size in sizes.items():
        end = offset + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(shape.seed)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, size in sizes.items():
            count = math.prod(size)
            for begin in range(0, count, _RUN):
                file.write(values(rng, name, size, min(_RUN, count - begin)).tobytes())
    (directory / "config.json").write_text(
        json.dumps(random_checkpoint.config_json(shape), indent=2) + "\n")


def folder(name, out):
    """The folder of a checkpoint, which is written if it is missing."""
    directory = pathlib.Path(out) / name
    if not (directory / "config.json").exists():
        write(SHAPES[name], directory)
    return directory


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.bench_models",
                                     description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="+", choices=list(SHAPES))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    args = parser.parse_args(argv)
    for name in args.names:
        print(folder(name, args.out))


if __name__ == "__main__":
    main()
