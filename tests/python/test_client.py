# SPDX-License-Identifier: Apache-2.0
"""The client package against a small server of our own in this process, over a real channel."""

import asyncio
import subprocess
import sys
import zipfile
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import maskkv
from maskkv import requests
from maskkv.v1 import (budget_pb2, budget_pb2_grpc, cache_pb2, cache_pb2_grpc, common_pb2,
                       decode_pb2, decode_pb2_grpc, prefill_pb2, prefill_pb2_grpc)

ROOT = Path(__file__).resolve().parents[2]


def packed(message):
    detail = any_pb2.Any()
    detail.Pack(message)
    return detail


def refuse(context):
    """Ends the call as the services do: status, ErrorInfo, RetryInfo."""
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="maskkv",
                                       metadata={"limit": "4"})
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=250_000_000))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status(code=code.value[0], message="queue: full",
                               details=[packed(info), packed(retry)])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "queue: full")


class Decode(decode_pb2_grpc.DecodeServiceServicer):
    """Answers with what it was asked, so that a test sees the request arrive."""

    def __init__(self):
        self.cancelled = futures.Future()
        self.ended = []
        self.metadata = {}

    def Generate(self, request, context):
        self.metadata = dict(context.invocation_metadata())
        if request.request_id == "refuse":
            refuse(context)
        # Before anything is sent: a generator whose call has ended is not resumed.
        context.add_callback(lambda: self.ended.append(request.request_id) or
                             self.cancelled.done() or self.cancelled.set_result(True))
        handle = common_pb2.Handle(owner="here", epoch=7, entry_id=9, version=1, nonce=5)
        yield decode_pb2.GenerateEvent(seq=0, started=decode_pb2.Started(
            request_id=request.request_id, prompt_tokens=3, handle=handle,
            kept=common_pb2.KeptPairs(pairs=2, considered=4, per_layer=[1, 1], per_head=[1, 1],
                                      mass=0.5)))
        yield decode_pb2.GenerateEvent(seq=1, step=decode_pb2.Step(
            step=0, text="a", committed=[decode_pb2.Token(position=0, id=11, confidence=0.25,
                                                          log_probability=-1.5)]))
        if request.request_id == "endless":
            self.cancelled.result(timeout=20)
            return
        for sample in (1, 0):
            yield decode_pb2.GenerateEvent(seq=3 - sample, finished=decode_pb2.Finished(
                sample=sample, finish_reason=decode_pb2.FINISH_REASON_STOP_STRING,
                tokens=[11, sample], text=request.prompt.document.question))


class Prefill(prefill_pb2_grpc.PrefillServiceServicer):
    def Prefill(self, request, context):
        return prefill_pb2.PrefillResponse(masks=request.masks, budget=request.keep.budget,
                                           kv_dtype=request.keep.kv_dtype)

    def Explain(self, request, context):
        head = prefill_pb2.HeadExplanation(layer=1, positions=[2, 5], scores=[0.5])
        return prefill_pb2.ExplainResponse(heads=[head])

    def ModelInfo(self, request, context):
        return prefill_pb2.ModelInfoResponse(model_name="tiny", stop_ids=[1, 2])

    def Tokenize(self, request, context):
        return prefill_pb2.TokenizeResponse(ids=[len(request.prompt.document.document), 2])


class Budget(budget_pb2_grpc.BudgetServiceServicer):
    def __init__(self):
        self.policy = budget_pb2.Policy(budget=64)

    def _plan(self, generation):
        return budget_pb2.Plan(generation=generation, budget=self.policy.budget)

    def GetPlan(self, request, context):
        return budget_pb2.GetPlanResponse(plan=self._plan(1), policy=self.policy)

    def WatchPlan(self, request, context):
        for generation in range(1, 1000):
            yield budget_pb2.WatchPlanResponse(plan=self._plan(generation))

    def SetPolicy(self, request, context):
        self.policy = request.policy
        return budget_pb2.SetPolicyResponse(plan=self._plan(request.expected_generation + 1))


