# SPDX-License-Identifier: Apache-2.0
"""Prompts longer than the model was trained on: LongLLaDA's factor through the command line and the
services, what an entry of one factor is used for, 131,072 tokens, and what memory refuses."""

import json
import resource

import pytest

import cli_runs
import stack as stacks
from maskkv_oracle import random_checkpoint, rope_scaling
from test_services_answer import check

LONG = 4_600  # tokens; the embedded model was trained on 4,096
GEN = 8
TINY = cli_runs.config(cli_runs.TINY)
HEAD_DIM = TINY["d_model"] // TINY["n_heads"]
FACTOR = rope_scaling.factor(TINY["rope_theta"], HEAD_DIM, TINY["max_sequence_length"], LONG + GEN)
BAD_INPUT, NO_RESOURCES = 3, 4


@pytest.fixture(scope="module")
def ids():
    return [(37 * i + i * i // 5) % 1400 for i in range(LONG)]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("rope")) as stack:
        yield stack


@pytest.fixture(scope="module")
def ids_path(ids, tmp_path_factory):
    path = tmp_path_factory.mktemp("ids") / "ids.json"
    path.write_text(json.dumps(ids))
    return path


@pytest.fixture(scope="module")
def engine(ids_path):
    """engine(scaling): the command line's answer, each computed once."""
    done = {}

    def answer(scaling):
        if scaling not in done:
            done[scaling] = cli_runs.validated("generate", cli_runs.run(
                "generate", "--model", cli_runs.TINY, "--prompt-ids", ids_path, "--threads", 1,
                "--gen-length", GEN, "--budget", 16, "--rope-scaling", scaling, "--json").json)
        return done[scaling]

    return answer


def test_the_factor_is_longlladas_and_changes_the_confidences(engine):
    assert FACTOR == 2
    scaled, plain = engine("longllada"), engine("none")
    assert (scaled["rope_scale"], plain["rope_scale"]) == (FACTOR, 1)
    assert scaled["steps"] != plain["steps"]


def test_the_services_answer_as_the_engine_alone(four, ids, engine):
    with four.client() as client:
        for scaling in ("longllada", "none", 3):
            answer = client.generate(tokens=ids, budget=16, gen_length=GEN, rope_scaling=scaling)
            check(answer, engine(str(scaling)))
            assert answer.started.rope_scale == engine(str(scaling))["rope_scale"]


def test_each_factor_has_its_own_entry(four, ids):
    with four.client() as client:
        def prefill(scaling):
            return client.prefill(tokens=ids, masks=GEN, budget=12, rope_scaling=scaling)

        first, plain, number = prefill("longllada"), prefill(None), prefill(FACTOR)
    assert not first.cached and not plain.cached and number.cached
    assert first.rope_scale == number.rope_scale == FACTOR and plain.rope_scale == 1
    assert number.handle == first.handle
    assert plain.provenance.entry_digest != first.provenance.entry_digest


def test_a_kept_document_is_read_with_its_own_factor(four, ids):
    with four.client() as client:
        def ask(question, **more):
            return client.generate(tokens=ids + question, document_tokens=LONG, gen_length=GEN,
                                   budget=16, keep_entry_ms=60_000, **more)

        first = ask([5, 6, 7], rope_scaling=4)
        kept = {"handle": first.handle, "reuse": "kept"}
        second, other = ask([9, 8], **kept), ask([9, 8], rope_scaling="longllada", **kept)
    assert first.started.rope_scale == second.started.rope_scale == other.started.rope_scale == 4
    assert second.tokens == other.tokens


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), float("inf")])
def test_what_is_no_factor_is_refused(four, factor):
    with four.client() as client, pytest.raises(stacks.maskkv.Error) as caught:
        client.generate(tokens=[5, 6], gen_length=GEN, rope_scaling=factor)
    assert caught.value.reason == "BAD_ROPE_SCALING"


