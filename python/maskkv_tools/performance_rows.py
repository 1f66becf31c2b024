# SPDX-License-Identifier: Apache-2.0
"""The figures of docs/performance.md: pure functions of what bench_step and its peers measured.

Bounds are what the measured rates allow: each side's matrix products at the rate of oneDNN alone and
its attention at the rate of the attention kernel, nothing else.
"""

import dataclasses

GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Bar:
    limit: float
    at_least: bool = True

    def holds(self, figure):
        return figure >= self.limit if self.at_least else figure <= self.limit

    def __str__(self):
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table. figure None: not measured, `note` says why."""

    name: str
    what: str
    bar: Bar
    figure: float | None
    note: str = ""

    @property
    def holds(self):
        return self.figure is not None and self.bar.holds(self.figure)

    def record(self):
        return {"name": self.name, "what": self.what, "figure": self.figure, "bar": str(self.bar),
                "holds": self.holds, "note": self.note}


def at_most(limit):
    return Bar(limit, at_least=False)


def gemm_flops(shape, rows, masked, head=True):
    """Multiplications and additions of the products of a forward over `rows` rows of which the last
    layer advances `masked`, which also go through the head (step_products.h)."""
    h, q, f = shape.hidden, shape.hidden, shape.ffn
    kv = 2 * (shape.hidden // shape.heads) * shape.written_kv_heads
    advance = 2 * q * h + 3 * h * f
    return 2 * (shape.layers * rows * h * kv + (shape.layers - 1) * rows * advance +
                masked * advance + (masked * h * shape.vocab_rows if head else 0))


def attention_flops(shape, rows, masked, keys):
    """The same of scores and weighted sums, a query row over `keys` keys."""
    return 4 * shape.hidden * keys * ((shape.layers - 1) * rows + masked)


def canvas_bound(shape, raw):
    """Seconds that a full-canvas step, a prefill and a cached step take at the measured rates."""
    tokens, rows = raw["prompt"], raw["rows"]
    tall = raw["tall_products"]
    gemm_rate = tall["flops"] / tall["median_s"]
    everything = tokens + rows
    attention = attention_flops(shape, everything, rows, everything) / raw["attention_full_flops"]
    pairs = min(raw["budget"], tokens)
    return {
        "full": gemm_flops(shape, everything, rows) / gemm_rate + attention,
        "prefill": gemm_flops(shape, everything, rows, head=False) / gemm_rate + attention,
        "cached": raw["products"]["median_s"] + attention_flops(
            shape, rows, (rows + 1) // 2, pairs + rows) / raw["attention_step_flops"]}


def step_growth(raw):
    """Step at the longest prompt over the shortest, both over random entries; and how far a real
    entry's step is from that of a random one."""
    random = [case for case in raw["cases"] if case["entry"] == "random"]
    short, long = (pick(random, key=lambda case: case["prompt"]) for pick in (min, max))
    real = next(case for case in raw["cases"] if case["entry"] == "prefill")
    note = (f"{1e3 * short['median_s']:.2f} ms at {short['prompt']} tokens, "
            f"{1e3 * long['median_s']:.2f} ms at {long['prompt']}; after a real prefill of "
            f"{real['prompt']}: {1e3 * real['median_s']:.2f} ms")
    return [Row("step-growth", "decode step, B = 256: time at the longest prompt over the shortest",
                at_most(1.05), long["median_s"] / short["median_s"], note)]


def full_canvas(shape, raw):
    bound = canvas_bound(shape, raw)
    measured = raw["full_s"] / raw["cached"]["median_s"]
    allowed = bound["full"] / bound["cached"]
    note = (f"{raw['full_s']:.3f} s against {1e3 * raw['cached']['median_s']:.2f} ms; the rates allow "
            f"{bound['full']:.3f} s and {1e3 * bound['cached']:.2f} ms, {allowed:.0f} times")
    what = f"cached step against our own full-canvas step, prompt {raw['prompt']}"
    return [Row("full-canvas", f"{what}: times faster", Bar(100), measured, note),
            Row("full-canvas-bound", f"{what}: share of the ratio that the rates allow", Bar(0.8),
                measured / allowed, note)]


