# SPDX-License-Identifier: Apache-2.0
"""GSM8K: sums in words, right if the final number is. DATA/gsm8k.jsonl: question, answer."""

from maskkv_eval import journal, metrics
from maskkv_eval.tasks.base import Item, Task, chosen, data_file, digest, file_digest

ANSWER_TOKENS = 256
FIELDS = {"question": str, "answer": str}
_ASK = ("Work this out step by step, in few words. Write the result alone on the last line, after "
        "\"Answer:\".\n\n")


class Gsm8k(Task):
    name, exact = "gsm8k", True

    def __init__(self, options):
        path = data_file(options, "gsm8k.jsonl", "test.jsonl")
        records = journal.read(path, FIELDS)
        self._items = [self._make(number, record, path)
                       for number, record in chosen(records, options)]
        self.size = len(self._items)
        self.source = digest("gsm8k", file_digest(path), options.seed)

    @staticmethod
    def _make(number, record, path):
        wanted = metrics.final_number(record["answer"].rpartition("####")[2])
        if wanted is None:
            raise SystemExit(f"{path}:{number}: field answer: expected a number after "
                             f"####, found none")
        return Item(f"gsm8k-{number}", "gsm8k",
                    {"messages": [("user", _ASK + record["question"])]}, (str(wanted),),
                    ANSWER_TOKENS, wanted)

    def item(self, index):
        return self._items[index]

    def score(self, item, text):
        return float(metrics.final_number(text) == item.extra)
