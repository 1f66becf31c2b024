# SPDX-License-Identifier: Apache-2.0
"""The ablations of MaskKV's paper on an embedded model: base rates alpha and beta swept, parts of the
method taken out or exchanged. scripts/ablations runs it.

    python -m maskkv_eval.ablations --models tiny-llada --questions 300 --markdown docs/ablations.md
"""

import argparse
import pathlib

from tqdm import tqdm

from maskkv_eval import embedded
from maskkv_eval.statistics import wilson
from maskkv_tiny import world

RATES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
GROUPS = {
    "Which masks vote": ("maskkv", "maskkv-front", "maskkv-second", "maskkv-third", "maskkv-back"),
    "Who votes, uniform budgets": ("mask-voting", "prompt-voting", "all-voting", "snapkv"),
    "Layers, mask voting, uniform heads": (
        "masks/uniform/uniform", "masks/offline/uniform", "masks/online/uniform",
        "masks/pyramid/uniform", "masks/squeeze/uniform"),
    "Heads, mask voting, uniform layers": (
        "masks/uniform/uniform", "masks/uniform/adakv", "masks/uniform/preference",
        "masks/uniform/pool"),
    "Layers and heads together": (
        "mask-voting", "maskkv-no-layers", "maskkv-no-heads", "maskkv", "maskkv-online",
        "maskkv-head-pool", "maskkv-pool"),
}


def total(cell):
    low, high = wilson(cell["correct"], cell["questions"])
    return f"{100 * cell['correct'] / cell['questions']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def table(head, cells_by_row, budgets):
    """cells_by_row: name -> cells of `maskkv evaluate`."""
    lines = [f"| {head} | " + " | ".join(f"B = {b}" for b in budgets) + " |",
             "| --- |" + " ---: |" * len(budgets)]
    for name, cells in cells_by_row.items():
        by_budget = {c["budget"]: c for c in cells}
        lines.append(f"| {name} | " + " | ".join(total(by_budget[b]) for b in budgets) + " |")
    return lines + [""]


def sweep(args, model, questions, budgets, bar):
    lines = []
    for flag, other in (("alpha", "beta = 0.4"), ("beta", "alpha = 0.1")):
        rows = {}
        for rate in RATES:
            rows[f"{rate}"] = embedded.ask(args, model, questions, (f"--{flag}", str(rate)))
            bar.update()
        lines += [f"### {flag}, with {other}", "", *table(flag, rows, budgets)]
    return lines


def exchange(args, model, questions, budgets, bar):
    names = list(dict.fromkeys(n for group in GROUPS.values() for n in group))
    args = argparse.Namespace(**{**vars(args), "policies": ",".join(names)})
    cells = embedded.ask(args, model, questions)
    bar.update()
    lines = []
    for title, group in GROUPS.items():
        rows = {n: [c for c in cells if c["policy"] == canonical(cells, n)] for n in group}
        lines += [f"### {title}", "", *table("policy", rows, budgets)]
    return lines


def canonical(cells, name):
    """The name under which the command line reports a policy: a triple may have a shorter one."""
    reported = {c["policy"] for c in cells}
    if name in reported:
        return name
    return {"masks/uniform/uniform": "mask-voting", "masks/offline/uniform": "maskkv-no-heads",
            "masks/uniform/preference": "maskkv-no-layers"}[name]


def main():
    parser = argparse.ArgumentParser(prog="scripts/ablations", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny-llada,tiny-dream")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--lookalikes", type=float, default=0.0)
    parser.add_argument("--budgets", default="1,2,4,8")
    parser.add_argument("--gen-length", type=int, default=8)
    parser.add_argument("--dtype", default="f32", choices=("f32", "bf16", "int8"))
    parser.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/ablations.md"))
    parser.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.policies = "maskkv"
    budgets = [int(b) for b in args.budgets.split(",")]
    questions = list(world.records("test", args.questions, args.length, args.seed, args.lookalikes))
    models = args.models.split(",")
    lines = ["# Ablations", "",
             f"Made by `scripts/ablations --models {args.models} --questions {args.questions} --budgets "
             f"{args.budgets} --dtype {args.dtype}`;",
             f"do not edit. Accuracy in per cent with 95 % Wilson intervals over {args.questions} held-out",
             f"questions of {args.length} tokens (single facts and two hops), exact match. Policies: "
             "[policies.md](policies.md).", ""]
    with tqdm(total=len(models) * (2 * len(RATES) + 1), unit="run") as bar:
        for model in models:
            lines += [f"## {model}", ""]
            lines += sweep(args, model, questions, budgets, bar)
            lines += exchange(args, model, questions, budgets, bar)
    args.markdown.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
