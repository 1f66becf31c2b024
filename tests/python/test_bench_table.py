# SPDX-License-Identifier: Apache-2.0
"""Tables of measurements: their figures are those of the input."""

import pytest

from cli_runs import GOLDEN, run
from maskkv_tools import bench_table


def case(tokens, cache, step_ms):
    shares = {"gemm": 0.5, "attention": 0.25, "head": 0.125, "norm": 0.125, "rope": 0,
              "activation": 0, "embed": 0}
    return {"prompt_tokens": tokens, "cache": cache, "step_ms_median": step_ms, "shares": shares,
            "prefill_ms": 0 if cache == "none" else 7}


BENCH = {"dtype": "f32", "threads": 2, "batch": 1, "budget": 128, "gen_length": 32, "memory": [],
         "cases": [case(256, "maskkv", 2.0), case(256, "none", 10.0), case(16384, "maskkv", 2.1),
                   case(16384, "none", 800.0)]}
GEMM = {"benchmarks": [
    {"name": "BM_MatMul/f32/rows:8/in:512/out:256/threads:2/iterations:1/manual_time",
     "GFLOPs": 90.0, "oneDNN_GFLOPs": 100.0, "ratio": 0.9},
    {"name": "BM_MatMul/bf16/rows:16/in:512/out:256/threads:1/iterations:1/manual_time",
     "GFLOPs": 150.0, "oneDNN_GFLOPs": 100.0, "ratio": 1.5},
    {"name": "BM_MatMul/bf16/rows:8/in:512/out:256/threads:1/iterations:1/manual_time",
     "GFLOPs": 50.0, "oneDNN_GFLOPs": 25.0, "ratio": 2.0, "label": "oneDNN in f32"},
    {"name": "BM_Other", "ratio": 0.1}]}


def test_steps_stand_beside_each_other_and_their_growth_below():
    assert bench_table.growth(BENCH, "maskkv") == pytest.approx(1.05)
    lines = bench_table.step_table(BENCH).splitlines()
    assert lines[2:] == ["| 256 | 2.00 | 10.00 | 5.0 | 7 |", "| 16384 | 2.10 | 800.00 | 381.0 | 7 |",
                         "| growth | 1.05 | 80.00 |  |  |"]


def test_shares_add_up():
    assert bench_table.share_table(BENCH).splitlines()[2] == \
        "| 256 | MaskKV | 50.0 % | 25.0 % | 12.5 % | 12.5 % |"


def test_matrix_products_are_read_from_their_names():
    assert bench_table.gemm_rows(GEMM)[0] == {
        "dtype": "f32", "rows": 8, "in": 512, "out": 256, "threads": 2, "GFLOPs": 90.0,
        "oneDNN_GFLOPs": 100.0, "ratio": 0.9, "label": ""}
    text = bench_table.gemm_table(GEMM)
    assert text.startswith("Lowest ratio and median: f32 0.90, 0.90; bf16 1.50, 1.50; "
                           "bf16 (oneDNN in f32) 2.00, 2.00.")
    assert text.splitlines()[-2:] == ["| bf16 | 1 | 16 | 512 | 256 | 150 | 100 | 1.50 |",
                                      "| bf16 | 1 | 8 | 512 | 256 | 50 | 25 | 2.00 |"]


def test_sections_of_a_real_run():
    report = run("bench", "--model", GOLDEN / "mha", "--prompt-lengths", "5,40", "--budget", 4,
                 "--gen-length", 4, "--steps", 2, "--memory", "--json").json
    text = bench_table.length_sections(report, "any")
    for heading in ("Step time", "Where a step goes", "Memory of a prefill"):
        assert f"### {heading}" in text
    assert "(40) over the shortest (5)" in text and "Machine: any." in text
    assert bench_table.gemm_table(GEMM) in bench_table.gemm_section(GEMM)
