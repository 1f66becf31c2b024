# SPDX-License-Identifier: Apache-2.0
"""The performance table: figures are those of the measurements, bounds those of the formulas, and the
whole bench runs on a tiny model. No time is asserted."""

import json
import pathlib

import cli_runs
import pytest
from maskkv_tools import (bench_models, performance, performance_page, performance_report,
                          performance_rows, performance_services, weights_table)
from maskkv_tools.performance_rows import Bar, Row, at_most

BENCHES = cli_runs.ROOT / "build/release/bench"
TINY = bench_models.SHAPES["tiny"]


def test_a_bar_is_met_at_its_limit_and_a_row_without_figure_says_neither():
    assert Bar(0.85).holds(0.85) and not Bar(0.85).holds(0.849)
    assert at_most(1.05).holds(1.05) and not at_most(1.05).holds(1.051)
    assert str(Bar(0.85)) == ">= 0.85" and str(at_most(1.05)) == "<= 1.05"
    record = Row("x", "what", Bar(1), None, "not measured: no such flag").record()
    assert record == {"name": "x", "what": "what", "figure": None, "bar": ">= 1", "holds": None,
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
    def case(name, batch, rows, step_s, alone_s, dtype="bf16"):
        return {"name": name, "batch": batch, "rows": rows,
                "products": {"median_s": alone_s, "dtype": dtype},
                "steps": {"median_s": step_s, "steps": 64}}

    raw = {"batch_rows": 16, "cases": [case("1x32", 1, 32, 0.015, 0.012),
                                       case("8x16", 8, 16, 0.040, 0.036),
                                       case("1x16", 1, 16, 0.010, 0.008)]}
    row, = performance_rows.batch_rate("S", raw)
    assert row.figure == pytest.approx((8 * 10 / 40) / (8 * 8 / 36))
    one, many = performance_rows.step_products("S", raw, ("1x32", "8x16"))
    assert one.figure == pytest.approx(0.8) and many.figure == pytest.approx(0.9)
    assert not one.holds and many.holds and "oneDNN" not in one.note
    raw["cases"] = [case("1x32", 1, 32, 0.015, 0.012, "f32")]
    row, = performance_rows.step_products("S", raw, ("1x32",))
    assert row.note.endswith("; oneDNN's products are of f32 here")


def test_exponentials_bound_attention_only_where_products_are_fast():
    raw = {"attention": [{"keys": 8192, "flops": 200e9}], "gemm_flops": 400e9, "exps": 2e9}
    plain, = performance_rows.prefill_attention(raw, 128, amx=False)
    assert plain.figure == pytest.approx(0.5) and plain.holds
    fast, = performance_rows.prefill_attention(raw, 128, amx=True)
    assert fast.figure == pytest.approx(200e9 * (512 / 400e9 + 1 / 2e9) / 512)


def test_int8_weights_are_compared_load_by_load():
    raw = {"prompt": 256, "cases": {
        "bf16": {"step_s": [0.030, 0.036, 0.033], "prefill_s": [2.0, 2.0, 2.0]},
        "int8": {"step_s": [0.015, 0.020, 0.022], "prefill_s": [1.0, 1.0, 2.0]}}}
    row, = performance_rows.int8_step("M", raw)  # 2, 1.8 and 1.5
    assert row.name == "int8-weights-step-M" and row.figure == pytest.approx(1.8)
    assert "1.50 to 2.00 in 3 loads" in row.note
    tokens, = performance_rows.int8_tokens({"tokens": 200, "equal_tokens": 199, "questions": 150,
                                            "positions": 1200, "equal_positions": 1199})
    assert tokens.figure == pytest.approx(0.995) and tokens.holds


def test_a_change_of_accuracy_holds_while_zero_is_in_every_interval():
    inside, = performance_rows.int8_kv_accuracy({8: (240, 200, 198, -0.03, 0.01),
                                                 32: (240, 230, 230, 0.0, 0.0)})
    assert inside.holds and "B = 8: 200 and 198 right of 240" in inside.note
    worse, = performance_rows.int8_kv_accuracy({8: (240, 200, 180, -0.12, -0.04),
                                                32: (240, 230, 230, 0.0, 0.0)})
    assert not worse.holds


def test_loads_are_medians_and_a_wrong_value_of_a_shape_is_never_near():
    def of(median):
        return {"median": median, "min": 0.5 * median, "max": 2 * median, "runs": 5}

    mapped, packed = performance_rows.load({"file s": of(0.08), "own memory s": of(1.6),
                                            "new file s": of(2.0)}, 1 << 30)
    assert mapped.figure == 0.08 and mapped.holds and "0.040 to 0.160 s" in mapped.note
    assert packed.figure == 1.6 and not packed.holds
    shape = {"worst error / tolerance": 0.1, "wrong": 0, "file_bytes": 16e9,
             "file_bytes_on_disk": 50e6, "open s": 1.0, "rows advanced": 768}
    assert performance_rows.llada_8b(shape)[0].holds
    assert not performance_rows.llada_8b(shape | {"wrong": 1})[0].holds  # NaN is no large error


def test_torch_rows_are_named_by_their_nominal_size():
    rows = performance_rows.torch_prefill({
        4096: {"tokens": 64, "ours": [1.0, 2.0, 3.0], "torch": [2.0, 3.0, 4.0]},
        16384: {"tokens": 128, "ours": [4.0, 6.0], "torch": [6.0, 6.0]}}, "2.15")
    assert [(row.name, row.figure) for row in rows] == [
        ("prefill-torch-4096", 1.5), ("prefill-torch-16384", 1.2)]
    assert rows[0].holds and not rows[1].holds


SMAPS = """7f0000000000-7f0000400000 r--s 00000000 fe:00 11   /cache/model.packed
Size:               4096 kB
Rss:                4096 kB
Pss:                2048 kB
Anonymous:             0 kB
VmFlags: rd mr me ms sd
7f0000400000-7f0000500000 rw-p 00000000 00:00 0
Rss:                1024 kB
7f0000500000-7f0000600000 r--s 00400000 fe:00 11   /cache/model.packed
Rss:                1024 kB
Pss:                 512 kB
"""


def test_what_a_process_holds_of_the_packed_file_is_summed():
    fields = performance_services.packed_mapping(SMAPS)
    assert (fields["Rss"], fields["Pss"], fields["Anonymous"]) == (5 << 20, 5 << 19, 0)
    row, = performance_rows.load_shared({"prefill": fields, "decode": fields}, 5 << 20)
    assert row.figure == 1 and row.holds


def test_prefill_and_decode_services_share_the_packed_file(tmp_path):
    mapped = performance_services.shared_weights(cli_runs.binary().parent, cli_runs.TINY,
                                                 tmp_path, ("--dtype", "bf16", "--threads", "1"))
    file, = tmp_path.glob("*.packed")
    row, = performance_rows.load_shared(mapped, file.stat().st_size)
    assert row.holds, row.note
    assert all(fields["Rss"] >= 0.9 * file.stat().st_size for fields in mapped.values())


def run_bench(folder, path, *flags, benches=BENCHES):
    performance.main(["--quick", "--threads", "2", "--models", str(folder), "--json", str(path),
                      "--bin", str(cli_runs.binary()), "--benches", str(benches), *flags])
    return json.loads(path.read_text())


def test_the_whole_bench_runs_on_a_tiny_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)  # as scripts/bench
    path, plot = tmp_path / "performance.json", tmp_path / "roofline.png"
    groups = ("growth", "canvas", "batches", "attention", "memory", "response-cache",
              "int8-weights", "int8-kv", "llada-8b", "torch", "end-to-end", "small-model")
    report = run_bench(tmp_path, path, "--rows", ",".join(groups), "--torch-python", "no-python")
    assert tuple(report["groups"]) == groups
    assert all(about["seconds"] >= 0 and not about["failed"]
               for about in report["groups"].values())
    names = [row["name"] for row in report["rows"]]
    assert names == [name for group in groups for name in performance_rows.SPECS[group]]
    unmeasured = [row["name"] for row in report["rows"] if row["holds"] is None]
    assert unmeasured == ["llada-8b", "prefill-torch-4096", "prefill-torch-16384"]
    assert all(row["figure"] > 0 for row in report["rows"] if row["holds"] is not None)
    printed = capsys.readouterr()
    assert report["machine"] in printed.out and all(name in printed.out for name in names)
    assert "not measured: --torch-python: expected an interpreter, found no no-python" in printed.out
    assert all(f"   {group}: " in printed.err for group in groups)
    page = tmp_path / "page.md"
    performance_page.main([str(path), "--plot", str(plot), "--markdown", str(page), "--command",
                           "scripts/bench --quick"])
    assert plot.stat().st_size > 10_000
    text = page.read_text()
    assert all(f"| {name} |" in text for name in names) and "](roofline.png)" in text
    assert "small sizes, not those that the rows name" in text
    assert "One run of `scripts/bench`" in text and "### Step time by prompt length" in text


