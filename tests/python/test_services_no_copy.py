# SPDX-License-Identifier: Apache-2.0
"""Keys and values never travel between processes: the pages that decode reads are those that the cache
manager owns and that prefill wrote, and no message is large enough to have carried them."""

import json
import os
import re

import cli_runs
import grpc
import pytest
import stack as stacks
from maskkv import requests
from maskkv.v1 import decode_pb2_grpc, prefill_pb2_grpc

MOST_MESSAGE_BYTES = 64 << 10
MOST_STEP_BYTES = 256


def mappings(process):
    """The memory files that a process has mapped: by inode, the fields of smaps (bytes)."""
    found, fields = {}, {}
    for line in open(f"/proc/{process.popen.pid}/smaps"):
        head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\S{4}) [0-9a-f]+ \S+ (\d+)\s*(.*)$", line)
        if head:
            fields = {"mode": head[1], "name": head[3]}
            if "memfd:" in head[3]:
                found[int(head[2])] = fields
        elif (value := re.match(r"(\w+):\s+(\d+) kB", line)):
            fields[value[1]] = int(value[2]) << 10
    return found


def open_files(process):
    """Inodes of the memory files that a process holds descriptors of."""
    folder = f"/proc/{process.popen.pid}/fd"
    inodes = set()
    for name in os.listdir(folder):
        try:
            if "memfd:" in os.readlink(f"{folder}/{name}"):
                inodes.add(os.stat(f"{folder}/{name}").st_ino)
        except FileNotFoundError:
            continue
    return inodes


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with stacks.Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def record():
    return json.loads((cli_runs.TINY / "calibration.jsonl").read_text().splitlines()[0])


def test_decode_reads_the_pages_that_the_cache_manager_owns(stack, record):
    decode, cached = stack.processes["decode"], stack.processes["cached"]
    with stack.client() as client:
        before = set(mappings(decode))
        answer = client.generate(document=record["document"], question=record["question"],
                                 selection="full", gen_length=8, keep_entry_ms=600_000)
        entry_bytes = answer.samples[0].usage.entry_bytes
        mapped = {inode: fields for inode, fields in mappings(decode).items()
                  if inode not in before}
    assert len(mapped) == 1, "the kept entry is mapped once"
    (inode, fields), = mapped.items()
    assert inode in open_files(cached), "the daemon holds the very file"
    assert fields["mode"][:3] == "r--", "never written"
    assert fields["Size"] >= entry_bytes
    # All of it was read (checksums, then attention), and every page is the file's own: a copied page
    # would be anonymous.
    assert fields["Rss"] >= entry_bytes
    assert fields["Anonymous"] == 0


def test_messages_are_far_smaller_than_the_entry(stack, record):
    prompt = {"document": record["document"], "question": record["question"]}
    with grpc.insecure_channel(stack.address("prefill")) as channel:
        prefilled = prefill_pb2_grpc.PrefillServiceStub(channel).Prefill(
            requests.prefill({**prompt, "selection": "full", "masks": 8}))
        assert prefilled.entry_bytes > 16 * MOST_MESSAGE_BYTES
        assert prefilled.ByteSize() < MOST_MESSAGE_BYTES
    with grpc.insecure_channel(stack.address("decode")) as channel:
        events = list(decode_pb2_grpc.DecodeServiceStub(channel).Generate(
            requests.generate({**prompt, "selection": "full", "gen_length": 8})))
        assert sum(event.ByteSize() for event in events) < MOST_MESSAGE_BYTES
        steps = [event.ByteSize() for event in events if event.HasField("step")]
        assert len(steps) > 1 and max(steps) < MOST_STEP_BYTES, "a step sends what it committed"
