# SPDX-License-Identifier: Apache-2.0
"""What refreshing the prompt's cache gives and costs: accuracy and time of the embedded models by
schedule, on demand against fixed, and the share of refreshes by length of the prompt.
scripts/bench-refresh runs it and replaces what stands below a line of docs/refresh.md.

    python -m maskkv_eval.refresh --questions 60 --long-model build/bench-model
"""

import argparse
import json
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import tempfile

from tqdm import tqdm

from maskkv_eval import embedded
from maskkv_eval.decoding_page import machine, percent
from maskkv_eval.statistics import mcnemar

MARK = "<!-- Below: measured by scripts/bench-refresh; do not edit. -->"


def settings(every, floors):
    """(steps over an entry, floor) of every schedule: never, fixed ones, on demand."""
    numbers = [int(n) for n in every.split(",")]
    parts = [float(x) for x in floors.split(",")] if floors else []
    return [(0, 0.0), *((n, 0.0) for n in numbers), *((0, x) for x in parts)]


def canvases(args):
    """What is measured, a canvas each: arguments with its gen_length, budgets, every and floors."""
    found = [args]
    if args.canvas:
        found.append(argparse.Namespace(**{
            **vars(args), "gen_length": args.canvas, "budgets": args.canvas_budgets,
            "every": args.shares, "floors": args.canvas_floors}))
    return found


def measure(args, model, questions, every, floor):
    """Cells of `maskkv evaluate`, each with its schedule; budgets share the first prefill. Where
    nothing is refreshed, one that keeps every pair comes first: its budget is None."""
    args = argparse.Namespace(**{
        **vars(args), "policies": "maskkv" if every or floor else "full,maskkv"})
    extra = ("--rules", args.rule, "--block-length", str(args.gen_length),
             "--threads", str(args.threads), "--refresh-every", str(every),
             "--refresh-floor", str(floor))
    return [{"model": model, "masks": args.gen_length, "every": every, "floor": floor, **cell}
            for cell in embedded.ask(args, model, questions, extra)]


def name(cell):
    if cell["budget"] is None:
        return "never, every pair kept"
    if cell["floor"]:
        return f"on demand, below {cell['floor']:g}"
    return {0: "never", 1: "every step"}.get(cell["every"], f"every {cell['every']} steps")


def outcomes(cell):
    return [bit == "1" for bit in cell["outcomes"]]


def paired(first, second):
    """"only the first right, only the second right | p" as cells of a table."""
    wins, losses, p = mcnemar(outcomes(first), outcomes(second))
    return f"{wins}, {losses} | {p:.2g}"


def groups(cells):
    """((masks, model, budget), cells) in the order of measurement."""
    found = {}
    for cell in cells:
        if cell["budget"] is not None:
            found.setdefault((cell["masks"], cell["model"], cell["budget"]), []).append(cell)
    return list(found.items())


def schedule_table(cells, full):
    """One model and budget: a row a schedule, beside the one that never refreshes. full: the cell
    of the model that keeps every pair."""
    never = next(c for c in cells if not c["every"] and not c["floor"])
    kinds = list(never["kinds"])
    lines = ["| refreshed | refreshes | right, % | " + " | ".join(f"{k}s, %" for k in kinds)
             + " | only right with, only without | p | steps, ms | refreshes, ms |",
             "| --- | ---: | ---: |" + " ---: |" * len(kinds) + " ---: | ---: | ---: | ---: |"]
    for cell in (*cells, full):
        asked = cell["questions"]
        by_kind = (f"{100 * c['correct'] / c['questions']:.1f}" for c in cell["kinds"].values())
        test = paired(cell, never) if cell is not never else " | "
        lines.append(
            f"| {name(cell)} | {cell['refreshes'] / asked:.2f} | {percent(cell['correct'], asked)} | "
            + " | ".join(by_kind)
            + f" | {test} | {1e3 * cell['seconds'] / asked:.1f} | "
            f"{1e3 * cell['refresh_seconds'] / asked:.0f} |")
    return lines


def demand_table(cells):
    """Schedules on demand, each beside the fixed one, or never, of the nearest number of refreshes."""
    lines = ["| masks | model | B | on demand | refreshes | right, % | fixed | refreshes | right, % | "
             "only right on demand, only fixed | p |",
             "| ---: | --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |"]
    for (masks, model, budget), of in groups(cells):
        fixed = [c for c in of if not c["floor"]]
        for cell in (c for c in of if c["floor"]):
            near = min(fixed, key=lambda c: abs(c["refreshes"] - cell["refreshes"]))
            sides = [f"{name(c)} | {c['refreshes'] / c['questions']:.2f} | "
                     f"{100 * c['correct'] / c['questions']:.1f}" for c in (cell, near)]
            lines.append(f"| {masks} | {model} | {budget} | {sides[0]} | {sides[1]} | {paired(cell, near)} |")
    return lines


def middle(numbers):
    return sorted(numbers)[len(numbers) // 2]


def shares_of(args):
    return [int(n) for n in args.shares.split(",")]


def ask_long(args, tokens):
    """The report of one `maskkv generate` over a prompt of so many random ids."""
    config = json.loads((args.long_model / "config.json").read_text(encoding="utf-8"))
    draw = random.Random(tokens)
    ids = [draw.randrange(config["vocab_size"] - 2) for _ in range(tokens)]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(ids, file)
        file.flush()
        command = [args.bin, "generate", "--model", args.long_model, "--prompt-ids", file.name,
                   "--layers", "uniform", "--budget", "128", "--gen-length", "128",
                   "--block-length", "128", "--steps", "128", "--ignore-eos", "--threads",
                   str(args.threads), "--refresh-every", str(middle(shares_of(args))), "--json"]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"maskkv generate: exit code {done.returncode}")  # it has said why
    return json.loads(done.stdout)


