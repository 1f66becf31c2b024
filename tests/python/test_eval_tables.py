# SPDX-License-Identifier: Apache-2.0
"""Pages and plots of cells."""

import json

import pytest

from maskkv_eval import tables


def cell(policy, budget, right, task="single", mass=0.5, scores=None):
    made = {"model": "m", "policy": policy, "budget": budget, "task": task,
            "questions": len(right), "correct": sum(right), "kept_mass": mass, "right": right}
    return made if scores is None else {**made, "scores": scores}


CELLS = [cell("maskkv", 8, [1] * 8 + [0, 1], mass=0.25), cell("maskkv", 16, [1] * 10),
         cell("snapkv", 8, [0] * 7 + [1, 1, 1], mass=0.125), cell("snapkv", 16, [1] * 9 + [0]),
         cell("full", None, [1] * 10, mass=1.0)]
GRADED = [cell("maskkv", 8, [1, 0], "sum", scores=[1.0, 0.5]),
          cell("snapkv", 8, [0, 0], "sum", scores=[0.5, 0.0])]


def rows(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_accuracy_has_a_row_a_policy_and_a_column_a_budget():
    assert tables.accuracy_table(CELLS) == [
        "| policy | B = 8 | B = 16 |", "| --- | ---: | ---: |",
        # Wilson's intervals of 9, 10 and 3 of 10.
        "| maskkv | 90.0 (59.6 to 98.2) | 100.0 (72.2 to 100.0) |",
        "| snapkv | 30.0 (10.8 to 60.3) | 90.0 (59.6 to 98.2) |",
        "| full | 100.0 (72.2 to 100.0) | 100.0 (72.2 to 100.0) |"]


def test_duels_count_the_questions_that_only_one_answered():
    # B = 8: seven for MaskKV, one (the ninth) for SnapKV: p = 2 (1 + 8) / 2^8. Full: one of ten.
    assert tables.duel_table(CELLS)[2:] == [
        "| snapkv | 7 : 1, p 0.07 | 1 : 0, p 1 |", "| full | 0 : 1, p 1 | 0 : 0, p 1 |"]
    strong = [cell("maskkv", 8, [1] * 6), cell("snapkv", 8, [0] * 6)]
    assert tables.duel_table(strong)[2:] == ["| snapkv | 6 : 0, p 0.031 **+** |"]
    weak = [cell("maskkv", 8, [0] * 6), cell("snapkv", 8, [1] * 6)]
    assert tables.duel_table(weak)[2:] == ["| snapkv | 0 : 6, p 0.031 **-** |"]


def test_duels_go_over_all_tasks_together():
    cells = CELLS[:1] + CELLS[2:3] + [cell("maskkv", 8, [1], "two_hop"),
                                      cell("snapkv", 8, [0], "two_hop")]
    assert tables.duel_table(cells)[2:] == ["| snapkv | 8 : 1, p 0.039 **+** |"]


def test_graded_tasks_show_means_and_paired_differences():
    assert tables.accuracy_table(GRADED)[2:] == ["| maskkv | 75.0 (50.0 to 100.0) |",
                                                 "| snapkv | 25.0 (0.0 to 50.0) |"]
    assert tables.gap_table(GRADED)[2:] == ["| snapkv | +50.0 (+50.0 to +50.0) **+** |"]


def test_mass_is_a_mean_over_questions():
    cells = [cell("maskkv", 8, [1], mass=0.2), cell("maskkv", 8, [1] * 3, "two_hop", mass=0.6)]
    assert tables.mass_table(cells)[2:] == ["| maskkv | 0.500 |"]


def test_policies_without_budgets_have_a_table_too():
    assert tables.accuracy_table(CELLS[-1:]) == [
        "| policy | all |", "| --- | ---: |", "| full | 100.0 (72.2 to 100.0) |"]


def test_a_page_holds_every_table_and_keeps_exact_and_graded_apart():
    page = tables.with_image(tables.markdown(CELLS + GRADED, "the command"), "p.png")
    assert page.startswith("# Eviction policies compared\n\n![accuracy by budget](p.png)\n")
    assert "`the command`" in page
    for table in (tables.accuracy_table(CELLS), tables.accuracy_table(GRADED),
                  tables.duel_table(CELLS), tables.gap_table(GRADED)):
        assert "\n".join(table) in page
    alone = tables.markdown(CELLS[2:], "c")
    assert "against the others" not in alone


@pytest.mark.parametrize("cells", [CELLS, GRADED, CELLS[-1:], CELLS + GRADED])
def test_plots_are_files_of_their_cells_alone(tmp_path, cells):
    tables.plot(cells, tmp_path / "a.png")
    tables.plot(cells, tmp_path / "b.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG") and data == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("change, complaint", [
    ({"questions": 3}, "expected 3 bits in field right, found 10"),
    ({"correct": 3}, "expected field correct to be the sum of field right"),
    ({"scores": [1.0]}, "expected 10 numbers in field scores, found 1"),
])
def test_a_broken_report_is_named(tmp_path, change, complaint):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"cells": [CELLS[0], {**CELLS[1], **change}]}))
    with pytest.raises(SystemExit, match=rf"r.json: cells\[1\]: {complaint}"):
        tables.load(path)


def test_the_command_writes_page_and_plot(tmp_path, monkeypatch, capsys):
    (tmp_path / "r.json").write_text(json.dumps({"cells": CELLS}))
    (tmp_path / "images").mkdir()
    picture = tmp_path / "images" / "p.png"
    common = ["tables", str(tmp_path / "r.json"), "--command", "c"]
    monkeypatch.setattr("sys.argv", [*common, "--markdown", str(tmp_path / "p.md"), "--plot",
                                     str(picture)])
    tables.main()
    page = (tmp_path / "p.md").read_text()
    assert "![accuracy by budget](images/p.png)" in page and picture.exists()
    monkeypatch.setattr("sys.argv", common)
    tables.main()
    assert rows(capsys.readouterr().out) == rows(page)
