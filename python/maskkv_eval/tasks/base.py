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
    order = list(range(len(records)))
    random.Random(f"chosen/{options.seed}").shuffle(order)
    return [(index, records[index]) for index in order[: options.questions]]


def truncate_middle(text, fits):
    """The longest beginning and end of `text` found for which fits(text) holds.

    fits gives (tokens, most): tokens of the whole prompt with the text, and how many it may have.
    Characters are left out in the middle until they agree, at most 2 % below.
    """
    tokens, most = fits(text)
    if tokens <= most:
        return text
    low, high = 0, len(text)  # kept characters: low fits, high does not
    base, _ = fits("")
    if base > most:
        raise SystemExit(f"--length: expected at least {base} tokens for a prompt without its "
                         f"text, found {most}")
    best, guess = "", int(len(text) * (most - base) / max(1, tokens - base))
    for _ in range(24):
        if high - low <= 1 or (low and most - fits(best)[0] <= most // 50):
            break
        guess = min(max(guess, low + 1), high - 1)
        head = guess - guess // 2
        cut = text[:head] + text[len(text) - guess // 2 :]
        tokens, _ = fits(cut)
        if tokens <= most:
            low, best = guess, cut
        else:
            high = guess
        scale = (most - base) / max(1, tokens - base)
        guess = int(guess * scale) if abs(scale - 1) > 0.005 else (low + high) // 2
    return best
