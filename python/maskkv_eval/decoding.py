# SPDX-License-Identifier: Apache-2.0
"""The decoding rules on the embedded models, over the whole prompt cache and a compressed one: steps,
rows, time, tokens a step and accuracy, as a page of tables and a plot. scripts/decoding runs it.

    python -m maskkv_eval.decoding --questions 300 --markdown docs/decoding_rules.md \\
        --plot docs/images/decoding_rules.png

Every rule that the binary knows is asked. Rules that go by a number of steps are asked with several;
one prefill a question serves all.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys

from maskkv_eval import decoding_page, embedded

# Settings worth comparing, by rule; a rule that is not here runs with its defaults.
SETTINGS = {
    "threshold": ("0.5", "0.9", "0.99"),
    "factor": ("0.1", "1"),
    "hierarchical": ("0.9", "0.99"),
    "prefix": ("0.5", "0.9"),
    "slowfast": ("0.5", "0.9"),
    "remix": ("0.5", "0.9"),
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
    extra = ("--rules", ",".join(specs(names)), "--schedules", schedules,
             "--block-length", str(args.gen_length), "--threads", str(args.threads))
    return [{"model": model, **cell} for cell in embedded.ask(args, model, questions, extra)]


def parser():
    p = argparse.ArgumentParser(prog="scripts/decoding", description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", default="tiny-llada,tiny-dream")
    p.add_argument("--questions", type=int, default=300)
    p.add_argument("--length", type=int, default=1000, help="tokens a document")
    p.add_argument("--seed", type=int, default=3)
    p.add_argument("--lookalikes", type=float, default=0.3,
                   help="share of people who have one name in common with another")
    p.add_argument("--gen-length", type=int, default=8)
    p.add_argument("--budgets", default="32", help="pairs a head and layer, beside every pair")
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16", "int8"))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--json", type=pathlib.Path, help="the cells, as they were measured")
    p.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/decoding_rules.md"))
    p.add_argument("--plot", type=pathlib.Path,
                   default=pathlib.Path("docs/images/decoding_rules.png"))
    p.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    return p


def run(args, command):
    args.policies = "full,maskkv"
    questions = embedded.words_and_names(args.questions, args.length, args.seed, args.lookalikes)
    names, cells = rule_names(args.bin), []
    for model in args.models.split(","):
        cells += measure(args, model, questions, names)
    if args.json:
        args.json.write_text(json.dumps({"cells": cells}) + "\n", encoding="utf-8")
    decoding_page.write(cells, args, command)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    run(parser().parse_args(argv), shlex.join(["scripts/decoding", *argv]))


if __name__ == "__main__":
    main()