def test_a_program_that_fails_leaves_a_reason_and_the_others_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)
    path, benches = tmp_path / "performance.json", tmp_path / "benches"
    benches.mkdir()
    program = benches / "bench_step"
    program.write_text("#!/bin/sh\necho no luck today >&2\nexit 7\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit) as ended:
        run_bench(tmp_path, path, "--rows", "growth,response-cache", benches=benches)
    assert ended.value.code == 3
    growth, response = json.loads(path.read_text())["rows"]
    assert growth["holds"] is None and growth["figure"] is None
    assert "bench_step growth: exit code 7: no luck today" in growth["note"]
    assert response["figure"] > 0
    assert "Traceback" not in capsys.readouterr().err


def test_runs_of_the_same_code_are_merged_and_others_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)
    order = list(performance.GROUPS)
    first = performance_report.empty(2, quick=True)
    for group, figure in (("canvas", 3.0), ("growth", 1.0)):
        rows = [performance_rows.row(name, figure, "") for name in performance_rows.SPECS[group]]
        performance_report.set_group(first, group, order, rows, {group: {"of": "first"}},
                                     run="2026-01-01T00:00:00+00:00", seconds=5.0, failed=False)
    kept, path = tmp_path / "kept.json", tmp_path / "performance.json"
    performance_report.save(first, kept)
    report = run_bench(tmp_path, path, "--keep", str(kept), "--rows", "growth")
    assert [row["name"] for row in report["rows"]] == ["step-growth", "full-canvas",
                                                       "full-canvas-bound"]
    assert report["rows"][0]["figure"] != 1.0 and report["rows"][1]["figure"] == 3.0
    assert "cases" in report["raw"]["growth"]["growth"]
    assert report["raw"]["canvas"] == {"canvas": {"of": "first"}}
    assert report["groups"]["canvas"]["run"].startswith("2026-01-01")
    text = performance_page.page(report, None, "scripts/bench")
    assert "2 runs of `scripts/bench`" in text and "| canvas | 2026-01-01T00:00:00+00:00 | 5 |" in text
    kept.write_text(json.dumps(first | {"commit": "elsewhere"}))
    with pytest.raises(SystemExit, match="expected commit .* found elsewhere"):
        run_bench(tmp_path, path, "--keep", str(kept), "--rows", "growth")


