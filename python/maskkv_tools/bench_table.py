# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of what `maskkv bench --json` and `bench_gemm --benchmark_format=json` measured."""

import re
import statistics

MIB = 1 << 20
NAMES = {"maskkv": "MaskKV", "full": "full", "none": "none"}
_GEMM = re.compile(r"BM_MatMul/(\w+)/rows:(\d+)/in:(\d+)/out:(\d+)/threads:(\d+)/")


def table(head, rows):
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _by_length(bench):
    """{prompt tokens: {cache: case}}, lengths ascending."""
    lengths = sorted({case["prompt_tokens"] for case in bench["cases"]})
    return {tokens: {case["cache"]: case for case in bench["cases"]
                     if case["prompt_tokens"] == tokens} for tokens in lengths}


def _caches(bench):
    return list(dict.fromkeys(case["cache"] for case in bench["cases"]))


def growth(bench, cache):
    """Median step at the longest prompt over that at the shortest."""
    rows = list(_by_length(bench).values())
    return rows[-1][cache]["step_ms_median"] / rows[0][cache]["step_ms_median"]


def step_table(bench):
    caches = _caches(bench)
    head = ["prompt, tokens"] + [f"{NAMES[cache]}: step, ms" for cache in caches]
    compared = {"maskkv", "none"} <= set(caches)
    if compared:
        head.append("none / MaskKV")
    head += [f"{NAMES[cache]}: prefill, ms" for cache in caches if cache != "none"]
    rows = []
    for tokens, cases in _by_length(bench).items():
        row = [tokens] + [f"{cases[cache]['step_ms_median']:.2f}" for cache in caches]
        if compared:
            ratio = cases["none"]["step_ms_median"] / cases["maskkv"]["step_ms_median"]
            row.append(f"{ratio:.1f}")
        row += [f"{cases[cache]['prefill_ms']:.0f}" for cache in caches if cache != "none"]
        rows.append(row)
    rows.append(["growth"] + [f"{growth(bench, cache):.2f}" for cache in caches] +
                [""] * (len(head) - 1 - len(caches)))
    return table(head, rows)


def share_table(bench):
    head = ["prompt, tokens", "cache", "GEMM", "attention", "vocabulary head", "rest"]
    rows = []
    for case in bench["cases"]:
        shares = [case["shares"][name] for name in ("gemm", "attention", "head")]
        rows.append([case["prompt_tokens"], NAMES[case["cache"]],
                     *(f"{100 * share:.1f} %" for share in (*shares, 1 - sum(shares)))])
    return table(head, rows)


def memory_table(bench):
    ways = ("offline", "online", "full")
    head = (["prompt, tokens"] + [f"{way}: peak, MiB" for way in ways] +
            [f"{way}: full K and V, MiB" for way in ways] + ["entry, MiB", "full entry, MiB"])
    rows = []
    for tokens in sorted({row["prompt_tokens"] for row in bench["memory"]}):
        cells = {row["prefill"]: row for row in bench["memory"] if row["prompt_tokens"] == tokens}
        values = ([cells[way]["peak_bytes"] for way in ways] +
                  [cells[way]["full_kv_bytes"] for way in ways] +
                  [cells["offline"]["entry_bytes"], cells["full"]["entry_bytes"]])
        rows.append([tokens] + [f"{value / MIB:.1f}" for value in values])
    return table(head, rows)


def gemm_rows(gemm):
    """[{dtype, rows, in, out, threads, GFLOPs, oneDNN_GFLOPs, ratio, label}] of Google Benchmark's JSON.

    label: what oneDNN computes in where it has no such product on the machine, else "".
    """
    result = []
    for run in gemm["benchmarks"]:
        if not (found := _GEMM.match(run["name"])):
            continue
        rows, width, out, threads = map(int, found.groups()[1:])
        result.append({"dtype": found[1], "rows": rows, "in": width, "out": out,
                       "threads": threads,
                       **{name: run[name] for name in ("GFLOPs", "oneDNN_GFLOPs", "ratio")},
                       "label": run.get("label", "")})
    return result


def gemm_table(gemm):
    rows = gemm_rows(gemm)
    head = ["dtype", "threads", "rows", "in", "out", "GFLOP/s", "oneDNN alone, GFLOP/s", "ratio"]
    lines = [[row["dtype"], row["threads"], row["rows"], row["in"], row["out"],
              f"{row['GFLOPs']:.0f}", f"{row['oneDNN_GFLOPs']:.0f}", f"{row['ratio']:.2f}"]
             for row in rows]
    ratios = {}
    for row in rows:
        name = f"{row['dtype']} ({row['label']})" if row["label"] else row["dtype"]
        ratios.setdefault(name, []).append(row["ratio"])
    said = "; ".join(f"{name} {min(of):.2f}, {statistics.median(of):.2f}"
                     for name, of in ratios.items())
    return f"Lowest ratio and median: {said}.\n\n{table(head, lines)}"


def length_sections(bench, machine):
    """Steps and memory by prompt length, for a page."""
    lengths = list(_by_length(bench))
    text = f"""## A small model against prompt length

A random model in LLaDA's layout (width 512, 8 layers, 8 heads, feed-forward 1536,
vocabulary 4096), {bench['dtype']}, {bench['threads']} threads, {bench['gen_length']} response rows a request, {bench['batch']} at a time, budget B = {bench['budget']}. Machine: {machine}.

### Step time by prompt length

The median of a denoising step. All cases ran in one process, their steps in turn, so that the ratios hold although times vary.
With `none` the prompt is recomputed in every step. The last line is the longest prompt ({lengths[-1]}) over the shortest ({lengths[0]}).

{step_table(bench)}

### Where a step goes

{share_table(bench)}
"""
    if bench["memory"]:
        text += f"""
### Memory of a prefill

Peak resident memory above the loaded model. *offline* cuts layer budgets from the importance profile and holds one layer's K and V at
a time; *online* measures importance on the prompt and has to hold every layer's; *full* evicts nothing.

{memory_table(bench)}
"""
    return text


def gemm_section(gemm):
    return f"""## Matrix products beside oneDNN alone

Ours packs weights once and keeps rows independent of each other; oneDNN has weights packed for the very shape and its own threads. Both in
alternating blocks of one run, medians. Where oneDNN has no bf16 (below AVX-512) it computes in f32, its best there.

{gemm_table(gemm)}
"""
