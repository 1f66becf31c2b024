# SPDX-License-Identifier: Apache-2.0
"""Measures every row of the table of docs/performance.md, peers in the same run, and prints row,
figure, bar and machine. scripts/bench runs it.

    python -m maskkv_tools.performance --json build/performance.json
    python -m maskkv_tools.performance --rows batches,canvas --json FILE      some groups of rows
    python -m maskkv_tools.performance --keep FILE --json FILE                what FILE lacks
    python -m maskkv_tools.performance --keep FILE --rows torch --json FILE   one group anew

A row whose program failed or whose peer is not there is printed as not measured, with the reason, and
the others go on. Exit code 3: a program failed.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

from maskkv_tools import bench_models, performance_features, performance_report, performance_rows
from maskkv_tools.performance_report import Failed, Missing

# OpenMP's threads spin between two products but not into the engine's turn.
_OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "20000"}
TORCH_REQUIREMENTS = pathlib.Path("python/requirements-train.txt")
TORCH_VENV = pathlib.Path("build/torch-venv")
# The peer's logits against the float64 oracle, relative: f32 tells that it computes the same function,
# bf16 that its rounding is that of bf16 (2^-9 an operation, some dozen operations a layer).
TORCH_BOUNDS = {"f32": 1e-4, "bf16": 0.05}
BATCH_ROWS = 16


class Machine:
    """Programs, models and sizes of a run. quick: everything small, to test the bench itself."""

    def __init__(self, args):
        self.args, self.quick, self.threads = args, args.quick, args.threads
        self.raw = {}  # what the group under way has measured

    def model(self, name):
        return str(bench_models.folder("tiny" if self.quick else name, self.args.models))

    def shape(self, name):
        return bench_models.SHAPES["tiny" if self.quick else name]

    def tokens(self, count):
        return max(64, count // 128) if self.quick else count

    def json_of(self, command, fails=False):
        """What a program prints. fails: an exit code of 1 is an answer too."""
        command = list(map(str, command))
        done = subprocess.run(command, capture_output=True, text=True, check=False,
                              env=os.environ | _OPENMP)
        sys.stderr.write(done.stderr)
        if done.returncode not in ((0, 1) if fails else (0,)) or not done.stdout:
            said = done.stderr.strip().splitlines()[-1:] or ["and said nothing"]
            raise Failed(f"{pathlib.Path(command[0]).name} {command[1]}: exit code "
                         f"{done.returncode}: {said[0]}")
        return json.loads(done.stdout)

    def _step(self, mode, model, flags):
        return [self.args.benches / "bench_step", mode, "--model", self.model(model), "--threads",
                self.threads, *flags]

    def step(self, mode, model, *flags):
        """What bench_step prints."""
        return self.json_of(self._step(mode, model, flags))

    def prefill_server(self, model):
        return Server(self._step("serve", model, ()), os.environ | _OPENMP)


class Server:
    """A process that prefills on demand. Use as a context manager, which ends it."""

    def __init__(self, command, env=None):
        command = list(map(str, command))
        self._name = " ".join([pathlib.Path(command[0]).name, *command[1:3]])
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, env=env)

    def seconds(self, tokens):
        with contextlib.suppress(BrokenPipeError):
            print(tokens, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self._name} ended with exit code {self._process.wait()}")
        return json.loads(line)["prefill_s"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()  # idle, or of no use any more
        self._process.wait()


def growth(m):
    prompts = ",".join(str(m.tokens(n)) for n in (1024, 4096, 32768))
    raw = m.raw["growth"] = m.step("growth", "S", "--prompts", prompts, "--rounds",
                                   16 if m.quick else 96)
    return performance_rows.step_growth(raw)


def canvas(m):
    raw = m.raw["canvas"] = m.step("canvas", "S", "--prompts", m.tokens(4096), "--rounds", 16,
                                   "--full-steps", 2 if m.quick else 5)
    return performance_rows.full_canvas(m.shape("S"), raw)


def end_to_end(m):
    raw = m.raw["canvas"] = m.step("canvas", "S", "--prompts", m.tokens(32768), "--rows", 128,
                                   "--prefill")
    return performance_rows.end_to_end(m.shape("S"), raw)


def batches(m):
    rows = []
    for name in "SM":
        raw = m.raw[name] = m.step("batches", name, "--batches", f"1x32,8x{BATCH_ROWS},1x{BATCH_ROWS}",
                                   # Whole answers, of 32 and of 16 steps: half of the rows are masked on average.
                           "--rounds", 8 if m.quick else 64, "--prompts", m.tokens(4096))
        raw["batch_rows"] = BATCH_ROWS
        rows += performance_rows.step_products(name, raw, ("1x32", f"8x{BATCH_ROWS}"))
        rows += performance_rows.batch_rate(name, raw)
    return rows


def attention(m):
    raw = m.raw["rates"] = m.step("rates", "S", "--prompts",
                                  ",".join(str(m.tokens(n)) for n in (1024, 4096, 8192)))
    amx = "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    shape = m.shape("S")
    return performance_rows.prefill_attention(raw, shape.hidden // shape.heads, amx)


def memory(m):
    raw = m.raw["memory"] = m.step("memory", "L", "--prompts", m.tokens(32768))
    return performance_rows.prefill_memory(raw, layers=32)


def torch_python(args):
    """The interpreter that has PyTorch; its environment is made if that is wanted."""
    if args.torch_python is not None:
        if not args.torch_python.exists():
            raise Missing(f"--torch-python: expected an interpreter, found no {args.torch_python}")
        return args.torch_python
    wanted, stamp = TORCH_REQUIREMENTS.read_bytes(), TORCH_VENV / "requirements.installed"
    if not stamp.exists() or stamp.read_bytes() != wanted:
        if not args.install_torch:
            raise Missing("no PyTorch; give --torch-python FILE, or --install-torch, which takes "
                          f"5 GB in {TORCH_VENV}")
        print(f"installing {TORCH_REQUIREMENTS} into {TORCH_VENV}", file=sys.stderr)
        subprocess.run(["/usr/bin/python3", "-m", "venv", TORCH_VENV], check=True)
        subprocess.run([TORCH_VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check",
                        "-r", TORCH_REQUIREMENTS], check=True)
        stamp.write_bytes(wanted)
    return TORCH_VENV / "bin/python"


def torch_prefill(m):
    """Prefills of both in turn, each process idle in the other's."""
    peer = [torch_python(m.args), "-m", "maskkv_tools.torch_peer", "--threads", m.threads]
    checked = m.raw["checked"] = m.json_of(
        [*peer, "--model", bench_models.folder("tiny", m.args.models), "--check"])
    for name, bound in TORCH_BOUNDS.items():
        if not checked["errors"][name] <= bound:
            raise Failed(f"PyTorch peer, {name}: expected logits within {bound} of the oracle's, "
                         f"found {checked['errors'][name]}")
    measured = m.raw["seconds"] = {}
    with m.prefill_server("S") as ours, Server([*peer, "--model", m.model("S")]) as theirs:
        for server in (ours, theirs):
            server.seconds(m.tokens(1024))  # loads, allocates, compiles
        for nominal, turns in ((4096, 5), (16384, 2)):
            tokens = m.tokens(nominal)
            times = measured[nominal] = {"tokens": tokens, "ours": [], "torch": []}
            for _ in range(turns):
                times["ours"].append(ours.seconds(tokens))
                times["torch"].append(theirs.seconds(tokens))
    return performance_rows.torch_prefill(measured, checked["version"])


