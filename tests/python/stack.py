# SPDX-License-Identifier: Apache-2.0
"""The real services as processes, for tests: started, killed, restarted, asked.

Every process has its own unix socket for gRPC under the stack's folder, so that it comes back at the
same address, and its own log file there. Nothing here waits by sleeping: a process says on its
standard output that it is ready.
"""

import json
import os
import queue
import signal
import subprocess
import threading

import cli_runs
import maskkv

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
NAMES = ("cached", "budgetd", "prefill", "decode")


class Process:
    """One running binary; `ready` is what it printed when it was."""

    def __init__(self, arguments, log, wait=True):
        self._log = open(log, "ab")
        self.popen = subprocess.Popen([os.fspath(a) for a in map(str, arguments)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=self._log)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.log = log
        self.ready = None
        if wait:
            self.wait_ready()

    def _read(self):
        for line in self.popen.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def wait_ready(self):
        line = self._lines.get(timeout=START_TIMEOUT_S)
        if not line:
            raise AssertionError(f"{self.popen.args[0]} ended: " + tail(self.log))
        self.ready = json.loads(line)
        assert self.ready["ready"] is True

    @property
    def metrics(self):
        return self.ready["metrics"]

    def send(self, number):
        self.popen.send_signal(number)

    def kill(self):
        self.popen.kill()
        self.popen.wait(STOP_TIMEOUT_S)

    def stop(self):
        """SIGTERM; the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
        try:
            return self.popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.popen.args[0]} did not stop: " + tail(self.log)) from None
        finally:
            self._log.close()


def tail(path, size=2000):
    data = path.read_bytes()
    return data[-size:].decode(errors="replace")


def binary(name):
    return cli_runs.binary().parent / name


class Stack:
    """cached, budgetd, prefill and decode over one model. Use as a context manager."""

    def __init__(self, folder, model=cli_runs.TINY, **flags):
        """flags: by process, as decode=["--max-running", 2]; each with a value."""
        self.folder, self.model, self.flags = folder, model, flags
        self.processes = {}

    def address(self, name):
        return f"unix:{self.folder}/{name}.grpc"

    @property
    def socket(self):
        return self.folder / "cached.sock"

    def arguments(self, name):
        common = ["--listen", self.address(name), "--metrics-listen", "127.0.0.1:0"]
        cache = ["--cache", self.address("cached"), "--cache-socket", self.socket,
                 "--budget", self.address("budgetd")]
        model = ["--model", self.model]
        own = {
            "cached": ["--socket", self.socket, "--capacity-bytes", "64MiB",
                       "--budget", self.address("budgetd")],
            "budgetd": [*model, "--state", self.folder / "budget.json",
                        "--audit", self.folder / "audit.jsonl"],
            "prefill": [*model, "--threads", 1, *cache],
            "decode": [*model, "--threads", 1, *cache, "--prefill", self.address("prefill")],
        }[name]
        given = self.flags.get(name, [])
        # A flag that the test gives takes the place of ours.
        flags = {**dict(zip(own[::2], own[1::2])), **dict(zip(given[::2], given[1::2]))}
        return [binary(f"maskkv-{name}"), *common, *(x for pair in flags.items() for x in pair)]

    def start(self, name, wait=True):
        self.processes[name] = Process(self.arguments(name), self.folder / f"{name}.log", wait)
        return self.processes[name]

    def restart(self, name, wait=True):
        old = self.processes.pop(name, None)
        if old is not None and old.popen.poll() is None:
            old.kill()
        return self.start(name, wait)

    def client(self, **options):
        options.setdefault("timeout", 60)
        return maskkv.Client(self.address("decode"), prefill=self.address("prefill"),
                             cache=self.address("cached"), budget=self.address("budgetd"),
                             **options)

    def __enter__(self):
        try:
            for name in NAMES:
                self.start(name, wait=False)
            for name in NAMES:
                self.processes[name].wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(list(self.processes.values())):
            process.kill() if process.popen.poll() is None else None
            process.stop()


def engine_answer(prompt_ids, folder, **flags):
    """What the engine alone answers, by the command line: ids in, the JSON object out."""
    path = folder / "engine-ids.json"
    path.write_text(json.dumps(list(prompt_ids)))
    arguments = [item for name, value in flags.items()
                 for item in (f"--{name.replace('_', '-')}", value)]
    result = cli_runs.run("generate", "--model", cli_runs.TINY, "--prompt-ids", path, "--json",
                          "--threads", 1, *arguments)
    return result.json
