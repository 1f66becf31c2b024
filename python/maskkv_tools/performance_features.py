# SPDX-License-Identifier: Apache-2.0
"""Rows of docs/performance.md that the command line measures: features that are flags of `maskkv`.
A feature whose flag this build does not have gives rows without a figure that say so.
"""

import json
import pathlib
import subprocess
import tempfile
import time

from maskkv_eval.statistics import wilson
from maskkv_tiny import world

from maskkv_tools import performance_rows
from maskkv_tools.performance_rows import Bar, Row, at_most

QUESTIONS = 60
TINY = "models/tiny-llada"
GIB = 1 << 30


def run(m, command, *flags):
    done = subprocess.run([str(m.args.bin), command, *map(str, flags), "--json"],
                          stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"maskkv {command}: exit code {done.returncode}")  # it has said why
    return json.loads(done.stdout)


def help_of(m, command):
    return subprocess.run([str(m.args.bin), command, "--help"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout


def missing(rows, why):
    """The same rows, not measured."""
    return [Row(row.name, row.what, row.bar, None, f"not measured: {why}") for row in rows]


def takes(m, command, flag, value=""):
    """Whether a command's help shows the flag, on a line that names the value."""
    return any(flag in line.split("=")[0] and value in line
               for line in help_of(m, command).splitlines())


def bench(m, model, *flags):
    return run(m, "bench", "--model", m.model(model), "--threads", m.threads, "--caches", "maskkv",
               "--budget", 256, *flags)


def response_cache(m):
    rows = 32 if m.quick else 128
    report = bench(m, "S", "--dtype", "bf16", "--prompt-lengths", m.tokens(1024), "--gen-length",
                   rows, "--steps", rows - rows % 7, "--response-caches", "off,7:0.25")
    m.raw["response-cache"] = report
    return performance_rows.response_cache(report)


def questions(m):
    return list(world.records("test", 4 if m.quick else QUESTIONS, 400, 3, 0.0))


def answers(m, asked, *flags):
    """Tokens that the embedded model answers."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        document = pathlib.Path(folder) / "document.txt"
        for question in asked:
            document.write_text(question["document"], encoding="utf-8")
            found.append(run(m, "generate", "--model", TINY, "--document", document, "-q",
                             question["question"], "--gen-length", 8, "--ignore-eos", "--threads",
                             m.threads, *flags)["tokens"])
    return found


def right(m, asked, *flags):
    """Right answers of the embedded model, counted by `maskkv evaluate`."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(question) + "\n" for question in asked)
        file.flush()
        cells = run(m, "evaluate", "--model", TINY, "--questions", file.name, "--gen-length", 8,
                    "--policies", "maskkv", "--budgets", 32, "--threads", m.threads, *flags)["cells"]
    return cells[0]["correct"]


def int8_weights(m):
    rows = [Row("int8-weights-step", "int8 weights: decode step, times faster than bf16", Bar(1.6),
                None),
            Row("int8-weights-tokens", "int8 weights: tokens of the embedded model as with bf16",
                Bar(0.99), None)]
    if not takes(m, "bench", "--dtype", "int8"):
        return missing(rows, "maskkv bench has no --dtype int8")
    times = {"bf16": [], "int8": []}
    for _ in range(1 if m.quick else 3):  # in turn
        for dtype, found in times.items():
            report = bench(m, "M", "--dtype", dtype, "--prompt-lengths", 64)
            found.append(report["cases"][0]["step_ms_median"])
    bf16, int8 = (performance_rows.median(found) for found in times.values())
    asked = questions(m)
    pairs = [(a, b) for one, two in zip(answers(m, asked, "--dtype", "bf16"),
                                        answers(m, asked, "--dtype", "int8"), strict=True)
             for a, b in zip(one, two, strict=False)]
    same = sum(a == b for a, b in pairs)
    return [Row(rows[0].name, rows[0].what, rows[0].bar, bf16 / int8,
                f"shape M: {bf16:.1f} ms and {int8:.1f} ms"),
            Row(rows[1].name, rows[1].what, rows[1].bar, same / len(pairs),
                f"{same} of {len(pairs)}")]


def int8_kv(m):
    rows = [Row("int8-kv-bytes", "int8 entries: bytes with scales over those of bf16", at_most(0.53),
                None),
            Row("int8-kv-accuracy", "int8 entries: accuracy of the embedded model within the "
                "interval of bf16 entries (1: yes)", Bar(1), None)]
    if not takes(m, "bench", "--kv-dtype", "int8"):
        return missing(rows, "maskkv bench has no --kv-dtype int8")
    flags = ("--dtype", "bf16", "--prompt-lengths", m.tokens(1024), "--steps", 1)
    wide = bench(m, "S", *flags)["cases"][0]["entry_bytes"]
    narrow = bench(m, "S", *flags, "--kv-dtype", "int8")["cases"][0]["entry_bytes"]
    asked = questions(m)
    before = right(m, asked, "--dtype", "bf16")
    after = right(m, asked, "--dtype", "bf16", "--kv-dtype", "int8")
    low, high = wilson(before, len(asked))
    inside = low <= after / len(asked) <= high
    return [Row(rows[0].name, rows[0].what, rows[0].bar, narrow / wide,
                f"{narrow} of {wide} bytes"),
            Row(rows[1].name, rows[1].what, rows[1].bar, float(inside),
                f"{before} and {after} right of {len(asked)}, interval {100 * low:.1f} to "
                f"{100 * high:.1f} %")]


def proportional_bytes(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def load(m):
    rows = [Row("load", "load of a checkpoint of one GiB, page cache warm: seconds", at_most(1.5),
                None),
            Row("load-shared", "two processes: their weights' memory over one's", at_most(1.1), None)]
    if not takes(m, "bench", "--weights-cache"):
        return missing(rows, "maskkv bench has no --weights-cache")
    size = (pathlib.Path(m.model("G")) / "model.safetensors").stat().st_size
    cache = pathlib.Path(m.args.models) / "weights-cache"
    cache.mkdir(exist_ok=True)
    flags = ("--dtype", "bf16", "--prompt-lengths", 1, "--weights-cache", cache)
    times = []
    for _ in range(4):  # the first one packs
        start = time.perf_counter()
        bench(m, "G", *flags, "--gen-length", 1, "--steps", 1)
        times.append(time.perf_counter() - start)
    command = [str(m.args.bin), "bench", "--model", m.model("G"), "--caches", "maskkv", "--threads",
               "1", *map(str, flags), "--gen-length", "512", "--steps", "512"]
    wanted = 0.5 * size
    with (subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one,
          subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as two):
        both, resident = 0, 0
        while resident < wanted and one.poll() is None and two.poll() is None:
            both = sum(proportional_bytes(p.pid, "Pss") for p in (one, two))
            resident = min(proportional_bytes(p.pid, "Rss") for p in (one, two))
            time.sleep(0.05)  # nothing tells another process that its pages are there
        for process in (one, two):
            process.kill()
    return [Row(rows[0].name, rows[0].what, rows[0].bar, min(times[1:]),
                f"{size / GIB:.2f} GiB; the whole of maskkv bench with one step; {times[0]:.1f} s "
                "when it packs"),
            Row(rows[1].name, rows[1].what, rows[1].bar, both / resident if resident else None,
                f"{both / GIB:.2f} GiB and {resident / GIB:.2f} GiB")]


def llada_8b(m):
    rows = [Row("llada-8b", "a sparse checkpoint of LLaDA-8B's exact shapes: one layer and the head "
                "run at 32768 positions (1: yes)", Bar(1), None)]
    program = pathlib.Path("scripts/check-llada-8b")
    if m.quick or not program.exists():
        return missing(rows, "not with --quick" if m.quick else f"there is no {program}")
    done = subprocess.run([str(program)], check=False)
    return [Row(rows[0].name, rows[0].what, rows[0].bar, float(done.returncode == 0),
                f"{program}: exit code {done.returncode}")]
