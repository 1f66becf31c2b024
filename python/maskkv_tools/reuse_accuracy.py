# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the second question over a document: voted again, over a copy of the document, or from
the pairs that the first question kept.

    python -m maskkv_tools.reuse_accuracy --server ADDRESS --documents 60 --markdown docs/reuse.md

Documents and questions are of held-out people (maskkv_tiny.world); every document is asked two
questions of its own. Exact match of the whole answer, 95 % Wilson intervals.
"""

import argparse
import math
import pathlib
import random

import maskkv
from maskkv_tiny import world
from maskkv_tools import sections
from maskkv_tools.bench_table import table

HEADING = "A second question through the services"
TEXT = """Made by `{command}`; do not edit. {count} documents of {length} tokens about held-out people, two questions each. The first question's prefill
lets its masks vote; the second is answered *voted again* (a full prefill with the second question: the document's K and V are gone) or *voted
over* a copy of the document (REUSE_VOTE_OVER: an entry that keeps every pair, made with the first question; the second question's rows and the
masks alone are computed and vote) or *from what was kept* (REUSE_KEPT, no prefill: the document's pairs that the first question kept; the second
question's tokens are recomputed in every step).
Embedded model, {steps} masks, exact match, 95 % Wilson intervals. A guess is right in 9 %.

{table}

A vote over a copy costs the copy: every pair of the document between questions. Pairs that one question's masks vote for answer that
question; another one finds its answer among them only as far as the budget leaves room for pairs that nobody asked for. With every pair
kept all ways agree up to what the first question left in the document's K and V.
"""


def wilson(right, asked, z=1.96):
    share = right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked))
    half /= 1 + z * z / asked
    return middle - half, middle + half


def cell(right, asked):
    low, high = wilson(right, asked)
    return f"{100 * right / asked:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def documents(count, length, seed):
    for index in range(count):
        rng = random.Random(f"test/{seed}/reuse/{index}")
        document = world.make_document(rng, "test", length, 2, index % 2)
        yield document.text, document.questions


def ask(client, text, question, gen_length, **how):
    answer = client.generate(document=text, question=question.text, gen_length=gen_length, **how)
    return answer, answer.text.strip() == question.answer


def measure(client, budget, count, length, seed, gen_length):
    """{what: (right, asked)} for one budget; budget None keeps every pair."""
    keep = {"selection": "full"} if budget is None else {"budget": budget}
    right = {"first": 0, "again": 0, "over": 0, "kept": 0}
    milliseconds = {"again": 0.0, "over": 0.0, "kept": 0.0}
    for text, (first, second) in documents(count, length, seed):
        # Long enough for the question that follows, short enough that entries do not pile up.
        answer, good = ask(client, text, first, gen_length, keep_entry_ms=2_000, **keep)
        right["first"] += good
        copy = client.prefill(document=text, question=first.text, masks=gen_length,
                              selection="full").handle
        for name, how in (("kept", {"handle": answer.handle, "reuse": "kept"}),
                          ("over", {"handle": copy, "reuse": "vote_over", **keep}),
                          ("again", keep)):
            later, good = ask(client, text, second, gen_length, **how)
            right[name] += good
            milliseconds[name] += later.samples[0].timings.total_ms
    return right, {name: total / count for name, total in milliseconds.items()}


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.reuse_accuracy",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--prefill", help="address of the prefill service, by default the server's")
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--length", type=int, default=1000)
    parser.add_argument("--gen-length", type=int, default=8)
    parser.add_argument("--budgets", default="8,32,128,512")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", default="scripts/reuse-accuracy")
    parser.add_argument("--markdown", type=pathlib.Path)
    args = parser.parse_args()
    rows = []
    with maskkv.Client(args.server, prefill=args.prefill or args.server, timeout=300) as client:
        for budget in [*map(int, args.budgets.split(",")), None]:
            right, ms = measure(client, budget, args.documents, args.length, args.seed,
                                args.gen_length)
            rows.append(["all" if budget is None else budget,
                         *(cell(right[name], args.documents) for name in right),
                         *(f"{ms[name]:.0f}" for name in ms)])
            print(rows[-1], flush=True)
    head = ["B", "first question", "second, voted again", "voted over", "from what was kept",
            "voted again, ms", "voted over, ms", "from what was kept, ms"]
    text = TEXT.format(command=args.command, count=args.documents, length=args.length,
                       steps=args.gen_length, table=table(head, rows))
    if args.markdown:
        sections.write(args.markdown, HEADING, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
