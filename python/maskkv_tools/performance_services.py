# SPDX-License-Identifier: Apache-2.0
"""The prefill and the decode service over one file of packed weights: what each holds of it in memory."""

import contextlib
import json
import pathlib
import re
import subprocess
import tempfile

SHARING = ("prefill", "decode")


def packed_mapping(smaps):
    """Bytes by field of /proc/PID/smaps, summed over the mappings of packed files."""
    fields, counts = {}, False
    for line in smaps.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = line.endswith(".packed")
        elif counts and (value := re.match(r"(\w+):\s+(\d+) kB", line)):
            fields[value[1]] = fields.get(value[1], 0) + (int(value[2]) << 10)
    return fields


def _commands(folder, binaries, model, weights, flags):
    """{service: command}, in the order in which they start."""
    def address(name):
        return f"unix:{folder}/{name}.grpc"

    cache = ["--cache", address("cached"), "--cache-socket", folder / "cached.sock",
             "--budget", address("budgetd")]
    loads = ["--model", model, "--weights-cache", weights, *flags, *cache]
    own = {"cached": ["--socket", folder / "cached.sock", "--capacity-bytes", "64MiB", "--budget",
                      address("budgetd")],
           "budgetd": ["--model", model, "--state", folder / "budget.json", "--audit",
                       folder / "audit.jsonl"],
           "prefill": loads, "decode": [*loads, "--prefill", address("prefill")]}
    return {name: [binaries / f"maskkv-{name}", "--listen", address(name), "--metrics-listen",
                   "127.0.0.1:0", *more] for name, more in own.items()}


def shared_weights(binaries, model, weights, flags):
    """{service: packed_mapping} of prefill and decode once both are ready, which is when they have read
    every byte. Raises RuntimeError if one does not get ready."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, running = pathlib.Path(name), {}
        for service, command in _commands(folder, binaries, model, weights, flags).items():
            log = stack.enter_context(open(folder / f"{service}.log", "w+", encoding="utf-8"))
            process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                                       stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)  # runs first, the last service's before the others'
            line = process.stdout.readline()
            if not line or not json.loads(line)["ready"]:
                log.seek(0)
                said = log.read().strip().splitlines()[-1:] or ["nothing"]
                raise RuntimeError(f"maskkv-{service}: expected it to get ready; it said {said[0]}")
            running[service] = process
        return {service: packed_mapping(
            pathlib.Path(f"/proc/{running[service].pid}/smaps").read_text(encoding="utf-8"))
            for service in SHARING}
