# SPDX-License-Identifier: Apache-2.0
"""How many tokens another --dtype answers as f32 does, on questions of the embedded models.

    python -m maskkv_tiny.world --split test --questions 240 --length 1000 --seed 1 --out q.jsonl
    python -m maskkv_tools.dtype_agreement q.jsonl --models models/tiny-llada models/tiny-dream

Every question is answered with both types (temperature 0, one token a step, the whole prompt kept by
default) and every mask is decoded. Counted are answer tokens, up to f32's end token, and all
positions. The runs share nothing: a token that differs may change later ones, which count too.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile


def answer(binary, model, question, dtype, flags):
    """(answer tokens, the ids of all positions) of one run of `maskkv generate`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as document:
        document.write(question["document"])
        document.flush()
        done = subprocess.run(
            [str(binary), "generate", "--model", os.fspath(model), "--dtype", dtype, "--document",
             document.name, "-q", question["question"], "--ignore-eos", "--json", *flags],
            capture_output=True, check=True)
    report = json.loads(done.stdout)
    committed = {at: token for step in report["steps"] for at, token, _ in step["committed"]}
    return report["tokens"], [committed[at] for at in sorted(committed)]


def count(pairs):
    """Counts of ((tokens, ids) of f32, (tokens, ids) of the other) pairs."""
    result = {"questions": 0, "equal_answers": 0, "tokens": 0, "equal_tokens": 0, "positions": 0,
              "equal_positions": 0}
    for (tokens, ids), (other_tokens, other_ids) in pairs:
        same = [a == b for a, b in zip(ids, other_ids, strict=True)]
        result["questions"] += 1
        result["equal_answers"] += tokens == other_tokens
        result["tokens"] += len(tokens)
        result["equal_tokens"] += sum(same[:len(tokens)])
        result["positions"] += len(same)
        result["equal_positions"] += sum(same)
    return result


def measure(binary, model, questions, dtype, flags):
    return count((answer(binary, model, question, "f32", flags),
                  answer(binary, model, question, dtype, flags)) for question in questions)


def read_questions(path, limit=0):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in (lines[:limit] if limit else lines)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("questions", help="JSON lines with document and question")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "int8"])
    parser.add_argument("--limit", type=int, default=0, help="questions; 0: all")
    parser.add_argument("--binary", default="build/release/bin/maskkv")
    args, flags = parser.parse_known_args()
    flags = flags or ["--gen-length", "8", "--cache", "full"]
    questions = read_questions(args.questions, args.limit)
    print("| model | dtype | questions | equal answers | answer tokens as f32 | all positions |\n"
          "| --- | --- | ---: | ---: | ---: | ---: |")
    for model in args.models:
        for dtype in args.dtypes:
            found = measure(args.binary, model, questions, dtype, flags)
            print(f"| {pathlib.Path(model).name} | {dtype} | {found['questions']} "
                  f"| {found['equal_answers']} "
                  f"| {found['equal_tokens']} of {found['tokens']} "
                  f"({100 * found['equal_tokens'] / found['tokens']:.2f} %) "
                  f"| {100 * found['equal_positions'] / found['positions']:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
