# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md of what `maskkv_tools.performance --json` measured: the table of rows, where the
time of a step goes, a roofline plot of its operations, small tables.

    python -m maskkv_tools.performance_page build/performance.json --plot docs/images/roofline.png \\
        --markdown docs/performance.md
"""

import argparse
import json
import os
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from maskkv_tools import bench_models, bench_table, performance_rows  # noqa: E402

OPS = ("gemm", "attention", "head", "norm", "rope", "embed")
NAMES = {"gemm": "products of the layers", "attention": "attention", "head": "vocabulary head"}
MARKS = "osD"

TEXT = """# Performance

Made by `{command}`; do not edit.

## The table

{runs} Every row is measured beside its peer in the same process, or in turn with it. Shapes: S has width 1024, 8 layers, 8 heads of 128,
feed-forward 3072, vocabulary 8192; M width 2048, 16 layers, 16 heads of 128, feed-forward 6144, vocabulary 32768; random weights in LLaDA's layout.
bf16, {threads} threads, B = 256, 32 response rows unless said. Machine: {machine}. Code: {commit}{quick}.

{rows}

How the bounds are made:

- **A step's products by oneDNN alone** (`tests/bench/step_products.h`): each matrix with weights of its own, in the order of a step, packed for the
  very shape, in huge pages as ours are, oneDNN's own threads; one pass and one step in turn. Half of a request's rows are masked, as on average.
- **What the measured rates allow.** T(full step) = F(products) / R(256 rows) + F(attention) / R(attention), with the multiplications and additions F
  of the whole canvas, R(256 rows) of a pass of oneDNN alone over blocks of 256 rows, R(attention) of the attention kernel over the whole canvas.
  T(prefill) is the same without the head. T(cached step) = the products alone over the step's rows + F(attention) / R(attention over kept pairs).
  The full-canvas bound is T(full) / T(cached); end to end with n tokens in n steps n T(full) / (T(prefill) + n T(cached)).
- **Attention of a prefill.** Where products are fast (AMX) the exponential of each score binds: 4 D / (4 D / R(products) + 1 / R(exp)), D the head's width.
- **PyTorch** (`maskkv_tools/torch_peer.py`, pinned in `python/requirements-train.txt`): bf16, `F.scaled_dot_product_attention`, fused projections,
  inference mode, the last layer's outputs of the masks alone as ours. Before it is timed its logits are compared with the float64 oracle's.
- **int8 weights.** Both types of the same model are loaded into one process and step in turn, anew several times: where weights happen to lie shifts
  steps by some per cent. The figure is the median of the ratios of one load each.
- **Load.** Processes of their own, the checkpoint in the page cache: from nothing to weights that are ready, every checksum compared. *load-shared* starts the
  real services and adds up what /proc says of their mappings of the packed file (a page that two share counts half in each).

To measure again, on a machine with nothing else to do:

```sh
scripts/bench                                             # all, writes this page; --install-torch or --torch-python FILE for PyTorch's rows
scripts/bench --rows batches,torch                        # these groups, prints rows, writes no page
scripts/bench --keep build/performance.json --rows torch  # this group anew, the others as they are in the file; writes this page
scripts/bench --quick                                     # a tiny model, as a test
```

`build/performance.json` (`--json FILE`) has the rows and all that was measured. What a slower machine cannot hide is guarded by tests: heap allocations and
instructions of a step ([testing.md](testing.md)).

{groups}
"""

QUICK = ". A test of the bench: a tiny model and small sizes, not those that the rows name"

STEP = """
## Where the time of a step goes

Milliseconds a step by the engine's own clock. *gemm*: the layers' products with the norms and activations that are computed on the way into them
([ADR 23](adr/0023-what-feeds-a-product.md)); *head*: the vocabulary's product, streamed through the samplers; *norm*: the last one; *rope*: bias, rotation and
rounding of queries, keys and values; *rest*: what lies between, gathering rows, sampling, commits.

{ops}
"""

ROOFLINE = """
![Achieved rate of each operation against its arithmetic intensity]({plot})

