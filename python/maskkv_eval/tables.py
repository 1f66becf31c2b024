# SPDX-License-Identifier: Apache-2.0
"""Draws what scripts/eval measured: tables of accuracy with paired tests, and a plot.

    python -m maskkv_eval.tables build/eval.json --markdown docs/comparison.md --plot docs/images/comparison.png

The file's cells hold one bit a question, in the same order for every policy, so that policies are
compared pair by pair.
"""

import argparse
import collections
import json
import pathlib

from maskkv_eval.statistics import mcnemar, wilson

REFERENCE = "maskkv"
SIGNIFICANT = 0.05


def load(path):
    """-> cells; errors name the file and the cell."""
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for number, cell in enumerate(report["cells"]):
        where = f"{path}: cells[{number}]"
        if len(cell["right"]) != cell["questions"]:
            raise SystemExit(f"{where}: expected {cell['questions']} bits in field right, "
                             f"found {len(cell['right'])}")
        if sum(cell["right"]) != cell["correct"]:
            raise SystemExit(f"{where}: expected field correct to be the sum of field right")
    return report["cells"]


def select(cells, **fields):
    return [c for c in cells if all(c[k] == v for k, v in fields.items())]


def ordered(cells, field):
    return list(dict.fromkeys(c[field] for c in cells))


def budgets_of(cells):
    return sorted({c["budget"] for c in cells if c["budget"] is not None})


def percent(right, asked):
    low, high = wilson(right, asked)
    return f"{100 * right / asked:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def accuracy_table(cells):
    """One model and task: a row a policy, a column a budget."""
    budgets = budgets_of(cells)
    lines = ["| policy | " + " | ".join(f"B = {b}" for b in budgets) + " |",
             "| --- |" + " ---: |" * len(budgets)]
    for policy in ordered(cells, "policy"):
        row = []
        for budget in budgets:
            found = select(cells, policy=policy, budget=budget)
            found = found or select(cells, policy=policy, budget=None)
            row.append(percent(found[0]["correct"], found[0]["questions"]) if found else "")
        lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return lines


def merged(cells):
    """The cells of one model over all tasks: a list of bits a (policy, budget)."""
    bits = collections.defaultdict(list)
    for cell in cells:
        bits[cell["policy"], cell["budget"]] += cell["right"]
    return bits


def duel_table(cells):
    """MaskKV against every other policy, all tasks of a model together."""
    bits, budgets = merged(cells), budgets_of(cells)
    lines = ["| against | " + " | ".join(f"B = {b}" for b in budgets) + " |",
             "| --- |" + " ---: |" * len(budgets)]
    for policy in ordered(cells, "policy"):
        if policy == REFERENCE or (policy, budgets[0]) not in bits:
            continue
        row = []
        for budget in budgets:
            wins, losses, p = mcnemar(bits[REFERENCE, budget], bits[policy, budget])
            mark = "" if p >= SIGNIFICANT else (" **+**" if wins > losses else " **-**")
            row.append(f"{wins} : {losses}, p {p:.2g}{mark}")
        lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return lines


def mass_table(cells):
    """Kept mask-query mass, all tasks of a model together."""
    budgets = budgets_of(cells)
    lines = ["| policy | " + " | ".join(f"B = {b}" for b in budgets) + " |",
             "| --- |" + " ---: |" * len(budgets)]
    for policy in ordered(cells, "policy"):
        row = []
        for budget in budgets:
            found = select(cells, policy=policy, budget=budget)
            asked = sum(c["questions"] for c in found)
            row.append(f"{sum(c['kept_mass'] * c['questions'] for c in found) / asked:.3f}"
                       if asked else "")
        if any(row):
            lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return lines


def markdown(cells, command):
    lines = ["# Eviction policies compared", "",
             f"Made by `{command}`; do not edit. Accuracy in per cent with 95 % Wilson intervals,",
             "exact match of the whole answer, held-out questions, the same for every cell.",
             "Policies: [policies.md](policies.md).", ""]
    for model in ordered(cells, "model"):
        of_model = select(cells, model=model)
        for task in ordered(of_model, "task"):
            of_task = select(of_model, task=task)
            lines += [f"## {model}: {task} ({of_task[0]['questions']} questions)", "",
                      *accuracy_table(of_task), ""]
        lines += [f"## {model}: {REFERENCE} against the others", "",
                  "Questions that only MaskKV answered : that only the other did, all tasks together,"
                  " and the p of",
                  f"McNemar's exact test; **+** where MaskKV is better at p < {SIGNIFICANT}, **-** "
                  "where it is worse.", "",
                  *duel_table(of_model), "", f"## {model}: mask-query score mass kept", "",
                  *mass_table(of_model), ""]
    return "\n".join(lines)


def plot(cells, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [(m, t) for m in ordered(cells, "model")
              for t in ordered(select(cells, model=m), "task")]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6.5 * columns, 4.2 * rows),
                                   squeeze=False, sharey=True)
    policies = ordered(cells, "policy")
    colours = pyplot.get_cmap("tab20")
    for axis, (model, task) in zip(axes.flat, panels):
        of_task = select(cells, model=model, task=task)
        for index, policy in enumerate(policies):
            line = sorted((c["budget"], 100 * c["correct"] / c["questions"])
                          for c in select(of_task, policy=policy) if c["budget"] is not None)
            strong = policy in (REFERENCE, "maskkv-pool")
            if line:
                axis.plot(*zip(*line), marker="o", markersize=3, label=policy,
                          color=colours(index % 20), linewidth=2.4 if strong else 1)
            for cell in select(of_task, policy=policy, budget=None):
                axis.axhline(100 * cell["correct"] / cell["questions"], color="black",
                             linestyle=":", linewidth=1, label=policy)
        axis.set(title=f"{model}, {task}", xscale="log", xlabel="budget B, pairs a head and layer",
                 ylim=(-2, 102))
        axis.set_xticks(budgets_of(of_task), [str(b) for b in budgets_of(of_task)])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_eval.tables", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--command", default="scripts/eval", help="named in the page")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    cells = [cell for path in args.files for cell in load(path)]
    text = markdown(cells, args.command)
    if args.markdown:
        image = ""
        if args.plot:
            image = f"\n![accuracy by budget](images/{args.plot.name})\n"
        head, rest = text.split("\n\n", 1)
        args.markdown.write_text(f"{head}\n{image}\n{rest}\n", encoding="utf-8")
    else:
        print(text)
    if args.plot:
        plot(cells, args.plot)


if __name__ == "__main__":
    main()
