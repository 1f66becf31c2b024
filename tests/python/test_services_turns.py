# SPDX-License-Identifier: Apache-2.0
"""Prefill and decode as processes that take turns at the cores by a file (--turns)."""

import threading

import grpc
import maskkv
import metrics
import pytest
import stack as stacks

LONG = [(7 * i + i // 90) % 900 + 1 for i in range(2500)]
SHORT = LONG[:60]
WAITS, MISSED = "maskkv_turn_wait_seconds_count", "maskkv_turns_missed_total"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    return stacks.engine_answer(LONG, folder, gen_length=8, budget=16)["tokens"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    turns = ["--turns", folder / "turns"]
    with stacks.Stack(folder, prefill=turns, decode=turns) as stack:
        yield stack


class Streams:
    """A client whose streams follow each other: a step is always wanted."""

    def __init__(self, stack):
        self._stack, self._stop = stack, threading.Event()
        self.answers = []
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        with self._stack.client() as client:
            while not self._stop.is_set():
                # Without a cache, so that no prefill is waited for.
                answer = client.generate(tokens=SHORT, compress=False, gen_length=16)
                self.answers.append(list(answer.samples[0].tokens))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def ask(stack, budget=16):
    with stack.client() as client:
        answer = client.generate(tokens=LONG, budget=budget, gen_length=8)
    return list(answer.samples[0].tokens)


def counted(stack, name, metric):
    return metrics.total(metrics.scrape(stack.processes[name].metrics), metric, service=name)


def test_streams_step_between_the_tiles_of_a_long_prefill(stack, expected):
    with Streams(stack) as streams:
        assert ask(stack) == expected
    assert streams.answers and all(answer == streams.answers[0] for answer in streams.answers)
    # Each wait is a tile that gave way to a step, and a step that waited for a tile.
    assert counted(stack, "prefill", WAITS) >= 10
    assert counted(stack, "decode", WAITS) >= 10
    assert counted(stack, "prefill", MISSED) == counted(stack, "decode", MISSED) == 0


def test_a_prefill_that_is_killed_leaves_no_turn_behind(stack, expected):
    stack.restart("prefill")
    failed = []

    def lose():
        try:
            ask(stack, 12)
        except maskkv.Error as error:
            failed.append(error.code)

    with Streams(stack) as streams:
        asker = threading.Thread(target=lose)
        asker.start()
        metrics.wait_for(stack.processes["prefill"].metrics, WAITS, lambda count: count >= 3,
                         service="prefill")
        stack.processes["prefill"].kill()
        asker.join()
        done = len(streams.answers)
        while len(streams.answers) < done + 3:  # each ends: steps go on
            threading.Event().wait(0.01)
        stack.restart("prefill")
        assert ask(stack) == expected
    assert failed == [grpc.StatusCode.UNAVAILABLE]
    assert counted(stack, "decode", MISSED) == 0


def test_a_bad_file_is_said_at_the_start(stack, tmp_path):
    turns = ["--turns", tmp_path]  # a folder
    bad = stacks.Stack(stack.folder, prefill=turns, decode=turns)
    for name in ("prefill", "decode"):
        with pytest.raises(AssertionError, match="a file to take turns by"):
            stacks.Process(bad.arguments(name), tmp_path / f"{name}.log")
