# SPDX-License-Identifier: Apache-2.0
"""Documents of facts about people between sentences of filler, and questions about them.

A document says, of a dozen people, where they live, what they play, own and grow, whom they
serve and whom they trust. A question asks for one fact ("single") or for a fact about the
person that another fact names ("two_hop"). Within a document no two people share a value of the
same kind, so an answer is unambiguous, and a guess among the values of the right kind that the
document mentions is right with probability 1 / len(candidates). People of a document differ in
both names unless lookalikes are asked for.

Splits are disjoint in their people: a (given name, surname) pair belongs to exactly one of train,
calibration and test, so every subject, and with it every subject-value combination, of a test
document was never seen in training. Everything is a pure function of (split, seed).

    python -m maskkv_tiny.world --split test --questions 500 --length 1000 --seed 1 --out FILE
"""

import argparse
import json
import random
import re
import zlib
from dataclasses import dataclass, field

from maskkv_tiny import words

SPLITS = ("train", "calibration", "test")
OPENING = "Notes:"
SHORTEST_FILLER = 5
LONGEST_FILLER = 11
FACT_SHARE = 0.45  # at most this share of a document's tokens belongs to facts


@dataclass(frozen=True)
class Attribute:
    """A kind of value: how a fact states it and how questions ask for it.

    `asked` follows "what does SUBJECT" and is also used after "the boss of SUBJECT".
    """

    name: str
    values: tuple
    statement: str  # between the subject and the value
    asks: tuple  # (before the subject, after the subject)


@dataclass(frozen=True)
class Relation:
    """A fact whose value is another person of the document."""

    name: str
    statement: str
    asks: tuple
    role: str  # "the ROLE of SUBJECT" in a two-hop question


ATTRIBUTES = (
    Attribute("city", tuple(words.CITIES), "lives in", ("Where does", "live?")),
    Attribute("instrument", tuple(words.INSTRUMENTS), "plays the", ("What does", "play?")),
    Attribute("animal", tuple(words.ANIMALS), "owns a", ("What does", "own?")),
    Attribute("crop", tuple(words.CROPS), "grows some", ("What does", "grow?")),
)
RELATIONS = (
    Relation("boss", "serves under", ("Who does", "serve?"), "boss"),
    Relation("friend", "trusts in", ("Who does", "trust?"), "friend"),
)
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Question:
    """One question about a document; `candidates` holds every value of the answer's kind in it."""

    kind: str  # "single" or "two_hop"
    relation: str
    text: str
    answer: str
    candidates: tuple
    lookalike: bool  # somebody in the document shares one name with the subject or its relation

    @property
    def chance(self):
        return 1.0 / len(self.candidates)


@dataclass
class Document:
    text: str
    questions: list = field(default_factory=list)


def count_tokens(text):
    """Tokens of `text` in the shipped tokenizer: each word and each punctuation mark is one."""
    return len(_TOKEN.findall(text))


def split_of(given, surname):
    """The one split that a person belongs to: 80 % train, 5 % calibration, 15 % test."""
    bucket = zlib.crc32(f"{given} {surname}".encode()) % 100
    return "train" if bucket < 80 else "calibration" if bucket < 85 else "test"


def _people_by_split():
    people = {name: [] for name in SPLITS}
    for given in words.GIVEN:
        for surname in words.SURNAME:
            people[split_of(given, surname)].append(f"{given} {surname}")
    return people


PEOPLE = _people_by_split()


def _filler(rng, tokens):
    """A sentence of exactly `tokens` tokens (4 to 11) that states no fact about anybody."""
    nouns = rng.sample(words.FILLER_NOUNS, 2)
    adjectives = rng.sample(words.FILLER_ADJECTIVES, 4)
    verb = rng.choice(words.FILLER_VERBS)
    if tokens < 7:  # The [adjectives] noun verb.
        return " ".join(["The", *adjectives[: tokens - 4], nouns[0], verb]) + "."
    first = (tokens - 6) // 2  # The [adjectives] noun verb near the [adjectives] noun.
    second = tokens - 7 - first
    place = ["The", *adjectives[:first], nouns[0], verb, rng.choice(words.FILLER_PLACES), "the"]
    return " ".join([*place, *adjectives[first : first + second], nouns[1]]) + "."


def _fill(rng, tokens):
    """Filler sentences of exactly `tokens` tokens together; `tokens` is 0 or at least 4."""
    sentences = []
    while tokens > 0:
        size = rng.randint(SHORTEST_FILLER, LONGEST_FILLER)
        if tokens - size < SHORTEST_FILLER:
            size = tokens if tokens <= LONGEST_FILLER else tokens - SHORTEST_FILLER
        sentences.append(_filler(rng, size))
        tokens -= size
    return sentences


def _draw_facts(rng, people, attributes):
    """All facts of a document: {(attribute or relation name, person): value}, values distinct."""
    facts = {}
    for attribute in attributes:
        for person, value in zip(people, rng.sample(attribute.values, len(people))):
            facts[attribute.name, person] = value
    for relation in RELATIONS:
        shift = rng.randint(1, len(people) - 1)
        order = rng.sample(people, len(people))
        for i, person in enumerate(order):
            facts[relation.name, person] = order[(i + shift) % len(order)]
    return facts


