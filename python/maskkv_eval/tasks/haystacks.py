# SPDX-License-Identifier: Apache-2.0
"""Texts to hide sentences in: endless iterators of sentences, each a function of its generator."""

import itertools
import pathlib
import re

ADJECTIVES = """amber ancient blue brass bright broken copper crooked dusty empty faded golden grey
green heavy hollow iron ivory little long narrow old painted pale quiet red round silver stone tall
white wooden""".split()
NOUNS = """anchor barrel basket bell bench boat bottle bridge candle cart chest clock cradle door
drum engine fence flag gate hammer kettle ladder lamp lantern locker mill mirror oven plough raft
saddle tower""".split()
PLACES = """archive bakery barn castle cellar chapel courtyard garden harbour library market museum
orchard quarry school station theatre valley village workshop""".split()
_PEOPLE = """carpenter clerk cook doctor farmer gardener guard miller musician painter pilot potter
sailor shepherd smith tailor teacher weaver""".split()
_VERBS = """admired cleaned described drew found hid lent measured mended moved noticed ordered
polished remembered repaired sold studied traded""".split()
_TIMES = ("In spring", "One evening", "On market day", "Years ago", "After the rain", "That winter",
          "Before noon", "Every autumn")
_REPEATED = ("The river is wide and slow here.", "Nothing happened on the road all day.",
             "The clouds came and went again.", "Most people stayed at home that week.")
NAMES = ("prose", "repeat", "keys")


def key(rng):
    """The name of a thing that may have a code."""
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} {rng.randint(100, 999)}"


def code(rng):
    return str(rng.randint(1_000_000, 9_999_999))


def fact(thing, value):
    return f"The code of the {thing} is {value}."


def _prose(rng):
    while True:
        yield (f"{rng.choice(_TIMES)} the {rng.choice(_PEOPLE)} {rng.choice(_VERBS)} the "
               f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} near the {rng.choice(PLACES)}.")


def _keys(rng, taken, values):
    """Facts about other things with other codes: every sentence looks like what is sought."""
    while True:
        thing, value = key(rng), code(rng)
        if thing not in taken and value not in values:
            yield fact(thing, value)


def file_sentences(path):
    """The sentences of a text file of the user's."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"--haystack: expected {', '.join(NAMES)} or a text file, found {path}: "
                         f"{error}") from None
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    if sentences == [""]:
        raise SystemExit(f"--haystack: {path}: expected sentences, found none")
    return sentences


def sentences(name, rng, taken=(), values=()):
    """Sentences of the haystack `name`, without end. taken, values: what "keys" must not say.

    name: one of NAMES, or the list of sentences of a file, which is begun anywhere.
    """
    if name == "prose":
        return _prose(rng)
    if name == "repeat":
        return itertools.cycle(_REPEATED)
    if name == "keys":
        return _keys(rng, taken, values)
    start = rng.randrange(len(name))
    return itertools.islice(itertools.cycle(name), start, None)
