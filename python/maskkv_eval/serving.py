# SPDX-License-Identifier: Apache-2.0
"""A running maskkv: started here or found at an address, and asked under a named policy."""

import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

import grpc

import maskkv
from maskkv import connection, errors, requests, types
from maskkv.v1 import common_pb2, prefill_pb2
from maskkv_eval import policies

_TRIES = 8
_LONGEST_WAIT_S = 10.0
_UNKNOWN = "no-such-policy"


class Stop(Exception):
    """The evaluation cannot go on; the message says why on one line."""


def find_binary(given=None):
    """The maskkv program: `given`, $MASKKV_BIN (program or folder), PATH, the release build."""
    named = given or os.environ.get("MASKKV_BIN")
    if named:
        path = pathlib.Path(named)
        path = path / "maskkv" if path.is_dir() else path
    else:
        path = pathlib.Path(shutil.which("maskkv") or "build/release/bin/maskkv")
    if not path.is_file():
        raise SystemExit(f"{'--bin' if given else 'maskkv'}: {path}: expected the program, found "
                         "no such file; name it with --bin or MASKKV_BIN, or use --server")
    return path.resolve()


@contextlib.contextmanager
def served(binary, model, log, flags=()):
    """Yields the address of `maskkv serve` over the checkpoint; it ends with us, however we end.

    log: file for what it says.
    """
    command = ["setpriv", "--pdeathsig", "TERM", str(binary), "serve", "--model", str(model),
               "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *flags]
    with open(log, "ab") as errors_file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors_file)
    try:
        line = process.stdout.readline()
        if not line:
            said = pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
            raise SystemExit(f"maskkv serve ended: {said[-1] if said else 'without a word'}")
        yield json.loads(line)["grpc"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@dataclass(frozen=True)
class Sampling:
    """How answers are decoded; block and tokens_per_step as LLaDA's."""

    block: int = 8
    tokens_per_step: int = 1
    temperature: float = 0.0
    seed: int = 0

    def arguments(self, answer_tokens):
        """Of Client.generate; answers are lengthened to whole blocks."""
        blocks = -(-answer_tokens // self.block)
        return {"gen_length": blocks * self.block, "block_length": self.block,
                "steps": blocks * -(-self.block // self.tokens_per_step),
                "temperature": self.temperature, "seed": self.seed}


@dataclass(frozen=True)
class Reply:
    text: str
    prompt_tokens: int
    kept_pairs: int | None  # None without a cache
    mass: float
    steps: int
    total_ms: float


def generate_request(item, policy, budget, sampling, random_seed=0):
    """The GenerateRequest of an item under a policy of policies.py."""
    arguments = {**item.prompt, **sampling.arguments(item.answer_tokens)}
    if policies.has_budget(policy):
        arguments["budget"] = budget
    if policy == policies.NONE:
        arguments["compress"] = False
    request = requests.generate(arguments)
    if policy not in (policies.NONE, policies.PLAN):
        request.keep.policy = policy
        request.keep.random_seed = random_seed
    return request


class Asker:
    """Asks one server; made and used inside one event loop. timeout: seconds a request."""

    def __init__(self, address, token=None, timeout=None):
        self.address = address
        self._stubs = connection.Stubs(connection.Addresses(address), grpc.aio.insecure_channel)
        self._options = {"metadata": connection.metadata(token, None, None), "timeout": timeout}
        self.info = None

    async def __aenter__(self):
        try:
            self.info = types.model_info(await self._stubs.prefill.ModelInfo(
                prefill_pb2.ModelInfoRequest(), **self._options))
        except grpc.aio.AioRpcError as error:
            await self.__aexit__()
            raise Stop(f"{self.address}: {errors.from_rpc_error(error)}") from None
        if not self.info.has_tokenizer:
            await self.__aexit__()
            raise Stop(f"{self.address}: expected a checkpoint with a tokenizer, found none")
        return self

    async def __aexit__(self, *_):
        for channel in self._stubs.channels.values():
            await channel.close()

    async def check_names(self, names):
        """Stop unless the server takes these names of policies and refuses an unknown one.

        An older one would not look at KeepPolicy.policy at all.
        """
        refusal = await self._refusal(_UNKNOWN)
        if refusal and refusal.code != grpc.StatusCode.INVALID_ARGUMENT:
            raise Stop(f"{self.address}: {refusal}")
        for name in names if refusal else ():
            if refused := await self._refusal(name):
                raise Stop(f"{self.address}: policy {name}: {refused}")
        if refusal:
            return
        raise Stop(f"{self.address}: expected the server to refuse the policy {_UNKNOWN!r}, found "
                   f"an answer: it does not know policies by name and would answer every one "
                   f"alike; use a newer maskkv, or --policies {policies.PLAN},{policies.NONE}")

    async def _refusal(self, name):
        """The Error of a small prefill under the policy; None if it is answered."""
        request = prefill_pb2.ExplainRequest(
            prompt=common_pb2.Prompt(document=common_pb2.DocumentQuestion(document="a")), masks=1,
            keep=common_pb2.KeepPolicy(policy=name, budget=1))
        try:
            await self._stubs.prefill.Explain(request, **self._options)
        except grpc.aio.AioRpcError as error:
            return errors.from_rpc_error(error)
        return None

    async def ask(self, request, policy, budget):
        """The Reply; waits while the server is full. Stop if it does not fit the policy."""
        for attempt in range(_TRIES):
            try:
                return self._reply(await self._answer(request), policy, budget)
            except maskkv.Error as error:
                busy = error.retry_after is not None or error.code == grpc.StatusCode.UNAVAILABLE
                if not busy or attempt == _TRIES - 1:
                    raise Stop(str(error)) from None
                wait = max(error.retry_after or 0.0, 0.05 * 2**attempt)
                await asyncio.sleep(min(wait, _LONGEST_WAIT_S))

    async def _answer(self, request):
        answer = types.AnswerBuilder()
        call = self._stubs.decode.Generate(request, **self._options)
        try:
            async for message in call:
                answer.add(types.event(message))
        except grpc.aio.AioRpcError as error:
            raise errors.from_rpc_error(error) from None
        finally:
            call.cancel()
        return answer.build()

    def _reply(self, answer, policy, budget):
        kept = answer.started.kept
        wrong = policies.complaint(policy, budget, kept, self.info.layers, self.info.kv_heads)
        if wrong:
            raise Stop(f"the answer does not fit the policy: {wrong}")
        end = answer.samples[0]
        return Reply(end.text, answer.started.prompt_tokens, kept.pairs if kept else None,
                     kept.mass if kept else 1.0, end.usage.steps, end.timings.total_ms)
