# SPDX-License-Identifier: Apache-2.0
"""The rows of docs/performance.md: which there are, and their figures as pure functions of what
bench_step and its peers measured.

Bounds are what the measured rates allow: each side's matrix products at the rate of oneDNN alone and
its attention at the rate of the attention kernel, nothing else.
"""

import dataclasses
import statistics

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
        """None if not measured."""
        return None if self.figure is None else self.bar.holds(self.figure)

    def record(self):
        return {"name": self.name, "what": self.what, "figure": self.figure, "bar": str(self.bar),
                "holds": self.holds, "note": self.note}


def at_most(limit):
    return Bar(limit, at_least=False)


_CANVAS = "cached step against our own full-canvas step, prompt 4096: "
_ANSWER = "128 tokens in 128 steps behind 32768 tokens, against no cache: "
_TORCH = "prefill of {} tokens against PyTorch bf16 with fused attention, same threads: times faster"
# {group: {row: (what, bar)}}, with the sizes of a whole run; notes tell what was measured.
SPECS = {
    "growth": {"step-growth": ("decode step, B = 256: time at 32768 prompt tokens over 1024",
                               at_most(1.05))},
    "canvas": {"full-canvas": (_CANVAS + "times faster", Bar(100)),
               "full-canvas-bound": (_CANVAS + "share of the ratio that the rates allow", Bar(0.8))},
    "end-to-end": {"end-to-end": (_ANSWER + "times faster", Bar(90)),
                   "end-to-end-bound": (_ANSWER + "share of what the rates allow", Bar(0.9))},
    "batches": {
        f"{kind}-{model}{size}": (f"{model}: {what}", Bar(bar))
        for model in "SM"
        for kind, size, what, bar in (
            ("step-products", "-1x32", "a step's products by oneDNN alone over the step, 1x32 rows",
             0.85),
            ("step-products", "-8x16", "a step's products by oneDNN alone over the step, 8x16 rows",
             0.85),
            ("batch-rate", "", "tokens a second of batch 8 over batch 1, 16 rows: share of what the "
             "products allow", 0.9))},
    "attention": {"prefill-attention": ("attention of a prefill, head dim 128, 8192 keys: share of "
                                        "the products' rate", Bar(0.5))},
    "memory": {"prefill-memory": ("peak memory above the weights, LLaDA-8B's shape, prompt 32768, "
                                  "B = 256, GiB", at_most(2.5))},
    "response-cache": {"response-cache": ("response feature cache at K_r 7, rho 0.25, 128 rows: "
                                          "step time", at_most(0.5))},
    "int8-weights": {
        **{f"int8-weights-step-{model}": (f"{model}: decode step with int8 weights, times faster "
                                          "than bf16", Bar(1.6)) for model in "SM"},
        "int8-weights-tokens": ("int8 weights: answer tokens of the embedded model as with f32, share",
                                Bar(0.99))},
    "int8-kv": {"int8-kv-bytes": ("int8 entries: bytes with scales over those of bf16",
                                  at_most(0.53)),
                "int8-kv-accuracy": ("int8 entries: 0 lies in the 95 % interval of the change of "
                                     "accuracy against bf16 entries, at each budget (1: yes)",
                                     Bar(1))},
    "load": {"load": ("load of a checkpoint of 1 GiB, packed file and page cache warm: seconds",
                      at_most(1.5)),
             "load-packing": ("the same without a packed file, packed into own memory: seconds",
                              at_most(1.5)),
             "load-shared": ("memory of the packed weights of a prefill and a decode service "
                             "together, over the file's bytes", at_most(1.01))},
    "llada-8b": {"llada-8b": ("a sparse checkpoint of LLaDA-8B's exact shapes, mapped: values of one "
                              "layer and the head at 32768 positions: worst error over its tolerance",
                              at_most(1))},
    "torch": {"prefill-torch-4096": (_TORCH.format(4096), Bar(1.1)),
              "prefill-torch-16384": (_TORCH.format(16384), Bar(1.3))},
    # No rows, tables of their own.
    "small-model": {},
    "products": {},
}
_BY_NAME = {name: spec for rows in SPECS.values() for name, spec in rows.items()}


def row(name, figure, note):
    what, bar = _BY_NAME[name]
    return Row(name, what, bar, figure, note)


def missing(group, why):
    """A group's rows, not measured."""
    return [row(name, None, f"not measured: {why}") for name in SPECS[group]]


