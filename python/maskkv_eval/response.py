# SPDX-License-Identifier: Apache-2.0
"""The response feature cache: accuracy and time of a step on the embedded models, and time of a step
of long answers on a random one, by period and share. scripts/bench-response-cache runs it.

    python -m maskkv_eval.response --questions 100 --markdown docs/response_cache.md
"""

import argparse
import json
import pathlib
import platform
import shlex
import subprocess
import sys

from maskkv_eval import embedded
from maskkv_eval.statistics import mcnemar, wilson
from maskkv_tiny import world

MIB = 1 << 20


def caches(args):
    """The words of --response-caches, the exact steps first."""
    return ["off", *(f"{every}:{share}" for every in args.every for share in args.share)]


def measure(args, model, questions):
    """Cells of `maskkv evaluate`, each decoded and timed alone."""
    extra = ("--response-caches", ",".join(caches(args)), "--steps", str(args.gen_length),
             "--ignore-eos")
    return [{"model": model, **cell} for cell in embedded.ask(args, model, questions, extra)]


def bench(args):
    """`maskkv bench` of every length of answer."""
    reports = []
    for length in args.answers:
        command = [args.bin, "bench", "--model", args.bench_model, "--prompt-lengths",
                   str(args.prompt), "--caches", "maskkv", "--budget", "128", "--gen-length",
                   str(length), "--steps", str(args.steps), "--dtype", args.dtype,
                   "--response-caches", ",".join(caches(args)), "--json"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            raise SystemExit(f"maskkv bench: exit code {result.returncode}")  # it has said why
        reports.append(json.loads(result.stdout))
    return reports


def setting(cell):
    """(K_r, rho) as the tables show them."""
    if cell["response_every"] is None:
        return "1", "all"
    return str(cell["response_every"]), f"{cell['response_share']:g}"


def table(head, rows):
    lines = [head, ["---:"] * len(head), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]


def differs(cell, exact):
    """Questions that turned wrong, that turned right, and whether that may be chance."""
    won, lost, p = mcnemar([int(c) for c in cell["outcomes"]], [int(c) for c in exact["outcomes"]])
    return f"-{lost} +{won} (p {p:.2f})"


def accuracy_table(cells):
    """One model; the exact steps are its first cell."""
    exact, rows = cells[0], []
    for cell in cells:
        asked = cell["questions"]
        low, high = wilson(cell["correct"], asked)
        computed = cell["rows"] / (cell["rows"] + cell["reused_rows"])
        time = cell["seconds"] / cell["steps"]
        rows.append([
            *setting(cell), f"{100 * computed:.0f}", f"{1e3 * time:.2f}",
            f"{exact['seconds'] / exact['steps'] / time:.2f}",
            f"{100 * cell['correct'] / asked:.1f} ({100 * low:.1f} to {100 * high:.1f})",
            "" if cell is exact else differs(cell, exact)])  # fmt: skip
    return table(["K_r", "rho", "rows computed, %", "step, ms", "times faster", "right, %",
                  "questions against K_r = 1"], rows)  # fmt: skip


def step_table(report):
    """One length of answer; the exact steps are its first case."""
    exact, rows = report["cases"][0], []
    for case in report["cases"]:
        rows.append([*setting(case), f"{case['step_ms_mean']:.2f}", f"{case['step_ms_min']:.2f}",
                     f"{exact['step_ms_mean'] / case['step_ms_mean']:.2f}",
                     f"{case['response_cache_bytes'] / MIB:.1f}"])  # fmt: skip
    return table(["K_r", "rho", "step, mean ms", "shortest, ms", "times faster", "held, MiB"], rows)


def groups(cells):
    """(model, cells) in the order of measurement."""
    found = {}
    for cell in cells:
        found.setdefault(cell["model"], []).append(cell)
    return list(found.items())


def machine():
    """Processor and cores."""
    cpu = platform.processor() or platform.machine()
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(": ")[2]
            break
    return cpu


def markdown(cells, reports, args, command):
    lines = [
        "# The response feature cache, measured", "",
        f"Made by `{command}`; do not edit. What is cached: [decoding.md](decoding.md). Every K_r-th "
        "step computes all rows, those in between",
        "the share rho that changed most; K_r = 1 are the exact steps, without a cache. A time is the "
        "mean of all steps, whole ones among them.",
        f"Machine: {machine()}, shared with other work: times are rough, those of a table were taken "
        "in turn.", "",
        "## Accuracy and steps on the embedded models", "",
        f"{args.questions} held-out questions of {args.length} tokens, {100 * args.lookalikes:.0f} % of "
        f"them about people who share a name with another, B = {args.budgets}, {args.gen_length} rows,",
        f"one token a step, {args.dtype}, decoded to the last mask. Right: exact answers, with 95 % Wilson "
        "intervals; the last column counts questions that turned",
        "wrong and right against the exact steps, with the p of McNemar's exact test.", ""]
    for model, of in groups(cells):
        lines += [f"### {model}", "", *accuracy_table(of), ""]
    lines += [
        "## Steps of long answers", "",
        f"A random model in LLaDA's layout (width 512, 8 layers, 8 heads, feed-forward 1536, vocabulary "
        f"4096), {args.dtype}, {reports[0]['threads']} threads, a prompt of {args.prompt} tokens",
        f"of which B = 128 pairs a head are kept, one request, {args.steps} steps, the answer one block. "
        "Held: what the response cache takes.", ""]
    for report in reports:
        lines += [f"### {report['gen_length']} rows", "", *step_table(report), ""]
    return "\n".join(lines)


def _list(kind):
    return lambda text: [kind(item) for item in text.split(",")]


def parser():
    p = argparse.ArgumentParser(prog="scripts/bench-response-cache",
                                description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="tiny-llada,tiny-dream")
    p.add_argument("--every", type=_list(int), default=[2, 5, 8], help="K_r, comma-separated")
    p.add_argument("--share", type=_list(float), default=[0.1, 0.25, 0.5],
                   help="rho, comma-separated")
    p.add_argument("--questions", type=int, default=300)
    p.add_argument("--length", type=int, default=1000, help="tokens a document")
    p.add_argument("--seed", type=int, default=5)
    p.add_argument("--lookalikes", type=float, default=0.5,
                   help="share of people who have one name in common with another")
    p.add_argument("--gen-length", type=int, default=16)
    p.add_argument("--budgets", default="32", help="pairs a head and layer")
    p.add_argument("--answers", type=_list(int), default=[128, 512],
                   help="rows of the long answers, comma-separated")
    p.add_argument("--prompt", type=int, default=1024, help="tokens before the long answers")
    p.add_argument("--steps", type=int, default=40, help="timed steps of the long answers")
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16", "int8"))
    p.add_argument("--json", type=pathlib.Path, help="what was measured")
    p.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/response_cache.md"))
    p.add_argument("--bench-model", required=True, help=argparse.SUPPRESS)
    p.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    return p


def run(args, command):
    args.policies = "maskkv"
    questions = list(world.records("test", args.questions, args.length, args.seed, args.lookalikes))
    cells = [cell for model in args.models.split(",") for cell in measure(args, model, questions)]
    reports = bench(args)
    if args.json:
        args.json.write_text(json.dumps({"cells": cells, "bench": reports}) + "\n",
                             encoding="utf-8")
    args.markdown.write_text(markdown(cells, reports, args, command), encoding="utf-8")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    shown = argv
    if shown[:1] == ["--bench-model"]:  # the script's own
        shown = shown[2:]
    run(parser().parse_args(argv), shlex.join(["scripts/bench-response-cache", *shown]))


if __name__ == "__main__":
    main()
