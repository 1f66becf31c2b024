# SPDX-License-Identifier: Apache-2.0
"""The performance table: figures are those of the measurements, bounds those of the formulas, and the
whole bench runs on a tiny model. No time is asserted."""

import json
import pathlib

import cli_runs
import pytest
from maskkv_tools import bench_models, performance, performance_page, performance_rows
from maskkv_tools.performance_rows import Bar, Row, at_most

BENCH_STEP = cli_runs.ROOT / "build/release/bench/bench_step"
TINY = bench_models.SHAPES["tiny"]


def test_a_bar_is_met_at_its_limit_and_a_row_without_figure_never_holds():
    assert Bar(0.85).holds(0.85) and not Bar(0.85).holds(0.849)
    assert at_most(1.05).holds(1.05) and not at_most(1.05).holds(1.051)
    assert str(Bar(0.85)) == ">= 0.85" and str(at_most(1.05)) == "<= 1.05"
    record = Row("x", "what", Bar(1), None, "not measured: no such flag").record()
    assert record == {"name": "x", "what": "what", "figure": None, "bar": ">= 1", "holds": False,
                      "note": "not measured: no such flag"}


def test_products_are_counted_matrix_by_matrix():
    h, f, v = 128, 256, 512
    rows, masked = 10, 3
    by_hand = 0
    for layer in range(2):
        advanced = rows if layer == 0 else masked
        by_hand += 2 * rows * h * 2 * h  # K and V
        by_hand += 2 * advanced * (h * h + h * h + h * 2 * f + f * h)
    assert performance_rows.gemm_flops(TINY, rows, masked, head=False) == by_hand
    assert performance_rows.gemm_flops(TINY, rows, masked) == by_hand + 2 * masked * h * v
    # Scores and sums of 2 heads of 64: one layer of all rows, one of the masked.
    assert performance_rows.attention_flops(TINY, rows, masked, 7) == 2 * 2 * h * 7 * (rows + masked)


def canvas(full_s, cached_s):
    shape = TINY
    return {"prompt": 96, "rows": 32, "budget": 16, "full_s": full_s, "prefill_s": 1.0,
            "answer_s": 1.0, "cached": {"median_s": cached_s},
            "products": {"median_s": 0.001, "flops": 1, "weight_bytes": 1},
            "tall_products": {"median_s": 1.0,
                              "flops": performance_rows.gemm_flops(shape, 128, 32)},
            "attention_full_flops": performance_rows.attention_flops(shape, 128, 32, 128),
            "attention_step_flops": performance_rows.attention_flops(shape, 32, 16, 48) / 0.001}


def test_what_the_rates_allow_is_the_sum_of_products_and_attention():
    bound = performance_rows.canvas_bound(TINY, canvas(3.0, 0.004))
    assert bound["full"] == pytest.approx(2.0)  # a second of products, one of attention
    assert bound["cached"] == pytest.approx(0.002)
    head = 2 * 32 * 128 * 512 / performance_rows.gemm_flops(TINY, 128, 32)
    assert bound["prefill"] == pytest.approx(2.0 - head)
    times, share = performance_rows.full_canvas(TINY, canvas(3.0, 0.004))
    assert times.figure == pytest.approx(750) and share.figure == pytest.approx(0.75)
    assert times.holds and not share.holds
    times, _ = performance_rows.end_to_end(TINY, canvas(3.0, 0.004))
    assert times.figure == pytest.approx(32 * 3.0 / 2.0)


def test_batches_are_compared_with_what_the_products_allow():
    def case(batch, step_s, alone_s):
        return {"name": f"{batch}x16", "batch": batch, "rows": 16, "steps": {"median_s": step_s},
                "products": {"median_s": alone_s}}

    raw = {"batch_rows": 16, "cases": [case(1, 0.010, 0.008), case(8, 0.040, 0.036)]}
    row, = performance_rows.batch_rate("S", raw)
    assert row.figure == pytest.approx((8 * 10 / 40) / (8 * 8 / 36))
    one, many = performance_rows.step_products("S", raw, ("1x16", "8x16"))
    assert one.figure == pytest.approx(0.8) and many.figure == pytest.approx(0.9)


def test_exponentials_bound_attention_only_where_products_are_fast():
    raw = {"attention": [{"keys": 8192, "flops": 200e9}], "gemm_flops": 400e9, "exps": 2e9}
    plain, = performance_rows.prefill_attention(raw, 128, amx=False)
    assert plain.figure == pytest.approx(0.5) and plain.holds
    fast, = performance_rows.prefill_attention(raw, 128, amx=True)
    assert fast.figure == pytest.approx(200e9 * (512 / 400e9 + 1 / 2e9) / 512)


def test_the_whole_bench_runs_on_a_tiny_model(tmp_path, capsys):
    path, plot = tmp_path / "performance.json", tmp_path / "roofline.png"
    performance.main(["--quick", "--threads", "2", "--models", str(tmp_path), "--json", str(path),
                      "--rows", "growth,canvas,end-to-end,batches,attention,memory,response-cache",
                      "--bin", str(cli_runs.binary()), "--bench-step", str(BENCH_STEP)])
    report = json.loads(path.read_text())
    names = [row["name"] for row in report["rows"]]
    assert len(names) == len(set(names)) == 14
    assert all(row["figure"] > 0 for row in report["rows"])
    printed = capsys.readouterr().out
    assert report["machine"] in printed and all(name in printed for name in names)
    performance_page.draw(report, plot)
    assert plot.stat().st_size > 10_000
    text = performance_page.sections(report, plot.name)
    assert all(f"| {name} |" in text for name in names) and "](roofline.png)" in text


def test_models_are_written_as_their_shape_says(tmp_path):
    folder = bench_models.folder("tiny", tmp_path)
    shown = cli_runs.run("inspect-model", folder, "--json")
    assert shown.code == 0, shown.err
    assert pathlib.Path(folder) == tmp_path / "tiny"
