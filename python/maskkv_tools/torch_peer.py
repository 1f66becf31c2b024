# SPDX-License-Identifier: Apache-2.0
"""The prefill of a LLaDA checkpoint in PyTorch, as a peer to measure ours beside: bf16 weights and
activations, F.scaled_dot_product_attention without a mask, fused query-key-value and gate-up
products, inference mode. It computes what a prefill needs: K and V of every layer and row, but in the
last layer the outputs of the masks alone. Runs in an environment with python/requirements-train.txt.

    python -m maskkv_tools.torch_peer --model DIR --threads 2 --check   error against the oracle
    python -m maskkv_tools.torch_peer --model DIR --threads 2           reads numbers of tokens, one a
                                                                        line, answers with seconds
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import torch
from maskkv_oracle import checkpoint, forward, layout, tensor_file
from torch.nn import functional as F

CHECK_TOKENS = 48


def _tensors(directory):
    """{name: bf16 tensor} of a bf16 checkpoint of one file."""
    raw = np.memmap(pathlib.Path(directory) / "model.safetensors", mode="r")
    length = int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8 : 8 + length].tobytes())
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if entry["dtype"] != "BF16":
            raise SystemExit(f"{directory}: {name}: expected BF16, found {entry['dtype']}")
        bits = np.array(raw[begin:end]).view(np.int16)
        found[name] = torch.from_numpy(bits).view(torch.bfloat16).reshape(entry["shape"])
    return found


class Peer:
    def __init__(self, directory, dtype=torch.bfloat16):
        fields = json.loads((pathlib.Path(directory) / "config.json").read_text())
        self.heads, self.layers = fields["n_heads"], fields["n_layers"]
        self.head_dim = fields["d_model"] // self.heads
        self.eps, self.theta = fields["rms_norm_eps"], fields["rope_theta"]
        self.mask_id = fields["mask_token_id"]
        names, tensors = layout.NAMES["llada"], _tensors(directory)

        def weight(field, **place):
            return tensors[names[field].format(**place)].to(dtype)

        self.embedding = weight("embedding")
        self.final_norm, self.head = weight("final_norm"), weight("head")
        self.blocks = []
        for layer in range(self.layers):
            w = {f: weight(f, layer=layer) for f in layout.layer_fields("llada")}
            w["qkv"] = torch.cat([w.pop("q"), w.pop("k"), w.pop("v")])
            w["gate_up"] = torch.cat([w.pop("gate"), w.pop("up")])
            self.blocks.append(w)

    def _norm(self, x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _tables(self, n):
        frequency = self.theta ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angle = torch.arange(n).float()[:, None] * frequency
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos(), angle.sin()

    def _rotate(self, x, cos, sin):
        """x (heads, n, head_dim)."""
        first, second = x.float().chunk(2, dim=-1)
        return (x * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)

    def _heads(self, x):
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(0, 1)

    @torch.inference_mode()
    def prefill(self, ids, masks):
        """(normed outputs of the masks, [(K, V)] of every layer) of ids followed by `masks` masks."""
        ids = torch.cat([torch.as_tensor(ids), torch.full((masks,), self.mask_id)])
        x = self.embedding[ids]
        cos, sin = self._tables(len(ids))
        pairs = []
        for layer, w in enumerate(self.blocks):
            first = len(ids) - masks if layer + 1 == self.layers else 0
            q, k, v = F.linear(self._norm(x, w["attn_norm"]), w["qkv"]).chunk(3, dim=-1)
            q = self._rotate(self._heads(q[first:]), cos[first:], sin[first:])
            k, v = self._rotate(self._heads(k), cos, sin), self._heads(v)
            mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            x = x[first:] + F.linear(mixed.transpose(0, 1).flatten(1), w["out"])
            gate, up = F.linear(self._norm(x, w["ff_norm"]), w["gate_up"]).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, w["down"])
            pairs.append((k, v))
        return self._norm(x, self.final_norm), pairs

    def logits(self, ids, masks):
        return F.linear(self.prefill(ids, masks)[0], self.head)


def check(directory, masks):
    """Root-mean-square error of the peer's logits over that of the logits, f32 and bf16, against the
    float64 oracle."""
    model = checkpoint.load(directory)
    ids = np.random.default_rng(0).integers(0, model.config.mask_id, CHECK_TOKENS)
    rows = [*map(int, ids), *[model.config.mask_id] * masks]
    *_, last = forward.run_rows(model, rows, range(len(rows)))
    exact = forward.logits(model, last.out[-masks:])
    errors = {}
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        logits = Peer(directory, dtype).logits(ids, masks).float().numpy()
        errors[name] = float(np.sqrt(np.mean((logits - exact) ** 2) / np.mean(exact**2)))
    return errors


def serve(peer, masks):
    for line in sys.stdin:
        tokens = int(line)
        ids = np.random.default_rng(1).integers(0, peer.mask_id, tokens)
        start = time.perf_counter()
        peer.prefill(ids, masks)
        seconds = time.perf_counter() - start
        print(json.dumps({"prompt": tokens, "prefill_s": seconds}), flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.torch_peer", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=32, help="masks behind the prompt")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.check:
        print(json.dumps({"version": torch.__version__, "errors": check(args.model, args.rows)}))
    else:
        serve(Peer(args.model), args.rows)


if __name__ == "__main__":
    main()
