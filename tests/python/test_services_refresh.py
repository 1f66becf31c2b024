# SPDX-License-Identifier: Apache-2.0
"""Requests that refresh their entry, among others that do not, through the real processes: the
tokens of `maskkv generate`, and what the stream and the metrics say of it."""

import threading
from concurrent import futures

import grpc
import metrics
import pytest
import served_generate
import stack as stacks

COMMON = {"budget": 8, "gen_length": 16, "ignore_eos": True, "seed": 4}
CASES = [
    {"refresh_every": 5},
    {"refresh_every": 2, "temperature": 0.8},
    {"refresh_floor": 1.0, "block_length": 4},
    {"refresh_every": 1, "rule": "threshold", "threshold": 0.99999},
    {},
    {"temperature": 0.8},
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def prompt(stack):
    return served_generate.prefilled(stack, COMMON)


def test_refreshed_requests_among_others_give_what_generate_gives(stack, prompt, tmp_path):
    expected = [served_generate.alone(prompt, {**COMMON, **case}, tmp_path) for case in CASES]
    begin = threading.Barrier(len(CASES))

    def ask(case):
        with stack.client() as client:
            begin.wait(60)
            return client.generate(tokens=prompt, **COMMON, **case)

    before = metrics.scrape(stack.processes["decode"].metrics)
    with futures.ThreadPoolExecutor(len(CASES)) as pool:
        answers = list(pool.map(ask, CASES))
    after = metrics.scrape(stack.processes["decode"].metrics)

    for case, answer, engine in zip(CASES, answers, expected, strict=True):
        assert [(step.step, [(t.position, t.id) for t in step.committed])
                for step in answer.steps] == [
            (step["step"], [(p, i) for p, i, _ in step["committed"]])
            for step in engine["steps"]], case
        assert answer.text == engine["text"]
        fresh = [step for step in answer.steps if step.refreshed]
        assert [step.step for step in fresh] == [r["step"] for r in engine["refreshes"]]
        assert [step.refreshed.kept.mass for step in fresh] == pytest.approx(
            [r["mass"] for r in engine["refreshes"]])
        for step, told in zip(answer.steps, engine["steps"], strict=True):
            assert step.kept_mass == (pytest.approx(told["kept_mass"]) if "kept_mass" in told
                                      else None)
        assert all(step.refreshed.kept.pairs == answer.started.kept.pairs for step in fresh)
        end = answer.samples[0]
        assert end.usage.refreshes == len(fresh)
        assert end.timings.refresh_ms == pytest.approx(
            sum(step.refreshed.wait_ms for step in fresh), abs=1e-6)
        assert bool(fresh) == ("refresh_every" in case or "refresh_floor" in case)
    # A refresh changes what follows.
    assert [s.committed for s in answers[1].steps] != [s.committed for s in answers[5].steps]

    def grown(name):
        return metrics.total(after, name) - metrics.total(before, name)

    refreshes = sum(len(engine["refreshes"]) for engine in expected)
    assert grown("maskkv_decode_refreshes_total") == refreshes
    assert grown("maskkv_decode_refresh_seconds_count") == refreshes
    # The others went on meanwhile: steps were shared.
    assert grown("maskkv_decode_batch_size_count") < grown("maskkv_decode_batch_size_sum")


def test_the_same_refresh_is_found_again(stack, prompt):
    with stack.client() as client:
        first, second = (client.generate(tokens=prompt, **COMMON, refresh_every=6)
                         for _ in range(2))
    assert [s.committed for s in first.steps] == [s.committed for s in second.steps]
    fresh = [step.refreshed for step in second.steps if step.refreshed]
    assert len(fresh) == 2 and all(refreshed.cached for refreshed in fresh)


@pytest.mark.parametrize("fields,said", [
    ({"compress": False, "refresh_every": 2}, "expected 0 with CACHE_NONE"),
    ({"refresh_every": -1}, "refresh_every: expected 0 to"),
    ({"refresh_floor": 1.5}, "refresh_floor: expected 0 to 1, found 1.5"),
])
def test_a_bad_refresh_is_refused_with_what_was_expected_and_found(stack, fields, said):
    with stack.client() as client, pytest.raises(stacks.maskkv.Error) as raised:
        client.generate(tokens=[1, 2], gen_length=16, **fields)
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.reason == "BAD_SAMPLER" and said in str(raised.value)


def test_kept_pairs_of_another_question_are_not_refreshed(stack, prompt):
    with stack.client() as client:
        handle = client.prefill(tokens=prompt, masks=16, budget=8).handle
        with pytest.raises(stacks.maskkv.Error) as raised:
            client.generate(tokens=prompt, gen_length=16, handle=handle, reuse="kept",
                            refresh_every=4)
    assert raised.value.reason == "BAD_SAMPLER" and "REUSE_KEPT" in str(raised.value)
