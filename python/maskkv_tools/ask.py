# SPDX-License-Identifier: Apache-2.0
"""Asks running services questions about one document and shows answers and memory.

    python -m maskkv_tools.ask --server unix:/run/decode.grpc --cache unix:/run/cached.grpc \\
        --document letter.txt --questions questions.tsv --budget 32

questions.tsv: a question and, after a tab, the right answer, one a line.
"""

import argparse
import pathlib

import maskkv

CACHES = {
    "none": {"compress": False},
    "full": {"selection": "full"},
    "maskkv": {},
    "random": {"selection": "random"},
}


def mebibytes(count):
    return f"{count / (1 << 20):.2f} MiB"


def ask(client, document, question, budget, cache):
    amount = {"budget": budget} if cache in ("maskkv", "random") else {}
    return client.generate(document=document, question=question, gen_length=8, **amount,
                           **CACHES[cache])


def show(client, document, question, right, budget):
    """One question with every cache; the usage of the compressed one."""
    print(f"== {question}  (right: {right})")
    usage = None
    for cache in CACHES:
        answer = ask(client, document, question, budget, cache)
        sample = answer.samples[0]
        kept = f"{answer.started.kept.pairs} of {answer.started.kept.considered} pairs" \
            if answer.started.kept else "prompt recomputed in every step"
        print(f"{cache:7} {sample.text.strip():16} {kept}, {sample.usage.steps} steps of "
              f"{sample.timings.decode_ms / sample.usage.steps:.1f} ms", flush=True)
        if cache == "maskkv":
            usage = sample.usage
    return usage


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.ask", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="decode service: HOST:PORT or unix:PATH")
    parser.add_argument("--cache", help="cache manager, where it is not at --server")
    parser.add_argument("--document", type=pathlib.Path, required=True)
    parser.add_argument("--questions", type=pathlib.Path, required=True)
    parser.add_argument("--budget", type=int, default=32)
    args = parser.parse_args()
    document = args.document.read_text(encoding="utf-8")
    lines = args.questions.read_text(encoding="utf-8").splitlines()
    with maskkv.Client(args.server, cache=args.cache, timeout=120) as client:
        for line in lines:
            question, right = line.split("\t")
            usage = show(client, document, question, right, args.budget)
        stat = client.cache_stat()
    print(f"== memory: a compressed prompt takes {mebibytes(usage.entry_bytes)} of the "
          f"{mebibytes(usage.full_bytes)} of its K and V; {stat.sealed_entries} entries in shared "
          f"memory take {mebibytes(stat.allocated_bytes)} of {mebibytes(stat.capacity_bytes)}")


if __name__ == "__main__":
    main()
