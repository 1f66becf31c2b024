# SPDX-License-Identifier: Apache-2.0
"""HumanEval: functions to complete, right if the tests pass in the sandbox.

DATA/humaneval.jsonl: task_id, prompt, entry_point, test.
"""

import re
import textwrap

from maskkv_eval import journal, sandbox
from maskkv_eval.tasks.base import Item, Task, chosen, data_file, digest, file_digest

ANSWER_TOKENS = 512
FIELDS = {"task_id": str, "prompt": str, "entry_point": str, "test": str}
_ASK = ("Complete this Python function. Reply with the whole function, its imports included, in "
        "one fenced block of code and nothing else.\n\n```python\n{}```\n")
_FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)


def program(record, answer):
    """The answer as a program that ends well if the record's tests pass.

    The answer may be a fenced block or plain text, the whole function or its body alone. Imports
    and helpers before the function in the prompt stand before it here as well.
    """
    fenced = _FENCE.search(answer)
    code = fenced[1] if fenced else answer
    name = re.escape(record["entry_point"])
    if re.search(rf"^\s*(?:async\s+)?def\s+{name}\b", code, re.MULTILINE):
        before = re.split(rf"^def\s+{name}\b", record["prompt"], maxsplit=1, flags=re.MULTILINE)[0]
        code = before + "\n" + textwrap.dedent(code)
    else:
        body = code.strip("\n")
        if body and not body[0].isspace():
            body = textwrap.indent(body, "    ")
        code = record["prompt"].rstrip("\n") + "\n" + body
    return f"{code}\n\n{record['test']}\n\ncheck({record['entry_point']})\n"


class HumanEval(Task):
    name, exact = "humaneval", True

    def __init__(self, options):
        self._strict = options.strict_sandbox
        why = sandbox.why_not_strict() if self._strict else ""
        if why:
            raise SystemExit(f"--tasks humaneval: this machine does not permit the sandbox ({why})"
                             "; --weak-sandbox runs completions under limits alone "
                             "(docs/evaluation.md)")
        path = data_file(options, "humaneval.jsonl", "HumanEval.jsonl")
        self._records = chosen(journal.read(path, FIELDS), options)
        self.size = len(self._records)
        self.source = digest("humaneval", file_digest(path), options.seed)

    def item(self, index):
        _, record = self._records[index]
        return Item(record["task_id"], "humaneval",
                    {"messages": [("user", _ASK.format(record["prompt"]))]}, (), ANSWER_TOKENS,
                    record)

    def score(self, item, text):
        return float(sandbox.run(program(item.extra, text), self._strict).passed)
