# SPDX-License-Identifier: Apache-2.0
"""maskkv reuse: what is kept of a document between questions, compared on the embedded model."""

import json

import pytest

from cli_runs import TINY, run, validated


def _about_one_document(tiny, tmp_path, questions):
    file = tmp_path / "many.jsonl"
    record = json.loads(tiny.questions.read_text().splitlines()[0])
    file.write_text("".join(json.dumps({**record, "question": question}) + "\n"
                            for question in (record["question"], *questions)))
    return ("reuse", "--model", TINY, "--profile", tiny.profile, "--questions", file,
            "--gen-length", 8)


def test_reuse_compares_what_is_kept_of_a_document(tiny, tmp_path):
    args = _about_one_document(tiny, tmp_path, ("Where does Ann live?", "Who does Bob serve?"))
    modes = "again,all,over,over@none,sum:earlier2,wide:earlier2,intersection:generic1,sum:none@first"
    report = validated("reuse", run(*args, "--modes", modes, "--budgets", "4,100000", "--generic",
                                    "What is said?", "--json").json)
    cells = {(cell["mode"], cell["budget"]): cell for cell in report["cells"]}
    assert report["documents"] == 1 and report["generic"] == ["What is said?"]
    assert len(cells) == 2 * 8 - 1 and all(cell["questions"] == 2 for cell in cells.values())
    whole = cells["all", None]["document_bytes"]
    assert cells["again", 4]["document_bytes"] == cells["all", None]["question_bytes"] == 0
    assert cells["over", 4]["question_bytes"] == cells["again", 4]["question_bytes"] > 0
    assert cells["over", 4]["document_bytes"] == whole
    assert cells["sum:earlier2", 100000]["document_bytes"] == whole
    assert cells["wide:earlier2", 4]["document_bytes"] == 2 * cells["sum:earlier2", 4]["document_bytes"]
    assert cells["over", 100000]["pairs_as_again"] == 1
    assert 0 < cells["over@none", 4]["pairs_as_again"] <= 1
    assert cells["again", 4]["pairs_as_again"] is cells["sum:none@first", 4]["pairs_as_again"] is None
    # Every pair and the question's rows beside them: the same pairs, whoever voted.
    assert (cells["all", None]["outcomes"] == cells["sum:earlier2", 100000]["outcomes"]
            == cells["sum:none@first", 100000]["outcomes"])
    shown = run(*args, "--modes", "over", "--budgets", "4")
    assert shown.code == 0 and "over " in shown.text and "bytes a document" in shown.text


@pytest.mark.parametrize("flags,said", [
    (("--earlier", 3), "questions: expected at least 4 about each document, found 3"),
    (("--modes", "sum:earlier4"), "questions: expected at least 4 about each document, found 3"),
    (("--modes", "sum:generic2", "--generic", "What?"),
     "generic: expected at least 2 questions for sum:generic2, found 1"),
    (("--modes", "over@generic"), "generic: expected a question for over@generic, found none"),
    (("--modes", "over", "--policy", "all-voting"), "voters: expected rows after the document's"),
])
def test_reuse_says_what_questions_it_needs(tiny, tmp_path, flags, said):
    args = _about_one_document(tiny, tmp_path, ("Where does Ann live?", "Who does Bob serve?"))
    failed = run(*args, *flags)
    assert failed.code == 3 and said in failed.error


@pytest.mark.parametrize("mode", ["voted", "again@none", "all@second", "sum:earlier0", "sum:earlier",
                                  "mean:none", "over:none", "sum:generic2x", "sum:earlier1001"])
def test_reuse_refuses_modes_that_it_does_not_know(mode):
    failed = run("reuse", "--model", TINY, "--questions", "x", "--modes", mode)
    assert failed.code == 2
    assert "--modes: expected again, all[@COPY], over[@COPY] or COMBINATION:VOTERS" in failed.error
    assert failed.error.rstrip().split(" (see")[0].endswith(f"found {mode}")


def test_reuse_needs_questions():
    assert "--questions is required" in run("reuse", "--model", TINY).error
