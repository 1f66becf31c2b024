# SPDX-License-Identifier: Apache-2.0
"""scripts/bench-refresh's program: schedules, tables, what it replaces of its page, a real run."""

import pytest

import cli_runs
from maskkv_eval import refresh


def cell(every, floor, outcomes, refreshes, budget=4):
    right = outcomes.count("1")
    return {"masks": 8, "model": "m", "budget": budget, "every": every, "floor": floor, "outcomes": outcomes,
            "questions": len(outcomes), "correct": right, "refreshes": refreshes, "seconds": 0.008,
            "refresh_seconds": refreshes / 10,
            "kinds": {"word": {"questions": len(outcomes), "correct": right}}}


CELLS = [cell(0, 0, "1100000000", 0), cell(4, 0, "1111100000", 10), cell(1, 0, "1111111111", 70),
         cell(0, 0.9, "0111111111", 60)]


def test_schedules_are_never_fixed_and_on_demand():
    assert refresh.settings("4,1", "0.9") == [(0, 0.0), (4, 0.0), (1, 0.0), (0, 0.9)]
    assert refresh.settings("4", "") == [(0, 0.0), (4, 0.0)]


def test_a_long_canvas_has_schedules_of_its_own():
    short, long = refresh.canvases(refresh.parser().parse_args([]))
    assert (short.gen_length, short.every) == (8, "4,2,1")
    assert (long.gen_length, long.every, long.budgets) == (128, "100,50,25", "4,32")
    assert long.floors == "1,0.97,0.9"
    assert len(refresh.canvases(refresh.parser().parse_args(["--canvas", "0"]))) == 1


def test_a_schedule_stands_beside_never():
    full = cell(0, 0, "1110000000", 0, budget=None)
    lines = refresh.schedule_table(CELLS, full)[2:]
    assert lines[0] == "| never | 0.00 | 20.0 (5.7 to 51.0) | 20.0 |  |  | 0.8 | 0 |"
    # 8 to 0 discordant pairs: p = 2 / 2^8.
    assert lines[2] == "| every step | 7.00 | 100.0 (72.2 to 100.0) | 100.0 | 8, 0 | 0.0078 | 0.8 | 700 |"
    assert lines[3].startswith("| on demand, below 0.9 | 6.00 | 90.0 ")
    assert lines[4].startswith("| never, every pair kept | 0.00 | 30.0 ")
    assert refresh.groups([full, *CELLS]) == [((8, "m", 4), CELLS)]


def test_a_schedule_on_demand_stands_beside_the_fixed_one_of_as_many_refreshes():
    others = [cell(0, 0, "1", 0, budget=8), cell(2, 0, "1", 3, budget=8)]
    assert refresh.demand_table(CELLS + others)[2:] == [
        "| 8 | m | 4 | on demand, below 0.9 | 6.00 | 90.0 | every step | 7.00 | 100.0 | 0, 1 | 1 |"]


def test_shares_follow_from_a_step_and_a_refresh():
    report = {"timings_ms": {"steps": [10.0] * 127 + [90.0]},
              "refreshes": [{"ms": 640.0}, {"ms": 640.0}, {"ms": 9000.0}]}
    # 5, 2 and 1 refreshes of 640 ms beside 128 steps of 10 ms.
    assert refresh.share_table({1024: report}, [100, 50, 25, 128])[2:] == [
        "| 1,024 | 10.0 | 640 | 64 | 33 % | 50 % | 71 % | 0 % |"]


def test_only_what_was_measured_is_replaced():
    page = f"# Title\n\nWords.\n\n{refresh.MARK}\n\nold\n"
    assert refresh.replaced(page, f"{refresh.MARK}\nnew") == f"# Title\n\nWords.\n\n{refresh.MARK}\nnew"
    with pytest.raises(SystemExit, match="expected the line"):
        refresh.replaced("# Title\n", "new")
    assert refresh.MARK in (cli_runs.ROOT / "docs/refresh.md").read_text()


def test_a_page_of_a_real_run(tmp_path, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)
    page = tmp_path / "page.md"
    page.write_text(f"By hand.\n\n{refresh.MARK}\nfigures of before\n")
    refresh.main(["--questions", "2", "--length", "120", "--models", "tiny-llada", "--budgets", "1,2",
                  "--every", "2", "--floors", "1", "--bin", str(cli_runs.binary()),
                  "--markdown", str(page), "--long-model", str(cli_runs.GOLDEN / "mha"),
                  "--prompt-lengths", "20", "--shares", "12,8,4", "--canvas", "16",
                  "--canvas-budgets", "2", "--canvas-floors", "", "--json", str(tmp_path / "cells.json")])
    text = page.read_text()
    assert text.startswith(f"By hand.\n\n{refresh.MARK}\n\n## Measured\n") and "of before" not in text
    for row in ("#### 8 masks, tiny-llada, B = 1", "#### 8 masks, tiny-llada, B = 2",
                "#### 16 masks, tiny-llada, B = 2", "| every 12 steps | 1.00 |", "| never | 0.00 |",
                "| every 2 steps |", "| on demand, below 1 |", "| never, every pair kept | 0.00 |", "| 20 | "):
        assert row in text, row
