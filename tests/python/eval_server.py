# SPDX-License-Identifier: Apache-2.0
"""A server in this process that answers as maskkv's services do, for tests of maskkv_eval.

It keeps what the named policy would keep by its definition, and can be told to err.
"""

import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from maskkv.v1 import (common_pb2, decode_pb2, decode_pb2_grpc, prefill_pb2, prefill_pb2_grpc)

LAYERS, KV_HEADS = 2, 2


def _full(context):
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=1_000_000)))
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status(code=code.value[0], message="queue: full", details=[detail])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "queue: full")


class Service(prefill_pb2_grpc.PrefillServiceServicer, decode_pb2_grpc.DecodeServiceServicer):
    """answer(document, question) is the text. Settings may be changed between calls."""

    def __init__(self, answer):
        self.answer = answer
        self.knows_names = True
        self.names = ("snapkv", "random", "full")
        self.has_tokenizer = True
        self.keeps = None  # (pairs a layer, pairs a head) in place of the policy's
        self.refuse = 0  # so many calls first
        self.fail_after = None  # calls that are answered before the server says it cannot
        self.requests = []
        self.running = self.most_running = 0
        self.together = None  # a barrier that calls pass together
        self._lock = threading.Lock()

    def ModelInfo(self, request, context):
        return prefill_pb2.ModelInfoResponse(
            model_name="stand-in", model_fingerprint="f" * 64, layers=LAYERS, kv_heads=KV_HEADS,
            has_tokenizer=self.has_tokenizer, dtype="f32", max_positions=4096)

    def Tokenize(self, request, context):
        text = f"{request.prompt.document.document} {request.prompt.document.question}"
        return prefill_pb2.TokenizeResponse(ids=range(len(text.split())))

    def Explain(self, request, context):
        if self.knows_names and request.keep.policy not in self.names:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "keep.policy: unknown")
        return prefill_pb2.ExplainResponse()

    def _kept(self, keep, tokens):
        k = tokens if keep.policy == "full" else min(tokens, keep.budget)
        layers, heads = [k * KV_HEADS] * LAYERS, [k] * (LAYERS * KV_HEADS)
        if self.keeps:
            layers, heads = self.keeps
        return common_pb2.KeptPairs(pairs=sum(heads), considered=tokens * LAYERS * KV_HEADS,
                                    per_layer=layers, per_head=heads, mass=0.5)

    def Generate(self, request, context):
        with self._lock:
            self.requests.append(request)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            refuse, self.refuse = self.refuse > 0, self.refuse - 1
            failed = self.fail_after is not None and len(self.requests) > self.fail_after
        try:
            if refuse:
                _full(context)
            if failed:
                context.abort(grpc.StatusCode.DATA_LOSS, "scores: not finite")
            if self.together:
                self.together.wait(20)
            document = request.prompt.document
            tokens = len(document.document.split())
            kept = None
            if request.cache != decode_pb2.CACHE_NONE:
                kept = self._kept(request.keep, tokens)
            text = self.answer(document.document, document.question)
        finally:
            with self._lock:
                self.running -= 1
        yield decode_pb2.GenerateEvent(
            seq=0, started=decode_pb2.Started(prompt_tokens=tokens, kept=kept))
        yield decode_pb2.GenerateEvent(seq=1, finished=decode_pb2.Finished(
            finish_reason=decode_pb2.FINISH_REASON_STOP, text=text,
            usage=decode_pb2.Usage(steps=request.sampler.steps)))


class Server:
    """Use as a context manager; `service` is the Service, `address` where it listens."""

    def __init__(self, answer):
        self.service = Service(answer)

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        prefill_pb2_grpc.add_PrefillServiceServicer_to_server(self.service, self._server)
        decode_pb2_grpc.add_DecodeServiceServicer_to_server(self.service, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(None).wait()
