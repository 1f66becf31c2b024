# SPDX-License-Identifier: Apache-2.0
"""What a task is: questions in order, each a pure function of options and index, and a metric."""

import hashlib
import json
import pathlib
import random
from dataclasses import dataclass
from typing import Any, Callable


@dataclass(frozen=True)
class Item:
    """One question.

    prompt: document= and question=, or messages=, as maskkv.Client takes them. references: what
    answers are compared with. answer_tokens: masks to decode. group: what it is tabulated under.
    """

    id: str
    group: str
    prompt: dict
    references: tuple
    answer_tokens: int
    extra: Any = None  # of the task, for its metric


@dataclass(frozen=True)
class Options:
    """What tasks are made from. count(prompt): tokens of an Item's prompt in the checkpoint."""

    questions: int
    length: int
    seed: int
    count: Callable[[dict], int]
    data: pathlib.Path | None = None
    haystack: str = "prose"
    lookalikes: float = 0.0
    strict_sandbox: bool = True


class Task:
    """name: as --tasks says it. exact: every score is 0 or 1. size: how many questions there are.

    source: what the items are a function of, so that answers to other questions are told apart.
    """

    name: str
    exact: bool
    size: int
    source: str

    def item(self, index):
        """The Item at 0 <= index < size. May call Options.count; may raise SystemExit."""
        raise NotImplementedError

    def score(self, item, text):
        """0 to 1 for the answer `text`."""
        raise NotImplementedError


def digest(*values):
    """12 hexadecimal digits of JSON-ready values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def file_digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:12]


def data_file(options, *names):
    """The first of the files `names` that is in the data folder."""
    if options.data is None:
        raise SystemExit(f"--data: expected a folder with {names[0]}, found none")
    for name in names:
        if (options.data / name).is_file():
            return options.data / name
    raise SystemExit(f"--data: {options.data}: expected a file {names[0]}, found none")


def chosen(records, options):
    """`questions` of the records, drawn by the seed; more questions keep those of fewer."""
    order = list(records)
    random.Random(f"chosen/{options.seed}").shuffle(order)
    return order[: options.questions]


def truncate_middle(text, count, most):
    """`text` without its middle, so that count(text) <= most; at most 2 % of `most` is wasted.

    count: text -> tokens of the whole prompt with it, growing with the text but for a few tokens.
    """
    tokens = count(text)
    if tokens <= most:
        return text
    low, low_tokens, high, high_tokens = 0, count(""), len(text), tokens
    if low_tokens > most:
        raise SystemExit(f"--length: expected at least {low_tokens} tokens, which the question "
                         f"alone takes, found {most}")

    def cut(kept):
        return text[: kept - kept // 2] + text[len(text) - kept // 2 :]

    for step in range(32):
        if high - low <= 1 or most - low_tokens <= most // 50:
            break
        # Tokens are nearly proportional to characters; halving ends it where they are not.
        share = (most - low_tokens) / (high_tokens - low_tokens) if step % 2 == 0 else 0.5
        kept = min(max(low + int((high - low) * share), low + 1), high - 1)
        tokens = count(cut(kept))
        if tokens <= most:
            low, low_tokens = kept, tokens
        else:
            high, high_tokens = kept, tokens
    return cut(low)
