# SPDX-License-Identifier: Apache-2.0
"""--threads, --cpus and --numa of the command line and the services: what the kernel says of the
running threads, the same answers wherever they run, one line where it cannot be."""

import collections
import json
import os
import pathlib
import subprocess

import cli_runs
import maskkv
import pytest
import stack as stacks

ALLOWED = sorted(os.sched_getaffinity(0))
LAST = ALLOWED[-1]


def listed(cpus):
    return ",".join(map(str, cpus))


def numa_refused():
    """Containers may forbid the system call."""
    done = cli_runs.run("bench", "--model", cli_runs.GOLDEN / "mha", "--numa", "local",
                        "--prompt-lengths", 5, "--gen-length", 4, "--caches", "none", "--steps", 1)
    assert done.code == 0 or b"lets a process choose where its memory lies" in done.err, done.err
    return done.code != 0


def test_tokens_do_not_depend_on_cpus_or_numa(tiny, tmp_path):
    placements = [("--cpus", LAST), ("--cpus", listed(reversed(ALLOWED[:4]))),
                  ("--cpus", listed(ALLOWED), "--threads", 1, "--weights-cache", tmp_path)]
    if not numa_refused():
        placements += [("--numa", "local"),
                       ("--cpus", LAST, "--numa", "interleave", "--weights-cache", tmp_path / "w")]
    expected = tiny.generate("--json", "--threads", 1).json
    for placement in placements:
        found = tiny.generate("--json", *placement).json
        for field in ("tokens", "text", "steps"):
            assert found[field] == expected[field], (placement, field)


def test_scores_are_the_same_bits_on_any_cpus(tmp_path):
    """The importance profile holds sums over every layer's scores, in full digits."""
    profiles = []
    for name, placement in (("any", ("--threads", 2)), ("one", ("--cpus", LAST)),
                            ("all", ("--cpus", listed(ALLOWED)))):
        made = cli_runs.run("calibrate", "--model", cli_runs.TINY, "--prompts",
                            cli_runs.TINY / "calibration.jsonl", "--samples", 1, "--output",
                            tmp_path / name, *placement)
        assert made.code == 0, made.err
        profiles.append(json.loads((tmp_path / name).read_text())["importance"])
    assert len(set(profiles[0])) > 1 and all(profile == profiles[0] for profile in profiles)


@pytest.mark.parametrize("flags, threads", [
    ((), 1),
    (("--threads", 3), 3),
    (("--cpus", LAST), 1),
])
def test_threads_by_default_are_the_cpus_that_may_be_used(flags, threads):
    """The process may use one CPU alone."""
    report = cli_runs.run(
        "bench", "--model", cli_runs.GOLDEN / "mha", "--prompt-lengths", 5, "--caches", "none",
        "--steps", 1, "--gen-length", 4, "--json", *flags, preexec_fn=lambda: os.sched_setaffinity(0, {LAST}))
    assert report.json["threads"] == threads


@pytest.mark.parametrize("flag, value, said", [
    ("--cpus", "", "expected a list of CPUs as 0-3,8, found nothing"),
    ("--cpus", "0-", "expected a list of CPUs as 0-3,8, found 0-"),
    ("--cpus", "0,0", "expected every CPU once, found 0 again in 0,0"),
    ("--cpus", "8192", "expected CPUs from 0 to 8191, found 8192"),
    ("--numa", "both", "expected one of none, interleave, local, found both"),
    ("--numa", "", "expected one of none, interleave, local, found nothing"),
])
def test_a_bad_value(tiny, flag, value, said):
    failed = tiny.generate(flag, value)
    assert failed.code == 2 and f"{flag}: {said}" in failed.error


@pytest.mark.parametrize("flags, said", [
    (("--cpus", 8191), "--cpus: expected CPUs that the machine has online ("),
    (("--cpus", LAST, "--threads", 2), f"--threads: expected at most one for each of --cpus {LAST}, "
                                       "1, found 2"),
])
def test_what_the_machine_does_not_have(tiny, flags, said):
    failed = tiny.generate(*flags)
    assert failed.code == 3 and said in failed.error


def test_a_cpu_outside_the_affinity_of_the_process(tiny):
    if len(ALLOWED) < 2:
        pytest.skip("the tests themselves have one CPU")
    failed = tiny.generate("--cpus", ALLOWED[0],
                           preexec_fn=lambda: os.sched_setaffinity(0, {LAST}))
    assert failed.code == 3
    assert f"--cpus: expected CPUs that this process may run on ({LAST}), found {ALLOWED[0]}" \
        in failed.error


@pytest.mark.parametrize("name", ["prefill", "decode"])
@pytest.mark.parametrize("cpus, code, said", [
    ("1,0-2", 2, "--cpus: expected every CPU once, found 1 again in 1,0-2"),
    ("8191", 3, "--cpus: expected CPUs that the machine has online ("),
])
def test_services_take_them_from_their_file(tmp_path, name, cpus, code, said):
    file = tmp_path / "maskkv.toml"
    lines = [f"[{name}]", f'model = "{cli_runs.TINY}"', f'cpus = "{cpus}"', 'numa = "none"',
             'cache = "unix:/none"', 'cache-socket = "/none"', 'prefill = "unix:/none"']
    file.write_text("\n".join(lines[:-1] if name == "prefill" else lines) + "\n")
    failed = subprocess.run([stacks.binary(f"maskkv-{name}"), "--config", file],
                            capture_output=True, text=True, check=False)
    assert failed.returncode == code and said in failed.stderr, failed.stderr


def affinities(pid):
    """How many threads may run on which CPUs."""
    count = collections.Counter()
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        line, = (x for x in status.read_text().splitlines() if x.startswith("Cpus_allowed_list:"))
        count[line.split()[1]] += 1
    return count


def test_a_service_computes_on_its_cpus_and_does_the_rest_beside_them(tmp_path):
    log = tmp_path / "serve.log"
    process = stacks.Process(
        [cli_runs.binary(), "serve", "--model", cli_runs.TINY, "--cpus", LAST, "--log-level", "info",
         "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--capacity-bytes", "16MiB"],
        log)
    with maskkv.Client(process.ready["grpc"], timeout=60) as client:
        client.generate(document="Ann lives in Lyon.", question="Where?", gen_length=8)
    found = affinities(process.popen.pid)
    if len(ALLOWED) > 1:
        # The loop of steps sits there; a prefill's thread does while it computes.
        assert found.pop(str(LAST)) == 1, found
        others = {int(x) for text in found for part in text.split(",")
                  for x in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)}
        assert others == set(ALLOWED[:-1]) and len(found) == 1, found
    else:
        assert set(found) == {str(LAST)}
    assert process.stop() == 0
    said, = (json.loads(x) for x in log.read_text().splitlines() if '"worker_pool"' in x)
    assert said["threads"] == 1 and said["cpus"] == str(LAST) and said["pinned"] is True
    assert said["numa"] == "none" and said["nodes"] == ""
    assert (said["other_cpus"] == "") == (len(ALLOWED) == 1)
