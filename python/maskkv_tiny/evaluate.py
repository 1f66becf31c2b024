# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a shipped checkpoint without a cache, by kind of question, beside chance.

The bf16 weights run in float32 arithmetic; answers come from LLaDA's low-confidence decoding, the
arg-max token, one block, one token a step unless --steps says otherwise. A question counts when
the text up to the first end token equals the answer exactly.

    python -m maskkv_tiny.evaluate --questions 500 --length 1000 --seed 1
"""

import argparse
import collections
import pathlib

import torch
from tokenizers import Tokenizer

from maskkv_eval.statistics import wilson
from maskkv_tiny import batches, export, world


@torch.no_grad()
def decode(model, prompt, mask_id, gen_length, steps):
    """LLaDA low-confidence decoding of one prompt in one block: the generated ids."""
    ids = torch.tensor([prompt + [mask_id] * gen_length])
    positions = torch.arange(ids.shape[1])[None]
    for step in range(steps):
        masked = (ids[0] == mask_id).nonzero().squeeze(1)
        logits = model(ids, positions, None, masked - model.shape.shift)
        logits[:, mask_id] = -torch.inf
        confidence, token = torch.softmax(logits, dim=-1).max(dim=-1)
        count = gen_length // steps + (step < gen_length % steps)
        best = torch.sort(confidence, descending=True, stable=True).indices[:count]
        ids[0, masked[best]] = token[best]
    return ids[0, len(prompt):].tolist()


def text_of(encoder, tokenizer, ids):
    end = next((i for i, t in enumerate(ids) if t in (encoder.eos, encoder.eot)), len(ids))
    return tokenizer.decode(ids[:end]).strip()


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.evaluate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/tiny-llada"))
    parser.add_argument("--split", choices=world.SPLITS, default="test")
    parser.add_argument("--questions", type=int, default=500)
    world.add_arguments(parser, seed=1)
    parser.add_argument("--gen-length", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    family, model = export.load(args.model)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    encoder = batches.Encoder(family, tokenizer)
    tally = collections.defaultdict(lambda: [0, 0, 0.0])
    for record in world.chosen_records(args.split, args):
        prompt = encoder.document(record["document"]) + encoder.question(record["question"])
        ids = decode(model, prompt, encoder.mask, args.gen_length, args.steps)
        right = text_of(encoder, tokenizer, ids) == record["answer"]
        for key in (record["kind"], f"  {record['kind']} {record['relation']}"):
            tally[key][0] += right
            tally[key][1] += 1
            tally[key][2] += 1 / len(record["candidates"])
    for key, (right, asked, chance) in sorted(tally.items(), key=lambda item: item[0].strip()):
        low, high = wilson(right, asked)
        print(f"{key:32s} {right:4d}/{asked:<4d} {right / asked:.3f}  95 % [{low:.3f}, {high:.3f}]"
              f"  chance {chance / asked:.3f}")


if __name__ == "__main__":
    main()
