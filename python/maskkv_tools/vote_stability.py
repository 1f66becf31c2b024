# SPDX-License-Identifier: Apache-2.0
"""Does the vote of step 1 still hold at the last step? Measured with the oracle, without a cache.

    python -m maskkv_tools.vote_stability --questions 40 --budget 8

For every layer: of the B pairs a head that step 1's mask queries would keep, the share that the last
step's response rows would keep too, beside the share that two random choices have in common; and the
cosine similarity of the two score vectors.
"""

import argparse
import pathlib

import numpy as np
from tokenizers import Tokenizer

from maskkv_oracle import checkpoint, decode, forward, prefill, selection, voting
from maskkv_tiny import world
from maskkv_tools import lab_ideas


def scores(model, prompt, canvas):
    """(layers)(kv_heads, n_p): what the response rows of a canvas look at."""
    ids, n_p = list(prompt) + list(canvas), len(prompt)
    rows = np.arange(n_p, len(ids))
    return [voting.mask_query_scores(trace, rows, model.config.group)[:, :n_p]
            for trace in forward.run_rows(model, ids, np.arange(len(ids)))]


def last_canvas(model, prompt, masks):
    """The canvas as the last step sees it, everything of the prompt cached."""
    cache = prefill.run(model, prompt, masks).cache
    answer = decode.run(model, prompt, decode.Sampling(masks, masks, masks, ignore_eos=True), cache)
    canvas = list(answer.canvas)
    for position, _, _ in answer.steps[-1].committed:
        canvas[position] = model.config.mask_id
    return canvas


def compare(first, last, budget):
    """-> (shared of the best `budget`, cosine similarity), a head each."""
    shared, cosine = [], []
    for a, b in zip(first, last):
        best = set(selection.top_k(a, budget)) & set(selection.top_k(b, budget))
        shared.append(len(best) / budget)
        cosine.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    return np.mean(shared), np.mean(cosine)


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.vote_stability",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/tiny-llada"))
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    model = checkpoint.load(args.model).map(lambda a: a.astype(np.float32))
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    found, lengths = [], []
    for record in world.records("test", args.questions, args.length, args.seed):
        prompt = lab_ideas.prompt_ids(tokenizer, record)
        first = scores(model, prompt, [model.config.mask_id] * args.masks)
        last = scores(model, prompt, last_canvas(model, prompt, args.masks))
        found.append([compare(a, b, args.budget) for a, b in zip(first, last)])
        lengths.append(len(prompt))
    by_layer = np.mean(found, axis=0)
    print(f"{args.questions} prompts, B = {args.budget}; two random choices share "
          f"{args.budget / np.mean(lengths):.3f}")
    print("| layer | pairs shared by step 1 and the last step | cosine of the scores |")
    print("| ---: | ---: | ---: |")
    for layer, (shared, cosine) in enumerate(by_layer):
        print(f"| {layer} | {shared:.2f} | {cosine:.2f} |")


if __name__ == "__main__":
    main()