class Cache(cache_pb2_grpc.CacheServiceServicer):
    def Stat(self, request, context):
        return cache_pb2.StatResponse(capacity_bytes=100, allocated_bytes=7)


@pytest.fixture
def server():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.decode = Decode()
    decode_pb2_grpc.add_DecodeServiceServicer_to_server(server.decode, server)
    prefill_pb2_grpc.add_PrefillServiceServicer_to_server(Prefill(), server)
    budget_pb2_grpc.add_BudgetServiceServicer_to_server(Budget(), server)
    cache_pb2_grpc.add_CacheServiceServicer_to_server(Cache(), server)
    server.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield server
    server.stop(None).wait()


ASKED = {"document": "text", "question": "who?", "request_id": "r", "budget": 8, "samples": 2}


def check_answer(answer):
    assert answer.started.request_id == "r" and answer.handle.entry_id == 9
    assert answer.started.kept == maskkv.Kept(2, 4, (1, 1), (1, 1), 0.5)
    assert answer.steps[0].committed == (maskkv.Token(0, 11, 0.25, -1.5),)
    assert [sample.sample for sample in answer.samples] == [0, 1]
    assert answer.samples[1].finish_reason == "stop_string"
    assert answer.text == "who?" and answer.tokens == (11, 0)
    assert answer.tokens_per_step == 1


def test_generate_collects_a_stream_into_an_answer(server):
    with maskkv.Client(server.address, token="secret", tenant="blue") as client:
        check_answer(client.generate(traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
                                     **ASKED))
    assert server.decode.metadata["authorization"] == "Bearer secret"
    assert server.decode.metadata["maskkv-tenant"] == "blue"
    assert server.decode.metadata["traceparent"].startswith("00-1111")


def test_the_asyncio_client_answers_the_same(server):
    async def run():
        async with maskkv.AsyncClient(server.address) as client:
            check_answer(await client.generate(**ASKED))
            assert (await client.model_info()).stop_ids == (1, 2)
            assert await client.tokenize(document="four", question="") == (4, 2)
            assert (await client.prefill(tokens=[1], masks=5)).masks == 5
            assert (await client.explain(tokens=[1])).heads[0].positions == (2, 5)
            assert (await client.cache_stat()).allocated_bytes == 7
            assert (await client.plan())[0].budget == 64
            policy = maskkv.Policy(budget=9)
            assert (await client.set_policy(policy, expected_generation=4)).generation == 5
            async for plan in client.watch_plan():
                assert plan.generation == 1
                break
            with pytest.raises(maskkv.Error) as raised:
                await client.generate(document="d", request_id="refuse")
            assert raised.value.reason == "QUEUE_FULL"

    asyncio.run(run())


def test_an_error_carries_code_reason_facts_and_the_retry_hint(server):
    with maskkv.Client(server.address) as client, pytest.raises(maskkv.Error) as raised:
        client.generate(document="d", request_id="refuse")
    assert raised.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (raised.value.reason, raised.value.facts) == ("QUEUE_FULL", {"limit": "4"})
    assert raised.value.retry_after == 0.25


def test_an_error_without_details_still_has_its_code():
    with maskkv.Client("127.0.0.1:1") as client, pytest.raises(maskkv.Error) as raised:
        client.model_info()
    assert raised.value.code == grpc.StatusCode.UNAVAILABLE
    assert raised.value.reason == "" and raised.value.retry_after is None


def test_closing_a_stream_cancels_the_call(server):
    with maskkv.Client(server.address) as client:
        stream = client.stream(document="d", request_id="endless")
        assert isinstance(next(stream), maskkv.Started)
        assert isinstance(next(stream), maskkv.Step)
        stream.close()
        assert server.decode.cancelled.result(timeout=20)
    assert server.decode.ended == ["endless"]


