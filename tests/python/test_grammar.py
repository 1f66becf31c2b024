# SPDX-License-Identifier: Apache-2.0
"""Automata of regular expressions and JSON schemas, against Python's re and jsonschema; their file."""

import json
import random
import re

import cli_runs
import pytest
from tokenizers import Tokenizer

from maskkv import grammar, requests

WORDS = ["", "a", "ab", "abc", "b", "12", "1", "0", "007", "-5", "Ann", "ann", "Ann Lee", "é", "éa",
         "$", "a$", "a.b", "yes", "no", "yesno", " a", "A\nB", "\u2028", "🙂", "a" * 30, "^a", "\\"]
REGEXES = ["a|ab", "(a|ab)(c|bcd)?", "[0-9]{1,3}", "-?(0|[1-9][0-9]*)", "[A-Z][a-z]+( [A-Z][a-z]+)?",
           "a*?b??", ".", "..", "[^a]+", "é+a?", "(yes|no)", "^(yes|no)$", "a\\$", "^a\\.b$", "",
           "(a|b|ab|abc){0,2}", "\\^a", "🙂|\u2028", "a{30}", "\\\\"]


@pytest.fixture(scope="module")
def vocabulary():
    return grammar.vocabulary_of(cli_runs.TINY / "tokenizer.json")


@pytest.fixture(scope="module")
def compiler(vocabulary):
    return grammar.Compiler(vocabulary)


def after(automaton, states, token):
    """States of a simulation that knows nothing of how the automaton was made."""
    reached = set()
    arcs = iter(automaton.arcs)
    for source, index, target in zip(arcs, arcs, arcs):
        ranges = iter(automaton.sets[index])
        if source in states and any(f <= token <= last for f, last in zip(ranges, ranges)):
            reached.add(target)
    return reached


def accepts(automaton, ids):
    states = {automaton.start}
    for token in ids:
        states = after(automaton, states, token)
    return bool(states & set(automaton.accepting))


def splits(vocabulary, text, rng):
    """Two ways to write a text in tokens: byte by byte, and in random ones."""
    of_bytes = {token: i for i, token in enumerate(vocabulary) if token}
    data = text.encode()
    yield [of_bytes[bytes([byte])] for byte in data]
    ids, at = [], 0
    while at < len(data):
        lengths = [n for n in range(1, 12) if data[at:at + n] in of_bytes and at + n <= len(data)]
        length = rng.choice(lengths)
        ids.append(of_bytes[data[at:at + length]])
        at += length
    yield ids


@pytest.mark.parametrize("regex", REGEXES)
def test_an_automaton_accepts_what_python_matches_however_it_is_cut_into_tokens(
        regex, compiler, vocabulary):
    automaton = compiler.automaton(regex=regex)
    rng = random.Random(3)
    for word in WORDS:
        for ids in splits(vocabulary, word, rng):
            assert accepts(automaton, ids) == bool(re.fullmatch(regex, word)), (regex, word)


def test_random_expressions_accept_what_python_matches(compiler, vocabulary):
    rng = random.Random(7)

    def expression(depth):
        kind = rng.randrange(6) if depth else 0
        if kind < 2:
            return rng.choice(["a", "b", "c", "[ab]", "[^a]", "."])
        inner = f"(?:{expression(depth - 1)})"
        if kind == 2:
            return inner + rng.choice(["*", "+", "?", "{1,2}", "*?", "??"])
        other = f"(?:{expression(depth - 1)})"
        return f"{inner}|{other}" if kind == 3 else inner + other

    matched = 0
    for _ in range(60):
        regex = expression(3)
        automaton = compiler.automaton(regex=regex)
        for _ in range(15):
            word = "".join(rng.choice("abc") for _ in range(rng.randrange(6)))
            expected = bool(re.fullmatch(regex, word))
            matched += expected
            for ids in splits(vocabulary, word, rng):
                assert accepts(automaton, ids) == expected, (regex, word)
    assert matched > 100


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer"},
        "likes": {"type": "array", "items": {"enum": ["tea", "teal", 3]}, "maxItems": 2},
    },
    "required": ["name", "age", "likes"],
}