def share_table(reports, shares):
    """reports: {prompt tokens: of ask_long}. Shares follow from the medians of a step and a refresh."""
    lines = ["| prompt, tokens | step, ms | refresh, ms | as many steps | "
             + " | ".join(f"K_p = {n}" for n in shares) + " |",
             "| ---: | ---: | ---: | ---: |" + " ---: |" * len(shares)]
    for tokens, report in reports.items():
        times = report["timings_ms"]["steps"]
        step = statistics.median(times)
        refresh = statistics.median(r["ms"] for r in report["refreshes"])
        by_schedule = []
        for every in shares:
            spent = (len(times) - 1) // every * refresh
            by_schedule.append(f"{100 * spent / (spent + len(times) * step):.0f} %")
        lines.append(f"| {tokens:,} | {step:.1f} | {refresh:,.0f} | {refresh / step:.0f} | "
                     + " | ".join(by_schedule) + " |")
    return lines


def markdown(cells, reports, args, command):
    lines = [
        MARK, "", "## Measured", "",
        f"Made by `{command}`. {machine()}, {args.threads} thread{'s' * (args.threads > 1)}.", "",
        "### Accuracy and time by schedule", "",
        f"{args.questions} held-out questions about documents of {args.length} tokens, "
        f"{100 * args.lookalikes:.0f} % of whose people share a name with another; every second",
        f"answer is a name of two tokens, the others are one word. One block, rule `{args.rule}`, "
        f"temperature 0, {args.dtype}, policy maskkv; of a canvas longer than the",
        "answer the end tokens behind it are decided too, mostly before it.",
        "Means a question: refreshes, exact answers with 95 % Wilson intervals, time of steps and "
        "refreshes (the first prefill, which all have, is in none). Then questions",
        "that only this schedule or only never refreshing got right, with McNemar's exact test.", ""]
    full = {(c["masks"], c["model"]): c for c in cells if c["budget"] is None}
    for (masks, model, budget), of in groups(cells):
        lines += [f"#### {masks} masks, {model}, B = {budget}", "",
                  *schedule_table(of, full[masks, model]), ""]
    if any(c["floor"] for c in cells):
        lines += ["### On demand against fixed", "",
                  "Each beside the fixed schedule that refreshes about as often.", "",
                  *demand_table(cells), ""]
    if reports:
        lines += [
            "### What share of the time refreshes take", "",
            "A random model (width 512, 8 layers), 128 masks in one block and 128 steps, B = 128, f32. "
            "Medians of a step and of a refresh in one run with",
            f"K_p = {middle(shares_of(args))}; shares of steps and refreshes together follow from them.",
            "", *share_table(reports, shares_of(args)), ""]
    return "\n".join(lines)


def replaced(page, measured):
    """The page with what follows MARK replaced. Errors: the page has no such line."""
    before, mark, _ = page.partition(MARK)
    if not mark:
        raise SystemExit(f"expected the line {MARK!r} in the page, found none")
    return before + measured


def parser():
    p = argparse.ArgumentParser(prog="scripts/bench-refresh", description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="tiny-llada,tiny-dream")
    p.add_argument("--questions", type=int, default=60)
    p.add_argument("--length", type=int, default=1000, help="tokens a document")
    p.add_argument("--seed", type=int, default=4)
    p.add_argument("--lookalikes", type=float, default=0.3,
                   help="share of people who have one name in common with another")
    p.add_argument("--gen-length", type=int, default=8)
    p.add_argument("--rule", default="low_confidence", help="as maskkv generate --rule takes it")
    p.add_argument("--budgets", default="1,4,32", help="pairs a head and layer")
    p.add_argument("--every", default="4,2,1", help="K_p: steps over an entry")
    p.add_argument("--floors", default="1,0.97",
                   help="parts of the first step's attention below which an entry is refreshed")
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16", "int8"))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--long-model", type=pathlib.Path, help="checkpoint for long prompts of random ids")
    p.add_argument("--prompt-lengths", default="1024,4096,16384")
    p.add_argument("--shares", default="100,50,25", help="K_p of the long prompts and canvases")
    p.add_argument("--canvas", type=int, default=128,
                   help="masks of the long canvas for the same questions; 0: none")
    p.add_argument("--canvas-budgets", default="4,32")
    p.add_argument("--canvas-floors", default="1,0.97,0.9")
    p.add_argument("--json", type=pathlib.Path, help="the cells and reports, as they were measured")
    p.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/refresh.md"))
    p.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    return p


def run(args, command):
    page = args.markdown.read_text(encoding="utf-8")
    replaced(page, "")  # before anything is measured
    questions = embedded.words_and_names(args.questions, args.length, args.seed, args.lookalikes)
    runs = [(of, model, schedule) for of in canvases(args) for model in args.models.split(",")
            for schedule in settings(of.every, of.floors)]
    cells = []
    for of, model, schedule in tqdm(runs, unit="run"):
        cells += measure(of, model, questions, *schedule)
    lengths = [int(n) for n in args.prompt_lengths.split(",")] if args.long_model else []
    reports = {n: ask_long(args, n) for n in tqdm(lengths, unit="prompt")}
    if args.json:
        args.json.write_text(json.dumps({"cells": cells, "long": reports}) + "\n", encoding="utf-8")
    args.markdown.write_text(replaced(page, markdown(cells, reports, args, command)),
                             encoding="utf-8")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    run(parser().parse_args(argv), shlex.join(["scripts/bench-refresh", *argv]))


if __name__ == "__main__":
    main()
