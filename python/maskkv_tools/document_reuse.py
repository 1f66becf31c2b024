# SPDX-License-Identifier: Apache-2.0
"""What to keep of a document for questions that nobody has asked yet: `maskkv reuse` on documents
about held-out people, as a section of docs/reuse.md.

    python -m maskkv_tools.document_reuse --documents 50 --markdown docs/reuse.md

Every document is asked six questions, no two about the same fact; the first four come before and
choose what is kept, the last two are counted.
"""

import argparse
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile

from maskkv_eval.statistics import wilson
from maskkv_tiny import world
from maskkv_tools import sections

HEADING = "What to keep for many questions"
EARLIER, LATER = 4, 2
GENERIC = ["What is said in this document?", "Where does everybody live?",
           "What does everybody play?", "What does everybody own?", "What does everybody grow?"]
MODES = {
    "again": "a new prefill with the question",
    "all@first": "every pair",
    "over@first": "the question's vote over the copy",
    "over@none": "the same, copy without a question",
    "over@generic": "the same, copy with a generic question",
    "sum:earlier1": "the first question's vote",
    "sum:earlier4": "sum of 4 earlier questions' votes",
    "union:earlier4": "union of them",
    "intersection:earlier4": "intersection of them, by degrees",
    "wide:earlier4": "union of them, 4 B",
    "sum:generic1": "a generic question's vote",
    "sum:generic5": "sum of 5 generic questions' votes",
    "union:generic5": "union of them",
    "sum:none": "no question: document and masks vote",
}
TEXT = """Made by `{command}`; do not edit. {count} documents of {length} tokens about held-out people, six questions each, no two about the same fact:
the first four were asked before and may choose what is kept, the last two are counted ({asked} answers a cell). Exact match, in brackets
Wilson's 95 % interval; {masks} masks; policy `{policy}`, B pairs a head a layer. A guess is right in about {chance:.0f} %.

A *copy* of the document is every pair of its tokens, computed once, with one question (the first, a generic one, none) in place. *The
question's vote over the copy* (REUSE_VOTE_OVER) computes the question's rows and the masks alone, keeps B pairs of document and
question and answers over them. The votes of others choose B pairs of the document before the question is known; the question itself is then
recomputed in every step, as it is where every pair is kept. Bytes are of one document between questions and, beside them, of one question;
milliseconds are from the question to the first step, and of all steps (mean over budgets). *As again* is the share of the pairs kept by a new
prefill at the same budget that the vote over the copy keeps too.

{tables}

{reading}

The embedded models were trained mostly on documents that see themselves alone, not the questions behind them (`maskkv_tiny.batches`), so that
copies made with different questions hardly differ for them. Models trained otherwise may lose more by a copy: *as again* tells, without labels.
A vote over the copy also pays for the copy, whose bytes stand beside it."""


def documents(count, length, seed):
    """Texts and their questions, of which no two have the same answer."""
    for index in range(count):
        rng = random.Random(f"test/{seed}/document-reuse/{index}")
        document = world.make_document(rng, "test", length, 40, 0.5)
        chosen = {}
        for question in document.questions:
            chosen.setdefault(question.answer, question)
        questions = list(chosen.values())[: EARLIER + LATER]
        if len(questions) < EARLIER + LATER:
            raise ValueError(f"document {index}: found {len(questions)} facts to ask for")
        yield document.text, questions


def records(count, length, seed):
    for text, questions in documents(count, length, seed):
        for question in questions:
            yield {"document": text, "question": question.text, "answer": question.answer,
                   "kind": question.kind}


def guess(count, length, seed):
    """How often a guess among the document's values of the right kind is right."""
    chances = [q.chance for _, questions in documents(count, length, seed)
               for q in questions[EARLIER:]]
    return sum(chances) / len(chances)


def measure(maskkv, model, questions, budgets, masks, policy):
    command = [maskkv, "reuse", "--model", model, "--questions", questions, "--earlier", EARLIER,
               "--gen-length", masks, "--modes", ",".join(MODES), "--budgets", budgets,
               "--policy", policy, "--json"]
    for question in GENERIC:
        command += ["--generic", question]
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"maskkv reuse: exit code {done.returncode}")
    return json.loads(done.stdout)


def cell_text(cell):
    low, high = wilson(cell["correct"], cell["questions"])
    share = cell["correct"] / cell["questions"]
    return f"{100 * share:.1f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _kib(values):
    values = [value / 1024 for value in values]
    low, high = min(values), max(values)
    if high == 0:
        return "0"
    return f"{low:.0f}" if high - low < 0.5 else f"{low:.0f} to {high:.0f}"