def test_a_schema_accepts_its_objects_and_no_others(compiler, vocabulary):
    automaton = compiler.automaton(json_schema=SCHEMA)
    assert automaton is compiler.automaton(json_schema=json.dumps(SCHEMA)), "kept"
    rng = random.Random(1)
    for value, expected in [
        ({"name": "Ann", "age": 3, "likes": ["tea", 3]}, True),
        ({"name": "", "age": -1, "likes": []}, True),
        ({"name": "é\\n", "age": 0, "likes": ["teal"]}, True),
        ({"name": "Ann", "age": 3.5, "likes": []}, False),
        ({"name": "Ann", "age": 3}, False),
        ({"name": "Ann", "age": 3, "likes": ["milk"]}, False),
        ({"name": "a name that is too long", "age": 3, "likes": []}, False),
    ]:
        text = json.dumps(value, ensure_ascii=False)
        for ids in splits(vocabulary, text, rng):
            assert accepts(automaton, ids) == expected, text
    spaced = compiler.automaton(json_schema={"type": "array", "items": {"type": "null"}},
                                whitespace=r"[\n ]*")
    assert accepts(spaced, next(splits(vocabulary, "[null,\n  null]", rng)))


def test_special_tokens_are_in_no_automaton(compiler):
    tokenizer = Tokenizer.from_file(str(cli_runs.TINY / "tokenizer.json"))
    anything = compiler.automaton(regex=r"(?s:.)*")
    added = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    assert len(added) == 6
    for i in range(256, tokenizer.get_vocab_size()):  # below are bytes, of which UTF-8 lacks some
        assert bool(after(anything, set(range(anything.states)), i)) == (i not in added)


def test_the_vocabulary_of_a_file_is_what_its_tokens_decode_to(vocabulary):
    tokenizer = Tokenizer.from_file(str(cli_runs.TINY / "tokenizer.json"))
    assert len(vocabulary) == tokenizer.get_vocab_size()
    for i in range(256, 1450):
        assert vocabulary[i].decode() == tokenizer.decode([i])
    assert sorted(vocabulary[:256]) == [bytes([byte]) for byte in range(256)]


@pytest.mark.parametrize("asked, said", [
    ({"regex": "("}, "regex: "),
    ({"regex": "a(?=b)"}, "regex: "),
    ({"json_schema": "{"}, "json_schema: "),
    ({"json_schema": {"type": "tree"}}, "json_schema: "),
    ({}, "expected one of regex and json_schema"),
    ({"regex": "a", "json_schema": {}}, "expected one of regex and json_schema"),
])
def test_what_is_no_grammar_is_refused(compiler, asked, said):
    with pytest.raises(ValueError, match=said):
        compiler.automaton(**asked)


def test_a_vocabulary_that_cannot_write_the_answer_is_refused():
    compiler = grammar.Compiler([b"a", b"bc", b""])
    assert compiler.automaton(regex="abc|ab|b").states == 3
    with pytest.raises(ValueError, match="that the vocabulary can write, found none"):
        compiler.automaton(regex="ab|b")


@pytest.mark.parametrize("kwargs, said", [
    ({"regex": "a", "json_schema": {}}, "found regex and json_schema"),
    ({"regex": "a", "automaton": 1}, "found regex and automaton"),
    ({"regex": "a", "whitespace": " "}, "whitespace: expected it with json_schema"),
])
def test_grammars_that_contradict_each_other_are_refused(kwargs, said):
    with pytest.raises(ValueError, match=said):
        requests.grammar(kwargs)


def test_an_automaton_goes_through_its_file_and_its_message(compiler, tmp_path):
    out = tmp_path / "number.json"
    grammar.main(["--tokenizer", str(cli_runs.TINY / "tokenizer.json"), "--regex", "[0-9]{2}",
                  "--out", str(out)])
    made = compiler.automaton(regex="[0-9]{2}")
    assert grammar.Automaton.from_json(out.read_text()) == made
    cli_runs.validated("automaton", json.loads(out.read_text()))
    message = requests.generate({"document": "d", "automaton": made}).automaton
    assert (message.states, list(message.arcs)) == (made.states, list(made.arcs))
    assert requests.generate({"document": "d", "automaton": message}).automaton == message
    with pytest.raises(SystemExit, match="maskkv.grammar: regex"):
        grammar.main(["--tokenizer", str(cli_runs.TINY / "tokenizer.json"), "--regex", "(",
                      "--out", str(out)])
    with pytest.raises(ValueError, match="expected format maskkv-automaton 1"):
        grammar.Automaton.from_json("{}")