def test_the_other_services_answer_with_values(server):
    with maskkv.Client(server.address, prefill=server.address) as client:
        assert client.model_info().model_name == "tiny"
        assert client.tokenize(document="four", question="") == (4, 2)
        assert client.prefill(tokens=[1, 2], masks=5, budget=3).budget == 3
        assert client.prefill(tokens=[1], kv_dtype="int8").kv_dtype == "int8"
        assert client.prefill(tokens=[1]).kv_dtype == ""
        assert client.explain(tokens=[1], with_scores=True).heads[0].scores == (0.5,)
        assert client.cache_stat().capacity_bytes == 100
        plan, policy = client.plan()
        assert (plan.generation, plan.budget, plan.coverage) == (1, 64, None)
        assert policy.budget == 64 and policy.coverage is None
        assert client.set_policy(maskkv.Policy(coverage=0.5), expected_generation=1).generation == 2
        watch = client.watch_plan("test")
        assert [next(watch).generation for _ in range(3)] == [1, 2, 3]
        watch.close()


@pytest.mark.parametrize("kwargs, complaint", [
    ({}, "expected one of messages, document, tokens and text, found none"),
    ({"document": "d", "tokens": [1]}, "found document and tokens"),
    ({"document": "d", "budget": 1, "coverage": 0.5}, "expected budget or coverage"),
    ({"document": "d", "selection": "best"}, "expected one of maskkv, full, random, found 'best'"),
    ({"document": "d", "policy": "snapkv", "selection": "full"}, "expected policy, or selection"),
    ({"document": "d", "policy": ""}, "policy: expected a name"),
    ({"document": "d", "confidence_source": "both"}, "expected one of rule, raw, filtered"),
    ({"document": "d", "reuse": "maybe"}, "expected one of vote_again, kept, vote_over"),
])
def test_arguments_that_contradict_each_other_are_refused(kwargs, complaint):
    with pytest.raises(ValueError, match=complaint):
        requests.generate(kwargs)


def test_an_unknown_argument_is_refused():
    with pytest.raises(TypeError, match="gen_lenght"):
        requests.generate({"document": "d", "gen_lenght": 8})


def test_a_rule_and_its_parameters_are_the_samplers():
    sampler = requests.generate({"document": "d", "rule": "hierarchical", "threshold": 0.8,
                                 "low_threshold": 0.0, "top_k": 5, "eps": None,
                                 "confidence_source": "filtered"}).sampler
    assert (sampler.rule, sampler.threshold, sampler.top_k) == ("hierarchical", 0.8, 5)
    assert sampler.HasField("low_threshold") and not sampler.HasField("eps")
    assert sampler.confidence_source == decode_pb2.CONFIDENCE_SOURCE_FILTERED
    # Every field of the contract is an argument.
    numbers = [f.name for f in decode_pb2.Sampler.DESCRIPTOR.fields
               if f.cpp_type == f.CPPTYPE_DOUBLE]
    asked = requests.generate({"document": "d", **dict.fromkeys(numbers, 0.25)}).sampler
    assert all(getattr(asked, name) == 0.25 for name in numbers) and "factor" in numbers


def test_a_refresh_is_asked_for_and_told():
    sampler = requests.generate({"document": "d", "refresh_every": 25, "refresh_floor": 0.5}).sampler
    assert (sampler.refresh_every, sampler.refresh_floor) == (25, 0.5)
    handle = common_pb2.Handle(owner="here", entry_id=9)
    step = decode_pb2.Step(step=4, kept_mass=0.0, refreshed=decode_pb2.Refreshed(
        handle=handle, kept=common_pb2.KeptPairs(pairs=2, considered=4, per_layer=[1, 1],
                                                 per_head=[1, 1], mass=0.5),
        entry_bytes=64, entry_digest="digest", cached=True, wait_ms=2.5))
    told = maskkv.types.event(decode_pb2.GenerateEvent(seq=3, step=step))
    assert told.refreshed == maskkv.Refreshed(handle, maskkv.Kept(2, 4, (1, 1), (1, 1), 0.5), 64,
                                              "digest", True, 2.5)
    assert told.kept_mass == 0, "measured"
    plain = maskkv.types.event(decode_pb2.GenerateEvent(step=decode_pb2.Step()))
    assert plain.refreshed is None and plain.kept_mass is None


