# SPDX-License-Identifier: Apache-2.0
"""The page of serving's costs says what was measured."""

from maskkv_tools import serving_table

OVERHEAD = {"engine_step_ms": 10.0, "served_step_ms": 10.15, "ratio": 1.015,
            "before_first_step_ms": 1.25, "rounds": 3, "steps": 93}
SHAPE = {"prompt_tokens": 1024, "rows": 32, "budget": 128, "threads": 2}
THROUGHPUT = [{"requests": 4, "tokens_per_second": 250.0, "limit_tokens_per_second": 300.0,
               "share": 0.8333}]
STARTS = [{"overhead": {**OVERHEAD, "ratio": ratio, "before_first_step_ms": before}, **SHAPE}
          for ratio, before in ((1.002, 3.0), (1.015, 1.25), (1.5, 1.0))]
STARTS[-1]["throughput"] = THROUGHPUT


def test_figures_stand_in_their_columns():
    other = {**STARTS[0], "threads": 1, "rows": 16}
    lines = serving_table.overhead_table([*STARTS, other]).splitlines()
    assert lines[2:] == ["| 1 | 16 | 1 | 10.000 | 10.150 | 1.002 | 1.002 to 1.002 |",
                         "| 2 | 32 | 3 | 10.000 | 10.150 | 1.015 | 1.002 to 1.500 |"]
    assert serving_table.throughput_table(STARTS[-1]).splitlines()[2] == "| 4 | 250 | 300 | 0.83 |"


def test_the_page_names_command_machine_shape_and_medians():
    page = serving_table.page(STARTS, "a machine", "scripts/x")
    for part in ("`scripts/x`", "Machine: a machine", "1024 tokens", "1.25 ms", "3 rounds",
                 "2 threads, 32 rows"):
        assert part in page
