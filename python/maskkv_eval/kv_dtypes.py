# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the embedded models by the type of kept pairs; every type answers the same questions.
scripts/kv-dtypes runs it.

    python -m maskkv_eval.kv_dtypes --questions 500 --markdown docs/kv_dtypes.md
"""

import argparse
import json
import pathlib

from tqdm import tqdm

from maskkv_eval import embedded
from maskkv_eval.ablations import total
from maskkv_eval.statistics import mcnemar, paired_difference
from maskkv_tiny import world

KV_DTYPES = ("f32", "bf16", "int8")


def pair_bytes(kv_dtype, head_dim):
    """Of one pair of one head: key, value, their scales, position."""
    element, scale = {"f32": (4, 0), "bf16": (2, 0), "int8": (1, 4)}[kv_dtype]
    return 2 * (head_dim * element + scale) + 4


def bytes_table(widths):
    lines = ["| width of a head | " + " | ".join(KV_DTYPES) + " | int8 / bf16 |",
             "| ---: |" + " ---: |" * (len(KV_DTYPES) + 1)]
    for width in widths:
        count = {kv: pair_bytes(kv, width) for kv in KV_DTYPES}
        lines.append(f"| {width} | " + " | ".join(str(count[kv]) for kv in KV_DTYPES)
                     + f" | {count['int8'] / count['bf16']:.3f} |")
    return lines


def change(first, second):
    """int8 against another type, a question each: the difference in points, and who was right alone."""
    gap, low, high = (100 * value for value in paired_difference(first, second))
    only_first, only_second, p = mcnemar(first, second)
    return f"{gap:+.1f} ({low:+.1f} to {high:+.1f}) | {only_first} / {only_second}, p = {p:.2f}"


def accuracy_table(cells, budgets):
    """cells: kv dtype -> cells of `maskkv evaluate`, a budget each."""
    by = {kv: {c["budget"]: c for c in of} for kv, of in cells.items()}
    lines = ["| B | " + " | ".join(KV_DTYPES) + " | int8 - f32, points | only int8 / only f32 right |",
             "| ---: |" + " ---: |" * (len(KV_DTYPES) + 2)]
    for budget in budgets:
        right = {kv: [outcome == "1" for outcome in by[kv][budget]["outcomes"]] for kv in KV_DTYPES}
        lines.append(f"| {budget} | " + " | ".join(total(by[kv][budget]) for kv in KV_DTYPES)
                     + f" | {change(right['int8'], right['f32'])} |")
    return lines


def page(args, widths, cells, budgets):
    names = ", ".join(f"{width} ({model})" for model, width in widths.items())
    lines = [
        "# Types of kept pairs", "",
        f"Made by `scripts/kv-dtypes --models {args.models} --questions {args.questions} --budgets "
        f"{args.budgets}`; do not edit.",
        "A request chooses how its entry stores keys and values: `KeepPolicy.kv_dtype`, "
        "`--kv-dtype f32|bf16|int8` ([cli.md](cli.md), [ADR 18](adr/0018-int8-pairs.md)).", "",
        "## Bytes of a pair", "",
        "Key, value, their scales and the position, of one head:", "",
        *bytes_table(sorted({128, *widths.values()}, reverse=True)), "",
        f"Heads of the embedded models are narrower than those of published ones: {names}. Their scales "
        "weigh more.", "",
        "## Accuracy", "",
        f"Per cent with 95 % Wilson intervals over {args.questions} held-out questions of "
        f"{args.length} tokens, exact match, policy maskkv, {args.gen_length} masks, compute "
        f"{args.dtype}. The difference is in points with a 95 % bootstrap interval over pairs of "
        "answers; beside it how many questions one type alone got right, with McNemar's exact p.", ""]
    for model, of_model in cells.items():
        lines += [f"### {model}", "", *accuracy_table(of_model, budgets), ""]
    return "\n".join(lines)


def head_dim(model):
    config = json.loads((pathlib.Path("models") / model / "config.json").read_text(encoding="utf-8"))
    hidden = config.get("d_model", config.get("hidden_size"))
    return hidden // config.get("n_heads", config.get("num_attention_heads"))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="scripts/kv-dtypes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-llada,tiny-dream")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lookalikes", type=float, default=0.0)
    parser.add_argument("--budgets", default="8,32,128")
    parser.add_argument("--gen-length", type=int, default=8)
    parser.add_argument("--dtype", default="f32", choices=("f32", "bf16"))
    parser.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/kv_dtypes.md"))
    parser.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.policies = "maskkv"
    budgets = [int(b) for b in args.budgets.split(",")]
    models = args.models.split(",")
    questions = list(world.records("test", args.questions, args.length, args.seed, args.lookalikes))
    cells = {model: {} for model in models}
    with tqdm(total=len(models) * len(KV_DTYPES), unit="run") as bar:
        for model in models:
            for kv_dtype in KV_DTYPES:
                cells[model][kv_dtype] = embedded.ask(args, model, questions,
                                                      ("--kv-dtype", kv_dtype))
                bar.update()
    widths = {model: head_dim(model) for model in models}
    args.markdown.write_text(page(args, widths, cells, budgets), encoding="utf-8")


if __name__ == "__main__":
    main()
