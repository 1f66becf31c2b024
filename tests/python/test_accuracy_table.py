# SPDX-License-Identifier: Apache-2.0
"""The table of accuracies, and a page from a real run."""

import json

from cli_runs import TINY, run
from maskkv_tools import accuracy_table


def cell(cache, budget, single, two_hop):
    return {"cache": cache, "budget": budget, "block_length": 8, "schedule": 8, "questions": 20, "correct": single + two_hop,
            "kept_mass": 0.25, "kinds": {"two_hop": {"questions": 10, "correct": two_hop},
                                         "single": {"questions": 10, "correct": single}}}


REPORT = {"model": "m", "questions": "q", "gen_length": 8, "temperature": 0, "dtype": "f32",
          "layers": "offline", "alpha": 0.1, "beta": 0.4, "mean_prompt_tokens": 1000.0,
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