The roofs are the best product of oneDNN alone and the bandwidth of a triad over {threads} threads. Bytes are those that an operation has to move at least once:
weights, kept pairs, rows in and out.
"""


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def rows_table(report):
    rows = []
    for row in report["rows"]:
        figure = "not measured" if row["figure"] is None else f"{row['figure']:.3g}"
        verdict = {True: "yes", False: "**no**", None: ""}[row["holds"]]
        rows.append([row["name"], row["what"], figure, row["bar"], verdict, row["note"]])
    return table(["row", "what", "figure", "bar", "holds", "from"], rows)


def step_cases(report):
    """(model, case) of every measured batch."""
    for model, raw in report["raw"].get("batches", {}).items():
        for case in raw["cases"]:
            yield model, case


def ops_table(report):
    rows = []
    for model, case in step_cases(report):
        steps = case["steps"]
        ops = [steps["ops_s"][op] for op in OPS]
        rows.append([model, case["name"], f"{1e3 * steps['mean_s']:.2f}",
                     *(f"{1e3 * op:.2f}" for op in ops),
                     f"{1e3 * (steps['mean_s'] - sum(ops)):.2f}"])
    return table(["shape", "rows", "step", *OPS, "rest"], rows)


def op_work(shape, case):
    """{op: (operations, bytes)} of a step with half of its rows masked."""
    rows = case["batch"] * case["rows"]
    masked = max(1, case["batch"] * (case["rows"] + 1) // 2)
    keys = case["pairs"] + case["rows"]
    h, layers = shape.hidden, shape.layers
    head = 2 * masked * h * shape.vocab_rows
    head_bytes = 2 * h * shape.vocab_rows
    gemm = performance_rows.gemm_flops(shape, rows, masked, head=False)
    pair_bytes = 2 * 2 * h * case["pairs"] * case["batch"] + 2 * 4 * h * rows
    advanced = (layers - 1) * rows + masked
    return {"gemm": (gemm, case["products"]["weight_bytes"] - head_bytes),
            "attention": (performance_rows.attention_flops(shape, rows, masked, keys),
                          layers * pair_bytes + 8 * h * advanced),
            "head": (head, head_bytes)}


def roofline_points(report):
    """[(label, op, operations a byte, operations a second)]."""
    points = []
    for model, case in step_cases(report):
        shape = bench_models.SHAPES["tiny" if report["quick"] else model]
        for op, (flops, moved) in op_work(shape, case).items():
            seconds = case["steps"]["ops_s"][op]
            points.append((f"{model}, {case['name']}", op, flops / moved, flops / seconds))
    return points


def draw(report, path):
    """The roofline plot. REQUIRES: rates and batches were measured."""
    rates = report["raw"]["attention"]["rates"]
    peak, bandwidth = rates["gemm_flops"], rates["triad_bytes"]
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    intensity = np.logspace(-1, 3, 200)
    axes.loglog(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color="black",
                label=f"roof: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s")
    points = roofline_points(report)
    labels = list(dict.fromkeys(label for label, *_ in points))
    colours = dict(zip(labels, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(labels)))))
    marks = dict(zip(NAMES, MARKS, strict=True))
    for label, op, x, y in points:
        axes.plot(x, y / 1e9, marks[op], color=colours[label], markersize=8)
    for op, mark in marks.items():
        axes.plot([], [], mark, color="0.4", label=NAMES[op])
    for label, colour in colours.items():
        axes.plot([], [], "s", color=colour, label=label)
    axes.set(xlabel="arithmetic intensity, operations a byte", ylabel="GFLOP/s",
             title="Operations of a decode step")
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize=9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def runs_text(report):
    """How many runs the table is of."""
    runs = {about["run"] for about in report["groups"].values()}
    if len(runs) == 1:
        return "One run of `scripts/bench`."
    return (f"{len(runs)} runs of `scripts/bench`, of the same code on the same machine; when each "
            "group was measured stands below.")


def groups_table(report):
    rows = [[group, about["run"], f"{about['seconds']:.0f}"]
            for group, about in report["groups"].items()]
    total = sum(about["seconds"] for about in report["groups"].values())
    return table(["group", "run that began at", "seconds"], [*rows, ["together", "", f"{total:.0f}"]])


def can_draw(report):
    return "rates" in report["raw"].get("attention", {}) and any(step_cases(report))


def page(report, plot, command):
    """plot: the roofline plot, as the page links to it; none without."""
    raw = report["raw"]
    parts = [TEXT.format(command=command, runs=runs_text(report), threads=report["threads"],
                         machine=report["machine"], commit=report["commit"],
                         quick=QUICK if report["quick"] else "",
                         rows=rows_table(report), groups=groups_table(report))]
    if any(step_cases(report)):
        parts.append(STEP.format(ops=ops_table(report)))
    if plot is not None:
        parts.append(ROOFLINE.format(threads=report["threads"], plot=plot))
    if "bench" in raw.get("small-model", {}):
        parts.append("\n" + bench_table.length_sections(raw["small-model"]["bench"],
                                                        report["machine"]))
    if "gemm" in raw.get("products", {}):
        parts.append("\n" + bench_table.gemm_section(raw["products"]["gemm"]))
    return "".join(parts)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.performance_page",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=pathlib.Path, help="of maskkv_tools.performance --json")
    parser.add_argument("--plot", type=pathlib.Path, required=True, help="roofline plot to write")
    parser.add_argument("--markdown", type=pathlib.Path, required=True, help="page to write")
    parser.add_argument("--command", default="scripts/bench", help="what made it, for the page")
    args = parser.parse_args(argv)
    report = json.loads(args.report.read_text(encoding="utf-8"))
    plot = None
    if can_draw(report):
        draw(report, args.plot)
        plot = os.path.relpath(args.plot, args.markdown.parent)
    args.markdown.write_text(page(report, plot, args.command), encoding="utf-8")


if __name__ == "__main__":
    main()
