# SPDX-License-Identifier: Apache-2.0
"""A Markdown table of what `maskkv evaluate --json` measured, with 95 % intervals.

    python -m maskkv_tools.accuracy_table result.json [--chance 0.09] [--markdown docs/accuracy.md]

Without --markdown the table alone is printed; with it a whole page is written.
"""

import argparse
import json
import pathlib

from maskkv_eval.statistics import wilson

NAMES = {"single": "single fact", "two_hop": "two hops"}
PROMPT_CACHES = {
    "none": "none (prompt recomputed each step)",
    "full": "full (every pair kept)",
    "maskkv": "MaskKV",
    "random": "random pairs",
}


def _accuracy(count):
    low, high = wilson(count["correct"], count["questions"])
    share = count["correct"] / count["questions"]
    return f"{100 * share:.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def _kinds(cells):
    """Kinds of question, those that are known first."""
    found = {kind for cell in cells for kind in cell["kinds"]}
    return [kind for kind in NAMES if kind in found] + sorted(found - set(NAMES))


def table(report, chance=None):
    """The Markdown table of an object that `maskkv evaluate --json` printed."""
    kinds = _kinds(report["cells"])
    head = ["cache", "budget B", "of the prompt", *(NAMES.get(kind, kind) for kind in kinds), "all",
            "kept mass"]
    rows = []
    for cell in report["cells"]:
        budget = cell["budget"]
        share = "" if budget is None else f"{100 * budget / report['mean_prompt_tokens']:.1f} %"
        none = {"questions": 0, "correct": 0}
        counts = [cell["kinds"].get(kind, none) for kind in kinds] + [cell]
        name = cell["policy"] if cell["cache"] == "policy" else PROMPT_CACHES[cell["cache"]]
        rows.append([name, "" if budget is None else str(budget), share,
                     *(_accuracy(count) if count["questions"] else "" for count in counts),
                     f"{cell['kept_mass']:.3f}"])
    if chance is not None:
        head.append("chance")
        for row in rows:
            row.append(f"{100 * chance:.1f} %")
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(report, chance=None):
    """The whole of docs/accuracy.md."""
    questions = report["cells"][0]["questions"]
    kinds = report["cells"][0]["kinds"]
    parts = ", ".join(f"{kinds[kind]['questions']} {NAMES.get(kind, kind)}"
                      for kind in _kinds(report["cells"]))
    guess = "" if chance is None else (
        " Chance is a guess among the values of the right kind that the document mentions.")
    first = report["cells"][0]
    return f"""# Accuracy of the embedded model by prompt cache

Made by `scripts/accuracy --questions {questions}`; do not edit. Every row answers the same
{questions} held-out questions ({parts}), each about a document of its own, with prompts of {report['mean_prompt_tokens']:.0f}
tokens in the mean. An answer is correct if its text is exactly the expected one. In brackets: Wilson's 95 % interval.
The budget B is the mean number of pairs kept a head a layer; *kept mass* is the share of the mask queries' score on the prompt that
the kept pairs have, in the mean over questions.{guess}

{table(report, chance)}

Settings: {report['dtype']}, {report['gen_length']} masks in blocks of {first['block_length']}, {first['schedule']} steps, temperature {report['temperature']:g}; \
layer budgets {report['layers']}, alpha {report['alpha']:g}, beta {report['beta']:g}.
"""


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.accuracy_table",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=pathlib.Path, help="output of maskkv evaluate --json")
    parser.add_argument("--chance", type=float, help="share of correct answers by guessing")
    parser.add_argument("--markdown", type=pathlib.Path, help="page to write")
    args = parser.parse_args(argv)
    report = json.loads(args.result.read_text(encoding="utf-8"))
    if args.markdown is None:
        print(table(report, args.chance))
    else:
        args.markdown.write_text(page(report, args.chance), encoding="utf-8")


if __name__ == "__main__":
    main()
