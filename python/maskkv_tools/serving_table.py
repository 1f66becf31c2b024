# SPDX-License-Identifier: Apache-2.0
"""The page of what serving costs, from the JSON of build/release/bench/bench_serving: a file for each
start of the processes, the last one with throughput.

    python -m maskkv_tools.serving_table 1.json 2.json 3.json --markdown docs/serving_performance.md
"""

import argparse
import json
import pathlib
import statistics

from maskkv_tools.bench_table import table

PAGE = """# What serving costs

Made by `{command}`; do not edit. Four processes (cache manager, budget controller, prefill, decode) on unix sockets, a random model in LLaDA's
layout (width 512, 8 layers, 8 heads, feed-forward 1536, vocabulary 4096), f32, a prompt of {prompt_tokens} tokens, budget B = {budget}. Everything alternates within one run, so that the ratios hold although times vary. Machine: {machine}.

## A step through gRPC and shared memory

The time between two step events as a client sees it, beside the same steps of an engine in the client's own process
({rounds} rounds in turn a start, as many steps a round as response rows, at least 8 and so many that a step takes 10 ms or, where 8 take longer, that). Both sides start anew for every measurement, for where a process's memory
happens to lie shifts its steps as long as it lives, and map one file of packed weights, which are most of it. With the engine on every core, what the client and gRPC compute is
time taken from the steps; with a core left over it is not.

{overhead}

Before the first step, after prefill has sealed the entry: lease, descriptor, map, checks (checksums too), joining the batch: {before:.2f} ms.

## Requests at once

{threads} threads, {rows} rows a request. Tokens a second of n clients that ask at the same time, one token a step, whole requests with everything around their steps; the limit
is one step's matrix products over all rows, run by oneDNN alone, each layer with weights of its own that come from memory as in a step: no attention, no norms, no
sampling, no network.

{throughput}
"""


def overhead_table(results):
    """A line for each setting (threads, rows): medians over its starts, and the spread of the ratio."""
    results = [r for r in results if "overhead" in r]
    settings = sorted({(r["threads"], r["rows"]) for r in results})
    lines = []
    for threads, rows in settings:
        starts = [r["overhead"] for r in results if (r["threads"], r["rows"]) == (threads, rows)]

        def median(key, starts=starts):
            return statistics.median(o[key] for o in starts)

        ratios = [o["ratio"] for o in starts]
        lines.append([threads, rows, len(starts), f"{median('engine_step_ms'):.3f}",
                      f"{median('served_step_ms'):.3f}", f"{median('ratio'):.3f}",
                      f"{min(ratios):.3f} to {max(ratios):.3f}"])
    return table(["engine's threads", "response rows", "starts", "engine alone: step, ms",
                  "through the services: step, ms", "ratio (median of starts)", "of the starts"],
                 lines)


def throughput_table(result):
    rows = [[r["requests"], f"{r['tokens_per_second']:.0f}", f"{r['limit_tokens_per_second']:.0f}",
             f"{r['share']:.2f}"] for r in result["throughput"]]
    return table(["requests at once", "tokens/s", "limit, tokens/s", "share"], rows)


def page(results, machine, command):
    def median(key):
        return statistics.median(r["overhead"][key] for r in results if "overhead" in r)

    last = results[-1]
    return PAGE.format(machine=machine, command=command, overhead=overhead_table(results),
                       throughput=throughput_table(last), before=median("before_first_step_ms"),
                       rounds=results[0]["overhead"]["rounds"],
                       **{k: last[k] for k in ("threads", "prompt_tokens", "rows", "budget")})


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.serving_table",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, nargs="+")
    parser.add_argument("--machine", default="unknown")
    parser.add_argument("--command", default="bench_serving")
    parser.add_argument("--markdown", type=pathlib.Path)
    args = parser.parse_args()
    text = page([json.loads(file.read_text()) for file in args.results], args.machine, args.command)
    if args.markdown:
        args.markdown.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