def _ask(rng, kind, facts, people, attributes):
    person = rng.choice(people)
    relation = rng.choice(RELATIONS)
    if kind == "two_hop":
        asked = rng.choice(attributes)
        subject, holder = f"the {relation.role} of {person}", facts[relation.name, person]
        name = f"{relation.name}-{asked.name}"
    else:
        asked = rng.choice((*attributes, relation))
        subject, holder, name = person, person, asked.name
    candidates = sorted(v for (n, _), v in facts.items() if n == asked.name)
    text = f"{asked.asks[0]} {subject} {asked.asks[1]}"
    lookalike = any(share_a_name(one, other) for one in (person, holder) for other in people)
    return Question(kind, name, text, facts[asked.name, holder], tuple(candidates), lookalike)


def people_for(length, most=12):
    """How many people a document of `length` tokens speaks of: 3 when short, `most` when long."""
    return max(3, min(most, int(length * FACT_SHARE) // 38))


def share_a_name(one, other):
    """Whether two different people have a given name or a surname in common."""
    return one != other and not set(one.split()).isdisjoint(other.split())


def draw_people(rng, split, count, lookalikes=0.0):
    """`count` people; a share `lookalikes` of them has one name in common with an earlier one.

    All others differ from everyone else in both names. None draws every person independently, so
    that in a long document three in ten are lookalikes: what training does.
    """
    if lookalikes is None:
        return rng.sample(PEOPLE[split], count)
    drawn, names = [], set()
    while len(drawn) < count:
        shared = bool(drawn) and rng.random() < lookalikes
        name = rng.choice(rng.choice(drawn).split()) if shared else None
        person = rng.choice([p for p in PEOPLE[split] if not shared or name in p.split()])
        fresh = not names & (set(person.split()) - {name})
        if person not in drawn and fresh:
            drawn.append(person)
            names |= set(person.split())
    return drawn


def make_document(rng, split, length, questions, two_hop_share=0.5, people=None, lookalikes=0.0):
    """A document of exactly `length` tokens (from 100) with `questions` distinct questions.

    Short documents leave out whole kinds of attributes rather than people, so that the right
    kind alone never gives the answer away.
    """
    count = people or people_for(length)
    budget = int(length * FACT_SHARE) if length >= 300 else length - 12
    kinds = (budget - 2 * 7 * count) // (6 * count)
    if kinds < 1:
        raise ValueError(f"length: {length} tokens cannot hold facts about {count} people")
    attributes = rng.sample(ATTRIBUTES, min(kinds, len(ATTRIBUTES)))
    subjects = draw_people(rng, split, count, lookalikes)
    facts = _draw_facts(rng, subjects, attributes)
    statements = {a.name: a.statement for a in (*ATTRIBUTES, *RELATIONS)}
    sentences = [f"{person} {statements[name]} {value}." for (name, person), value in facts.items()]
    used = count_tokens(OPENING) + sum(map(count_tokens, sentences))
    sentences += _fill(rng, length - used)
    rng.shuffle(sentences)
    document = Document(" ".join([OPENING, *sentences]))
    asked = {}
    for _ in range(50 * questions):
        if len(asked) == questions:
            break
        kind = "two_hop" if rng.random() < two_hop_share else "single"
        question = _ask(rng, kind, facts, subjects, attributes)
        asked.setdefault(question.text, question)
    document.questions = list(asked.values())
    return document


def user_message(document, question):
    """The text of the one user message: the document, a blank line, the question."""
    return f"{document}\n\n{question}"


def record(split, index, length, seed, lookalikes=0.0, people=None):
    """The JSON-ready record `index` of `records`."""
    rng = random.Random(f"{split}/{seed}/{index}")
    document = make_document(rng, split, length, 1, index % 2, people, lookalikes)
    question = document.questions[0]
    return {
        "id": f"{split}-{seed}-{index}",
        "kind": f"{question.kind}_lookalike" if question.lookalike else question.kind,
        "relation": question.relation,
        "document": document.text,
        "question": question.text,
        "answer": question.answer,
        "candidates": list(question.candidates),
    }


def records(split, questions, length, seed, lookalikes=0.0, people=None):
    """Yields `questions` JSON-ready records, one document each, kinds alternating.

    A document speaks of `people` people, by default of as many as people_for says.
    Questions that lookalikes make harder have a kind of their own, "single_lookalike" or
    "two_hop_lookalike".
    """
    for index in range(questions):
        yield record(split, index, length, seed, lookalikes, people)


def add_arguments(parser, seed):
    """The options that say which documents: those of `records` but for split and questions."""
    parser.add_argument("--length", type=int, default=1000, help="tokens a document")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--lookalikes", type=float, default=0.0,
                        help="share of people who have one name in common with another")
    parser.add_argument("--people", type=int, help="a document, by default 3 to 12 by its length")


def chosen_records(split, args):
    """`records` as the options of add_arguments and --questions say."""
    return records(split, args.questions, args.length, args.seed, args.lookalikes, args.people)


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.world", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument("--questions", type=int, required=True, help="one document a question")
    add_arguments(parser, seed=0)
    parser.add_argument("--out", required=True, help="JSON-lines file to write")
    args = parser.parse_args()
    with open(args.out, "w", encoding="utf-8") as out:
        for record in chosen_records(args.split, args):
            out.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