def test_filling_in_is_asked_for_and_told():
    def pieces(canvas):
        request = requests.generate({"text": "Ann", "suffix": "Bob", "canvas": canvas})
        assert request.prompt.text == "Ann" and request.prompt.suffix.text == "Bob"
        return [(p.masks, p.text, list(p.tokens.ids)) for p in request.canvas.pieces]

    assert pieces("[[2]]x [[y]] [[30]]") == [(2, "", []), (0, "x [[y]] ", []), (30, "", [])]
    assert pieces([3, "x", [5, 6]]) == [(3, "", []), (0, "x", []), (0, "", [5, 6])]
    request = requests.generate({"tokens": [1], "suffix": [2, 3]})
    assert list(request.prompt.suffix.tokens.ids) == [2, 3] and not request.HasField("canvas")
    end = decode_pb2.Finished(finish_reason=decode_pb2.FINISH_REASON_LENGTH, spans=[
        decode_pb2.Span(position=4, tokens=[5, 6], text="x")])
    spans = maskkv.types.event(decode_pb2.GenerateEvent(finished=end)).spans
    assert [(s.position, s.tokens, s.text) for s in spans] == [(4, (5, 6), "x")]


def test_a_documents_copy_is_named_by_its_handle():
    copy = common_pb2.Handle(owner="here", entry_id=9, version=1)
    request = requests.generate({"document": "d", "reuse": "vote_over", "handle": copy})
    assert request.reuse == decode_pb2.REUSE_VOTE_OVER and request.handle == copy
    assert requests.prefill({"document": "d", "over": copy}).document == copy
    assert not requests.prefill({"document": "d", "over": None}).HasField("document")


def test_growth_is_a_message_of_its_fields():
    sampler = requests.generate({"document": "d", "growth": {"max_gen_length": 64, "by": 8,
                                                             "low_confidence": 0.0}}).sampler
    assert (sampler.growth.max_gen_length, sampler.growth.by) == (64, 8)
    assert sampler.growth.HasField("low_confidence")
    assert not sampler.growth.HasField("eos_threshold")
    with pytest.raises(ValueError, match="most"):
        requests.generate({"document": "d", "growth": {"most": 64}})


def test_zero_and_absence_are_told_apart():
    request = requests.generate({"document": "d", "alpha": 0.0})
    assert request.keep.HasField("alpha") and not request.keep.HasField("beta")
    assert not requests.generate({"document": "d"}).HasField("keep")


def test_the_package_builds_into_a_wheel_with_its_generated_modules(tmp_path):
    source = tmp_path / "python"
    ignored = ["-not", "-name", "*_pb2*", "-not", "-name", "*.pyc"]
    names = subprocess.run(["find", ".", "-type", "f", *ignored], cwd=ROOT / "python", check=True,
                           capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, names):
        if name.split("/")[1] in ("maskkv", "maskkv_eval", "pyproject.toml", "setup.py", "README.md",
                                  "maskkv_build.py") and ".sha256" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / "python" / name).read_bytes())
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    subprocess.run([sys.executable, "-c", "import setuptools.build_meta as b; b.build_wheel('..')"],
                   cwd=source, check=True, capture_output=True)
    wheel, = tmp_path.glob("maskkv-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "maskkv/v1/decode_pb2_grpc.py" in names and "maskkv/v1/decode_pb2.pyi" in names
    assert "maskkv/py.typed" in names and not any("oracle" in name for name in names)
    assert "maskkv_eval/cli.py" in names and "maskkv_eval/tasks/ruler.py" in names
    metadata = next(name for name in names if name.endswith("METADATA"))
    assert "License-Expression: Apache-2.0" in zipfile.ZipFile(wheel).read(metadata).decode()
