# SPDX-License-Identifier: Apache-2.0
"""Draws what scripts/eval measured, as its flags --markdown and --plot do: tables of accuracy with
paired tests, and a plot.

    python -m maskkv_eval.tables build/eval.json --markdown docs/comparison.md \\
        --plot docs/images/comparison.png

The file's cells hold one bit a question, in the same order for every policy, so that policies are
compared pair by pair; cells of graded tasks also hold a score a question, 0 to 1.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics

from maskkv_eval.statistics import bootstrap, mcnemar, paired_difference, wilson

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
        if len(cell.get("scores", cell["right"])) != cell["questions"]:
            raise SystemExit(f"{where}: expected {cell['questions']} numbers in field scores, "
                             f"found {len(cell['scores'])}")
        if sum(cell["right"]) != cell["correct"]:
            raise SystemExit(f"{where}: expected field correct to be the sum of field right")
    return report["cells"]


def select(cells, **fields):
    return [c for c in cells if all(c[k] == v for k, v in fields.items())]


def ordered(cells, field):
    return list(dict.fromkeys(c[field] for c in cells))


def budgets_of(cells):
    """Those that were asked for; [None] where no policy had one."""
    return sorted({c["budget"] for c in cells if c["budget"] is not None}) or [None]


def value(cell):
    """Accuracy, or the mean score of a graded task."""
    return statistics.fmean(cell.get("scores", cell["right"]))


def percent(cell):
    low, high = (bootstrap(cell["scores"]) if "scores" in cell
                 else wilson(cell["correct"], cell["questions"]))
    return f"{100 * value(cell):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _head(first, budgets):
    names = ("all" if b is None else f"B = {b}" for b in budgets)
    return [f"| {first} | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(budgets)]


def accuracy_table(cells):
    """One model and task: a row a policy, a column a budget."""
    budgets = budgets_of(cells)
    lines = _head("policy", budgets)
    for policy in ordered(cells, "policy"):
        row = []
        for budget in budgets:
            found = select(cells, policy=policy, budget=budget)
            found = found or select(cells, policy=policy, budget=None)
            row.append(percent(found[0]) if found else "")
        lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return lines


def merged(cells, field):
    """The cells of one model over all tasks: a list of numbers a (policy, budget)."""
    numbers = collections.defaultdict(list)
    for cell in cells:
        numbers[cell["policy"], cell["budget"]] += cell[field]
    return numbers


def _versus(cells, field, compare):
    """A row a policy, a column a budget: compare(the reference's numbers, the policy's)."""
    numbers, budgets = merged(cells, field), budgets_of(cells)
    lines = _head("against", budgets)
    for policy in ordered(cells, "policy"):
        row = []
        for budget in budgets:
            other = numbers.get((policy, budget), numbers.get((policy, None)))
            ours = numbers.get((REFERENCE, budget))
            row.append(compare(ours, other) if ours and other else "")
        if policy != REFERENCE and any(row):
            lines.append(f"| {policy} | " + " | ".join(row) + " |")
    return lines


def _duel(ours, other):
    wins, losses, p = mcnemar(ours, other)
    mark = "" if p >= SIGNIFICANT else (" **+**" if wins > losses else " **-**")
    return f"{wins} : {losses}, p {p:.2g}{mark}"


def _gap(ours, other):
    mean, low, high = paired_difference(ours, other)
    mark = " **+**" if low > 0 else " **-**" if high < 0 else ""
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}){mark}"


def duel_table(cells):
    """MaskKV against every other policy, all exact tasks of a model together."""
    return _versus(cells, "right", _duel)


def gap_table(cells):
    """The same for graded tasks: mean differences of scores."""
    return _versus(cells, "scores", _gap)


def mass_table(cells):
    """Kept mask-query mass, all tasks of a model together."""
    budgets = budgets_of(cells)
    lines = _head("policy", budgets)
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


def _comparisons(cells, model):
    exact = [c for c in cells if "scores" not in c]
    graded = [c for c in cells if "scores" in c]
    lines = []
    if exact:
        lines += [f"## {model}: {REFERENCE} against the others", "",
                  "Questions that only MaskKV answered : that only the other did, all exact tasks "
                  "together, and the p of",
                  f"McNemar's exact test; **+** where MaskKV is better at p < {SIGNIFICANT}, **-** "
                  "where it is worse.", "", *duel_table(exact), ""]
    if graded:
        lines += [f"## {model}: {REFERENCE} against the others, graded tasks", "",
                  "Mean difference of scores, points of 100, with the bootstrap's 95 % interval "
                  "over paired",
                  "questions; **+** and **-** where it leaves out 0.", "", *gap_table(graded), ""]
    return lines


def markdown(cells, command):
    lines = ["# Eviction policies compared", "",
             f"Made by `{command}`; do not edit. Per cent right with 95 % Wilson intervals; mean "
             "score of graded",
             "tasks with a seeded bootstrap's. The same questions for every cell. Policies:",
             "[policies.md](policies.md).", ""]
    for model in ordered(cells, "model"):
        of_model = select(cells, model=model)
        for task in ordered(of_model, "task"):
            of_task = select(of_model, task=task)
            lines += [f"## {model}: {task} ({of_task[0]['questions']} questions)", "",
                      *accuracy_table(of_task), ""]
        if select(of_model, policy=REFERENCE) and len(ordered(of_model, "policy")) > 1:
            lines += _comparisons(of_model, model)
        lines += [f"## {model}: mask-query score mass kept", "", *mass_table(of_model), ""]
    return "\n".join(lines)


def with_image(text, name):
    """The page with the plot under its heading."""
    head, rest = text.split("\n\n", 1)
    return f"{head}\n\n![accuracy by budget]({name})\n\n{rest}"


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
            line = sorted((c["budget"], 100 * value(c))
                          for c in select(of_task, policy=policy) if c["budget"] is not None)
            strong = policy in (REFERENCE, "maskkv-pool")
            if line:
                axis.plot(*zip(*line), marker="o", markersize=3, label=policy,
                          color=colours(index % 20), linewidth=2.4 if strong else 1)
            for cell in select(of_task, policy=policy, budget=None):
                axis.axhline(100 * value(cell), color=colours(index % 20), linestyle=":",
                             linewidth=1.2, label=policy)
        axis.set(title=f"{model}, {task}", xlabel="budget B, pairs a head and layer",
                 ylim=(-2, 102))
        if (ticks := budgets_of(of_task)) != [None]:
            axis.set_xscale("log")
            axis.set_xticks(ticks, list(map(str, ticks)))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy or mean score, %")
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def write(cells, command, page=None, picture=None):
    """The page that names `command`, and the plot that it shows, as far as files are given."""
    if page:
        text = markdown(cells, command)
        if picture:
            text = with_image(text, os.path.relpath(picture, page.parent))
        page.write_text(f"{text}\n", encoding="utf-8")
    if picture:
        plot(cells, picture)


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_eval.tables", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--command", default="scripts/eval", help="named in the page")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    cells = [cell for path in args.files for cell in load(path)]
    if not args.markdown:
        print(markdown(cells, args.command))
    write(cells, args.command, args.markdown, args.plot)


if __name__ == "__main__":
    main()
