# SPDX-License-Identifier: Apache-2.0
"""Metrics against values computed by hand."""

import sys
from decimal import Decimal

import pytest

from maskkv_eval import metrics


@pytest.mark.parametrize("answer, references, score", [
    ("It is 123, not 45.", ("123",), 1.0),
    ("1234", ("123",), 0.0),  # part of a longer number
    ("ABC and def", ("abc", "DEF", "ghi"), 2 / 3),
    ("", ("a",), 0.0),
    ("a.b", ("a.b",), 1.0),
    ("axb", ("a.b",), 0.0),  # a dot is a dot
])
def test_recall(answer, references, score):
    assert metrics.recall(answer, references) == score


@pytest.mark.parametrize("answer, reference, score", [
    ("The cat sat.", "a cat sat down", 0.8),  # 2 of 2 and 2 of 3 words
    ("cat cat", "cat", 2 / 3),  # 1 of 2 and 1 of 1
    ("the", "a", 0.0),  # nothing is left of either
    ("", "cat", 0.0),
    ("U.S.", "us", 1.0),
])
def test_f1(answer, reference, score):
    assert metrics.f1(answer, reference) == pytest.approx(score)


def test_f1_of_chinese_words():
    assert metrics.f1_chinese("我喜欢北京。", "我喜欢上海") == pytest.approx(2 / 3)
    assert metrics.f1_chinese("北京", "北京！") == 1.0
    assert metrics.f1_chinese("。", "北京") == 0.0


def test_rouge_l():
    # The longest common subsequence is "the cat on mat": 4 of 5 words on both sides.
    assert metrics.rouge_l("the cat sat on mat", "the cat lay on mat") == pytest.approx(0.8)
    assert metrics.rouge_l("the cat", "the cat sat on") == pytest.approx(2 / 3)  # 2 of 2, 2 of 4
    assert metrics.rouge_l("", "a") == metrics.rouge_l(" ... ", "a") == 0.0
    assert metrics.rouge_l_chinese("我喜欢北京", "我喜欢上海") == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer, score", [
    ("return x", 0.875),  # 7 of 8 characters in common: 2 * 7 / 16
    ("\n```python\n# the rest\nreturn x\nreturn y", 0.875),  # the first line that is code
    ("return y", 1.0),
    ("```", 0.0),
])
def test_edit_similarity(answer, score):
    assert metrics.edit_similarity(answer, "return y") == score


@pytest.mark.parametrize("answer, reference, classes, score", [
    ("other number", "other number", ["number", "other number"], 1.0),
    ("other number", "number", ["number", "other number"], 0.5),
    ("date", "number", ["number", "date"], 0.0),
    ("nothing", "number", ["number", "date"], 0.0),
    ("abc", "abc", ["a", "ab", "abc"], 0.5),  # the published rule passes over "ab"
])
def test_classification(answer, reference, classes, score):
    assert metrics.classification(answer, reference, classes) == score


def test_numbers_in_answers():
    assert metrics.count("There are 3 or 4.", "3") == 0.5
    assert metrics.count("none", "3") == 0.0
    assert metrics.retrieval("It is paragraph 12.", "Paragraph 12") == 1.0
    assert metrics.retrieval("段落3 或者 4", "段落3") == 0.5
    with pytest.raises(SystemExit, match="field answers: expected 'Paragraph N', found '12'"):
        metrics.retrieval("12", "12")


@pytest.mark.parametrize("text, number", [
    ("6 + 7 = 13\n#### 1,234", "1234"),
    ("Answer: $5.00", "5"),
    ("The answer is: 7. Then 8 more", "7"),
    ("first 3, at last -7", "-7"),
    ("10-3", "3"),
    ("Answer: none, but 4 before", "4"),
    ("5, Answer: unknown", "5"),
])
def test_final_numbers(text, number):
    assert metrics.final_number(text) == Decimal(number)


def test_a_text_without_a_number_has_no_final_number():
    assert metrics.final_number("Answer: none") is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge", None)
    with pytest.raises(SystemExit, match=r"expected the Python package rouge, found none: pip in"):
        metrics.rouge_l("a", "b")
