# SPDX-License-Identifier: Apache-2.0
"""Four processes, one process and the engine alone give the same answers."""

import json
from concurrent import futures

import cli_runs
import pytest
import stack as stacks

CASES = [
    {"budget": 16, "gen_length": 8},
    {"budget": 16, "gen_length": 8, "temperature": 0.8, "seed": 7},
    {"budget": 4, "gen_length": 16, "block_length": 4, "steps": 8, "seed": 3, "temperature": 1.5},
    {"selection": "full", "gen_length": 8, "temperature": 0.5, "seed": 1},
    {"selection": "random", "budget": 32, "gen_length": 8, "random_seed": 11, "seed": 11},
    {"compress": False, "gen_length": 8, "temperature": 0.7, "seed": 5},
    {"budget": 64, "gen_length": 8, "ignore_eos": True, "temperature": 1.0, "seed": 2},
    {"budget": 1, "gen_length": 32, "suppress_eos": True, "temperature": 2.0, "seed": 9},
]


@pytest.fixture(scope="module")
def records():
    lines = (cli_runs.TINY / "calibration.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:len(CASES)]]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("four")) as stack:
        yield stack


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    process = stacks.Process(
        [cli_runs.binary(), "serve", "--model", cli_runs.TINY, "--threads", 1,
         "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"], folder / "serve.log")
    yield process
    assert process.stop() == 0


def expected(ids, case, folder):
    """The command line's answer to the same request."""
    flags = {name: value for name, value in case.items()
             if name not in ("selection", "compress", "random_seed", "ignore_eos", "suppress_eos")}
    cache = case.get("selection", "maskkv") if case.get("compress", True) else "none"
    path = folder / "ids.json"
    path.write_text(json.dumps(list(ids)))
    arguments = ["--prompt-ids", path, "--cache", cache, "--threads", 1, "--json"]
    for name, value in flags.items():
        arguments += [f"--{name.replace('_', '-')}", value]
    arguments += [f"--{name.replace('_', '-')}" for name in ("ignore_eos", "suppress_eos")
                  if case.get(name)]
    return cli_runs.run("generate", "--model", cli_runs.TINY, *arguments).json


def committed(answer):
    return [[[t.position, t.id] for t in step.committed] for step in answer.steps]


def check(answer, engine):
    assert list(answer.tokens) == engine["tokens"]
    assert committed(answer) == [[[p, i] for p, i, _ in step["committed"]]
                                 for step in engine["steps"]]
    assert [pytest.approx(c, abs=1e-6) for step in engine["steps"] for _, _, c in
            step["committed"]] == [t.confidence for step in answer.steps for t in step.committed]
    assert answer.samples[0].finish_reason == engine["finish_reason"]
    assert answer.text == engine["text"]
    if engine["kept"] is not None:
        assert answer.started.kept.pairs == engine["kept"]["pairs"]
        assert list(answer.started.kept.per_layer) == engine["kept"]["per_layer"]


@pytest.fixture(scope="module")
def engine(four, records, tmp_path_factory):
    """(ids, the engine's answer) of every case."""
    folder = tmp_path_factory.mktemp("engine")
    with four.client() as client:
        prompts = [client.tokenize(document=r["document"], question=r["question"])
                   for r in records]
    return [(ids, expected(ids, case, folder)) for ids, case in zip(prompts, CASES)]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_four_processes_answer_as_the_engine_alone(four, records, engine, index):
    with four.client() as client:
        record = records[index]
        check(client.generate(document=record["document"], question=record["question"],
                              **CASES[index]), engine[index][1])
        check(client.generate(tokens=engine[index][0], **CASES[index]), engine[index][1])


@pytest.mark.parametrize("where", ["four processes", "one process"])
def test_eight_concurrent_clients_get_what_each_would_get_alone(four, one, engine, where):
    def ask(index):
        with clients[where]() as client:
            return client.generate(tokens=engine[index][0], **CASES[index])

    clients = {"four processes": four.client,
               "one process": lambda: stacks.maskkv.Client(one.ready["grpc"], timeout=60)}
    with futures.ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for index, answer in enumerate(pool.map(ask, range(len(CASES)))):
                check(answer, engine[index][1])


def test_samples_are_those_of_the_seeds_one_by_one(four, engine):
    ids = engine[1][0]
    case = {**CASES[1], "seed": 20}
    with four.client() as client:
        together = client.generate(tokens=ids, samples=3, **case)
        alone = [client.generate(tokens=ids, **{**case, "seed": 20 + i}) for i in range(3)]
    assert [s.tokens for s in together.samples] == [a.tokens for a in alone]


def test_provisional_output_changes_no_token_and_covers_every_mask(four, engine):
    ids = engine[2][0]
    with four.client() as client:
        answer = client.generate(tokens=ids, provisional=True, **CASES[2])
    check(answer, engine[2][1])
    decided = set()
    for step in answer.steps:
        decided |= {t.position for t in step.committed}
        assert {t.position for t in step.provisional} == set(range(16)) - decided


def test_the_same_prompt_again_runs_no_forward(four, engine):
    ids = engine[0][0]
    with four.client() as client:
        first = client.prefill(tokens=ids, masks=8, budget=24)
        second = client.prefill(tokens=ids, masks=8, budget=24)
        other = client.prefill(tokens=ids, masks=8, budget=25)
        voted_anew = client.prefill(tokens=ids, masks=8, budget=24, ignore_cached=True)
    assert not first.cached and second.cached and not other.cached and not voted_anew.cached
    assert second.kept == first.kept and second.handle == first.handle
    assert voted_anew.provenance.entry_digest == first.provenance.entry_digest


def test_the_text_of_the_steps_is_the_text_of_the_answer(four, records):
    with four.client() as client:
        for record in records[:4]:
            answer = client.generate(document=record["document"], question=record["question"],
                                     gen_length=8, budget=32)
            assert "".join(step.text for step in answer.steps) == answer.text


def test_one_prometheus_line_and_one_ready_line_a_process(four, one):
    for process in (*four.processes.values(), one):
        assert set(process.ready) == {"ready", "grpc", "metrics"}
