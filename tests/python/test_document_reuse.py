# SPDX-License-Identifier: Apache-2.0
"""The questions and tables of maskkv_tools.document_reuse, and pages made by several programs."""

from maskkv_tiny import world
from maskkv_tools import document_reuse, sections


def test_a_documents_questions_ask_for_different_facts():
    for text, questions in document_reuse.documents(3, 400, seed=5):
        assert len({question.answer for question in questions}) == 6
        assert all(question.answer in text for question in questions)
        assert world.count_tokens(text) == 400


def test_a_table_has_a_row_a_mode_and_modes_without_a_budget_fill_every_column():
    cells = []
    for mode in document_reuse.MODES:
        for budget in [None] if mode.startswith("all") else [4, 8]:
            cells.append({"mode": mode, "budget": budget, "questions": 4, "correct": 3,
                          "document_bytes": 2048.0 * (budget or 1), "question_bytes": 0.0,
                          "prepare_ms": 1.0, "decode_ms": 2.0,
                          "pairs_as_again": 0.5 + (budget or 0) / 100
                          if mode.startswith("over") else None})
    report = {"model": "models/a", "cells": cells}
    lines = document_reuse.model_table(report, [4, 8]).splitlines()
    assert len(lines) == 2 + len(document_reuse.MODES)
    rows = {line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")]
            for line in lines[2:]}
    assert rows["all@first"][1:] == ["75.0 % [30, 95]"] * 2 + ["2", "0", "1 + 2", ""]
    assert rows["again"][3:] == ["8 to 16", "0", "1 + 2", ""]
    assert rows["over@none"][-1] == "54.0 to 58.0 %"
    assert "`a`: at B = 4" in document_reuse.reading([report], [4, 8])


def test_a_section_is_replaced_where_it_stands_or_appended(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# T\n\nintro\n\n## A\n\nold\n\n## B\n\nb\n", encoding="utf-8")
    sections.write(page, "A", "new\n")
    sections.write(page, "C", "c")
    assert page.read_text(encoding="utf-8") == (
        "# T\n\nintro\n\n## A\n\nnew\n\n## B\n\nb\n\n## C\n\nc\n")
    sections.write(tmp_path / "fresh.md", "A", "a")
    assert (tmp_path / "fresh.md").read_text(encoding="utf-8") == "## A\n\na\n"
