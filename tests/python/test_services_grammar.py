# SPDX-License-Identifier: Apache-2.0
"""Answers of a regular expression or a JSON schema from the real services and the command line."""

import asyncio
import json
import re
import threading
from concurrent import futures

import cli_runs
import grpc
import jsonschema
import pytest
import stack as stacks

from maskkv import AsyncClient, grammar

TINY = cli_runs.TINY
NAME = "[A-Z][a-z]{2,10}( [A-Z][a-z]{1,8})?"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"},
                   "tall": {"type": "boolean"}},
    "required": ["name", "age", "tall"],
}
RULES = [
    {"rule": "low_confidence", "steps": 12},
    {"rule": "low_confidence", "steps": 18, "temperature": 1.0},
    {"rule": "threshold", "threshold": 0.3},
    {"rule": "threshold", "threshold": 0.05, "temperature": 1.5},
    {"rule": "entropy", "steps": 6, "temperature": 0.7, "top_p": 0.9},
    {"rule": "factor", "factor": 2.0, "temperature": 2.0},
    {"rule": "prefix", "threshold": 0.2, "top_k": 4},
]
COMMON = {"budget": 16, "gen_length": 48}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack):
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def prompt(client):
    record = json.loads((TINY / "calibration.jsonl").read_text().splitlines()[0])
    return client.tokenize(document=record["document"], question=record["question"])


@pytest.mark.parametrize("regex", ["-?[0-9]{2,6}", NAME, "(yes|no|maybe)", r"\p{Lu}\.\n.*é", ""])
def test_every_answer_matches_the_regular_expression(client, prompt, regex):
    pattern = re.compile(regex.replace(r"\p{Lu}", "(?:[A-Z]|[^\x00-\x7f])"))
    for seed, rule in enumerate(RULES):
        answer = client.generate(tokens=prompt, seed=seed, regex=regex, **COMMON, **rule)
        assert pattern.fullmatch(answer.text), (rule, answer.text)


def test_every_answer_is_an_object_of_the_schema(client, prompt):
    texts = set()
    for seed, rule in enumerate(RULES):
        answer = client.generate(tokens=prompt, seed=seed, json_schema=SCHEMA, samples=2,
                                 ignore_eos=seed % 2 == 1, **COMMON, **rule)
        for sample in answer.samples:
            jsonschema.validate(json.loads(sample.text), SCHEMA)
            texts.add(sample.text)
    assert len(texts) > 4


def test_neighbours_notice_nothing_and_the_engine_alone_answers_the_same(
        stack, client, prompt, tmp_path):
    file, ids = tmp_path / "automaton.json", tmp_path / "ids.json"
    file.write_text(client.automaton(regex=NAME).to_json())
    ids.write_text(json.dumps(list(prompt)))
    cases = [{**rule, **constraint} for rule in RULES[:4] for constraint in ({}, {"regex": NAME})]
    alone = [client.generate(tokens=prompt, **COMMON, **case) for case in cases]
    begin = threading.Barrier(len(cases))

    def ask(case):
        with stack.client() as other:
            other.vocabulary()
            begin.wait(60)
            return other.generate(tokens=prompt, **COMMON, **case)

    def decided(answer):
        return [(s.step, [(t.position, t.id, t.confidence) for t in s.committed])
                for s in answer.steps]

    with futures.ThreadPoolExecutor(len(cases)) as pool:
        together = list(pool.map(ask, cases))
    assert list(map(decided, together)) == list(map(decided, alone))
    assert decided(alone[0]) != decided(alone[1])
    for case, answer in zip(cases, alone, strict=True):
        flags = ["--threads", 1, "--json", "--prompt-ids", ids]
        for name, value in {**COMMON, **case}.items():
            flags += ["--automaton", file] if name == "regex" else [
                f"--{name.replace('_', '-')}", value]
        engine = cli_runs.run("generate", "--model", TINY, *flags).json
        assert tuple(engine["tokens"]) == answer.tokens


