# SPDX-License-Identifier: Apache-2.0
"""The page of serving's costs says what was measured."""

from maskkv_tools import serving_table

RESULT = {"overhead": {"engine_step_ms": 10.0, "served_step_ms": 10.15, "ratio_of_medians": 1.015,
                       "median_ratio": 1.012, "before_first_step_ms": 1.25, "rounds": 3,
                       "steps": 93},
          "throughput": [{"requests": 4, "tokens_per_second": 250.0,
                          "limit_tokens_per_second": 300.0, "share": 0.8333}],
          "prompt_tokens": 1024, "rows": 32, "budget": 128, "threads": 2}


def test_figures_stand_in_their_columns():
    assert serving_table.overhead_table(RESULT).splitlines()[2] == \
        "| 10.000 | 10.150 | 1.015 | 1.012 |"
    assert serving_table.throughput_table(RESULT).splitlines()[2] == "| 4 | 250 | 300 | 0.83 |"


def test_the_page_names_command_machine_and_shape():
    page = serving_table.page(RESULT, "a machine", "scripts/x")
    for part in ("`scripts/x`", "Machine: a machine", "1024 tokens", "1.25 ms", "93 steps"):
        assert part in page
