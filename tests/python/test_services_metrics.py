# SPDX-License-Identifier: Apache-2.0
"""Debian's Prometheus scrapes the four processes under load; its counters are what clients saw."""

import json
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from concurrent import futures

import cli_runs
import load as loads
import metrics
import pytest
import stack as stacks

MODEL = cli_runs.GOLDEN / "mha"
MAX_SERIES = 1000
ROWS = "maskkv_response_rows_computed_total"
SAMPLER = {"gen_length": 16, "block_length": 8, "steps": 16, "ignore_eos": True}


class Prometheus:
    """A real server that scrapes `targets` (job -> address) every second."""

    def __init__(self, folder, targets):
        jobs = [{"job_name": job, "static_configs": [{"targets": [address]}]}
                for job, address in targets.items()]
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._log = open(folder / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={self.address}"],
            stdout=self._log, stderr=self._log)

    def query(self, expression):
        """[(labels, value)] of an instant query; None while the server starts."""
        url = f"http://{self.address}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=20) as response:
                answer = json.load(response)
        except OSError:
            return None
        assert answer["status"] == "success", answer
        return [(r["metric"], float(r["value"][1])) for r in answer["data"]["result"]]

    def wait(self, expression, condition, rounds=600):
        for _ in range(rounds):
            found = self.query(expression)
            if found is not None and condition(found):
                return found
            threading.Event().wait(0.1)
        raise AssertionError(f"{expression}: last found {found}")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack"), model=MODEL) as stack:
        yield stack


@pytest.fixture(scope="module")
def prometheus(stack, tmp_path_factory):
    assert shutil.which("prometheus"), "the package prometheus is in scripts/apt-packages.txt"
    targets = {name: process.metrics for name, process in stack.processes.items()}
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), targets)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def seen(stack, prometheus):
    """A load, and what its clients saw of it."""
    config = json.loads((MODEL / "config.json").read_text())
    warm_up = metrics.total(metrics.scrape(stack.processes["decode"].metrics), ROWS)
    prompts = loads.prompts(60, config["vocab_size"], config["mask_token_id"], "metrics")

    def ask(index):
        with stack.client() as client:
            return client.generate(tokens=prompts[index], budget=6, layer_rule="uniform", **SAMPLER)

    with futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(len(prompts))))
        bad = [pool.submit(ask_badly, stack) for _ in range(5)]
        assert [b.result() for b in bad] == ["INVALID_ARGUMENT"] * 5
    return prompts, answers, warm_up


def ask_badly(stack):
    with stack.client() as client:
        try:
            client.generate(tokens=[1, 2], gen_length=7, block_length=2)
        except stacks.maskkv.Error as error:
            return error.code.name


def value(prometheus, expression, expected):
    """The one value, once Prometheus has scraped it."""
    found = prometheus.wait(expression, lambda r: len(r) == 1 and r[0][1] == expected)
    return found[0][1]


def test_all_four_targets_are_up(prometheus):
    found = prometheus.wait("up == 1", lambda r: len(r) == 4)
    assert {labels["job"] for labels, _ in found} == set(stacks.NAMES)


def test_counters_of_decode_are_what_clients_saw(prometheus, seen):
    prompts, answers, warm_up = seen
    value(prometheus, "sum(maskkv_requests_finished_total{job='decode',finish_reason='length'})",
          len(answers))
    value(prometheus, "sum(maskkv_generated_tokens_total{job='decode'})",
          sum(len(a.tokens) for a in answers))
    value(prometheus, "sum(maskkv_prompt_tokens_total{job='decode'})", sum(map(len, prompts)))
    value(prometheus, f"sum({ROWS}{{job='decode'}})",
          warm_up + sum(a.samples[0].usage.rows for a in answers))
    # What is refused as malformed never was a request; the gRPC counters below tell of it.
    value(prometheus, "sum(maskkv_request_duration_seconds_count{job='decode'})", len(answers))
    value(prometheus, "sum(maskkv_time_to_first_token_seconds_count{job='decode'})", len(answers))


def test_grpc_counters_tell_calls_and_codes(prometheus, seen):
    _, answers, _ = seen
    method = "grpc_service='maskkv.v1.DecodeService',grpc_method='Generate'"
    value(prometheus, f"sum(grpc_server_started_total{{{method}}})", len(answers) + 5)
    value(prometheus, f"sum(grpc_server_handled_total{{{method},grpc_code='OK'}})", len(answers))
    value(prometheus, f"sum(grpc_server_handled_total{{{method},grpc_code='INVALID_ARGUMENT'}})", 5)


def test_counters_of_prefill_and_cache_are_what_clients_saw(prometheus, seen):
    prompts, answers, _ = seen
    kept = [a.started.kept for a in answers]
    value(prometheus, "sum(maskkv_pairs_kept_total{job='prefill'})", sum(k.pairs for k in kept))
    value(prometheus, "sum(maskkv_pairs_considered_total{job='prefill'})",
          sum(k.considered for k in kept))
    value(prometheus, "sum(maskkv_prompt_tokens_total{job='prefill'})", sum(map(len, prompts)))
    value(prometheus, "sum(maskkv_cache_leases{job='cached'})", 0)
    prometheus.wait("sum(maskkv_cache_allocations_total{job='cached',result='ok'})",
                    lambda r: r and r[0][1] == len(prompts))


def test_every_process_tells_build_readiness_and_its_own_resources(prometheus, seen):
    for name in ("maskkv_build_info", "maskkv_ready", "process_resident_memory_bytes",
                 "process_cpu_seconds_total", "process_open_fds"):
        assert len(prometheus.wait(f"{name} > 0", lambda r: len(r) == 4)) == 4


def test_no_process_exports_too_many_series_or_a_forbidden_label(stack, seen):
    forbidden = {"request", "request_id", "tenant", "address", "prompt", "error", "message", "peer"}
    for process in stack.processes.values():
        samples = metrics.scrape(process.metrics)
        assert len(samples) < MAX_SERIES
        assert not forbidden & {label for s in samples for label in s.labels}


def test_promtool_finds_nothing_to_complain_about(stack, seen):
    for process in stack.processes.values():
        done = subprocess.run(["promtool", "check", "metrics"], capture_output=True,
                              input=metrics.text(process.metrics).encode())
        assert done.returncode == 0 and done.stdout + done.stderr == b"", done
