# SPDX-License-Identifier: Apache-2.0
"""The blocking client. Thread safe: calls may be made from any thread."""

import grpc

from maskkv import requests, types
from maskkv.connection import Addresses, Stubs, metadata
from maskkv.errors import from_rpc_error
from maskkv.v1 import budget_pb2, cache_pb2, prefill_pb2


class Client:
    """maskkv at `address`, "HOST:PORT" or "unix:PATH".

    prefill, cache, budget: addresses of services that are not at `address`. token: bearer token,
    where the server asks for one. timeout: seconds for each call, None for no deadline.
    """

    def __init__(self, address, *, prefill=None, cache=None, budget=None, token=None, tenant=None,
                 timeout=None):
        self._stubs = Stubs(Addresses(address, prefill, cache, budget), grpc.insecure_channel)
        self._token, self._tenant, self._timeout = token, tenant, timeout
        self._compiler = None

    def close(self):
        for channel in self._stubs.channels.values():
            channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _options(self, timeout, traceparent=None):
        return {"timeout": self._timeout if timeout is None else timeout,
                "metadata": metadata(self._token, self._tenant, traceparent)}

    def _call(self, method, request, timeout=None):
        try:
            return method(request, **self._options(timeout))
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def stream(self, *, timeout=None, traceparent=None, **kwargs):
        """Yields Started, Steps and Finished of one request; closing the generator cancels it.

        Prompt: messages=[(role, text)] | document=, question= | tokens= | text=; its rest after the
        answer: suffix=. Filling in: canvas="Ann lives in [[4]]." or [5, "given text", [token ids]].
        Kept: budget= | coverage=, policy= | selection="maskkv" | "full" | "random", layer_rule; alpha,
        beta; compress=False for no cache.
        Longer than trained: rope_scaling="longllada" | a factor from 1; none by default.
        Decoding: gen_length, block_length, steps, temperature, seed, ignore_eos, suppress_eos, stop,
        samples, provisional. Its rule (docs/decoding.md): rule, top_p, top_k, eps, alg_temp,
        threshold, low_threshold, factor, span_threshold, explore_steps, stable_steps, mix_weight,
        mix_top, js_threshold, confidence_source="raw" | "filtered"; cfg_scale of classifier-free
        guidance; growth={"max_gen_length": 256, "by": 32, ...} of the canvas; refresh_every,
        refresh_floor of the entry; response_every, response_share of the response cache. The answer
        as a whole: regex= | json_schema= (with whitespace=) | automaton= (of Client.automaton, or a
        v1.TokenAutomaton). Serving: request_id, priority, keep_entry_ms, timeout; handle and
        reuse="vote_again" | "kept" | "vote_over" of a document that was asked about before.
        """
        if wanted := requests.grammar(kwargs):
            kwargs["automaton"] = self.automaton(**wanted)
        call = self._stubs.decode.Generate(requests.generate(kwargs),
                                           **self._options(timeout, traceparent))
        try:
            for message in call:
                yield types.event(message)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    def generate(self, **kwargs):
        """The whole Answer; arguments as `stream`."""
        answer = types.AnswerBuilder()
        for item in self.stream(**kwargs):
            answer.add(item)
        return answer.build()

    def prefill(self, *, timeout=None, **kwargs):
        """Compresses a prompt, or refreshes it with response=[ids, mask ids].

        Its handle serves `generate(handle=..., reuse="kept")`, and with selection="full" reuse="vote_over"
        or another prefill, over=handle.
        """
        return types.prefilled(
            self._call(self._stubs.prefill.Prefill, requests.prefill(kwargs), timeout))

    def explain(self, *, timeout=None, **kwargs):
        """Budgets, kept positions and, with_scores=True, mask-query scores of a prompt."""
        return types.explanation(
            self._call(self._stubs.prefill.Explain, requests.explain(kwargs), timeout))

    def model_info(self):
        request = prefill_pb2.ModelInfoRequest()
        return types.model_info(self._call(self._stubs.prefill.ModelInfo, request))

    def tokenize(self, **kwargs):
        """The ids of a prompt."""
        return tuple(self._call(self._stubs.prefill.Tokenize, requests.tokenize(kwargs)).ids)

    def vocabulary(self):
        """The bytes of each token id, b"" for one that adds nothing to a text."""
        request = prefill_pb2.VocabularyRequest()
        return tuple(self._call(self._stubs.prefill.Vocabulary, request).tokens)

    def automaton(self, *, regex=None, json_schema=None, whitespace=None):
        """A grammar.Automaton of the server's vocabulary, which is asked for once."""
        from maskkv import grammar  # also run as a program, before which it must not be imported

        if self._compiler is None:
            self._compiler = grammar.Compiler(self.vocabulary())
        return self._compiler.automaton(regex=regex, json_schema=json_schema,
                                        whitespace=whitespace)

    def cache_stat(self):
        request = cache_pb2.StatRequest()
        return types.cache_stat(self._call(self._stubs.cache.Stat, request))

    def plan(self):
        """The (Plan, Policy) in force."""
        response = self._call(self._stubs.budget.GetPlan, budget_pb2.GetPlanRequest())
        return types.plan(response.plan), types.policy(response.policy)

    def watch_plan(self, watcher=""):
        """Yields the plan in force and every later one, until the generator is closed."""
        call = self._stubs.budget.WatchPlan(budget_pb2.WatchPlanRequest(watcher=watcher),
                                            metadata=metadata(self._token, self._tenant, None))
        try:
            for message in call:
                yield types.plan(message.plan)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    def set_policy(self, policy, *, expected_generation=None, comment=""):
        """Replaces the operator's policy; returns the Plan that follows."""
        request = requests.set_policy(policy, expected_generation, comment)
        return types.plan(self._call(self._stubs.budget.SetPolicy, request).plan)