# What measures a group, and the models that it takes.
GROUPS = {
    "growth": (growth, "S"), "canvas": (canvas, "S"), "batches": (batches, "SM"),
    "attention": (attention, "S"), "memory": (memory, "L"),
    "response-cache": (performance_features.response_cache, "S"),
    "int8-weights": (performance_features.int8_weights, "SM"),
    "int8-kv": (performance_features.int8_kv, "S"), "load": (performance_features.load, "G"),
    "llada-8b": (performance_features.llada_8b, ""), "torch": (torch_prefill, "S"),
    "end-to-end": (end_to_end, "S"),
    "small-model": (performance_features.small_model, ("small",)),
    "products": (performance_features.products, ""),
}


def measure_group(group, machine):
    """(rows, whether it failed)."""
    machine.raw = {}
    try:
        for model in GROUPS[group][1]:
            machine.model(model)
        return GROUPS[group][0](machine), False
    except Missing as why:
        return performance_rows.missing(group, str(why)), False
    except (Failed, OSError, RuntimeError, ValueError, LookupError,
            subprocess.SubprocessError) as why:
        print(f"{group}: {why}", file=sys.stderr)
        return performance_rows.missing(group, f"{type(why).__name__}: {why}"), True


def measure(args, report, groups):
    """Adds the groups to the report, which is saved after each."""
    machine = Machine(args)
    run = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    for group in groups:
        start = time.monotonic()
        print(f"== {group}", file=sys.stderr, flush=True)
        rows, failed = measure_group(group, machine)
        seconds = time.monotonic() - start
        print(f"   {group}: {seconds:.0f} s", file=sys.stderr, flush=True)
        performance_report.set_group(report, group, list(GROUPS), rows, machine.raw, run=run,
                                     seconds=seconds, failed=failed)
        if args.json:
            performance_report.save(report, args.json)


def _groups(text):
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"expected {', '.join(GROUPS)}, found {name}")
    return names


def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m maskkv_tools.performance", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=_groups,
                   help=f"groups of rows: {', '.join(GROUPS)}; default all, or what FILE of --keep lacks")
    p.add_argument("--keep", type=pathlib.Path,
                   help="the report of an earlier run of the same code on this machine; groups that "
                        "are not measured now stay")
    p.add_argument("--quick", action="store_true", help="a tiny model, as a test")
    p.add_argument("--json", type=pathlib.Path, help="rows and raw measurements")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--torch-python", type=pathlib.Path,
                   help=f"an interpreter with PyTorch, instead of {TORCH_VENV}")
    p.add_argument("--install-torch", action="store_true",
                   help=f"make {TORCH_VENV} if it is missing: 5 GB")
    p.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    p.add_argument("--benches", type=pathlib.Path, help=argparse.SUPPRESS,
                   default=pathlib.Path("build/release/bench"))
    p.add_argument("--bin", type=pathlib.Path, help=argparse.SUPPRESS,
                   default=pathlib.Path("build/release/bin/maskkv"))
    args = p.parse_args(argv)
    report = performance_report.empty(args.threads, args.quick)
    if args.keep:
        report = performance_report.read_kept(args.keep, report)
    groups = args.rows or [
        name for name in GROUPS if report["groups"].get(name, {"failed": True})["failed"]]
    measure(args, report, groups)
    print(performance_report.text_table(report))
    if args.json:
        performance_report.save(report, args.json)
    if any(report["groups"][name]["failed"] for name in groups):
        sys.exit(3)


if __name__ == "__main__":
    main()
