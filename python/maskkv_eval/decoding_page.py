# SPDX-License-Identifier: Apache-2.0
"""The page of scripts/decoding: tables, a plot, and the default that they speak for. Pure functions
of the cells of `maskkv evaluate --rules`, but for write()."""

import os
import pathlib

from maskkv_eval.statistics import mcnemar, wilson

# The rule that a family was published with, one token a step; beside it a default is put.
PUBLISHED = {"tiny-llada": "low_confidence", "tiny-dream": "entropy"}
SIGNIFICANT = 0.05
MARGIN = 0.01  # share of the questions that a default may lose against the best of its table


def machine():
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def name(cell):
    steps = cell["schedule"]
    return cell["rule"] if steps is None else f"{cell['rule']} in {steps}"


def cache(cell):
    return "every pair kept" if cell["budget"] is None else f"B = {cell['budget']}"


def percent(right, asked):
    low, high = wilson(right, asked)
    return f"{100 * right / asked:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def front(cells):
    """Those that no other cell beats: more tokens a step and as many right, or as many tokens a step
    and more right."""
    def beats(a, b):
        a, b = ((c["tokens_per_step"], c["correct"]) for c in (a, b))
        return a != b and a[0] >= b[0] and a[1] >= b[1]
    return [c for c in cells if not any(beats(other, c) for other in cells)]