def spread(values):
    """{"median", "min", "max", "runs"}. REQUIRES: values is not empty."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "runs": len(values)}


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
    """Both steps over random entries; and how far a real entry's step is from that of a random one."""
    random = [case for case in raw["cases"] if case["entry"] == "random"]
    short, long = (pick(random, key=lambda case: case["prompt"]) for pick in (min, max))
    real = next(case for case in raw["cases"] if case["entry"] == "prefill")
    note = (f"{1e3 * short['median_s']:.2f} ms at {short['prompt']} tokens, "
            f"{1e3 * long['median_s']:.2f} ms at {long['prompt']}, medians of {short['steps']:.0f}; "
            f"after a real prefill of {real['prompt']}: {1e3 * real['median_s']:.2f} ms")
    return [row("step-growth", long["median_s"] / short["median_s"], note)]


def full_canvas(shape, raw):
    bound = canvas_bound(shape, raw)
    measured = raw["full_s"] / raw["cached"]["median_s"]
    allowed = bound["full"] / bound["cached"]
    note = (f"{raw['full_s']:.3f} s against {1e3 * raw['cached']['median_s']:.2f} ms, "
            f"{raw['prompt']} tokens; the rates allow {bound['full']:.3f} s and "
            f"{1e3 * bound['cached']:.2f} ms, {allowed:.0f} times")
    return [row("full-canvas", measured, note), row("full-canvas-bound", measured / allowed, note)]


def end_to_end(shape, raw):
    steps = raw["rows"]
    bound = canvas_bound(shape, raw)
    ours = raw["prefill_s"] + raw["answer_s"]
    measured = steps * raw["full_s"] / ours
    allowed = steps * bound["full"] / (bound["prefill"] + steps * bound["cached"])
    note = (f"{raw['prompt']} tokens, no cache: {steps} steps of {raw['full_s']:.1f} s (one "
            f"measured); ours: prefill {raw['prefill_s']:.1f} s and steps {raw['answer_s']:.1f} s; "
            f"the rates allow {allowed:.0f}")
    return [row("end-to-end", measured, note), row("end-to-end-bound", measured / allowed, note)]


def step_products(model, raw, names):
    rows = []
    for case in raw["cases"]:
        if case["name"] in names:
            alone, step = case["products"]["median_s"], case["steps"]["median_s"]
            # oneDNN has no bf16 below AVX-512; f32 is then its best.
            dtype = case["products"]["dtype"]
            other = "" if dtype == "bf16" else f"; oneDNN's products are of {dtype} here"
            rows.append(row(f"step-products-{model}-{case['name']}", alone / step,
                            f"{1e3 * alone:.2f} ms of {1e3 * step:.2f} ms, medians of "
                            f"{case['steps']['steps']:.0f}{other}"))
    return rows


def batch_rate(model, raw):
    """Batch 8 over batch 1 in tokens a second, over the same of the products alone."""
    cases = {case["batch"]: case for case in raw["cases"] if case["rows"] == raw["batch_rows"]}
    one, many = cases[1], cases[max(cases)]
    times = many["batch"] * one["steps"]["median_s"] / many["steps"]["median_s"]
    allowed = many["batch"] * one["products"]["median_s"] / many["products"]["median_s"]
    note = f"{times:.2f} times the tokens a second; the products alone allow {allowed:.2f}"
    return [row(f"batch-rate-{model}", times / allowed, note)]


def prefill_attention(raw, head_dim, amx):
    """Of the longest prompt. An exponential a score bounds machines with fast products."""
    measured = max(raw["attention"], key=lambda one: one["keys"])
    bound = 4 * head_dim / (4 * head_dim / raw["gemm_flops"] + 1 / raw["exps"])
    note = (f"{measured['flops'] / 1e9:.0f} GFLOP/s at {measured['keys']} keys, products "
            f"{raw['gemm_flops'] / 1e9:.0f}; with {raw['exps'] / 1e9:.2f} G exponentials a second at "
            f"most {bound / 1e9:.0f}")
    plain = row("prefill-attention", measured["flops"] / raw["gemm_flops"], note)
    if not amx:
        return [plain]
    return [dataclasses.replace(
        plain, what=plain.what.replace("the products' rate", "the bound by products and exponentials"),
        bar=Bar(0.8), figure=measured["flops"] / bound)]


def prefill_memory(raw, layers):
    total = raw["peak_bytes"] + (layers - raw["layers"]) * raw["entry_bytes"] / raw["layers"]
    note = (f"{raw['prompt']} tokens, measured with {raw['layers']} layer "
            f"{raw['peak_bytes'] / GIB:.2f} GiB, and the entry of {layers - raw['layers']} more")
    return [row("prefill-memory", total / GIB, note)]


