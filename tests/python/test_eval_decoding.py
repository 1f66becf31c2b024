# SPDX-License-Identifier: Apache-2.0
"""scripts/decoding's program: which rules it asks, the front, the default, a page of a real run; and
that the defaults of the committed page are those that readers are told."""

import argparse
import re

import cli_runs
import pytest

from maskkv_eval import decoding, decoding_page, embedded

PAGE = cli_runs.ROOT / "docs/decoding_rules.md"


def cell(rule, steps, correct, schedule=None, budget=32, model="tiny-llada"):
    words = min(5, correct)
    return {"model": model, "budget": budget, "rule": rule, "schedule": schedule, "questions": 10,
            "correct": correct, "steps": steps, "rows": 16 * steps, "committed": 80,
            "tokens_per_step": 80 / steps, "seconds": steps / 1000,
            "outcomes": "1" * correct + "0" * (10 - correct),
            "kinds": {"word": {"questions": 5, "correct": words},
                      "name": {"questions": 5, "correct": correct - words}}}


def test_the_front_holds_what_no_other_beats():
    slow, fast, beaten, tie = (cell("a", 100, 9), cell("b", 20, 8), cell("c", 50, 8),
                               cell("d", 20, 8))
    assert decoding_page.front([slow, fast, beaten, tie]) == [slow, fast, tie]
    assert decoding_page.front([slow]) == [slow]
    assert decoding_page.front([slow, cell("e", 200, 9)]) == [slow]


def test_a_row_tells_means_a_question_and_each_kind():
    lines = decoding_page.table([cell("threshold:0.9", 20, 6), cell("low_confidence", 80, 5, 16)])
    assert lines[0].endswith("| right, % | words, % | names, % |")
    assert lines[2] == ("| **threshold:0.9** | 2.00 | 32 | 2.0 | 4.00 | 60.0 (31.3 to 83.2) | 100.0 | "
                        "20.0 |")
    assert lines[3].startswith("| low_confidence in 16 | 8.00 | 128 | 8.0 | 1.00 | 50.0 ")


def test_cells_are_grouped_by_model_and_cache():
    cells = [cell("a", 4, 1, budget=None), cell("b", 2, 1, budget=None), cell("a", 2, 1)]
    assert decoding_page.groups(cells) == [(("tiny-llada", "every pair kept"), cells[:2]),
                                           (("tiny-llada", "B = 32"), cells[2:])]


def test_the_default_is_the_fastest_adaptive_rule_that_loses_next_to_nothing():
    def both(rule, steps, correct, schedule=None):
        return [cell(rule, steps, c, schedule, budget) for budget, c in ((None, 9), (32, correct))]

    blind, careful, sure, hasty = (both("low_confidence", 10, 9, 1), both("a", 60, 9),
                                   both("b", 30, 9), both("c", 20, 8))
    cells = blind + careful + sure + hasty
    assert decoding_page.default(cells) == sure
    assert decoding_page.default(blind + hasty) == hasty, "the only one, though it loses more"
    # Beside the published rule in its slowest schedule, cache by cache.
    slow = both("low_confidence", 80, 8, 8)
    lines = decoding_page.defaults_table(cells + slow)[2:]
    assert lines[1] == ("| tiny-llada | `b` | B = 32 | 3.00 | 3.0 | 90.0 | low_confidence in 8 | 8.00 "
                        "| 8.0 | 80.0 | 1, 0 | 1 |")


def test_only_schedules_that_differ_are_told():
    slow, fast = cell("random", 80, 2, 8), cell("random", 10, 10, 1)
    same = [cell("origin", 80, 9, 8), cell("origin", 10, 9, 1), cell("threshold:0.9", 20, 1)]
    assert decoding_page.patience_table([slow, fast, *same])[2:] == [
        "| tiny-llada | B = 32 | random in 8 | 20.0 | random in 1 | 100.0 | 0, 8 | 0.0078 |"]
    assert decoding_page.patience_table(same) == ["None."]


def test_schedules_are_asked_with_several_numbers_of_steps(monkeypatch):
    def ask(args, model, questions, extra):
        assert extra == ("--rules", "random,threshold:0.5,threshold:0.9,threshold:0.99",
                         "--schedules", "16,8,4,2", "--block-length", "16", "--threads", "1")
        return [{"rule": "random", "schedule": 16}]

    monkeypatch.setattr(decoding.embedded, "ask", ask)
    args = argparse.Namespace(gen_length=16, threads=1)
    cells = decoding.measure(args, "tiny", [], ["random", "threshold"])
    assert cells == [{"model": "tiny", "rule": "random", "schedule": 16}]


def test_questions_take_turns_between_words_and_names():
    questions = embedded.words_and_names(7, 120, seed=3, lookalikes=0.3)
    assert [q["kind"] for q in questions] == ["word", "name"] * 3 + ["word"]
    assert [len(q["answer"].split()) for q in questions] == [1, 2] * 3 + [1]
    assert len({q["id"] for q in questions}) == 7
    assert questions[:4] == embedded.words_and_names(4, 120, seed=3, lookalikes=0.3)
    assert embedded.words_and_names(0, 120, seed=3, lookalikes=0.3) == []


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
    decoding.main(["--questions", "2", "--length", "120", "--models", "tiny-llada", "--budgets", "16",
                   "--bin", str(cli_runs.binary()), "--markdown", str(page), "--plot", str(image),
                   "--json", str(data)])
    text = page.read_text()
    assert "![accuracy by tokens a step](images/rules.png)" in text
    assert image.read_bytes()[1:4] == b"PNG"
    assert "## tiny-llada, every pair kept" in text and "## tiny-llada, B = 16" in text
    assert text.splitlines()[2].startswith("Made by `scripts/decoding --questions 2 ")
    for rule in decoding.rule_names(str(cli_runs.binary())):
        assert f"| {rule}" in text.replace("**", ""), rule
    for steps in (8, 1):
        assert f"| low_confidence in {steps} |" in text.replace("**", "")
    assert "| tiny-llada | `" in text


def test_the_defaults_of_the_page_are_what_readers_are_told():
    rows = re.findall(r"^\| (\S+) \| `(\S+)` \|", PAGE.read_text(), re.MULTILINE)
    assert {model for model, _ in rows} == {"tiny-llada", "tiny-dream"}
    for model, rule in rows:
        card = (cli_runs.ROOT / "models" / model / "README.md").read_text()
        assert re.findall(r"--rule (\S+)", card) == [rule], model
        readme = (cli_runs.ROOT / "README.md").read_text()
        assert f"{model} `{rule}`" in readme, model