def table(cells):
    """One model and cache: a row a rule, the last columns by kind of answer."""
    best, kinds = front(cells), list(cells[0]["kinds"])
    lines = ["| rule | steps | rows | ms | tokens a step | right, % | "
             + " | ".join(f"{kind}s, %" for kind in kinds) + " |",
             "| --- | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * len(kinds)]
    for cell in cells:
        asked = cell["questions"]
        mark = "**" if cell in best else ""
        by_kind = (f"{100 * c['correct'] / c['questions']:.1f}" for c in cell["kinds"].values())
        lines.append(
            f"| {mark}{name(cell)}{mark} | {cell['steps'] / asked:.2f} | {cell['rows'] / asked:.0f} | "
            f"{1e3 * cell['seconds'] / asked:.1f} | {cell['tokens_per_step']:.2f} | "
            f"{percent(cell['correct'], asked)} | " + " | ".join(by_kind) + " |")
    return lines


def groups(cells):
    """((model, cache), cells) in the order of measurement."""
    found = {}
    for cell in cells:
        found.setdefault((cell["model"], cache(cell)), []).append(cell)
    return list(found.items())


def settings(cells):
    """{(rule, schedule): its cells over all caches} of one model."""
    found = {}
    for cell in cells:
        found.setdefault((cell["rule"], cell["schedule"]), []).append(cell)
    return found


def total(cells, field):
    return sum(cell[field] for cell in cells)


def default(cells):
    """One model's default: of the rules without a schedule those that lose at most MARGIN of the
    questions against the best setting, caches together; of these the one of the fewest steps."""
    by_setting = settings(cells)
    most = max(total(of, "correct") for of in by_setting.values())
    free = [of for (_, schedule), of in by_setting.items() if schedule is None]
    fit = [of for of in free
           if total(of, "correct") >= most - MARGIN * total(of, "questions")]
    if not fit:
        fit = [max(free, key=lambda of: total(of, "correct"))]
    return min(fit, key=lambda of: (total(of, "steps"), -total(of, "correct")))


def published(cells, model):
    """The cells of the published rule at the slowest schedule that was asked."""
    rule = PUBLISHED.get(model, "low_confidence")
    of = {schedule: c for (r, schedule), c in settings(cells).items() if r == rule}
    return of[max(of)]


def paired(first, second):
    """(only the first right, only the second right, p) of two cells."""
    return mcnemar(*([bit == "1" for bit in cell["outcomes"]] for cell in (first, second)))


def patience_table(cells):
    """The scheduled rules whose slowest and fastest schedule McNemar's test tells apart."""
    lines = ["| model | cache | slow | right, % | fast | right, % | only one right: slow, fast | p |",
             "| --- | --- | --- | ---: | --- | ---: | ---: | ---: |"]
    for (model, kept), of in groups(cells):
        for rule in dict.fromkeys(c["rule"] for c in of if c["schedule"] is not None):
            by_steps = {c["schedule"]: c for c in of if c["rule"] == rule}
            ends = by_steps[max(by_steps)], by_steps[min(by_steps)]
            slow, fast, p = paired(*ends)
            if p < SIGNIFICANT:
                sides = [f"{name(c)} | {100 * c['correct'] / c['questions']:.1f}" for c in ends]
                lines.append(f"| {model} | {kept} | {sides[0]} | {sides[1]} | {slow}, {fast} | "
                             f"{p:.2g} |")
    return lines if len(lines) > 2 else ["None."]


def defaults_table(cells):
    lines = ["| model | default | cache | steps | ms | right, % | published: rule | steps | ms | "
             "right, % | only one right: default, published | p |",
             "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"]
    for model in dict.fromkeys(c["model"] for c in cells):
        of = [c for c in cells if c["model"] == model]
        for ours, theirs in zip(default(of), published(of, model), strict=True):
            asked = ours["questions"]
            first, second, p = paired(ours, theirs)
            mean = [f"{c['steps'] / asked:.2f} | {1e3 * c['seconds'] / asked:.1f} | "
                    f"{100 * c['correct'] / asked:.1f}" for c in (ours, theirs)]
            lines.append(f"| {model} | `{ours['rule']}` | {cache(ours)} | {mean[0]} | "
                         f"{name(theirs)} | {mean[1]} | {first}, {second} | {p:.2g} |")
    return lines


def markdown(cells, args, command, image):
    lines = [
        "# Decoding rules compared", "", f"Made by `{command}`; do not edit. {machine()}, "
        f"{args.threads} thread{'s' * (args.threads > 1)}.", "",
        f"![accuracy by tokens a step]({image})", "",
        f"{args.questions} held-out questions about documents of {args.length} tokens, "
        f"{100 * args.lookalikes:.0f} % of whose people share a name with another; every second",
        "answer is a name of two tokens, which a rule that decides both at once may mix up, the "
        "others are one word.",
        f"{args.gen_length} masks, one block, temperature 0, {args.dtype}. The rules are those of "
        "[decoding.md](decoding.md); a number behind the colon is the threshold or factor, one",
        'behind "in" the steps of a schedule. An answer is complete with its first end token, so '
        "that fewer steps run than a schedule has.",
        "All figures are means a question: steps; rows computed in them; time of the steps, without "
        "the prefill, which all rules share (the rows",
        "of a table are timed in turn, question by question); positions decided a step; exact "
        "answers with 95 % Wilson intervals. Bold: no other rule",
        "of the table decides more tokens a step with as many right, or as many tokens with more "
        "right.", "",
        "`remix` mixes embeddings, and these models were trained on masks and tokens alone, never on "
        "anything between: likely why it can fall behind `threshold`,",
        "on tiny-dream in names: logits are shifted, so that a name's second token is predicted in "
        "the row of its first, a mixed mask, and one word in the prompt's last",
        "row, which is none ([decoding.md](decoding.md#masks-that-are-mixed)).", "",
        "## Defaults", "",
        "A schedule that suits answers of one or two words would decide a longer one blindly, so a "
        "default is a rule that looks at how sure it is. Of",
        f"these, the one of the fewest steps that loses at most {100 * MARGIN:.0f} % of the "
        "questions against the best setting of all, both caches together. Beside it the",
        "rule that the family was published with, one token a step, and McNemar's exact test of the "
        "two on the same questions.", "",
        *defaults_table(cells), "",
        "## Does it pay to go slowly?", "",
        "Schedules whose slowest and fastest run McNemar's test tells apart (p < "
        f"{SIGNIFICANT:g}, not corrected for their number).", "",
        *patience_table(cells), ""]
    for (model, kept), of in groups(cells):
        lines += [f"## {model}, {kept}", "", *table(of), ""]
    return "\n".join(lines)


def plot(cells, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def points(of):
        return sorted((c["tokens_per_step"], 100 * c["correct"] / c["questions"]) for c in of)

    # One scale, from interval to interval, with that of the most accurate rule shaded: what lies in
    # it is not told from that rule by so many questions.
    ends = [100 * end for c in cells for end in wilson(c["correct"], c["questions"])]
    panels = groups(cells)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(6 * columns, 4 * rows), squeeze=False,
                                   sharex=True, sharey=True)
    colours = pyplot.get_cmap("tab20")
    rules = list(dict.fromkeys(c["rule"].partition(":")[0] for c in cells))
    for axis, ((model, kept), of) in zip(axes.flat, panels):
        for index, rule in enumerate(rules):
            line = points(c for c in of if c["rule"].partition(":")[0] == rule)
            axis.plot(*zip(*line), marker="o", markersize=4, linewidth=1, label=rule,
                      color=colours(index % 20))
        axis.plot(*zip(*points(front(of))), drawstyle="steps-pre", color="black", linestyle=":",
                  label="no rule is better")
        top = max(of, key=lambda c: c["correct"])
        low, high = wilson(top["correct"], top["questions"])
        axis.axhspan(100 * low, 100 * high, color="black", alpha=0.06, linewidth=0,
                     label="95 % interval of the most accurate")
        axis.set(title=f"{model}, {kept}", xlabel="tokens a step", ylabel="right, %",
                 ylim=(min(ends), max(ends)))
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels):]:
        axis.set_visible(False)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="center left",
                  bbox_to_anchor=(1.0, 0.5), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def write(cells, args, command):
    plot(cells, args.plot)
    image = os.path.relpath(args.plot, args.markdown.parent)
    args.markdown.write_text(markdown(cells, args, command, image), encoding="utf-8")