def _percents(shares):
    """The lowest and highest of them."""
    if None in shares:
        return ""
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.1f} %" if high - low < 0.05 else f"{low:.1f} to {high:.1f} %"


def model_table(report, budgets):
    """A row a mode: accuracy at each budget, bytes, times."""
    rows = []
    for mode, what in MODES.items():
        cells = [cell for cell in report["cells"] if cell["mode"] == mode]
        by_budget = {cell["budget"]: cell for cell in cells}
        shown = [cell_text(by_budget.get(budget, by_budget.get(None))) for budget in budgets]
        rows.append([
            f"`{mode}`: {what}", *shown,
            _kib([cell["document_bytes"] for cell in cells]),
            _kib([cell["question_bytes"] for cell in cells]),
            f"{_mean(cells, 'prepare_ms'):.0f} + {_mean(cells, 'decode_ms'):.0f}",
            _percents([cell["pairs_as_again"] for cell in cells]),
        ])
    head = ["kept", *(f"B = {budget}" for budget in budgets), "KiB a document",
            "KiB a question", "ms a question", "as again"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mean(cells, name):
    return sum(cell[name] for cell in cells) / len(cells)


def _share(report, mode, budget):
    for cell in report["cells"]:
        if cell["mode"] == mode and cell["budget"] in (budget, None):
            return 100 * cell["correct"] / cell["questions"]
    raise KeyError(mode)


def reading(reports, budgets):
    """What the numbers say, in words that follow from them alone."""
    lines = []
    voted = [mode for mode in MODES if ":" in mode and not mode.startswith("wide")]
    for report in reports:
        name, low = pathlib.Path(report["model"]).name, budgets[0]
        best = max(voted, key=lambda mode: sum(_share(report, mode, b) for b in budgets))
        ms = {mode: _mean([c for c in report["cells"] if c["mode"] == mode], "prepare_ms")
              for mode in ("again", "over@first")}
        lines.append(
            f"`{name}`: at B = {low} a vote over the copy is right in {_share(report, 'over@first', low):.0f} %, "
            f"a new prefill in {_share(report, 'again', low):.0f} %, and takes {ms['over@first']:.0f} ms instead of "
            f"{ms['again']:.0f}. Of what is chosen before the question is known, at equal bytes, `{best}` is best: "
            f"{_share(report, best, low):.0f} % at B = {low}, {_share(report, best, budgets[-1]):.0f} % at "
            f"B = {budgets[-1]}.")
    return "\n".join(lines)


def section(reports, args, budgets, command):
    tables = "\n\n".join(
        f"### `{pathlib.Path(report['model']).name}`\n\n{model_table(report, budgets)}"
        for report in reports)
    return TEXT.format(
        command=command, count=args.documents, length=args.length, masks=args.gen_length,
        asked=reports[0]["cells"][0]["questions"], policy=args.policy, tables=tables,
        chance=100 * guess(args.documents, args.length, args.seed),
        reading=reading(reports, budgets))


def parser():
    p = argparse.ArgumentParser(prog="scripts/document-reuse", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--maskkv", default="build/release/bin/maskkv", help="the program")
    p.add_argument("--models", nargs="+", default=["models/tiny-llada", "models/tiny-dream"])
    p.add_argument("--documents", type=int, default=40)
    p.add_argument("--length", type=int, default=1000)
    p.add_argument("--gen-length", type=int, default=8)
    p.add_argument("--budgets", default="4,8,16,32,128")
    p.add_argument("--policy", default="maskkv")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--json", type=pathlib.Path, help="reports of maskkv reuse, to be written")
    p.add_argument("--markdown", type=pathlib.Path, default=pathlib.Path("docs/reuse.md"),
                   help="page whose section is replaced")
    return p


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        questions = pathlib.Path(folder) / "questions.jsonl"
        with questions.open("w", encoding="utf-8") as out:
            for record in records(args.documents, args.length, args.seed):
                out.write(json.dumps(record) + "\n")
        for model in args.models:
            print(f"{model}", file=sys.stderr, flush=True)
            reports.append(measure(args.maskkv, model, questions, args.budgets, args.gen_length,
                                   args.policy))
    if args.json:
        args.json.write_text(json.dumps(reports), encoding="utf-8")
    budgets = [int(budget) for budget in args.budgets.split(",")]
    command = shlex.join(["scripts/document-reuse", *argv])
    sections.write(args.markdown, HEADING, section(reports, args, budgets, command))


if __name__ == "__main__":
    main()
