# SPDX-License-Identifier: Apache-2.0
"""Sentences hidden in a haystack of any length, after the kinds of questions of RULER
(arXiv 2404.06654); sentences, lists and code are our own. Scored by recall of what is expected."""

import random
import string
from dataclasses import dataclass

from maskkv_eval import metrics
from maskkv_eval.tasks import haystacks
from maskkv_eval.tasks.base import Item, Task, digest, file_digest

_ALONE = "Give the {} alone."
_NAMES = """Ada Boris Clara David Elena Felix Greta Hugo Irene Jonas Karla Leo Mara Nils Olga Pavel
Rosa Simon Tilda Ulrich Vera Walter Yara Zeno""".split()
SAME_KIND = 4  # needles of the kinds with several
HOPS = 4


@dataclass(frozen=True)
class Puzzle:
    """needles: sentences in the order in which they must stand."""

    needles: tuple
    question: str
    references: tuple
    things: tuple = ()  # keys and values that the haystack must not use


def _distinct(draw, count):
    found = []
    while len(found) < count:
        value = draw()
        if value not in found:
            found.append(value)
    return found


def _facts(rng, count):
    return (_distinct(lambda: haystacks.key(rng), count),
            _distinct(lambda: haystacks.code(rng), count))


def _single(rng, needles=1):
    keys, codes = _facts(rng, needles)
    sought = rng.randrange(needles)
    question = f"What is the code of the {keys[sought]}? {_ALONE.format('number')}"
    return Puzzle(tuple(map(haystacks.fact, keys, codes)), question, (codes[sought],),
                  (*keys, *codes))


def _multi_key(rng):
    return _single(rng, SAME_KIND)


def _multi_value(rng):
    (thing,), _ = _facts(rng, 1)
    codes = _distinct(lambda: haystacks.code(rng), SAME_KIND)
    needles = tuple(f"One of the codes of the {thing} is {value}." for value in codes)
    question = f"What are all {SAME_KIND} codes of the {thing}? {_ALONE.format('numbers')}"
    return Puzzle(needles, question, tuple(codes), (thing, *codes))


def _multi_query(rng):
    keys, codes = _facts(rng, SAME_KIND)
    asked = ", ".join(f"the {thing}" for thing in keys[:-1]) + f" and the {keys[-1]}"
    order = list(map(haystacks.fact, keys, codes))
    rng.shuffle(order)
    return Puzzle(tuple(order), f"What are the codes of {asked}? {_ALONE.format('numbers')}",
                  tuple(codes), (*keys, *codes))


def _variables(rng):
    """Two chains of assignments, mixed; the variables of one are asked for."""
    names = _distinct(lambda: "".join(rng.choices(string.ascii_uppercase, k=5)), 2 * (HOPS + 1))
    values = _distinct(lambda: str(rng.randint(10_000, 99_999)), 2)
    chains = [names[: HOPS + 1], names[HOPS + 1 :]]
    lines = [[f"Let {chain[0]} be {value}.", *(f"Let {b} be the value of {a}."
                                               for a, b in zip(chain, chain[1:]))]
             for chain, value in zip(chains, values)]
    turns = [0] * (HOPS + 1) + [1] * (HOPS + 1)
    rng.shuffle(turns)
    question = (f"Which {HOPS + 1} variables have, directly or through others, the value "
                f"{values[0]}? {_ALONE.format('names')}")
    return Puzzle(tuple(lines[turn].pop(0) for turn in turns), question, tuple(chains[0]),
                  tuple(values))


def _two_hop(rng):
    keys, codes = _facts(rng, SAME_KIND)
    people = rng.sample(_NAMES, SAME_KIND)
    needles = [f"The keeper of the {thing} is {name}." for thing, name in zip(keys, people)]
    needles += [f"The code of {name} is {value}." for name, value in zip(people, codes)]
    rng.shuffle(needles)
    question = f"What is the code of the keeper of the {keys[0]}? {_ALONE.format('number')}"
    return Puzzle(tuple(needles), question, (codes[0],), (*keys, *codes))


def _counting(rng):
    times = rng.randint(2, 9)
    needles = tuple(f"Then a horn was blown in the {rng.choice(haystacks.PLACES)}."
                    for _ in range(times))
    return Puzzle(needles, f"How many times was a horn blown? {_ALONE.format('number')}",
                  (str(times),))


_MAKE = {"single": _single, "multi_key": _multi_key, "multi_value": _multi_value,
         "multi_query": _multi_query, "variables": _variables, "two_hop": _two_hop,
         "counting": _counting}
KINDS = tuple(_MAKE)
_GRADED = ("multi_value", "multi_query", "variables")


class Ruler(Task):
    def __init__(self, kind, options):
        self.name, self.exact, self.size = f"ruler:{kind}", kind not in _GRADED, options.questions
        self._kind, self._options = kind, options
        self._haystack, of = options.haystack, options.haystack
        if of not in haystacks.NAMES:
            self._haystack, of = haystacks.file_sentences(of), file_digest(of)
        self.source = digest("ruler", kind, options.length, options.seed, of)

    def item(self, index):
        """The prompt has at most options.length tokens, and less than one sentence fewer."""
        rng = random.Random(f"ruler/{self._kind}/{self._options.seed}/{index}")
        puzzle = _MAKE[self._kind](rng)
        places = sorted(rng.random() for _ in puzzle.needles)
        stream = haystacks.sentences(self._haystack, rng, puzzle.things, puzzle.things)
        straw = []

        def prompt(size):
            while len(straw) < size:
                straw.append(next(stream))
            return {"document": _hide(puzzle.needles, places, straw[:size]),
                    "question": puzzle.question}

        size = _fit(lambda n: self._options.count(prompt(n)), self._options.length, self.name)
        return Item(f"{self.name}-{self._options.seed}-{index}", self.name.replace(":", "/"),
                    prompt(size), puzzle.references, self._answer_tokens(puzzle))

    def _answer_tokens(self, puzzle):
        """Masks for the expected strings and as much again, in whole blocks of 8."""
        expected = self._options.count({"document": ", ".join(puzzle.references)})
        empty = self._options.count({"document": ""})
        return 8 * (2 + (2 * max(1, expected - empty) + 7) // 8)

    def score(self, item, text):
        return metrics.recall(text, item.references)


def _hide(needles, places, straw):
    """One text of the straw with each needle at its place, 0 to 1 of the way."""
    text, begin = [], 0
    for needle, place in zip(needles, places):
        end = int(place * (len(straw) + 1))
        text += [*straw[begin:end], needle]
        begin = end
    return " ".join([*text, *straw[begin:]])


def _fit(tokens, most, name):
    """The largest n with tokens(n) <= most; tokens grows with n."""
    low, low_tokens = 0, tokens(0)
    if low_tokens > most:
        raise SystemExit(f"--length: expected at least {low_tokens} tokens for {name}, "
                         f"found {most}")
    high, per_sentence = None, 16.0
    while high is None or high - low > 1:
        step = max(1, round((most - low_tokens) / per_sentence))
        n = low + step if high is None else min(max(low + step, low + 1), high - 1)
        found = tokens(n)
        if n > low and found > low_tokens:
            per_sentence = (found - low_tokens) / (n - low)
        if found <= most:
            low, low_tokens = n, found
        else:
            high = n
    return low
