# SPDX-License-Identifier: Apache-2.0
"""The asyncio client: the same calls as client.Client, awaited; one event loop."""

import asyncio

import grpc

from maskkv import requests, types
from maskkv.connection import Addresses, Stubs, metadata
from maskkv.errors import from_rpc_error
from maskkv.v1 import budget_pb2, cache_pb2, prefill_pb2


class AsyncClient:
    """As Client. Make it inside the event loop that uses it."""

    def __init__(self, address, *, prefill=None, cache=None, budget=None, token=None, tenant=None,
                 timeout=None):
        self._stubs = Stubs(Addresses(address, prefill, cache, budget), grpc.aio.insecure_channel)
        self._token, self._tenant, self._timeout = token, tenant, timeout
        self._compiler = None

    async def close(self):
        for channel in self._stubs.channels.values():
            await channel.close()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    def _options(self, timeout, traceparent=None):
        return {"timeout": self._timeout if timeout is None else timeout,
                "metadata": metadata(self._token, self._tenant, traceparent)}

    async def _call(self, method, request, timeout=None):
        try:
            return await method(request, **self._options(timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def stream(self, *, timeout=None, traceparent=None, **kwargs):
        """Yields Started, Steps and Finished; arguments as Client.stream."""
        if wanted := requests.grammar(kwargs):
            kwargs["automaton"] = await self.automaton(**wanted)
        call = self._stubs.decode.Generate(requests.generate(kwargs),
                                           **self._options(timeout, traceparent))
        try:
            async for message in call:
                yield types.event(message)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def generate(self, **kwargs):
        answer = types.AnswerBuilder()
        async for item in self.stream(**kwargs):
            answer.add(item)
        return answer.build()

    async def prefill(self, *, timeout=None, **kwargs):
        return types.prefilled(
            await self._call(self._stubs.prefill.Prefill, requests.prefill(kwargs), timeout))

    async def explain(self, *, timeout=None, **kwargs):
        return types.explanation(
            await self._call(self._stubs.prefill.Explain, requests.explain(kwargs), timeout))

    async def model_info(self):
        request = prefill_pb2.ModelInfoRequest()
        return types.model_info(await self._call(self._stubs.prefill.ModelInfo, request))

    async def tokenize(self, **kwargs):
        response = await self._call(self._stubs.prefill.Tokenize, requests.tokenize(kwargs))
        return tuple(response.ids)

    async def vocabulary(self):
        request = prefill_pb2.VocabularyRequest()
        return tuple((await self._call(self._stubs.prefill.Vocabulary, request)).tokens)

    async def automaton(self, **kwargs):
        """As Client.automaton; made in a thread of its own."""
        from maskkv import grammar  # also run as a program, before which it must not be imported

        if self._compiler is None:
            self._compiler = grammar.Compiler(await self.vocabulary())
        return await asyncio.to_thread(self._compiler.automaton, **kwargs)

    async def cache_stat(self):
        request = cache_pb2.StatRequest()
        return types.cache_stat(await self._call(self._stubs.cache.Stat, request))

    async def plan(self):
        response = await self._call(self._stubs.budget.GetPlan, budget_pb2.GetPlanRequest())
        return types.plan(response.plan), types.policy(response.policy)

    async def watch_plan(self, watcher=""):
        call = self._stubs.budget.WatchPlan(budget_pb2.WatchPlanRequest(watcher=watcher),
                                            metadata=metadata(self._token, self._tenant, None))
        try:
            async for message in call:
                yield types.plan(message.plan)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def set_policy(self, policy, *, expected_generation=None, comment=""):
        request = requests.set_policy(policy, expected_generation, comment)
        return types.plan((await self._call(self._stubs.budget.SetPolicy, request)).plan)
