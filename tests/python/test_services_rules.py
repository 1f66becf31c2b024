# SPDX-License-Identifier: Apache-2.0
"""Requests with different decoding rules at once, in one batch, get what each gets alone."""

import json
import threading
from concurrent import futures

import grpc
import metrics
import pytest
import served_generate
import stack as stacks

COMMON = {"budget": 16, "gen_length": 32, "ignore_eos": True, "seed": 4}
CASES = [
    {"rule": "low_confidence", "steps": 16},
    {"rule": "random", "temperature": 0.7},
    {"rule": "origin", "temperature": 0.4, "top_p": 0.9, "eps": 0.01},
    {"rule": "maskgit_plus", "alg_temp": 0.3, "temperature": 0.5, "steps": 20},
    {"rule": "topk_margin", "top_k": 20},
    {"rule": "entropy", "temperature": 0.8, "top_p": 0.95, "block_length": 16},
    {"rule": "threshold", "threshold": 0.9999},
    {"rule": "factor", "factor": 0.01, "confidence_source": "filtered", "temperature": 1.2},
    {"rule": "hierarchical", "threshold": 0.999999, "low_threshold": 0.99},
    {"rule": "prefix", "threshold": 0.99, "temperature": 0.9},
    {"temperature": 0.6, "response_every": 4},
    {"rule": "entropy", "temperature": 1.5, "response_every": 3, "response_share": 0.1},
    {"rule": "slowfast", "threshold": 0.999, "span_threshold": 0.99, "block_length": 32},
    {"rule": "topk_margin", "cfg_scale": 0.5, "temperature": 0.6},
    {"rule": "remix", "threshold": 0.9999, "mix_weight": 0.8, "mix_top": 5, "js_threshold": 0.1},
    {"rule": "threshold", "threshold": 0.999,
     "growth": {"max_gen_length": 48, "by": 8, "window": 4, "eos_threshold": 1.0}},
    {"rule": "remix", "growth": {"max_gen_length": 64, "eos_threshold": 0.0,
                                 "eos_threshold_decoding": 1.0, "low_confidence": 1.0}},
]
ROUNDS = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def prompt(stack):
    return served_generate.prefilled(stack, COMMON)


def decided(answer):
    return [(step.step, [(t.position, t.id, t.confidence) for t in step.committed])
            for step in answer.steps]


def test_every_rule_at_once_gives_what_it_gives_alone(stack, prompt, tmp_path):
    expected = [served_generate.alone(prompt, {**COMMON, **case}, tmp_path) for case in CASES]
    with stack.client() as client:
        one_by_one = [client.generate(tokens=prompt, **COMMON, **case) for case in CASES]
    begin = threading.Barrier(len(CASES))

    def ask(case):
        with stack.client() as client:
            begin.wait(60)
            return client.generate(tokens=prompt, **COMMON, **case)

    before = metrics.scrape(stack.processes["decode"].metrics)
    with futures.ThreadPoolExecutor(len(CASES)) as pool:
        for _ in range(ROUNDS):
            together = list(pool.map(ask, CASES))
            assert list(map(decided, together)) == list(map(decided, one_by_one))
    after = metrics.scrape(stack.processes["decode"].metrics)
    for answer, engine in zip(one_by_one, expected, strict=True):
        assert answer.text == engine["text"]
        assert answer.samples[0].usage.canvas_length == engine["canvas_length"]
        assert [s.grown for s in answer.steps] == [s.get("grown", 0) for s in engine["steps"]]
        assert [(step.step, [(t.position, t.id) for t in step.committed])
                for step in answer.steps] == [
            (step["step"], [(p, i) for p, i, _ in step["committed"]]) for step in engine["steps"]]
    lengths = [answer.samples[0].usage.canvas_length for answer in one_by_one]
    assert lengths[-2] == 48 and set(lengths[:-2]) == {32}
    # The rules are no two the same, and they did share steps.
    assert len({json.dumps(decided(answer)) for answer in one_by_one}) == len(CASES)
    batches, steps = (metrics.total(after, f"maskkv_decode_batch_size_{part}")
                      - metrics.total(before, f"maskkv_decode_batch_size_{part}")
                      for part in ("sum", "count"))
    assert batches == ROUNDS * sum(len(answer.steps) for answer in one_by_one) and steps < batches


def test_a_response_cache_is_told_and_given_back(stack, prompt):
    address = stack.processes["decode"].metrics
    before = metrics.scrape(address)
    with stack.client() as client:
        usage = client.generate(tokens=prompt, **COMMON, response_every=4).samples[0].usage
        plain = client.generate(tokens=prompt, **COMMON).samples[0].usage
    assert plain.reused_rows == plain.response_cache_bytes == 0
    assert usage.steps == plain.steps and usage.rows + usage.reused_rows == plain.rows
    assert usage.rows == 32 * (8 + 24 // 4)  # eight whole steps, the others a quarter
    assert usage.response_cache_bytes > 0
    after = metrics.scrape(address)
    name = "maskkv_response_rows_reused_total"
    assert metrics.total(after, name) - metrics.total(before, name) == usage.reused_rows
    assert metrics.total(after, "maskkv_response_cache_bytes") == 0


def test_tokens_a_step_are_told_by_rule(stack, prompt):
    address = stack.processes["decode"].metrics
    name = "maskkv_tokens_per_step"
    before = metrics.scrape(address)
    with stack.client() as client:
        answer = client.generate(tokens=prompt, **COMMON, rule="threshold", threshold=0)
        assert answer.tokens_per_step == 8  # a block a step
    after = metrics.scrape(address)
    for rule, count, total in (("threshold", 1, 8), ("prefix", 0, 0)):
        assert metrics.total(after, f"{name}_count", rule=rule) == count + metrics.total(
            before, f"{name}_count", rule=rule)
        assert metrics.total(after, f"{name}_sum", rule=rule) == pytest.approx(
            total + metrics.total(before, f"{name}_sum", rule=rule))


@pytest.mark.parametrize("fields,said", [
    ({"rule": "greedy"}, "rule: expected one of low_confidence, random, "),
    ({"rule": "threshold", "steps": 16}, "steps: expected none with rule threshold"),
    ({"rule": "threshold", "threshold": 1.5},
     "threshold: expected a number from 0 to 1, found 1.5"),
    ({"top_p": 0.0}, "top_p: expected a number above 0, at most 1, found 0"),
    ({"response_every": 2, "response_share": 0.0}, "response_share: expected above 0, at most 1, "),
    ({"response_every": -2}, "response_every: expected 0 to "),
])
def test_a_bad_rule_is_refused_with_what_was_expected_and_found(stack, fields, said):
    with stack.client() as client, pytest.raises(stacks.maskkv.Error) as raised:
        client.generate(tokens=[1, 2], gen_length=32, **fields)
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.reason == "BAD_SAMPLER" and said in str(raised.value)