@pytest.mark.parametrize("value", ["linear", True, [2]])
def test_the_client_says_what_it_takes(four, value):
    with four.client() as client, pytest.raises(ValueError, match="rope_scaling: expected none"):
        client.generate(tokens=[5, 6], rope_scaling=value)


def test_inspect_shows_the_same_here_and_on_a_service(four, ids_path):
    asked = ("--prompt-ids", ids_path, "--gen-length", GEN, "--budget", 16, "--rope-scaling",
             "longllada", "--json")
    here = cli_runs.run("inspect", "--model", cli_runs.TINY, "--threads", 1, *asked).json
    there = cli_runs.run("inspect", "--server", four.address("prefill"), *asked).json
    cli_runs.validated("inspect", here)
    assert here["rope_scale"] == there["rope_scale"] == FACTOR
    assert here["positions"] == there["positions"]


def test_calibration_measures_with_the_factor(tmp_path):
    def importance(scaling):
        path = tmp_path / f"{scaling}.json"
        done = cli_runs.run("calibrate", "--model", cli_runs.TINY, "--prompts",
                            cli_runs.TINY / "calibration.jsonl", "--samples", 2, "--output", path,
                            "--rope-scaling", scaling)
        assert done.code == 0, done.err
        return json.loads(path.read_text())["importance"]

    plain = importance("none")
    assert importance("longllada") == plain, "documents of the trained length"
    assert importance(50) != plain


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """Two layers of one head of width 16, with a profile: attention over 131,072 positions at a
    cost of seconds."""
    folder = tmp_path_factory.mktemp("random")
    random_checkpoint.write(
        random_checkpoint.Shape(seed=1, hidden=16, layers=2, heads=1, ffn=16, vocab=64), folder)
    profile = json.loads((cli_runs.TINY / "maskkv_profile.json").read_text())
    profile["importance"] = [0.3, 0.1]
    path = folder / "maskkv_profile.json"
    path.write_text(json.dumps(profile))
    (folder / "one.json").write_text("[1]")
    # The refusal of another model's profile says whose it should be.
    refused = cli_runs.run("generate", "--model", folder, "--prompt-ids", folder / "one.json",
                           "--gen-length", 1, "--json")
    assert refused.code == BAD_INPUT
    profile["model_fingerprint"] = refused.error.split("this checkpoint's ")[1].split(",")[0]
    path.write_text(json.dumps(profile))
    return folder


def test_a_prompt_of_131072_tokens_is_answered_under_maskkv_offline(random_model, ids_file):
    tokens = 131_072
    path = ids_file([(7 * i + i // 3) % 62 for i in range(tokens)])
    report = cli_runs.run("generate", "--model", random_model, "--prompt-ids", path, "--budget", 64,
                          "--gen-length", GEN, "--ignore-eos", "--rope-scaling", "longllada",
                          "--json").json
    cli_runs.validated("generate", report)
    assert report["prompt_tokens"] == tokens and len(report["steps"]) == GEN
    assert report["kept"]["pairs"] == 64 * 2
    assert report["rope_scale"] == rope_scaling.factor(5e5, 16, 4096, tokens + GEN) > 1


def test_what_memory_cannot_hold_is_refused_with_the_bytes_that_miss(random_model, ids_file):
    tokens, limit = 2_000_000, 256 << 20
    path = ids_file("[" + "1," * (tokens - 1) + "1]")
    failed = cli_runs.run(
        "generate", "--model", random_model, "--prompt-ids", path, "--gen-length", GEN, "--json",
        "--threads", 1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert failed.code == NO_RESOURCES
    words = failed.error.split()
    needed = (tokens + GEN) * (16 + 16 + 2 * 16) * 4
    assert f"expected at least {needed} bytes" in failed.error
    available, missing = (int(words[words.index(before) + 1]) for before in ("found", "available:"))
    assert missing == needed - available and available < limit