def torch_prefill(measured, version):
    """measured: {nominal tokens: {"tokens": n, "ours": [s], "torch": [s]}}."""
    rows = []
    for nominal, times in measured.items():
        ours, theirs = (statistics.median(times[side]) for side in ("ours", "torch"))
        rows.append(row(f"prefill-torch-{nominal}", theirs / ours,
                        f"{times['tokens']} tokens: {ours:.2f} s, PyTorch {version} "
                        f"{theirs:.2f} s, {len(times['ours'])} in turn"))
    return rows


def response_cache(report):
    off, cached = report["cases"]
    note = (f"{report['gen_length']} rows: {off['step_ms_mean']:.2f} ms and "
            f"{cached['step_ms_mean']:.2f} ms, means of {off['steps']} steps")
    return [row("response-cache", cached["step_ms_mean"] / off["step_ms_mean"], note)]


def int8_step(model, raw):
    """raw: of bench_step dtypes."""
    bf16, int8 = (raw["cases"][name] for name in ("bf16", "int8"))
    times = spread([b / i for b, i in zip(bf16["step_s"], int8["step_s"], strict=True)])
    prefill = spread([b / i for b, i in zip(bf16["prefill_s"], int8["prefill_s"], strict=True)])
    note = (f"{times['min']:.2f} to {times['max']:.2f} in {times['runs']} loads; "
            f"{1e3 * statistics.median(bf16['step_s']):.2f} ms and "
            f"{1e3 * statistics.median(int8['step_s']):.2f} ms; prefill of {raw['prompt']} tokens "
            f"{prefill['median']:.2f} ({prefill['min']:.2f} to {prefill['max']:.2f}) times faster")
    return [row(f"int8-weights-step-{model}", times["median"], note)]


def int8_tokens(found):
    """found: counts of maskkv_tools.dtype_agreement."""
    return [row("int8-weights-tokens", found["equal_tokens"] / found["tokens"],
                f"{found['equal_tokens']} of {found['tokens']} over {found['questions']} questions; "
                f"{found['equal_positions']} of all {found['positions']} positions")]


def int8_kv_bytes(wide, narrow):
    return [row("int8-kv-bytes", narrow / wide, f"{narrow} of {wide} bytes")]


def int8_kv_accuracy(changes):
    """changes: {budget: (questions, right with bf16, right with int8, low, high)}, the interval of the
    paired difference int8 - bf16 in shares."""
    inside = all(low <= 0 <= high for *_, low, high in changes.values())
    note = "; ".join(f"B = {budget}: {before} and {after} right of {asked}, change "
                     f"{100 * low:+.1f} to {100 * high:+.1f} points"
                     for budget, (asked, before, after, low, high) in changes.items())
    return [row("int8-kv-accuracy", float(inside), note)]


def load(raw, checkpoint_bytes):
    """raw: of bench_weights load."""
    def one(name, key):
        times = raw[key]
        return row(name, times["median"],
                   f"{checkpoint_bytes / GIB:.2f} GiB; median of {times['runs']} processes, "
                   f"{times['min']:.3f} to {times['max']:.3f} s")

    made = raw["new file s"]
    packing = one("load-packing", "own memory s")
    return [one("load", "file s"), dataclasses.replace(
        packing, note=f"{packing.note}; {made['median']:.2f} s when it writes the file")]


def load_shared(mapped, file_bytes):
    """mapped: {service: fields of /proc/PID/smaps of the packed file, bytes}."""
    pss = sum(fields["Pss"] for fields in mapped.values())
    each = ", ".join(f"{name} {fields['Rss']} resident and {fields.get('Anonymous', 0)} copied"
                     for name, fields in mapped.items())
    return [row("load-shared", pss / file_bytes, f"{pss} of {file_bytes} bytes; {each}")]


def llada_8b(raw):
    """raw: of bench_shape layer. A value may be wrong without being far away: NaN."""
    worst = raw["worst error / tolerance"] + raw["wrong"]
    note = (f"{raw['wrong']} values wrong; file of {raw['file_bytes'] / 1e9:.1f} GB of which "
            f"{raw['file_bytes_on_disk'] / 1e6:.0f} MB are no holes, opened in "
            f"{raw['open s']:.1f} s; {raw['rows advanced']} rows of the layer")
    return [row("llada-8b", worst, note)]
