# SPDX-License-Identifier: Apache-2.0
"""maskkv serve and maskkv top as a person uses them."""

import cli_runs
import maskkv
import pytest
import stack as stacks


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    process = stacks.Process(
        [cli_runs.binary(), "serve", "--model", cli_runs.TINY, "--threads", 1, "--listen",
         "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--capacity-bytes", "16MiB"],
        folder / "serve.log")
    yield process
    assert process.stop() == 0


def test_the_ready_line_names_addresses_that_answer(served):
    host, port = served.ready["grpc"].rsplit(":", 1)
    assert host == "127.0.0.1" and int(port) > 0
    with maskkv.Client(served.ready["grpc"], timeout=60) as client:
        assert client.model_info().model_name == "tiny-llada"
        assert client.cache_stat().capacity_bytes == 16 << 20
        plan, policy = client.plan()
        assert plan.generation >= 1 and policy.budget is not None
        assert client.generate(document="Ann lives in Lyon.", question="Where does Ann live?",
                               gen_length=8).samples[0].finish_reason in ("stop", "length")


def test_top_shows_requests_steps_memory_and_budgets_of_it(served):
    shown = cli_runs.run("top", "--metrics", served.metrics, "--once", "--interval-ms", 100)
    assert shown.code == 0, shown.err
    for group in ("requests", "prefill", "steps", "memory", "entries", "budget", "layer"):
        assert group in shown.text
    assert "of 16.0 MiB" in shown.text


def test_inspect_on_a_running_service_shows_what_inspect_alone_shows(served, tiny):
    asked = ("--document", tiny.document, "-q", tiny.question, "--gen-length", 8)
    for cache in (("--budget", 16), ("--coverage", 0.8, "--max-budget", 40), ("--cache", "full"),
                  ("--budget", 16, "--layers", "online"), ("--cache", "random", "--budget", 4)):
        alone = cli_runs.run("inspect", "--model", cli_runs.TINY, *asked, *cache, "--json").json
        there = cli_runs.run("inspect", "--server", served.ready["grpc"], *asked, *cache, "--json")
        assert there.code == 0, there.err
        assert there.json == alone
    picture = cli_runs.run("inspect", "--server", served.ready["grpc"], *asked)
    assert picture.text == cli_runs.run("inspect", "--model", cli_runs.TINY, *asked).text


@pytest.mark.parametrize("arguments, complaint", [
    (("--server", "unix:/nonexistent"), "unix:/nonexistent: "),
    (("--server", "127.0.0.1:1", "--model", cli_runs.TINY), "--model excludes --server"),
    (("--server", "127.0.0.1:1", "--dtype", "bf16"), "--dtype excludes --server"),
    (("--server", "127.0.0.1:1", "--kv-dtype", "int8"), "--kv-dtype excludes --server"),
    (("--server", "127.0.0.1:1", "--cpus", "0"), "--cpus excludes --server"),
    (("--server", "127.0.0.1:1", "--profile", "p.json"), "--server excludes --profile"),
    ((), "expected --model or --server, found neither"),
])
def test_inspect_says_where_it_could_not_ask(tiny, arguments, complaint):
    failed = cli_runs.run("inspect", *arguments, "--document", tiny.document)
    assert failed.code != 0 and complaint in failed.error


def test_top_names_the_address_that_does_not_answer():
    failed = cli_runs.run("top", "--metrics", "127.0.0.1:1", "--once")
    assert failed.code != 0 and "127.0.0.1:1: expected metrics" in failed.error


@pytest.mark.parametrize("arguments, complaint", [
    (("--model", "/nonexistent"), "/nonexistent"),
    (("--model", cli_runs.TINY, "--listen", "0.0.0.0:0"), "0.0.0.0"),
    (("--model", cli_runs.TINY, "--budget", "0"), "budget"),
    (("--model", cli_runs.TINY, "--prefill-share", "-1"), "prefill-share"),
    (("--model", cli_runs.TINY, "--token-file", "/nonexistent"), "/nonexistent"),
])
def test_serve_says_on_one_line_what_is_wrong(arguments, complaint):
    failed = cli_runs.run("serve", *arguments)
    assert failed.code in (2, 3) and failed.out == b""
    # Log lines may stand before it.
    last = failed.err.decode().splitlines()[-1]
    assert last.startswith("maskkv: ") and complaint in last
