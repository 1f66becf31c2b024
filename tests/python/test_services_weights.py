# SPDX-License-Identifier: Apache-2.0
"""Packed weights shared by processes: one file, one copy in memory, the same answers."""

import json
import re
import subprocess

import cli_runs
import pytest
import stack as stacks


def packed_mapping(pid):
    """The fields of smaps (bytes) of the one mapping of a packed file that has pages."""
    found, fields = [], None
    for line in open(f"/proc/{pid}/smaps"):
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) ([0-9a-f]+) \S+ (\d+)\s*(.*)$", line)
        if head:
            fields = {"mode": head[1], "inode": int(head[3])} if head[4].endswith(".packed") else None
            if fields:
                found.append(fields)
        elif fields is not None and (value := re.match(r"(\w+):\s+(\d+) kB", line)):
            fields[value[1]] = int(value[2]) << 10
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    cache = ["--weights-cache", folder / "weights"]
    with stacks.Stack(folder, prefill=cache, decode=cache) as stack:
        yield stack


@pytest.fixture(scope="module")
def record():
    return json.loads((cli_runs.TINY / "calibration.jsonl").read_text().splitlines()[0])


def loaded(stack, name):
    lines = (stack.folder / f"{name}.log").read_text().splitlines()
    return [json.loads(x) for x in lines if "weights_loaded" in x][-1]


def test_prefill_and_decode_hold_one_copy(stack, record):
    with stack.client() as client:
        client.generate(document=record["document"], question=record["question"], gen_length=8)
    file, = (stack.folder / "weights").glob("*.packed")
    mapped = [packed_mapping(stack.processes[name].popen.pid) for name in ("prefill", "decode")]
    for fields in mapped:
        assert fields["inode"] == file.stat().st_ino
        assert fields["mode"] == "r--s"
        assert fields["Rss"] >= 0.9 * file.stat().st_size, "all of it was read"
        assert fields["Anonymous"] == 0, "a copied page would be anonymous"
        assert fields["Private_Dirty"] == fields["Private_Clean"] == 0, "every page is both's"
    # Each pays for its half.
    assert sum(fields["Pss"] for fields in mapped) <= 1.01 * max(f["Rss"] for f in mapped)
    assert sorted(loaded(stack, name)["packed_here"] for name in ("prefill", "decode")) == [False,
                                                                                          True]


def test_a_restarted_service_maps_what_is_there(stack):
    file, = (stack.folder / "weights").glob("*.packed")
    before = file.stat()
    stack.restart("decode")
    assert loaded(stack, "decode")["packed_here"] is False
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def ask(record, *flags, dtype):
    arguments = [cli_runs.binary(), "generate", "--model", cli_runs.TINY, "--document", "-", "-q",
                 record["question"], "--gen-length", "8", "--threads", "1", "--dtype", dtype,
                 "--json", *flags]
    process = subprocess.Popen([str(x) for x in arguments], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(record["document"].encode())
    process.stdin.close()
    return process


def answer(process):
    """All that is the same in two runs: confidences are printed to the last bit."""
    out = json.loads(process.stdout.read())
    warnings = process.stderr.read().decode()
    assert process.wait(cli_runs.TIMEOUT_S) == 0, warnings
    process.stdout.close()
    process.stderr.close()
    return without_times(out), warnings


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items()
                if not re.search("seconds|_ms|time|memory|peak|rss", k)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_answers_are_the_same_whatever_lies_in_the_folder(record, tmp_path, dtype):
    expected, _ = answer(ask(record, dtype=dtype))
    assert expected["tokens"]
    cache = ["--weights-cache", tmp_path / "weights"]
    for process in [ask(record, *cache, dtype=dtype) for _ in range(2)]:  # at once
        assert answer(process) == (expected, "")
    file, = (tmp_path / "weights").glob("*.packed")
    whole = file.read_bytes()
    for damaged in (whole[:-4096], whole[:-1] + bytes([whole[-1] ^ 1]),
                    whole[:len(whole) // 2] + b"\xff" * 64 + whole[len(whole) // 2 + 64:]):
        file.unlink()
        file.write_bytes(damaged)
        got, warnings = answer(ask(record, *cache, dtype=dtype))
        assert got == expected
        if file.read_bytes() == damaged:  # the last byte may be behind the last matrix
            assert warnings == ""
        else:
            assert warnings.count("\n") == 1 and "expected" in warnings
            assert file.read_bytes() == whole
