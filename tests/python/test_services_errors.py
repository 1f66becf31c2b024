# SPDX-License-Identifier: Apache-2.0
"""What the running services answer where a caller, a checkpoint or a limit is at fault: code, reason,
what a client should do. (tests/integration has the rows that need a peer of the cache manager.)"""

import json
import shutil

import cli_runs
import grpc
import maskkv
import numpy as np
import pytest
import stack as stacks
from maskkv.v1 import budget_pb2, budget_pb2_grpc
from safetensors import numpy as safetensors

TEXT = {"document": "Ann lives in Lyon.", "question": "Where does Ann live?"}
IDS = {"tokens": [3, 4, 5, 6, 7, 8], "layer_rule": "uniform"}
SHORT = {"gen_length": 8, "block_length": 8, "steps": 8}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("tiny")) as stack:
        yield stack


@pytest.fixture(scope="module")
def untexted(tmp_path_factory):
    """A tokenizer without a chat template."""
    model = tmp_path_factory.mktemp("model")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "maskkv_profile.json"):
        shutil.copy(cli_runs.TINY / name, model / name)
    settings = json.loads((cli_runs.TINY / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    with stacks.Stack(tmp_path_factory.mktemp("untexted"), model=model) as stack:
        yield stack


BROKEN_TOKEN = 40


def broken(folder):
    """A checkpoint of random weights with a NaN in the embedding of one token: the services find whole
    broken tensors when they try themselves at the start, this one only when somebody uses it."""
    source = cli_runs.GOLDEN / "mha"
    shutil.copy(source / "config.json", folder / "config.json")
    tensors = safetensors.load_file(source / "model.safetensors")
    tensors["model.transformer.wte.weight"][BROKEN_TOKEN, 3] = np.nan
    safetensors.save_file(tensors, folder / "model.safetensors")
    return folder


def refused(call, **kwargs):
    with pytest.raises(maskkv.Error) as raised:
        call(**kwargs)
    return raised.value.code.name, raised.value.reason


def test_messages_need_a_chat_template(untexted):
    with untexted.client() as client:
        assert refused(client.generate, messages=[("user", "Hello")], **SHORT) == \
            ("FAILED_PRECONDITION", "NO_CHAT_TEMPLATE")
        assert client.generate(tokens=[5, 6, 7], budget=2, **SHORT).samples


@pytest.mark.parametrize("case, code, reason", [
    ({**TEXT, "gen_length": 8, "block_length": 3}, "INVALID_ARGUMENT", "BAD_SAMPLER"),
    ({**TEXT, "gen_length": 8, "temperature": -1}, "INVALID_ARGUMENT", "BAD_SAMPLER"),
    ({**TEXT, "gen_length": 8, "budget": 4, "alpha": 2}, "INVALID_ARGUMENT", "BAD_KEEP"),
    ({**TEXT, "gen_length": 8, "priority": 101}, "INVALID_ARGUMENT", "BAD_PRIORITY"),
    ({**TEXT, "gen_length": 8, "request_id": "a\nb"}, "INVALID_ARGUMENT", "BAD_REQUEST_ID"),
    ({"tokens": [1 << 20], "gen_length": 8}, "INVALID_ARGUMENT", "TOKEN_OUT_OF_RANGE"),
    ({"messages": [("nobody", "Hi")], "gen_length": 8}, "INVALID_ARGUMENT", "BAD_PROMPT"),
    ({"tokens": [5] * 140_000, "gen_length": 8}, "INVALID_ARGUMENT", "PROMPT_TOO_LONG"),
])
def test_a_bad_request_is_named_by_decode(tiny, case, code, reason):
    with tiny.client() as client:
        assert refused(client.generate, **case) == (code, reason)


def test_a_deadline_that_passes_says_so(tiny):
    # More work than a millisecond allows; the client's own clock may end the call first.
    with tiny.client() as client:
        code, reason = refused(client.generate, tokens=[5] * 900, gen_length=64, timeout=0.001)
    assert code == "DEADLINE_EXCEEDED" and reason in ("", "DEADLINE_EXCEEDED", "QUEUE_TIMEOUT")


def test_broken_weights_are_found_in_prefill_and_in_a_step(tmp_path):
    (tmp_path / "model").mkdir()
    bad, good = [3, BROKEN_TOKEN, 5], [3, 4, 5]
    with stacks.Stack(tmp_path, model=broken(tmp_path / "model")) as stack, \
            stack.client() as client:
        kept = {"layer_rule": "uniform", "budget": 2}
        expected = ("DATA_LOSS", "NOT_FINITE")
        assert refused(client.prefill, masks=8, tokens=bad, **kept) == expected
        assert refused(client.generate, tokens=bad, **kept, **SHORT) == expected
        assert refused(client.generate, tokens=bad, compress=False, **SHORT) == expected
        # Nobody else is harmed.
        assert client.generate(tokens=good, **kept, **SHORT).samples
        assert client.generate(tokens=good, compress=False, **SHORT).samples


def test_a_plan_or_policy_out_of_range_is_refused(tiny):
    with grpc.insecure_channel(tiny.address("budgetd")) as channel:
        stub = budget_pb2_grpc.BudgetServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.SetPolicy(budget_pb2.SetPolicyRequest(), timeout=60)
    error = maskkv.errors.from_rpc_error(raised.value)
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "BAD_POLICY")


def test_a_dead_cache_manager_is_unavailable_and_comes_back(tmp_path):
    with stacks.Stack(tmp_path, model=cli_runs.GOLDEN / "mha") as stack:
        with stack.client() as client:
            request = {**IDS, "budget": 2, **SHORT}
            tokens = client.generate(**request).tokens
            stack.processes["cached"].kill()
            code, reason = refused(client.generate, **request)
            assert code == "UNAVAILABLE" and reason in ("CACHE_DOWN", "UNAVAILABLE")
            stack.restart("cached")
            for _ in range(100_000):  # the services connect again by themselves
                try:
                    assert client.generate(**request).tokens == tokens
                    return
                except maskkv.Error as error:
                    assert error.code.name in ("UNAVAILABLE", "ABORTED")
            pytest.fail("the services did not find the new cache manager")
