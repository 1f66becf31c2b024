# SPDX-License-Identifier: Apache-2.0
"""The table of accuracies: intervals against published values, and a page from a real run."""

import json

import pytest

from cli_runs import TINY, run
from maskkv_tools import accuracy_table


@pytest.mark.parametrize("correct,questions,low,high", [
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
    # By hand, z^2 = 3.8415: 3.8415 / 13.8415, and 10 / 13.8415.
    (0, 10, 0.0000, 0.2775),
    (10, 10, 0.7225, 1.0000),
    # 0.5 -+ 1.95996 * sqrt(0.025 + 0.0096036) / 1.38415
    (5, 10, 0.2366, 0.7634),
])
def test_intervals_equal_published_and_hand_computed_ones(correct, questions, low, high):
    assert accuracy_table.wilson(correct, questions) == pytest.approx((low, high), abs=5e-5)


def test_intervals_hold_the_share_and_mirror_each_other():
    for questions in (1, 7, 500):
        for correct in range(questions + 1):
            low, high = accuracy_table.wilson(correct, questions)
            assert 0 <= low <= correct / questions <= high <= 1
            mirrored = accuracy_table.wilson(questions - correct, questions)
            assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def cell(cache, budget, single, two_hop):
    return {"cache": cache, "budget": budget, "questions": 20, "correct": single + two_hop,
            "kept_mass": 0.25, "kinds": {"two_hop": {"questions": 10, "correct": two_hop},
                                         "single": {"questions": 10, "correct": single}}}


REPORT = {"model": "m", "questions": "q", "gen_length": 8, "block_length": 8, "steps": 8,
          "temperature": 0, "dtype": "f32", "layers": "offline", "alpha": 0.1, "beta": 0.4,
          "mean_prompt_tokens": 1000.0,
          "cells": [cell("none", None, 10, 10), cell("maskkv", 32, 10, 5)]}


def test_a_row_a_configuration():
    head, _, none, maskkv = accuracy_table.table(REPORT).splitlines()
    assert head == "| cache | budget B | of the prompt | single fact | two hops | all | kept mass |"
    assert none == ("| none (prompt recomputed each step) |  |  | 100.0 % (72.2–100.0) | "
                    "100.0 % (72.2–100.0) | 100.0 % (83.9–100.0) | 0.250 |")
    assert maskkv.startswith("| MaskKV | 32 | 3.2 % | 100.0 % (72.2–100.0) | 50.0 % (23.7–76.3) | 75.0 % ")


def test_chance_is_a_column_when_given():
    lines = accuracy_table.table(REPORT, chance=0.17).splitlines()
    assert lines[0].endswith("| chance |") and all(line.endswith("| 17.0 % |") for line in lines[2:])


def test_a_page_of_a_real_run(tiny, tmp_path, capsys):
    report = run("evaluate", "--model", TINY, "--profile", tiny.profile, "--questions",
                 tiny.questions, "--gen-length", 8, "--caches", "full,maskkv,random", "--budgets",
                 "16", "--limit", 2, "--json").json
    result, page = tmp_path / "result.json", tmp_path / "page.md"
    result.write_text(json.dumps(report))
    accuracy_table.main([str(result), "--chance", "0.09", "--markdown", str(page)])
    text = page.read_text()
    assert "scripts/accuracy --questions 2" in text and "8 masks in blocks of 8, 8 steps" in text
    accuracy_table.main([str(result), "--chance", "0.09"])
    assert capsys.readouterr().out.strip() in text
