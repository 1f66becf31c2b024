# SPDX-License-Identifier: Apache-2.0
"""scripts/decoding's program: which rules it asks, the front, the table, a page of a real run."""

import argparse

import cli_runs
import pytest

from maskkv_eval import decoding


def cell(rule, steps, correct, schedule=None, budget=32, model="m"):
    return {"model": model, "budget": budget, "rule": rule, "schedule": schedule, "questions": 10,
            "correct": correct, "steps": steps, "rows": 16 * steps, "committed": 80,
            "tokens_per_step": 80 / steps, "seconds": steps / 1000}


def test_the_front_holds_what_no_other_beats():
    slow, fast, beaten, tie = (cell("a", 100, 9), cell("b", 20, 8), cell("c", 50, 8),
                               cell("d", 20, 8))
    assert decoding.front([slow, fast, beaten, tie]) == [slow, fast, tie]
    assert decoding.front([slow]) == [slow]
    worse = cell("e", 200, 9)
    assert decoding.front([slow, worse]) == [slow]


def test_a_row_tells_means_a_question():
    lines = decoding.table([cell("threshold:0.9", 20, 5), cell("low_confidence", 80, 5, 16)])
    assert lines[2] == "| **threshold:0.9** | 2.00 | 32 | 2.0 | 4.00 | 50.0 (23.7 to 76.3) |"
    assert lines[3].startswith("| low_confidence in 16 | 8.00 | 128 | 8.0 | 1.00 | 50.0 ")


def test_cells_are_grouped_by_model_and_cache():
    cells = [cell("a", 4, 1, budget=None), cell("b", 2, 1, budget=None), cell("a", 2, 1)]
    assert decoding.groups(cells) == [(("m", "every pair kept"), cells[:2]),
                                      (("m", "B = 32"), cells[2:])]


def test_schedules_are_asked_with_several_numbers_of_steps(monkeypatch):
    def ask(args, model, questions, extra):
        assert extra == ("--rules", "random,threshold:0.5,threshold:0.9,threshold:0.99",
                         "--schedules", "16,8,4,2")
        return [{"rule": "random", "schedule": 16}]

    monkeypatch.setattr(decoding.embedded, "ask", ask)
    cells = decoding.measure(argparse.Namespace(gen_length=16), "tiny", [], ["random", "threshold"])
    assert cells == [{"model": "tiny", "rule": "random", "schedule": 16}]


def test_every_rule_of_the_binary_is_asked():
    names = decoding.rule_names(str(cli_runs.binary()))
    assert {"low_confidence", "origin", "threshold", "prefix"} <= set(names)
    assert set(decoding.SETTINGS) <= set(names)
    with pytest.raises(SystemExit, match="expected a list of rules"):
        decoding.rule_names("/bin/true")


def test_a_page_of_a_real_run(tmp_path, monkeypatch):
    monkeypatch.chdir(cli_runs.ROOT)
    page, image, data = tmp_path / "page.md", tmp_path / "images/rules.png", tmp_path / "cells.json"
    image.parent.mkdir()
    decoding.main(["--questions", "2", "--length", "120", "--models", "tiny-llada", "--gen-length",
                   "8", "--budgets", "16", "--bin", str(cli_runs.binary()), "--markdown", str(page),
                   "--plot", str(image), "--json", str(data)])
    text = page.read_text()
    assert "![accuracy by steps](images/rules.png)" in text and image.read_bytes()[1:4] == b"PNG"
    assert "## tiny-llada, every pair kept" in text and "## tiny-llada, B = 16" in text
    assert text.splitlines()[2].startswith("Made by `scripts/decoding --questions 2 ")
    rules = decoding.rule_names(str(cli_runs.binary()))
    for rule in rules:
        assert f"| {rule}" in text.replace("**", ""), rule
    assert "| low_confidence in 8 |" in text.replace("**", "")
    assert "| low_confidence in 1 |" in text.replace("**", "")