def test_the_asyncio_client_makes_automata_too(stack, prompt):
    async def run():
        async with AsyncClient(stack.address("decode"), prefill=stack.address("prefill")) as client:
            answer = await client.generate(tokens=prompt, regex="[0-9]+", **COMMON)
            assert re.fullmatch("[0-9]+", answer.text)
            assert await client.vocabulary() == grammar.vocabulary_of(TINY / "tokenizer.json")

    asyncio.run(run())


def test_the_program_asks_a_server_for_its_vocabulary(stack, tmp_path):
    out, schema = tmp_path / "out.json", tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    grammar.main(["--server", stack.address("prefill"), "--json-schema", str(schema), "--out",
                  str(out)])
    compiler = grammar.Compiler(grammar.vocabulary_of(TINY / "tokenizer.json"))
    assert grammar.Automaton.from_json(out.read_text()) == compiler.automaton(json_schema=SCHEMA)


@pytest.mark.parametrize("fields, said", [
    ({"regex": "[a-z]{300}", "gen_length": 8}, "expected an accepted answer of at most gen_length 8"),
    ({"regex": "a", "stop": ["b"]}, "stop: expected none with an automaton"),
    ({"automaton": grammar.Automaton(0, 0, (), (), ())}, "states: expected 1 to 65536, found 0"),
    ({"automaton": grammar.Automaton(1, 0, (0,), ((0, 10 ** 6),), (0, 0, 0))},
     "set 0: expected ids from 0 to "),
    ({"automaton": grammar.Automaton(1, 0, (0,), ((1, 3),), (0, 0))},
     "arcs: expected three numbers each, found 2"),
])
def test_what_cannot_be_followed_is_refused_before_anything_runs(client, fields, said):
    with pytest.raises(stacks.maskkv.Error) as raised:
        client.generate(tokens=[1, 2], **{"gen_length": 32, **fields})
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.reason == "BAD_AUTOMATON" and said in str(raised.value)


GOOD = {"format": "maskkv-automaton", "version": 1, "states": 1, "start": 0, "accepting": [0],
        "sets": [[10, 20]], "arcs": [0, 0, 0]}


@pytest.mark.parametrize("changed, said", [
    (None, "expected a JSON object, found no JSON"),
    ({"arcs": None}, "expected a field arcs, found none"),
    ({"format": "other"}, 'format: expected maskkv-automaton, found "other"'),
    ({"version": 2}, "version: expected 1, found 2"),
    ({"states": -1}, "states: expected an integer from 0 to 2147483647, found -1"),
    ({"states": 1.5}, "states: expected an integer from 0 to 2147483647, found 1.5"),
    ({"sets": {}}, "sets: expected an array, found object"),
    ({"sets": [[1, 2, 3]]}, "set 0: expected a multiple of 2 numbers, found 3"),
    ({"arcs": [0, 0]}, "arcs: expected a multiple of 3 numbers, found 2"),
    ({"arcs": [0, 0, [0]]}, "arcs: element 2: expected an integer from 0 to 2147483647, found array"),
    ({"arcs": [0, 1, 0]}, "automaton: arc 0: expected a set from 0 to 0, found 1"),
    ({"accepting": []}, "automaton: expected one that accepts an answer, found none accepted"),
    ({"sets": [[10, 99999]]}, "automaton: set 0: expected ids from 0 to "),
])
def test_the_command_line_names_what_is_wrong_with_a_file(tmp_path, changed, said):
    file, ids = tmp_path / "automaton.json", tmp_path / "ids.json"
    ids.write_text("[1, 2]")
    fields = {name: value for name, value in {**GOOD, **(changed or {})}.items()
              if value is not None}
    file.write_text("{" if changed is None else json.dumps(fields))
    result = cli_runs.run("generate", "--model", TINY, "--prompt-ids", ids, "--gen-length", 8,
                          "--automaton", file)
    assert result.code == 3 and said in result.error
