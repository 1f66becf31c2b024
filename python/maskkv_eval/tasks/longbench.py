# SPDX-License-Identifier: Apache-2.0
"""LongBench: DATA/longbench/DATASET.jsonl with its fields and metrics, prompts of our own.

A context that makes the prompt longer than --length tokens loses its middle.
"""

from dataclasses import dataclass
from typing import Callable

from maskkv_eval import journal, metrics
from maskkv_eval.tasks.base import (Item, Task, chosen, digest, file_digest, truncate_middle)

FIELDS = {"input": str, "context": str, "answers": list, "dataset": str}
_PASSAGES = "Answer the question from the passages above. Give the answer alone.\n\nQuestion: {}"
_SHOTS = "Continue as in the examples above, for this one.\n\n{}"
_CODE = "Write the one line of code that comes next. Give the line alone.\n\n{}"
_SUMMARY = "Summarise the text above in one page."


@dataclass(frozen=True)
class Dataset:
    """metric(answer, reference), with the record's classes where `classes`."""

    ask: str
    answer_tokens: int
    metric: Callable
    first_line: bool = False
    classes: bool = False
    packages: tuple = ()


def _chinese(ask, tokens, metric, **more):
    return Dataset(ask, tokens, metric, packages=("jieba", "rouge"), **more)


DATASETS = {
    "narrativeqa": Dataset("Answer the question about the story above, in as few words as "
                           "possible.\n\nQuestion: {}", 128, metrics.f1),
    "qasper": Dataset("Answer the question about the article above, in as few words as possible. "
                      "If the article does not say, write \"unanswerable\"; if it is a yes or no "
                      "question, write \"yes\" or \"no\".\n\nQuestion: {}", 128, metrics.f1),
    "multifieldqa_en": Dataset(_PASSAGES, 64, metrics.f1),
    "multifieldqa_zh": _chinese("请根据上文简短回答问题，只写答案。\n\n问题：{}", 64, metrics.f1_chinese),
    "hotpotqa": Dataset(_PASSAGES, 32, metrics.f1),
    "2wikimqa": Dataset(_PASSAGES, 32, metrics.f1),
    "musique": Dataset(_PASSAGES, 32, metrics.f1),
    "dureader": _chinese("请根据上面的文章回答问题。\n\n问题：{}", 128, metrics.rouge_l_chinese),
    "gov_report": Dataset(_SUMMARY, 512, metrics.rouge_l, packages=("rouge",)),
    "qmsum": Dataset("Answer from the minutes above, in one or a few sentences.\n\nQuestion: {}",
                     512, metrics.rouge_l, packages=("rouge",)),
    "multi_news": Dataset(_SUMMARY, 512, metrics.rouge_l, packages=("rouge",)),
    "vcsum": _chinese("请用一段话总结上面的会议记录。", 512, metrics.rouge_l_chinese),
    "trec": Dataset(_SHOTS, 64, metrics.classification, first_line=True, classes=True),
    "triviaqa": Dataset(_SHOTS, 32, metrics.f1, first_line=True),
    "samsum": Dataset(_SHOTS, 128, metrics.rouge_l, first_line=True, packages=("rouge",)),
    "lsht": Dataset("请按照上面的例子给出类别。\n\n{}", 64, metrics.classification, first_line=True,
                    classes=True),
    "passage_count": Dataset("Some of the paragraphs above are repeated. How many different ones "
                             "are there? Give the number alone.", 32, metrics.count),
    "passage_retrieval_en": Dataset("Which paragraph above does this summary describe? Answer as "
                                    "\"Paragraph 1\".\n\nSummary: {}", 32, metrics.retrieval),
    "passage_retrieval_zh": Dataset("下面的摘要说的是上面哪一段？请按“段落1”的格式回答。\n\n摘要：{}", 32,
                                    metrics.retrieval),
    "lcc": Dataset(_CODE, 64, metrics.edit_similarity, packages=("rapidfuzz",)),
    "repobench-p": Dataset(_CODE, 64, metrics.edit_similarity, packages=("rapidfuzz",)),
}


def make(part, options):
    """The tasks of one dataset, or of every file there is."""
    if options.data is None:
        raise SystemExit("--data: expected a folder with longbench/, found none")
    folder = options.data / "longbench"
    if part:
        return [LongBench(folder / f"{part}.jsonl", options)]
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise SystemExit(f"--data: {folder}: expected files DATASET.jsonl, found none")
    return [LongBench(file, options) for file in files]


class LongBench(Task):
    exact = False

    def __init__(self, path, options):
        self.name = f"longbench:{path.stem}"
        records = journal.read(path, FIELDS)
        self._dataset = self._find(path, records)
        for package in self._dataset.packages:
            metrics.needs(package)
        self._records, self._options = chosen(records, options), options
        self.size = len(self._records)
        self.source = digest("longbench", file_digest(path), options.seed, options.length)

    def _find(self, path, records):
        for number, record in records:
            where = f"{path}:{number}"
            name = record["dataset"].removesuffix("_e")
            if name not in DATASETS:
                raise SystemExit(f"{where}: field dataset: expected one of {', '.join(DATASETS)}, "
                                 f"found {name!r}")
            if name != records[0][1]["dataset"].removesuffix("_e"):
                raise SystemExit(f"{where}: field dataset: expected the same in every line, found "
                                 f"{name!r}")
            if not record["answers"]:
                raise SystemExit(f"{where}: field answers: expected at least one, found none")
            classes = record.get("all_classes")
            if DATASETS[name].classes and not (isinstance(classes, list) and classes):
                raise SystemExit(f"{where}: field all_classes: expected a list of strings, found "
                                 f"{classes!r}")
        return DATASETS[name]

    def item(self, index):
        number, record = self._records[index]
        # Not format(): the text may hold braces.
        question = self._dataset.ask.replace("{}", record["input"])

        def prompt(context):
            return {"document": context, "question": question}

        context = truncate_middle(record["context"], lambda text: self._options.count(prompt(text)),
                                  self._options.length)
        return Item(f"{self.name}-{number}", self.name.replace(":", "/"), prompt(context),
                    tuple(record["answers"]), self._dataset.answer_tokens,
                    record.get("all_classes"))

    def score(self, item, text):
        if self._dataset.first_line:
            text = text.lstrip("\n").split("\n")[0]
        more = (item.extra,) if self._dataset.classes else ()
        return max(self._dataset.metric(text, reference, *more) for reference in item.references)
