# SPDX-License-Identifier: Apache-2.0
"""The document and the questions that scripts/demo asks the embedded model.

    python -m maskkv_tiny.demo --out models/tiny-llada/demo

writes document.txt (1,000 tokens about people of the test split) and questions.tsv (a question, a
tab, the right answer, a line each). Both are committed, so that the demo needs no Python.
"""

import argparse
import pathlib
import random

from maskkv_tiny import world

SEED = "demo/1"
LENGTH = 1000
QUESTIONS = 4


def demo_document():
    """Four questions over one document: single facts and two-hop ones by turns."""
    document = world.make_document(random.Random(SEED), "test", LENGTH, 4 * QUESTIONS)
    by_kind = {
        kind: [q for q in document.questions if q.kind == kind] for kind in ("single", "two_hop")
    }
    pairs = zip(by_kind["single"], by_kind["two_hop"])
    questions = [question for pair in pairs for question in pair][:QUESTIONS]
    return document.text, questions


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.demo", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    args = parser.parse_args()
    document, questions = demo_document()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "document.txt").write_text(document + "\n", encoding="utf-8")
    lines = [f"{question.text}\t{question.answer}\n" for question in questions]
    (args.out / "questions.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
