# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed, stopped and drained while clients go on asking.

MASKKV_TEST_SEED changes where the kills fall (printed); MASKKV_KILL_ROUNDS how many there are.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading

import cli_runs
import grpc
import load as loads
import maskkv
import pytest
import stack as stacks

MODEL = cli_runs.GOLDEN / "mha"
SEED = os.environ.get("MASKKV_TEST_SEED", "1")
ROUNDS = int(os.environ.get("MASKKV_KILL_ROUNDS", "104"))
SAMPLER = {"gen_length": 16, "block_length": 8, "steps": 16, "temperature": 0.9, "ignore_eos": True}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Requests over the random model and what the engine alone answers."""
    folder = tmp_path_factory.mktemp("cases")
    config = json.loads((MODEL / "config.json").read_text())
    made = []
    prompts = loads.prompts(6, config["vocab_size"], config["mask_token_id"], SEED)
    for seed, ids in enumerate(prompts):
        path = folder / "ids.json"
        path.write_text(json.dumps(ids))
        flags = [x for name, value in SAMPLER.items() if name != "ignore_eos"
                 for x in (f"--{name.replace('_', '-')}", value)]
        engine = cli_runs.run("generate", "--model", MODEL, "--prompt-ids", path, "--layers",
                              "uniform", "--budget", 6, "--seed", seed, "--ignore-eos", "--json",
                              *flags).json
        request = {"tokens": ids, "budget": 6, "layer_rule": "uniform", "seed": seed, **SAMPLER}
        made.append((request, engine["tokens"]))
    return made


@pytest.fixture
def stack(tmp_path):
    with stacks.Stack(tmp_path, model=MODEL) as stack:
        yield stack


def settled(stack):
    """The daemon's accounting once nobody asks any more: everything but unleased entries is back."""
    with stack.client() as client:
        def idle(stat):
            return (stat.leases, stat.leased_bytes, stat.reserved_entries, stat.pending_bytes) == \
                (0, 0, 0, 0)

        for _ in range(2000):  # each a round trip: bounded, and no waiting by the clock
            stat = client.cache_stat()
            if idle(stat):
                return stat
            threading.Event().wait(0.01)
        raise AssertionError(f"not idle: {stat}")


ENDLESS_CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import maskkv
case = json.loads(sys.argv[3])
with maskkv.Client(sys.argv[2]) as client:
    while True:
        for event in client.stream(**case):
            print("event", flush=True)
"""


def kill_a_client(stack, rng, cases):
    """A client process dies in the middle of a stream."""
    case = json.dumps(rng.choice(cases)[0])
    client = subprocess.Popen([sys.executable, "-c", ENDLESS_CLIENT, str(cli_runs.ROOT / "python"),
                               stack.address("decode"), case], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    for _ in range(rng.randint(1, 12)):
        client.stdout.readline()
    client.kill()
    client.wait()


def test_survivors_go_on_when_any_process_is_killed_under_load(stack, cases):
    print(f"MASKKV_TEST_SEED={SEED} MASKKV_KILL_ROUNDS={ROUNDS}")
    rng = random.Random(f"kill/{SEED}")
    victims = ["prefill", "decode", "budgetd", "client"]
    with loads.Load(stack.client, cases, threads=6, seed=SEED) as load:
        load.wait_answers(6)
        for number in range(ROUNDS):
            victim = victims[number % len(victims)]
            load.wait_events(rng.randint(0, 40))
            if victim == "client":
                kill_a_client(stack, rng, cases)
            else:
                stack.restart(victim)
            assert not load.wrong, load.wrong[:3]
            load.wait_answers(1)
    assert not load.wrong, load.wrong[:3]
    stat = settled(stack)
    assert stat.sealed_entries <= len(cases) and stat.allocated_bytes <= stat.capacity_bytes
    # prefill and decode, and nobody who died.
    assert stat.sessions == 2
    print(f"{load.answered} answered, {load.refused} refused")
    assert load.answered > ROUNDS


def test_running_requests_outlive_the_daemon_and_new_ones_find_the_next(stack, cases):
    rng = random.Random(f"daemon/{SEED}")
    with loads.Load(stack.client, cases, threads=6, seed=SEED) as load:
        for _ in range(8):
            load.wait_events(rng.randint(20, 60))
            epoch = stack.client().cache_stat().epoch
            stack.restart("cached")
            assert stack.client().cache_stat().epoch != epoch
            load.wait_answers(6)  # of prefill and decode that were never restarted
            assert not load.wrong, load.wrong[:3]
    assert all(stack.processes[name].popen.poll() is None for name in ("prefill", "decode"))
    assert settled(stack).sessions == 2


def test_a_handle_of_the_daemons_last_life_is_answered_aborted(stack, cases):
    case = cases[0][0]
    with stack.client() as client:
        handle = client.generate(**case).handle
        stack.restart("cached")
        again = {**case, "handle": handle, "reuse": "kept"}
        with pytest.raises(maskkv.Error) as raised:
            client.generate(**again)
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.ABORTED, "EPOCH_MOVED")


def test_a_reader_that_is_stopped_stalls_nobody_else(stack, cases):
    case = json.dumps({**cases[0][0], "samples": 64, "provisional": True})
    reader = subprocess.Popen([sys.executable, "-c", ENDLESS_CLIENT, str(cli_runs.ROOT / "python"),
                               stack.address("decode"), case], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    reader.stdout.readline()
    reader.send_signal(signal.SIGSTOP)
    try:
        with loads.Load(stack.client, cases, threads=4, seed=SEED) as load:
            load.wait_answers(40)
            assert not load.wrong and load.refused == 0
    finally:
        reader.kill()
        reader.wait()
    settled(stack)


@pytest.mark.parametrize("name", ["decode", "prefill", "budgetd", "cached"])
def test_sigterm_ends_a_process_with_exit_code_zero(stack, name):
    assert stack.processes[name].stop() == 0


def test_sigterm_lets_streams_under_way_finish(stack, cases):
    request, tokens = cases[0]
    with stack.client() as client:
        stream = client.stream(**request)
        answer = maskkv.types.AnswerBuilder()
        answer.add(next(stream))
        stack.processes["decode"].send(signal.SIGTERM)
        for event in stream:
            answer.add(event)
        assert list(answer.build().tokens) == tokens
        assert stack.processes["decode"].popen.wait(stacks.STOP_TIMEOUT_S) == 0
        with pytest.raises(maskkv.Error) as raised:
            client.generate(**request, timeout=2)
        assert raised.value.code in (grpc.StatusCode.UNAVAILABLE,
                                     grpc.StatusCode.DEADLINE_EXCEEDED)
    settled(stack)