def test_every_group_has_specs_and_the_other_way_round():
    assert set(performance.GROUPS) == set(performance_rows.SPECS)


def test_models_are_written_as_their_shape_says(tmp_path):
    folder = bench_models.folder("tiny", tmp_path)
    shown = cli_runs.run("inspect-model", folder, "--json")
    assert shown.code == 0, shown.err
    assert pathlib.Path(folder) == tmp_path / "tiny"


def test_figures_of_packed_weights_stand_in_their_section(tmp_path):
    def of(median):
        return {"median": median, "min": 0.5 * median, "max": 2 * median, "runs": 5}

    found = {
        "load": {"own memory s": of(1.0), "new file s": of(2.0), "file s": of(0.1),
                 "packed_bytes": 1000},
        "share": [{"Rss": 1000, "Pss": 500}, {"Rss": 1000, "Pss": 500, "Private_Dirty": 4096}],
        "steps": {"own memory ms": of(20.0), "file ms": of(21.0), "file / own memory": of(1.05)},
        "layer": {"file_bytes": 16e9, "file_bytes_on_disk": 50e6, "rows advanced": 768, "wrong": 0,
                  "worst error / tolerance": 0.1},
        "prefill": {"layers": 2, "prompt_tokens": 32768, "peak_bytes_above_weights": 1700000000,
                    "peak_bytes_of_all_layers": 1 << 31}}
    for name, one in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one))
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n## Figures\n\nold\n\n## After\n\nstays\n")
    model = bench_models.folder("tiny", tmp_path)
    weights_table.main([str(tmp_path), "--model", str(model), "--machine", "any", "--markdown",
                        str(page)])
    text = page.read_text()
    assert "old" not in text and "## After\n\nstays" in text and "Medians of 5 runs" in text
    assert "0.00 GiB (bf16, 2 heads, 2 layers, hidden 128)" in text
    for line in ("| the file mapped, every checksum compared | 0.100 (0.050 to 0.200) |",
                 "| the first of two processes | 1,000 | 500 | 0 |",
                 "| the second of two processes | 1,000 | 500 | 4,096 |"):
        assert line in text.splitlines()
    assert "takes 1.050 (0.525 to 2.100) of the time" in text and "that is 2.00 GiB" in text
