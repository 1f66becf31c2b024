# SPDX-License-Identifier: Apache-2.0
"""Tries ideas for eviction policies beside MaskKV, under equal bytes, on calibration questions.

    python -m maskkv_tools.policy_lab --questions 120 --budgets 1,2,4 --json build/lab.json

One prefill a question serves all ideas. An idea maps what the masks saw of a prompt to the pairs
that each head keeps; every idea keeps exactly B * L * N_h pairs of a prompt, or is tuned to that
mean over the questions where it says so. Arithmetic is the oracle's, in float32: for sweeping
ideas, not for proofs. What won is in core/policy; docs/own_policy.md says what did not.
"""

import argparse
import json
import pathlib
import time

import numpy as np
from tokenizers import Tokenizer

from maskkv_oracle import budgets, checkpoint, decode, forward, ops, selection, voting
from maskkv_tiny import world
from maskkv_tools import lab_ideas


class Seen:
    """What a prefill saw of one prompt: everything that an idea may look at."""

    def __init__(self, model, profile, prompt, masks):
        c = model.config
        ids = list(prompt) + [c.mask_id] * masks
        self.n_p, self.profile = len(prompt), profile
        self.layers, self.heads = c.layers, c.kv_heads
        rows = np.arange(self.n_p, len(ids))
        self.attention, self.keys, self.values, self.preference, self.moved = [], [], [], [], []
        for layer, trace in enumerate(forward.run_rows(model, ids, np.arange(len(ids)))):
            a = np.zeros((c.kv_heads, masks, len(ids)), np.float32)
            for head in range(c.heads):
                s = ops.attention_scores(trace.q[head][rows], trace.k[head // c.group])
                a[head // c.group] += ops.softmax(s)
            self.attention.append(a)  # (kv_heads, masks, keys)
            self.preference.append(voting.vote(a.sum(axis=1), self.n_p).preference)
            self.keys.append(trace.k)
            self.values.append(trace.v)
            # |W_o v|: how far a pair's value would move the residual stream, by KV head.
            out = model.blocks[layer].out.reshape(c.hidden, c.kv_heads, c.group, c.head_dim)
            self.moved.append(np.stack([
                np.linalg.norm(np.einsum("okd,nd->nko", out[:, h], trace.v[h]), axis=-1).mean(-1)
                for h in range(c.kv_heads)]))
        logits = forward.logits(model, trace.out[rows])
        logits[:, c.mask_id] = -np.inf
        self.confidence = ops.softmax(logits).max(axis=-1)  # (masks): step 1's

    def prompt_attention(self, layer):
        return self.attention[layer][:, :, : self.n_p]

    def layer_budgets(self, budget, beta=0.4):
        return budgets.layer_budgets(list(self.profile), budget, beta, self.n_p)

    def head_budgets(self, layer, k_l, alpha=0.1):
        return budgets.head_budgets(self.preference[layer].tolist(), k_l, alpha, self.n_p)

    def cache(self, kept):
        """kept (layers)(heads) positions -> forward.Pairs a layer."""
        return [forward.Pairs([k[h][np.asarray(p, int)] for h, p in enumerate(heads)],
                              [v[h][np.asarray(p, int)] for h, p in enumerate(heads)])
                for heads, k, v in zip(kept, self.keys, self.values)]


def answer(model, prompt, masks, pairs, stop_ids):
    params = decode.Sampling(masks, masks, masks, stop_ids=stop_ids)
    return decode.run(model, prompt, params, pairs).tokens


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.policy_lab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/tiny-llada"))
    parser.add_argument("--split", default="calibration", choices=("calibration", "test"))
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--lookalikes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--budgets", default="1,2,4")
    parser.add_argument("--ideas", default="", help="names, comma-separated; all when empty")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    model = checkpoint.load(args.model).map(lambda a: a.astype(np.float32))
    profile = json.loads((args.model / "maskkv_profile.json").read_text())["importance"]
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    stops = tuple(tokenizer.token_to_id(t) for t in ("<|eot_id|>", "<|endoftext|>"))
    wanted = args.ideas.split(",") if args.ideas else list(lab_ideas.IDEAS)
    amounts = [int(b) for b in args.budgets.split(",")]
    right = {(name, b): [] for name in wanted for b in amounts}
    kept_pairs = {key: 0 for key in right}
    started = time.monotonic()
    records = world.records(args.split, args.questions, args.length, args.seed, args.lookalikes)
    for number, record in enumerate(records, 1):
        prompt = lab_ideas.prompt_ids(tokenizer, record)
        seen = Seen(model, profile, prompt, args.masks)
        for name, b in right:
            kept = lab_ideas.IDEAS[name](seen, b)
            pairs = kept if isinstance(kept[0], forward.Pairs) else seen.cache(kept)
            kept_pairs[name, b] += sum(len(h) for layer in pairs for h in layer.k)
            tokens = answer(model, prompt, args.masks, pairs, stops)
            right[name, b].append(tokenizer.decode(tokens).strip() == record["answer"])
        if number % 20 == 0 or number == args.questions:
            print(f"-- {number} questions, {time.monotonic() - started:.0f} s", flush=True)
            units = number * seen.layers * seen.heads
            for name in wanted:
                cells = "  ".join(
                    f"B={b}: {np.mean(right[name, b]):.3f} ({kept_pairs[name, b] / units:.2f})"
                    for b in amounts)
                print(f"{name:24s} {cells}", flush=True)
    if args.json:
        cells = [{"idea": n, "budget": b, "right": [int(r) for r in v]}
                 for (n, b), v in right.items()]
        args.json.write_text(json.dumps({"arguments": vars(args) | {"model": str(args.model),
                                         "json": str(args.json)}, "cells": cells}))


if __name__ == "__main__":
    main()