def end_to_end(shape, raw):
    steps = raw["rows"]
    bound = canvas_bound(shape, raw)
    ours = raw["prefill_s"] + raw["answer_s"]
    measured = steps * raw["full_s"] / ours
    allowed = steps * bound["full"] / (bound["prefill"] + steps * bound["cached"])
    note = (f"no cache: {steps} steps of {raw['full_s']:.1f} s (one measured); ours: prefill "
            f"{raw['prefill_s']:.1f} s and steps {raw['answer_s']:.1f} s; the rates allow {allowed:.0f}")
    what = f"{steps} tokens in {steps} steps behind {raw['prompt']} tokens, against no cache"
    return [Row("end-to-end", f"{what}: times faster", Bar(90), measured, note),
            Row("end-to-end-bound", f"{what}: share of what the rates allow", Bar(0.9),
                measured / allowed, note)]


def step_products(model, raw, names):
    rows = []
    for case in raw["cases"]:
        if case["name"] not in names:
            continue
        alone, step = case["products"]["median_s"], case["steps"]["median_s"]
        rows.append(Row(
            f"step-products-{model}-{case['name']}",
            f"{model}: a step's products by oneDNN alone over the step, {case['name']} rows",
            Bar(0.85), alone / step, f"{1e3 * alone:.2f} ms of {1e3 * step:.2f} ms"))
    return rows


def batch_rate(model, raw):
    """Batch 8 over batch 1 in tokens a second, over the same of the products alone."""
    cases = {case["batch"]: case for case in raw["cases"] if case["rows"] == raw["batch_rows"]}
    one, many = cases[1], cases[max(cases)]
    times = many["batch"] * one["steps"]["median_s"] / many["steps"]["median_s"]
    allowed = many["batch"] * one["products"]["median_s"] / many["products"]["median_s"]
    note = f"{times:.2f} times the tokens a second; the products alone allow {allowed:.2f}"
    return [Row(f"batch-rate-{model}",
                f"{model}: batch {many['batch']} over batch 1, {one['rows']} rows: share of what the "
                "products allow", Bar(0.9), times / allowed, note)]


def prefill_attention(raw, head_dim, amx):
    """Of the longest prompt. An exponential a score bounds machines with fast products."""
    measured = max(raw["attention"], key=lambda one: one["keys"])
    share = measured["flops"] / raw["gemm_flops"]
    bound = 4 * head_dim / (4 * head_dim / raw["gemm_flops"] + 1 / raw["exps"])
    note = (f"{measured['flops'] / 1e9:.0f} GFLOP/s, products {raw['gemm_flops'] / 1e9:.0f}; with "
            f"{raw['exps'] / 1e9:.2f} G exponentials a second at most {bound / 1e9:.0f}")
    what = f"attention of a prefill, head dim {head_dim}, {measured['keys']} keys"
    if amx:
        return [Row("prefill-attention", f"{what}: share of the bound by products and exponentials",
                    Bar(0.8), measured["flops"] / bound, note)]
    return [Row("prefill-attention", f"{what}: share of the products' rate", Bar(0.5), share, note)]


def prefill_memory(raw, layers):
    total = raw["peak_bytes"] + (layers - raw["layers"]) * raw["entry_bytes"] / raw["layers"]
    note = (f"measured with {raw['layers']} layer {raw['peak_bytes'] / GIB:.2f} GiB, and the entry of "
            f"{layers - raw['layers']} more")
    return [Row("prefill-memory", f"peak memory above the weights, LLaDA-8B's shape, prompt "
                f"{raw['prompt']}, GiB", at_most(2.5), total / GIB, note)]


def torch_prefill(measured, bars):
    """measured: {tokens: {"ours": [s], "torch": [s]}}; bars: {tokens: Bar}."""
    rows = []
    for tokens, times in measured.items():
        ours, theirs = median(times["ours"]), median(times["torch"])
        rows.append(Row(f"prefill-torch-{tokens}",
                        f"prefill of {tokens} tokens against PyTorch bf16 with fused attention: "
                        "times faster", bars[tokens], theirs / ours,
                        f"{ours:.2f} s, PyTorch {theirs:.2f} s, {len(times['ours'])} turns"))
    return rows


def response_cache(report):
    off, cached = report["cases"]
    note = f"{off['step_ms_mean']:.2f} ms and {cached['step_ms_mean']:.2f} ms, means"
    return [Row("response-cache", f"response feature cache at K_r {cached['response_every']}, rho "
                f"{cached['response_share']:g}, {report['gen_length']} rows: step time",
                at_most(0.5), cached["step_ms_mean"] / off["step_ms_mean"], note)]


def median(values):
    return sorted(values)[len(values) // 2]
