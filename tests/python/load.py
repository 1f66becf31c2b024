# SPDX-License-Identifier: Apache-2.0
"""Clients that ask without end while a test does something to the services, and the truth that their
answers are compared with."""

import random
import threading

import grpc
import maskkv

# What a request may end with while processes die around it; anything else is a failure.
EXPECTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED,
            grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNKNOWN}  # UNKNOWN: the stream of a killed server


def prompts(count, vocabulary, mask_id, seed, longest=60):
    """Random prompts without the mask id."""
    rng = random.Random(seed)
    ids = [i for i in range(vocabulary) if i != mask_id]
    return [[rng.choice(ids) for _ in range(rng.randint(5, longest))] for _ in range(count)]


class Load:
    """`threads` clients; each asks a random case again and again and checks the answer.

    cases: list of (keyword arguments of generate, expected tokens). Failures collect in `wrong`.
    """

    def __init__(self, make_client, cases, threads, seed):
        self._make_client, self._cases, self._seed = make_client, cases, seed
        self._stop = threading.Event()
        self._progress = threading.Condition()
        self.events = self.answered = self.refused = 0
        self.wrong = []
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _count(self, answered=0, refused=0):
        """One more event: of a stream, or the end of a request."""
        with self._progress:
            self.events += 1
            self.answered += answered
            self.refused += refused
            self._progress.notify_all()

    def wait_events(self, count, timeout=60):
        """Returns when `count` more events, answers or refusals have come: a point in the load."""
        with self._progress:
            goal = self.events + count
            assert self._progress.wait_for(lambda: self.events >= goal, timeout), "the load stands"

    def wait_answers(self, count, timeout=60):
        with self._progress:
            goal = self.answered + count
            assert self._progress.wait_for(lambda: self.answered >= goal, timeout), \
                f"no answer; {self.refused} refused; {self.wrong[:3]}"

    def _run(self, index):
        rng = random.Random(f"{self._seed}/{index}")
        with self._make_client() as client:
            while not self._stop.is_set():
                case, expected = rng.choice(self._cases)
                try:
                    self._ask(client, case, expected)
                except maskkv.Error as error:
                    if error.code not in EXPECTED:
                        self.wrong.append((case, str(error)))
                    self._count(refused=1)
                    # The hint of the server, or a moment: waiting for it is part of being a client.
                    self._stop.wait(min(error.retry_after or 0.02, 0.2))

    def _ask(self, client, case, expected):
        answer = maskkv.types.AnswerBuilder()
        for event in client.stream(**case):
            answer.add(event)
            self._count()
        tokens = list(answer.build().tokens)
        if tokens != expected:
            self.wrong.append((case, tokens, expected))
        self._count(answered=1)
