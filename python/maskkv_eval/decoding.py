# SPDX-License-Identifier: Apache-2.0
"""The decoding rules on the embedded models, over the whole prompt cache and a compressed one: steps,
rows, time, tokens a step and accuracy, as a page of tables and a plot. scripts/decoding runs it.

    python -m maskkv_eval.decoding --questions 100 --markdown docs/decoding_rules.md \\
        --plot docs/images/decoding_rules.png

Rules that go by a number of steps are asked with several; one prefill a question serves all rules.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys

from maskkv_eval import embedded
from maskkv_eval.statistics import wilson
from maskkv_tiny import world

# Settings worth comparing, by rule; a rule that is not here runs with its defaults.
SETTINGS = {
    "threshold": ("0.5", "0.9", "0.99"),
    "factor": ("0.1", "1"),
    "hierarchical": ("0.9", "0.99"),
    "prefix": ("0.5", "0.9"),
    "slowfast": ("0.5", "0.9"),
}
SHARES = (1, 2, 4, 8)  # tokens a step that schedules are made for


def rule_names(binary):
    """The rules that the binary knows: it lists them when it is asked for one that is none."""
    done = subprocess.run([binary, "evaluate", "--model", ".", "--questions", ".", "--rules", "?"],
                          capture_output=True, text=True, check=False)
    listed = done.stderr.partition("expected one of ")[2].partition(", found")[0]
    if not listed:
        raise SystemExit(f"{binary}: expected a list of rules, found {done.stderr!r}")
    return listed.split(", ")


def specs(names):
    return [f"{name}:{value}" if value else name
            for name in names for value in SETTINGS.get(name, ("",))]


def measure(args, model, questions, names):
    """Cells of `maskkv evaluate`, scheduled rules once for each number of steps."""
    schedules = ",".join(str(max(1, args.gen_length // share)) for share in SHARES)
    extra = ("--rules", ",".join(specs(names)), "--schedules", schedules)
    return [{"model": model, **cell} for cell in embedded.ask(args, model, questions, extra)]


def name(cell):
    steps = cell["schedule"]
    return cell["rule"] if steps is None else f"{cell['rule']} in {steps}"


def cache(cell):
    return "every pair kept" if cell["budget"] is None else f"B = {cell['budget']}"


def accuracy(cell):
    return cell["correct"] / cell["questions"]


def front(cells):
    """Those that no other cell beats: fewer steps and as many right, or as few steps and more."""
    def beats(a, b):
        return (a["steps"] <= b["steps"] and a["correct"] >= b["correct"]
                and (a["steps"], a["correct"]) != (b["steps"], b["correct"]))
    return [c for c in cells if not any(beats(other, c) for other in cells)]


def table(cells):
    """One model and cache: a row a rule."""
    best = front(cells)
    lines = ["| rule | steps | rows | ms | tokens a step | right, % |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for cell in cells:
        asked = cell["questions"]
        low, high = wilson(cell["correct"], asked)
        mark = "**" if cell in best else ""
        lines.append(
            f"| {mark}{name(cell)}{mark} | {cell['steps'] / asked:.2f} | {cell['rows'] / asked:.0f} | "
            f"{1e3 * cell['seconds'] / asked:.1f} | {cell['tokens_per_step']:.2f} | "
            f"{100 * accuracy(cell):.1f} ({100 * low:.1f} to {100 * high:.1f}) |")
    return lines


def groups(cells):
    """((model, cache), cells) in the order of measurement."""
    found = {}
    for cell in cells:
        found.setdefault((cell["model"], cache(cell)), []).append(cell)
    return list(found.items())


def markdown(cells, args, command, image=None):
    lines = ["# Decoding rules compared", "",
             f"Made by `{command}`; do not edit.", ""]
    if image:
        lines += [f"![accuracy by steps]({image})", ""]
    lines += [
        f"{args.questions} held-out questions of {args.length} tokens, {100 * args.lookalikes:.0f} % "
        "of them about people who share a name with another,",
        f"{args.gen_length} masks, temperature 0, {args.dtype}. The rules are those of "
        "[decoding.md](decoding.md); a number behind the colon is the threshold or factor,",
        'one behind "in" the steps of a schedule. An answer ends with its first end token, so that '
        "fewer steps run than a schedule has. All figures",
        "are means a question: steps; rows computed in them; time of the steps, without the prefill, "
        "which all rules share (the rows of a table",
        "are timed in turn, question by question); positions decided a step; exact answers with 95 % "
        "Wilson intervals. Bold: no other rule of",
        "the table has fewer steps and as many right answers, or as few steps and more.", ""]
    for (model, kept), of in groups(cells):
        lines += [f"## {model}, {kept}", "", *table(of), ""]
    return "\n".join(lines)


def plot(cells, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = groups(cells)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 4 * rows), squeeze=False,
                                   sharex=True)
    colours = pyplot.get_cmap("tab20")
    rules = list(dict.fromkeys(c["rule"].partition(":")[0] for c in cells))
    for axis, ((model, kept), of) in zip(axes.flat, panels):
        for index, rule in enumerate(rules):
            line = sorted((c["steps"] / c["questions"], 100 * accuracy(c)) for c in of
                          if c["rule"].partition(":")[0] == rule)
            if line:
                axis.plot(*zip(*line), marker="o", markersize=4, linewidth=1, label=rule,
                          color=colours(index % 20))
        best = sorted((c["steps"] / c["questions"], 100 * accuracy(c)) for c in front(of))
        axis.plot(*zip(*best), drawstyle="steps-post", color="black", linestyle=":",
                  label="no rule is better")
        axis.set(title=f"{model}, {kept}", xlabel="steps a question", ylabel="right, %")
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="center left",
                  bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def parser():
    p = argparse.ArgumentParser(prog="scripts/decoding", description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="tiny-llada,tiny-dream")
    p.add_argument("--questions", type=int, default=500)
    p.add_argument("--length", type=int, default=1000, help="tokens a document")
    p.add_argument("--seed", type=int, default=3)
    p.add_argument("--lookalikes", type=float, default=0.5,
                   help="share of people who have one name in common with another")
    p.add_argument("--gen-length", type=int, default=16)
    p.add_argument("--budgets", default="32", help="pairs a head and layer, beside every pair")
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16"))
    p.add_argument("--json", type=pathlib.Path, help="the cells, as they were measured")
    p.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/decoding_rules.md"))
    p.add_argument("--plot", type=pathlib.Path,
                   default=pathlib.Path("docs/images/decoding_rules.png"))
    p.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    return p


def run(args, command):
    args.policies = "full,maskkv"
    questions = list(world.records("test", args.questions, args.length, args.seed, args.lookalikes))
    names, models, cells = rule_names(args.bin), args.models.split(","), []
    for model in models:
        cells += measure(args, model, questions, names)
    if args.json:
        args.json.write_text(json.dumps({"cells": cells}) + "\n", encoding="utf-8")
    plot(cells, args.plot)
    image = os.path.relpath(args.plot, args.markdown.parent)
    args.markdown.write_text(markdown(cells, args, command, image), encoding="utf-8")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    run(parser().parse_args(argv), shlex.join(["scripts/decoding", *argv]))


if __name__ == "__main__":
    main()
