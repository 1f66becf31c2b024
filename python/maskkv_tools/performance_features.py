# SPDX-License-Identifier: Apache-2.0
"""Groups of rows of docs/performance.md that come from the command line, the services and the benches
of single features."""

import json
import pathlib
import tempfile

from maskkv_eval.statistics import paired_difference
from maskkv_tiny import world

from maskkv_tools import (dtype_agreement, performance_report, performance_rows,
                          performance_services)

QUESTIONS = 240
KV_BUDGETS = (2, 8, 32)  # with few pairs kept each one matters more
TINY = "models/tiny-llada"


def maskkv(m, command, *flags):
    return m.json_of([m.args.bin, command, *flags, "--json"])


def bench(m, model, *flags):
    return maskkv(m, "bench", "--model", m.model(model), "--threads", m.threads, *flags)


def response_cache(m):
    rows = 32 if m.quick else 128
    report = m.raw["bench"] = bench(
        m, "S", "--dtype", "bf16", "--caches", "maskkv", "--budget", 256, "--prompt-lengths",
        m.tokens(1024), "--gen-length", rows, "--steps", rows - rows % 7, "--response-caches",
        "off,7:0.25")
    return performance_rows.response_cache(report)


def questions(m):
    return list(world.records("test", 3 if m.quick else QUESTIONS, 1000, 1, 0.0))


def int8_weights(m):
    rows = []
    for model in "SM":
        raw = m.raw[model] = m.step("dtypes", model, "--dtypes", "bf16,int8", "--prompts",
                                    m.tokens(256), "--rounds", 4 if m.quick else 32, "--repeats",
                                    2 if m.quick else 5)
        rows += performance_rows.int8_step(model, raw)
    found = m.raw["agreement"] = dtype_agreement.measure(
        m.args.bin, TINY, questions(m), "int8", ["--gen-length", "8", "--cache", "full"])
    return rows + performance_rows.int8_tokens(found)


def int8_kv(m):
    flags = ("--dtype", "bf16", "--caches", "maskkv", "--budget", 256, "--prompt-lengths",
             m.tokens(1024), "--steps", 1)
    m.raw["bytes"] = [bench(m, "S", *flags, "--kv-dtype", kv)["cases"][0]["entry_bytes"]
                      for kv in ("bf16", "int8")]
    asked = questions(m)
    right = {}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(question) + "\n" for question in asked)
        file.flush()
        for kv in ("bf16", "int8"):
            cells = maskkv(m, "evaluate", "--model", TINY, "--questions", file.name, "--gen-length",
                           8, "--policies", "maskkv", "--budgets", ",".join(map(str, KV_BUDGETS)),
                           "--threads", m.threads, "--dtype", "bf16", "--kv-dtype", kv)["cells"]
            right[kv] = {cell["budget"]: [outcome == "1" for outcome in cell["outcomes"]]
                         for cell in cells}
    changes = m.raw["changes"] = {}
    for budget, before in right["bf16"].items():
        after = right["int8"][budget]
        _, low, high = paired_difference(after, before)
        changes[budget] = (len(asked), sum(before), sum(after), low, high)
    return (performance_rows.int8_kv_bytes(*m.raw["bytes"]) +
            performance_rows.int8_kv_accuracy(changes))


def load(m):
    model = pathlib.Path(m.model("G"))
    with tempfile.TemporaryDirectory(dir=m.args.models) as weights:
        raw = m.raw["load"] = m.json_of([m.args.benches / "bench_weights", "load", model, "bf16",
                                         weights, m.threads, 2 if m.quick else 5])
        file, = pathlib.Path(weights).glob("*.packed")
        mapped = m.raw["shared"] = performance_services.shared_weights(
            m.args.bin.parent, model, weights, ("--dtype", "bf16", "--threads", "1"))
        shared = performance_rows.load_shared(mapped, file.stat().st_size)
    size = (model / "model.safetensors").stat().st_size
    return performance_rows.load(raw, size) + shared


def llada_8b(m):
    if m.quick:
        raise performance_report.Missing("not with --quick")
    raw = m.raw["shape"] = m.json_of([m.args.benches / "bench_shape", "layer", "bf16", 32768, 3,
                                      m.threads], fails=True)
    return performance_rows.llada_8b(raw)


def small_model(m):
    """No rows: the page's tables of steps and memory by prompt length."""
    lengths = "64,256" if m.quick else "256,1024,4096,16384"
    m.raw["bench"] = bench(m, "small", "--prompt-lengths", lengths, "--budget", 128, "--caches",
                           "maskkv,none", "--none-steps", 2, "--memory")
    return []


def products(m):
    """No rows: the page's table of matrix products."""
    chosen = "rows:8/in:512/out:512/threads:1/" if m.quick else "rows:(8|32|128)/.*/threads:2/"
    m.raw["gemm"] = m.json_of([m.args.benches / "bench_gemm", f"--benchmark_filter={chosen}",
                               "--benchmark_format=json"])
    return []
