# SPDX-License-Identifier: Apache-2.0
"""The embedded models under eviction policies, by the command line's fast path: one prefill a
question serves every policy and budget.

    python -m maskkv_eval.embedded --policies maskkv,snapkv --budgets 8,16 --questions 200 \\
        --json build/eval.json --markdown build/eval.md --plot build/eval.png

Questions are asked in chunks; finished chunks stay in FILE.partial.jsonl, and the same command goes
on from there.
"""

import argparse
import itertools
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

from tqdm import tqdm

from maskkv_eval import tables
from maskkv_eval.journal import Journal
from maskkv_tiny import world

CHUNK = 100
_NOT_ASKED = ("json", "bin", "models", "markdown", "plot")  # change no cell of a chunk


def words_and_names(count, length, seed, lookalikes):
    """`count` test questions in turn: one whose answer is a word, one whose answer is a name of two
    tokens, which a rule may decide in one step; `kind` says which, "word" or "name"."""
    found = {"word": [], "name": []}
    people = {relation.name for relation in world.RELATIONS}
    for index in itertools.count():
        if sum(map(len, found.values())) == count:
            break
        question = world.record("test", index, length, seed, lookalikes)
        kind = "name" if question["relation"] in people else "word"
        if len(found[kind]) < (count + (kind == "word")) // 2:
            found[kind].append({**question, "kind": kind})
    pairs = itertools.zip_longest(found["word"], found["name"])
    return [question for pair in pairs for question in pair if question]


def ask(args, model, questions, extra=()):
    """The cells of `maskkv evaluate`, with further flags `extra`, over these questions."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(q) + "\n" for q in questions)
        file.flush()
        command = [args.bin, "evaluate", "--model", f"models/{model}", "--questions", file.name,
                   "--gen-length", str(args.gen_length), "--policies", args.policies,
                   "--budgets", args.budgets, "--dtype", args.dtype, "--json", *extra]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"maskkv evaluate: exit code {result.returncode}")  # it has said why
    return json.loads(result.stdout)["cells"]


def identity(args):
    """What a chunk is a function of: a partial file of another run is not gone on with."""
    return {k: str(v) for k, v in sorted(vars(args).items()) if k not in _NOT_ASKED}


def finished_chunks(journal, args):
    """(model, first question) -> cells, of an interrupted run with the same arguments."""
    chunks = {}
    for number, chunk in journal.records:
        if chunk["arguments"] != identity(args):
            raise SystemExit(f"{journal.path}:{number}: expected a run with the same arguments, "
                             f"found {chunk['arguments']}; remove the file to start anew")
        chunks[chunk["model"], chunk["first"]] = chunk["cells"]
    return chunks


def gather(chunks, kinds):
    """Cells a model, policy, budget and kind of question from the chunks, in order.

    kinds: of every question. The command line gives the kept mass of a chunk, over all kinds.
    """
    cells = {}
    for (model, first), chunk in sorted(chunks.items()):
        for part in chunk:
            for kind, outcome in zip(kinds[first:], part["outcomes"]):
                key = (model, part["policy"], part["budget"], kind)
                cell = cells.setdefault(key, {
                    "model": model, "policy": part["policy"], "budget": part["budget"],
                    "task": kind, "questions": 0, "correct": 0, "kept_mass": 0.0, "right": []})
                cell["questions"] += 1
                cell["correct"] += outcome == "1"
                cell["kept_mass"] += part["kept_mass"]
                cell["right"].append(int(outcome))
    for cell in cells.values():
        cell["kept_mass"] /= cell["questions"]
    return list(cells.values())


def run(args):
    questions = list(world.records("test", args.questions, args.length, args.seed, args.lookalikes))
    partial = args.json.with_suffix(args.json.suffix + ".partial.jsonl")
    models = args.models.split(",")
    with Journal(partial) as journal, tqdm(
            total=len(models) * len(questions), unit="question") as bar:
        chunks = finished_chunks(journal, args)
        for model in models:
            for first in range(0, len(questions), CHUNK):
                part = questions[first : first + CHUNK]
                if (model, first) not in chunks:
                    chunks[model, first] = ask(args, model, part)
                    journal.append({"arguments": identity(args), "model": model, "first": first,
                                    "cells": chunks[model, first]})
                bar.update(len(part))
    wanted = {key: cells for key, cells in chunks.items() if key[0] in models}
    report = {"arguments": identity(args), "cells": gather(wanted, [q["kind"] for q in questions])}
    args.json.write_text(json.dumps(report) + "\n", encoding="utf-8")
    partial.unlink()


def parser():
    p = argparse.ArgumentParser(prog="scripts/eval", description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--policies", required=True, help="names of docs/policies.md, comma-separated")
    p.add_argument("--budgets", required=True, help="pairs a head and layer, comma-separated")
    p.add_argument("--models", default="tiny-llada,tiny-dream")
    p.add_argument("--questions", type=int, default=1000)
    p.add_argument("--length", type=int, default=1000, help="tokens a document")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--lookalikes", type=float, default=0.0,
                   help="share of people who have one name in common with another")
    p.add_argument("--gen-length", type=int, default=8)
    p.add_argument("--dtype", default="f32", choices=("f32", "bf16", "int8"))
    p.add_argument("--json", type=pathlib.Path, required=True)
    p.add_argument("--markdown", type=pathlib.Path, metavar="FILE",
                   help="the tables of what --json holds, as a page that names this command")
    p.add_argument("--plot", type=pathlib.Path, metavar="FILE",
                   help="accuracy by budget as a picture, shown by the page")
    p.add_argument("--bin", default="build/release/bin/maskkv", help=argparse.SUPPRESS)
    return p


def main():
    args = parser().parse_args()
    run(args)
    tables.write(tables.load(args.json), shlex.join(["scripts/eval", *sys.argv[1:]]),
                 args.markdown, args.plot)


if __name__ == "__main__":
    main()
