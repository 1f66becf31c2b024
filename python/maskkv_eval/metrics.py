# SPDX-License-Identifier: Apache-2.0
"""Metrics: pure functions of an answer and what was expected, 0 to 1.

Those of LongBench follow its published evaluation. Rouge-L, edit similarity and Chinese words come
from the packages rouge, rapidfuzz and jieba, imported where they are used.
"""

import collections
import decimal
import importlib
import logging
import re
import string

_CHINESE_PUNCTUATION = ("！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕"
                        "〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏.")
_NUMBER = re.compile(r"(?:(?<!\d)-)?\d[\d,]*(?:\.\d+)?")


def needs(package):
    """The imported package; SystemExit says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise SystemExit(f"expected the Python package {package.split('.')[0]}, found none: "
                         "pip install 'maskkv[longbench]'") from None


def exact(answer, reference):
    return float(answer.strip() == reference)


def recall(answer, references):
    """Share of the references that stand in the answer as whole words, in any case."""
    text = answer.casefold()
    found = sum(bool(re.search(rf"(?<!\w){re.escape(r.casefold())}(?!\w)", text))
                for r in references)
    return found / len(references)


def _words(text):
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def _chinese_words(text):
    jieba = needs("jieba")
    jieba.setLogLevel(logging.WARNING)  # it tells of its dictionary otherwise
    drop = set(string.punctuation + _CHINESE_PUNCTUATION)
    cut = ("".join(c for c in "".join(word.lower().split()) if c not in drop)
           for word in jieba.cut(text, cut_all=False))
    return [word for word in cut if word]


def _f1(found, expected):
    common = sum((collections.Counter(found) & collections.Counter(expected)).values())
    if common == 0:
        return 0.0
    precision, recalled = common / len(found), common / len(expected)
    return 2 * precision * recalled / (precision + recalled)


def f1(answer, reference):
    """F1 of the words, without case, punctuation and articles."""
    return _f1(_words(answer), _words(reference))


def f1_chinese(answer, reference):
    return _f1(_chinese_words(answer), _chinese_words(reference))


def rouge_l(answer, reference):
    rouge = needs("rouge")
    # The package has no score for a text without words.
    if not answer.strip(" .\n\t") or not reference.strip(" .\n\t"):
        return 0.0
    return rouge.Rouge(metrics=["rouge-l"]).get_scores([answer], [reference])[0]["rouge-l"]["f"]


def rouge_l_chinese(answer, reference):
    jieba = needs("jieba")
    jieba.setLogLevel(logging.WARNING)
    return rouge_l(*(" ".join(jieba.cut(text, cut_all=False)) for text in (answer, reference)))


def edit_similarity(answer, reference):
    """Of the answer's first line that is code, not a comment or a fence."""
    fuzz = needs("rapidfuzz.fuzz")
    lines = answer.lstrip("\n").split("\n")
    code = (line for line in lines if not any(mark in line for mark in ("`", "#", "//")))
    return fuzz.ratio(next(code, ""), reference) / 100


def classification(answer, reference, classes):
    """1 / (classes that the answer names) if the right one is among them."""
    named = [name for name in classes if name in answer]
    # The published rule takes out of the list while walking it, and so passes over the name after
    # one that it takes out; kept, so that scores are comparable.
    for name in named:
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def _share_of_numbers(answer, wanted):
    numbers = re.findall(r"\d+", answer)
    return sum(number == wanted for number in numbers) / len(numbers) if numbers else 0.0


def count(answer, reference):
    """Share of the answer's numbers that are the expected one."""
    return _share_of_numbers(answer, reference)


def retrieval(answer, reference):
    """As count, of the number in "Paragraph 7" or "段落7"."""
    wanted = re.search(r"(?:Paragraph |段落)(\d+)", reference)
    if not wanted:
        raise SystemExit(f"field answers: expected 'Paragraph N', found {reference!r}")
    return _share_of_numbers(answer, wanted[1])


def final_number(text):
    """The number after the last "####" or "Answer:", else the last number; None without one."""
    marks = list(re.finditer(r"####|[Aa]nswer(?: is)?:", text))
    after = _NUMBER.search(text, marks[-1].end()) if marks else None
    found = [after] if after else list(_NUMBER.finditer(text))
    if not found:
        return None
    return decimal.Decimal(found[-1].group().replace(",", ""))
